"""Wait for descriptors and ZeroMQ sockets together.

Does less than `zmq.Poller` per call, where most of what comes is plain datagrams.
"""

from __future__ import annotations

import contextlib
import select
import struct
from typing import Final, TypeAlias

import zmq

_POLLIN: Final = int(zmq.POLLIN)  # the operators of enumerations are slow

_EVENT: Final = struct.Struct("=Hi")  # of a monitor: kind, descriptor

Item: TypeAlias = "int | zmq.Socket[bytes]"


class Poller:
    """What a loop waits for: readable descriptors and sockets.

    A socket tells only once that there is something to receive, and whoever uses it may have been
    told; to ask it costs two system calls. So who has sent, or has not received all, says `used`,
    and who receives says `take`.
    """

    def __init__(self) -> None:
        self._epoll: Final = select.epoll()
        self._sockets: Final[dict[int, zmq.Socket[bytes]]] = {}  # by descriptor
        self._used: Final[dict[zmq.Socket[bytes], None]] = {}  # since they were found empty
        self._told: Final[dict[zmq.Socket[bytes], None]] = {}  # readable, and not taken yet

    def register(self, item: Item) -> None:
        """Begin to wait for one more."""
        descriptor = item if isinstance(item, int) else int(item.getsockopt(zmq.FD))
        if not isinstance(item, int):
            self._sockets[descriptor] = item
            self._used[item] = None
        self._epoll.register(descriptor, select.EPOLLIN)

    def unregister(self, item: Item) -> None:
        """Wait for it no more; a ZeroMQ socket: before it is closed."""
        descriptor = item if isinstance(item, int) else int(item.getsockopt(zmq.FD))
        self._sockets.pop(descriptor, None)
        if not isinstance(item, int):
            self._used.pop(item, None)
            self._told.pop(item, None)
        with contextlib.suppress(OSError):  # closed meanwhile: gone by itself
            self._epoll.unregister(descriptor)

    def used(self, socket: zmq.Socket[bytes]) -> None:
        """Say that a socket may have been told meanwhile that there is something to receive."""
        self._used[socket] = None

    def take(self, socket: zmq.Socket[bytes]) -> bool:
        """Return whether a socket is readable, of what was polled; who asks receives."""
        if socket not in self._told:
            return False
        del self._told[socket]
        return True

    def poll(self, timeout_ms: int) -> list[Item]:
        """Return what is readable; wait for so long at the most. A socket: until it is taken."""
        for socket in self._used:
            if readable(socket):
                self._told[socket] = None
        self._used.clear()
        plain: list[Item] = []
        for descriptor, _ in self._epoll.poll(0 if self._told else timeout_ms / 1000):
            of_socket = self._sockets.get(descriptor)
            if of_socket is None:
                plain.append(descriptor)
            elif readable(of_socket):
                self._told[of_socket] = None
        return [*self._told, *plain]


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Return whether there is something to receive; quiets the socket's descriptor."""
    return bool(int(socket.get(zmq.EVENTS)) & _POLLIN)


def monitored(monitor: zmq.Socket[bytes]) -> tuple[int, int]:
    """Receive one event of a socket's monitor; return its kind and the descriptor that it is of.

    What ZeroMQ's own module for it imports takes a fifth of the start of a service.
    """
    kind, descriptor = _EVENT.unpack(monitor.recv_multipart()[0])
    return int(kind), int(descriptor)
