"""The selection object: callbacks that wait, and the threads that run them (SAI-Overview, 4.3).

A descriptor is readable while something waits, for every poller, level triggered.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from openais.errors import BadHandleError, InvalidParamError, LibraryError, TryAgainError

CALLBACKS_PER_DISPATCH_MAX: Final = 1024

Callback = Callable[[], None]


class DispatchFlags(IntEnum):
    """How `dispatch` runs what waits (SaDispatchFlagsT; the last one is of CPG and EVS)."""

    ONE = 1  # at most one, at once; with CPG and EVS: wait for one
    ALL = 2  # all that wait, at once
    BLOCKING = 3  # for ever, until closed
    ONE_NONBLOCKING = 4  # at most one, at once; ERR_TRY_AGAIN when nothing waits


CS_WAITS: Final = frozenset({DispatchFlags.ONE, DispatchFlags.BLOCKING})  # of CPG and EVS


class CallbackQueue:
    """Callbacks in order of arrival, and their descriptor.

    Args:
        name: of the handle, in errors.
        waits: the flags with which `dispatch` waits for a callback.
    """

    def __init__(
        self,
        name: str,
        waits: frozenset[DispatchFlags] = frozenset({DispatchFlags.BLOCKING}),
    ) -> None:
        self._name: Final = name
        self._waits: Final = waits
        self._waiting: Final[deque[tuple[Callback, int, object]]] = deque()
        self._condition: Final = threading.Condition()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self._lost = False
        self.bytes_waiting = 0

    def fileno(self) -> int:
        """Return the descriptor, readable while something waits or the session is lost.

        Raises:
            BadHandleError: closed.
        """
        if self._closed:
            raise BadHandleError(self._name, "closed")
        return self._fd

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, callback: Callback, size_bytes: int = 0, tag: object = None) -> None:
        """Add a callback; called in the background thread."""
        with self._condition:
            if self._closed:
                return
            self._waiting.append((callback, size_bytes, tag))
            self.bytes_waiting += size_bytes
            self._signal()

    def _signal(self) -> None:
        if len(self._waiting) <= 1 or self._lost:
            os.eventfd_write(self._fd, 1)
        self._condition.notify()

    def drop(self, tag: object) -> None:
        """Forget the callbacks with a tag."""
        with self._condition:
            kept = [item for item in self._waiting if item[2] != tag]
            self._waiting.clear()
            self._waiting.extend(kept)
            self.bytes_waiting = sum(item[1] for item in kept)
            if not kept:
                self._drain()

    def lost(self) -> None:
        """The session is gone: dispatch what waits, then fail."""
        with self._condition:
            if not self._closed:
                self._lost = True
                os.eventfd_write(self._fd, 1)
                self._condition.notify_all()

    def _drain(self) -> None:
        if not self._lost:
            with contextlib.suppress(BlockingIOError):  # not readable is what is wanted
                os.eventfd_read(self._fd)

    def _pop(self, *, wait: bool) -> Callback | None:
        with self._condition:
            while not self._waiting and wait and not self._closed and not self._lost:
                self._condition.wait()
            if not self._waiting:
                return None
            callback, size, _ = self._waiting.popleft()
            self.bytes_waiting -= size
            if not self._waiting:
                self._drain()
            return callback

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run callbacks in the calling thread; return how many ran.

        Raises:
            BadHandleError: closed before the call.
            LibraryError: the session is lost and nothing waits.
            TryAgainError: ONE_NONBLOCKING and nothing waits.
            InvalidParamError: unknown flags.
        """
        try:
            flags = DispatchFlags(flags)
        except ValueError:
            raise InvalidParamError(
                self._name, f"no DispatchFlags have the value {flags}"
            ) from None
        if self._closed:
            raise BadHandleError(self._name, "closed")
        bound = 1 if flags in (DispatchFlags.ONE, DispatchFlags.ONE_NONBLOCKING) else None
        if flags is DispatchFlags.ALL:
            bound = CALLBACKS_PER_DISPATCH_MAX
        ran = 0
        while bound is None or ran < bound:
            callback = self._pop(wait=flags in self._waits)
            if callback is None:
                break
            callback()
            ran += 1
        if self._lost and not ran and not self._closed:
            raise LibraryError(self._name, "the session is lost", definite=False)
        if not ran and flags is DispatchFlags.ONE_NONBLOCKING:
            raise TryAgainError(self._name, "nothing waits")
        return ran

    def close(self) -> None:
        """Drop everything and let blocked threads return; the descriptor is closed."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._waiting.clear()
            self._condition.notify_all()
            os.close(self._fd)
