"""The selection object: callbacks that wait, and the threads that run them (SAI-Overview, 4.3).

A descriptor is readable while something waits, for every poller, level triggered.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from openais.errors import AisError, BadHandleError, InvalidParamError, LibraryError, TryAgainError

CALLBACKS_PER_DISPATCH_MAX: Final = 1024

Callback = Callable[[], None]


class DispatchFlags(IntEnum):
    """How `dispatch` runs what waits (SaDispatchFlagsT; the last one is of CPG and EVS)."""

    ONE = 1  # at most one, at once; with CPG and EVS: wait for one
    ALL = 2  # all that wait, at once
    BLOCKING = 3  # for ever, until closed
    ONE_NONBLOCKING = 4  # at most one, at once; ERR_TRY_AGAIN when nothing waits


CS_WAITS: Final = frozenset({DispatchFlags.ONE, DispatchFlags.BLOCKING})  # of CPG and EVS


@dataclass(slots=True)
class _Batch:
    """Items for one function, run in order; those before ``position`` have run."""

    function: Callable[[Any], object]
    items: Sequence[Any]
    size_bytes: int
    tag: object
    position: int = 0


def _call(callback: Callback) -> None:
    callback()


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
        self._waiting: Final[deque[_Batch]] = deque()
        self._condition: Final = threading.Condition()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self._lost: AisError | None = None
        self._nudged = False
        self._signalled = False  # the descriptor is readable
        self._served = False  # a dispatch is going to look anyway
        self._count = 0
        self.bytes_waiting = 0

    def fileno(self) -> int:
        """Return the descriptor, readable while something waits or the session is lost.

        Raises:
            BadHandleError: closed.
        """
        if self._closed:
            raise BadHandleError(self._name, "closed")
        return self._fd

    def nudge(self) -> None:
        """Make the descriptor readable until `quiet`: to call for something that is not here."""
        with self._condition:
            if not self._closed:
                self._nudged = True
                self._write()

    def quiet(self, *, served: bool = True) -> None:
        """Take a nudge back; if ``served``, do not signal until the dispatch that follows ends."""
        with self._condition:
            self._nudged = False
            self._served = served
            if not self._closed and not self._waiting:
                self._drain()

    def __len__(self) -> int:
        return self._count

    def push(self, callback: Callback, size_bytes: int = 0, tag: object = None) -> None:
        """Add a callback; called in the background thread."""
        self.push_all(_call, (callback,), size_bytes, tag)

    def push_all(
        self,
        function: Callable[[Any], object],
        items: Sequence[Any],
        size_bytes: int = 0,
        tag: object = None,
    ) -> None:
        """Add a callback for each item: ``function(item)``."""
        with self._condition:
            if self._closed or not items:
                return
            self._waiting.append(_Batch(function, items, size_bytes, tag))
            self._count += len(items)
            self.bytes_waiting += size_bytes
            self._signal()

    def _signal(self) -> None:
        self._write()
        self._condition.notify()

    def _write(self) -> None:
        if not self._signalled and not self._served:
            self._signalled = True
            os.eventfd_write(self._fd, 1)

    def drop(self, tag: object) -> None:
        """Forget the callbacks with a tag."""
        with self._condition:
            kept = [batch for batch in self._waiting if batch.tag != tag]
            self._waiting.clear()
            self._waiting.extend(kept)
            self._count = sum(len(batch.items) - batch.position for batch in kept)
            self.bytes_waiting = sum(batch.size_bytes for batch in kept)
            if not kept:
                self._drain()

    def lost(self, error: AisError | None = None) -> None:
        """The session is gone: dispatch what waits, then raise this error, or ERR_LIBRARY."""
        with self._condition:
            if not self._closed:
                self._lost = error or LibraryError(
                    self._name, "the session is lost", definite=False
                )
                self._write()
                self._condition.notify_all()

    def _drain(self) -> None:
        if self._signalled and not self._lost and not self._nudged:
            self._signalled = False
            os.eventfd_read(self._fd)

    def _pop(self, *, wait: bool) -> _Batch | None:
        with self._condition:
            while not self._waiting and wait and not self._closed and not self._lost:
                self._condition.wait()
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            self._count -= len(batch.items) - batch.position
            self.bytes_waiting -= batch.size_bytes
            if not self._waiting:
                self._drain()
            return batch

    def _put_back(self, batch: _Batch) -> None:
        with self._condition:
            if not self._closed:
                self._waiting.appendleft(batch)
                self._count += len(batch.items) - batch.position
                self.bytes_waiting += batch.size_bytes
                self._signal()

    def _run(self, batch: _Batch, count_max: int) -> int:
        """Run items of a batch; what is left, also by an exception, stays first in the queue."""
        begin = batch.position
        function = batch.function
        try:
            for item in batch.items[begin : begin + count_max]:
                batch.position += 1
                function(item)
                if self._closed:
                    break
        finally:
            if batch.position < len(batch.items):
                self._put_back(batch)
        return batch.position - begin

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run callbacks in the calling thread; return how many ran.

        Raises:
            BadHandleError: closed before the call.
            LibraryError: the session is lost and nothing waits.
            UnavailableError: likewise, and its node had left the membership of the cluster.
            TryAgainError: ONE_NONBLOCKING and nothing waits.
            InvalidParamError: unknown flags.
        """
        try:
            return self._dispatch(flags)
        finally:
            self._end_served()

    def _end_served(self) -> None:
        with self._condition:
            self._served = False
            if not self._closed and (self._waiting or self._lost or self._nudged):
                self._write()

    def _dispatch(self, given: DispatchFlags | int) -> int:
        try:
            flags = DispatchFlags(given)
        except ValueError:
            raise InvalidParamError(
                self._name, f"no DispatchFlags have the value {given}"
            ) from None
        if flags is DispatchFlags.ONE_NONBLOCKING and DispatchFlags.ONE not in self._waits:
            raise InvalidParamError(self._name, "ONE_NONBLOCKING is of CPG and EVS; use ONE")
        if self._closed:
            raise BadHandleError(self._name, "closed")
        bound = CALLBACKS_PER_DISPATCH_MAX
        if flags in (DispatchFlags.ONE, DispatchFlags.ONE_NONBLOCKING):
            bound = 1
        ran = 0
        while ran < bound or flags is DispatchFlags.BLOCKING:
            batch = self._pop(wait=flags in self._waits)
            if batch is None:
                break
            ran += self._run(batch, max(bound - ran, 1))
        if self._lost and not ran and not self._closed:
            raise self._lost
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
