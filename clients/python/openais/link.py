"""Connections to the services of the local node, served by one background thread.

A link is a DEALER socket that is made anew whenever it is lost; what has to be said first on a new
one, its handler knows. A wake-up of another thread costs more than most calls, so what can be done
in the calling thread is: sending by whoever has something to send, receiving by an application that
waits for its handle's descriptor and dispatches, or by a thread that waits for an answer. The
background thread receives where nobody does, and takes over when an application has not looked for
a while. So a lock guards each socket, and whoever has used one looks whether it has become
readable: ZeroMQ tells that only once.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import zmq

from openais.errors import BadHandleError
from openais.node import bundles
from openais.node.poller import monitored, readable
from openais.wire.codec import Buffer, DecodeError

RECEIVE_BUDGET: Final = 256  # bundles per link and turn
SERVE_BUDGET: Final = 16  # bundles that an application receives before it dispatches
RECEIVE_QUEUE_BUNDLES: Final = 64  # that wait in ZeroMQ while nothing is read; more stays there
RECONNECT_MIN_MS: Final = 10
RECONNECT_MAX_MS: Final = 200
MONITOR_EVENTS: Final = int(zmq.Event.DISCONNECTED)
ATTENDED_NS: Final = 20_000_000  # since an application has last received by itself
CALLED_NS: Final = 5_000_000  # since it has begun to wait for an answer
CALLED_POLL_S: Final = CALLED_NS / 1e9


class Waiter:
    """What one thread waits for, at one time: set by whoever receives it."""

    _own: Final = threading.local()

    def __init__(self) -> None:
        self.descriptor: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.pid: Final = os.getpid()
        self.is_set = False
        self._poked = False  # the descriptor is readable, or about to be
        self._thread: Final = threading.get_ident()

    @classmethod
    def of_this_thread(cls) -> Waiter:
        """Return the waiter of the calling thread, not set."""
        waiter: Waiter | None = getattr(cls._own, "waiter", None)
        if waiter is None or waiter.pid != os.getpid():  # a forked child shares the descriptor
            waiter = cls._own.waiter = Waiter()
        waiter.clear()
        return waiter

    def __del__(self) -> None:
        os.close(self.descriptor)

    def clear(self) -> None:
        """Begin to wait for something else."""
        self.is_set = False
        if self._poked:
            self._poked = False
            with contextlib.suppress(BlockingIOError):  # it is about to be
                os.eventfd_read(self.descriptor)

    def set(self) -> None:
        """Let the thread go on."""
        poke = threading.get_ident() != self._thread
        self._poked = self._poked or poke
        self.is_set = True
        if poke:
            os.eventfd_write(self.descriptor, 1)

    def wait(self, seconds: float) -> bool:
        """Wait without receiving; False: the time is over."""
        if not self.is_set:
            poll = select.poll()
            poll.register(self.descriptor, select.POLLIN)
            poll.poll(seconds * 1000)
        return self.is_set


class LinkHandler(Protocol):
    """What a link serves. No method blocks, and none may be waiting for `Link.wake`."""

    def connected(self) -> None:
        """Learn that a new socket begins; `outgoing` is asked next. In the background thread."""

    def outgoing(self) -> Sequence[Buffer]:
        """Return the elements of messages that are to be sent now, in order. In any thread."""

    def received(self, elements: list[Buffer]) -> None:
        """Take the elements of one bundle. In one thread at a time."""

    def lost(self) -> None:
        """Learn that the socket is gone, with all unanswered. In the background thread."""


class Link:
    """One connection.

    Args:
        path: of the service's socket.
        handler: what is served.
    """

    def __init__(self, path: Path, handler: LinkHandler) -> None:
        self.path: Final = path
        self.handler: Final = handler
        self.lock: Final = threading.Lock()  # held while the socket is used
        self.reading: Final = threading.Lock()  # held by who receives, until all is handed over
        self.socket: zmq.Socket[bytes] | None = None
        self.monitor: zmq.Socket[bytes] | None = None
        self.paused = False
        self._look_again = False
        self._served_ns = 0  # when the application last received by itself
        self.window_ns = ATTENDED_NS  # for how long it is taken to do so again
        self._watch: select.epoll | None = None  # the application waits for it
        self._watched = -1
        self.descriptor = -1  # of the present socket
        self._nudge: Callable[[], None] | None = None
        self._loop: Final = _loop()

    def open(self) -> None:
        """Begin to connect; it goes on until `close`."""
        self._loop.post(lambda: self._loop.add(self))

    def wake(self) -> None:
        """Let what is outgoing go: from this thread, or soon if another one is using the socket."""
        if not self.lock.acquire(blocking=False):
            self._loop.wake(self)
            return
        try:
            readable = self.socket is not None and self.send()
        finally:
            self.lock.release()
        if readable:
            self._see_to()

    def _see_to(self) -> None:
        """Let what can be received be received: the descriptor will not tell again."""
        if self._nudge is not None and self.attended:
            self._nudge()
        else:
            self._loop.wake(self)

    def attend(self, watch: select.epoll, nudge: Callable[[], None]) -> None:
        """Let the application receive by itself, with `serve`.

        Args:
            watch: readable when there is something to receive.
            nudge: called when there is something that ``watch`` does not show.
        """
        with self.lock:
            self._watch, self._nudge = watch, nudge
            self.rewatch()

    def rewatch(self) -> None:
        """Let the application wait for the present socket, with the lock held."""
        if self._watch is None:
            return
        if self._watched >= 0:
            with contextlib.suppress(OSError):  # closed, and gone by itself
                self._watch.unregister(self._watched)
        self._watched = -1
        if self.socket is not None:
            self._watched = self.descriptor
            self._watch.register(self._watched, select.EPOLLIN)

    @property
    def attended(self) -> bool:
        """True: the application receives by itself."""
        return time.monotonic_ns() - self._served_ns < self.window_ns

    def leave_to_itself(self) -> None:
        """The application is going to wait for something else: receive in the background."""
        if self._served_ns:
            self._served_ns = 0
            self._loop.wake(self)

    def serve(self) -> None:
        """Receive and send in the calling thread, which is the application's."""
        self.window_ns = ATTENDED_NS
        self._served_ns = time.monotonic_ns()
        if self.exchange(SERVE_BUDGET):
            self._see_to()

    def serve_until(self, waiter: Waiter, seconds: float) -> bool:
        """Receive in the calling thread until something is set; False: the time is over.

        Any thread may be the one that receives what is waited for.
        """
        end = time.monotonic() + seconds
        descriptor = self.descriptor
        poll = select.poll()
        poll.register(waiter.descriptor, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN)
        self.window_ns = CALLED_NS
        self._served_ns = time.monotonic_ns()
        while not waiter.is_set:
            if self.exchange(SERVE_BUDGET) or waiter.is_set:
                continue
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self.descriptor != descriptor or not self.attended:
                self.leave_to_itself()  # the background thread has the socket, or its successor
                return waiter.wait(left)
            poll.poll(min(left, CALLED_POLL_S) * 1000)
        return True

    def exchange(self, budget: int) -> bool:
        """Receive and send until there is nothing of both; True: the budget was used up.

        Where another thread is at it, it is told to look once more before it ends.
        """
        more = False
        self._look_again = True
        while self._look_again and self.reading.acquire(blocking=False):
            try:
                self._look_again = False
                more = self._exchange(budget)
            finally:
                self.reading.release()
        return more

    def _exchange(self, budget: int) -> bool:
        socket = self.socket
        for _ in range(budget):
            with self.lock:
                if socket is None or self.socket is not socket:
                    return False
                if not self.readable() and not self.send():
                    return False
                try:
                    elements = bundles.receive(socket)
                except DecodeError:
                    continue  # not a bundle: not from a service of ours
            self.handler.received(elements)
        return True

    def send(self) -> bool:
        """Send what is outgoing, with the lock held; True: there is something to receive."""
        socket = self.socket
        assert socket is not None
        elements = self.handler.outgoing()
        if not elements:
            return False
        bundles.send(socket, elements)
        return self.readable()

    def readable(self) -> bool:
        """Return whether there is something to receive, with the lock held."""
        return self.socket is not None and readable(self.socket) and not self.paused

    def pause(self) -> None:
        """Stop reading, called by who receives: the application is behind."""
        self.paused = True

    def resume(self) -> None:
        """Read again."""
        self.paused = False
        self._see_to()

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
        self._epoll: Final = select.epoll()
        self._wake_fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: Final[deque[Callable[[], None]]] = deque()
        self._woken: Final[dict[Link, None]] = {}
        self._lock: Final = threading.Lock()
        self._links: Final[dict[int, Link]] = {}  # by descriptor of the socket or its monitor
        self._parked: Final[dict[Link, int]] = {}  # received by the application; its descriptor
        self._epoll.register(self._wake_fd, select.EPOLLIN)

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
            for descriptor, _ in self._epoll.poll(self._patience_s()):
                if descriptor == self._wake_fd:
                    self._posted()
                elif descriptor in self._links:
                    self._ready(self._links[descriptor], descriptor)
            for link in [link for link in self._parked if not link.attended]:
                self._epoll.register(self._parked.pop(link), select.EPOLLIN)
                self._serve(link)

    def _patience_s(self) -> float | None:
        """Return when to look whether the application still receives by itself."""
        if not self._parked:
            return None
        return min(link.window_ns for link in self._parked) / 1e9

    def _ready(self, link: Link, descriptor: int) -> None:
        if link.attended and link.descriptor == descriptor:
            self._epoll.unregister(descriptor)
            self._parked[link] = descriptor
        else:
            self._serve(link)

    def _posted(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        with self._lock:
            calls = list(self._calls)
            woken = list(self._woken)
            self._calls.clear()
            self._woken.clear()
        for call in calls:
            call()
        for link in woken:
            self._serve(link)

    def add(self, link: Link) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)  # bounded by what the handler lets out
        socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_BUNDLES)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        monitor = socket.get_monitor_socket(MONITOR_EVENTS)
        for one in (socket, monitor):
            descriptor = int(one.getsockopt(zmq.FD))
            self._links[descriptor] = link
            self._epoll.register(descriptor, select.EPOLLIN)
        socket.connect(f"ipc://{link.path}")
        with link.lock:
            link.socket, link.monitor = socket, monitor
            link.descriptor = int(socket.getsockopt(zmq.FD))
            link.rewatch()
            link.handler.connected()
        self._serve(link)

    def remove(self, link: Link, done: threading.Event) -> None:
        with link.lock:
            if link.socket is not None:
                link.send()
        self._drop(link, linger_ms=200)
        done.set()

    def _drop(self, link: Link, linger_ms: int = 0) -> None:
        with link.lock:
            socket, monitor = link.socket, link.monitor
            link.socket = link.monitor = None
            link.rewatch()
        if socket is None or monitor is None:
            return
        for one in (socket, monitor):
            descriptor = int(one.getsockopt(zmq.FD))
            if self._parked.get(link) == descriptor:
                del self._parked[link]
            else:
                self._epoll.unregister(descriptor)
            del self._links[descriptor]
        socket.disable_monitor()
        monitor.close(0)
        socket.close(linger_ms)

    def _serve(self, link: Link) -> None:
        """Receive and send until there is nothing of both; begin anew when the link is lost."""
        if link.exchange(RECEIVE_BUDGET):
            self.wake(link)
        monitor = link.monitor
        while link.monitor is monitor and monitor is not None and readable(monitor):
            monitored(monitor)
            self._drop(link)
            link.handler.lost()
            self.add(link)


_guard = threading.Lock()
_running: _Loop | None = None


def _loop() -> _Loop:
    global _running  # noqa: PLW0603 - one thread per process
    with _guard:
        if _running is None or _running.pid != os.getpid():
            _running = _Loop()
            _running.start()
        return _running
