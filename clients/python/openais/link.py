"""Connections to the services of the local node, served by one background thread.

A link is a DEALER socket that is made anew whenever it is lost; what has to be said first on a new
one, its handler knows. ZeroMQ sockets belong to the background thread alone; other threads wake it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from openais.errors import BadHandleError
from openais.node import bundles
from openais.wire.codec import Buffer, DecodeError

RECEIVE_BUDGET: Final = 256  # bundles per link and wake-up
RECONNECT_MIN_MS: Final = 10
RECONNECT_MAX_MS: Final = 200
MONITOR_EVENTS: Final = int(zmq.Event.DISCONNECTED)


class LinkHandler(Protocol):
    """What a link serves. All methods are called in the background thread and never block."""

    def connected(self) -> None:
        """Learn that a new socket begins; `outgoing` is asked next."""

    def outgoing(self) -> Sequence[Buffer]:
        """Return the elements of messages that are to be sent now, in order."""

    def received(self, elements: list[Buffer]) -> None:
        """Take the elements of one bundle."""

    def lost(self) -> None:
        """Learn that the socket is gone, with all that was not answered."""


class Link:
    """One connection.

    Args:
        path: of the service's socket.
        handler: what is served.
    """

    def __init__(self, path: Path, handler: LinkHandler) -> None:
        self.path: Final = path
        self.handler: Final = handler
        self.socket: zmq.Socket[bytes] | None = None
        self.monitor: zmq.Socket[bytes] | None = None
        self.paused = False
        self._loop: Final = _loop()

    def open(self) -> None:
        """Begin to connect; it goes on until `close`."""
        self._loop.post(lambda: self._loop.add(self))

    def wake(self) -> None:
        """Ask the handler for outgoing messages soon."""
        self._loop.wake(self)

    def pause(self) -> None:
        """Stop reading, called in the background thread: the application is behind."""
        self.paused = True
        self._loop.watch(self)

    def resume(self) -> None:
        """Read again."""
        self._loop.post(lambda: self._loop.resume(self))

    def close(self) -> None:
        """Send what is outgoing, then end the connection; returns when the socket is closed."""
        if self._loop.pid != os.getpid():
            return
        done = threading.Event()
        self._loop.post(lambda: self._loop.remove(self, done))
        done.wait(1.0)

    def check_process(self, call: str) -> None:
        """Check that this is the process that opened the link.

        Raises:
            BadHandleError: a forked child.
        """
        if self._loop.pid != os.getpid():
            raise BadHandleError(call, "opened by another process; open it again after fork")


class _Loop(threading.Thread):
    """The background thread."""

    def __init__(self) -> None:
        super().__init__(name="openais", daemon=True)
        self.pid: Final = os.getpid()
        self._context: Final = zmq.Context()
        self._poller: Final = zmq.Poller()
        self._wake_fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: Final[deque[Callable[[], None]]] = deque()
        self._woken: Final[dict[Link, None]] = {}
        self._lock: Final = threading.Lock()
        self._links: Final[dict[zmq.Socket[bytes], Link]] = {}
        self._poller.register(self._wake_fd, zmq.POLLIN)

    def post(self, call: Callable[[], None]) -> None:
        with self._lock:
            self._calls.append(call)
        os.eventfd_write(self._wake_fd, 1)

    def wake(self, link: Link) -> None:
        with self._lock:
            if link in self._woken:
                return
            self._woken[link] = None
        os.eventfd_write(self._wake_fd, 1)

    def run(self) -> None:
        while True:
            ready = [socket for socket, _ in self._poller.poll()]
            if self._wake_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake_fd)
                self._posted()
            for socket in ready:
                link = self._links.get(socket) if isinstance(socket, zmq.Socket) else None
                if link is not None:
                    self._serve(link)

    def _posted(self) -> None:
        with self._lock:
            calls = list(self._calls)
            woken = list(self._woken)
            self._calls.clear()
            self._woken.clear()
        for call in calls:
            call()
        for link in woken:
            self._send(link)

    def add(self, link: Link) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)  # bounded by what the handler lets out
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        link.monitor = socket.get_monitor_socket(MONITOR_EVENTS)
        link.socket = socket
        self._links[socket] = link
        self._links[link.monitor] = link
        self._poller.register(link.monitor, zmq.POLLIN)
        self.watch(link)
        socket.connect(f"ipc://{link.path}")
        link.handler.connected()
        self._send(link)

    def watch(self, link: Link) -> None:
        if link.socket is not None:
            self._poller.register(link.socket, 0 if link.paused else zmq.POLLIN)

    def resume(self, link: Link) -> None:
        link.paused = False
        self.watch(link)

    def remove(self, link: Link, done: threading.Event) -> None:
        self._send(link)
        self._drop(link, linger_ms=200)
        done.set()

    def _drop(self, link: Link, linger_ms: int = 0) -> None:
        if link.socket is None or link.monitor is None:
            return
        if not link.paused:
            self._poller.unregister(link.socket)
        self._poller.unregister(link.monitor)
        del self._links[link.socket], self._links[link.monitor]
        link.socket.disable_monitor()
        link.monitor.close(0)
        link.socket.close(linger_ms)
        link.socket = link.monitor = None

    def _serve(self, link: Link) -> None:
        socket, monitor = link.socket, link.monitor
        if socket is None or monitor is None:
            return
        for _ in range(RECEIVE_BUDGET):
            if link.paused or link.socket is not socket:
                break
            try:
                elements = bundles.receive(socket)
            except zmq.Again:
                break
            except DecodeError:
                continue  # not a bundle: not from a service of ours
            link.handler.received(elements)
            self._send(link)
        while link.monitor is monitor and monitor.poll(0):
            parse_monitor_message(monitor.recv_multipart())
            self._drop(link)
            link.handler.lost()
            self.add(link)

    def _send(self, link: Link) -> None:
        if link.socket is None:
            return
        elements = link.handler.outgoing()
        if elements:
            bundles.send(link.socket, elements)


_guard = threading.Lock()
_running: _Loop | None = None


def _loop() -> _Loop:
    global _running  # noqa: PLW0603 - one thread per process
    with _guard:
        if _running is None or _running.pid != os.getpid():
            _running = _Loop()
            _running.start()
        return _running
