"""Wait for descriptors and ZeroMQ sockets together.

Does less than `zmq.Poller` per call, where most of what comes is plain datagrams.
"""

from __future__ import annotations

import contextlib
import select
from typing import Final, TypeAlias

import zmq

_POLLIN: Final = int(zmq.POLLIN)  # the operators of enumerations are slow

Item: TypeAlias = "int | zmq.Socket[bytes]"


class Poller:
    """What a loop waits for: readable descriptors and sockets."""

    def __init__(self) -> None:
        self._epoll: Final = select.epoll()
        self._sockets: Final[dict[int, zmq.Socket[bytes]]] = {}  # by descriptor
        self._asked: Final[dict[int, zmq.Socket[bytes]]] = {}  # those that are used between polls

    def register(self, item: Item, *, drained: bool = False) -> None:
        """Begin to wait for one more.

        Args:
            item: a descriptor or a ZeroMQ socket.
            drained: of a socket: it is only received from, until nothing is left.
        """
        descriptor = item if isinstance(item, int) else int(item.getsockopt(zmq.FD))
        if not isinstance(item, int):
            self._sockets[descriptor] = item
            if not drained:
                self._asked[descriptor] = item
        self._epoll.register(descriptor, select.EPOLLIN)

    def unregister(self, item: Item) -> None:
        """Wait for it no more; a ZeroMQ socket: before it is closed."""
        descriptor = item if isinstance(item, int) else int(item.getsockopt(zmq.FD))
        self._sockets.pop(descriptor, None)
        self._asked.pop(descriptor, None)
        with contextlib.suppress(OSError):  # closed meanwhile: gone by itself
            self._epoll.unregister(descriptor)

    def poll(self, timeout_ms: int) -> list[Item]:
        """Return what is readable; wait for so long at the most."""
        # A socket tells once, and whoever used it may have been told: so each is asked first.
        ready: list[Item] = [s for s in self._asked.values() if readable(s)]
        for descriptor, _ in self._epoll.poll(0 if ready else timeout_ms / 1000):
            socket = self._sockets.get(descriptor)
            if socket is None:
                ready.append(descriptor)
            elif socket not in ready and readable(socket):
                ready.append(socket)
        return ready


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Return whether there is something to receive; quiets the socket's descriptor."""
    return bool(int(socket.get(zmq.EVENTS)) & _POLLIN)
