"""What the handles of CPG and EVS have in common: events that wait, dispatch, patience."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from openais import errors
from openais.handle import CS_WAITS, CallbackQueue, DispatchFlags
from openais.portconnection import PortConnection

QUEUE_BYTES_MAX: Final = 8 << 20  # of events that wait here; more stays with totemd
QUEUE_EVENTS_MAX: Final = 10_000
ASKED_FACTOR: Final = 8  # times as much, while an answer is waited for that comes behind them
TIMEOUT_S: Final = 10.0


def behind(connection: PortConnection, events: int, size: int) -> bool:
    """Return whether so many events and bytes are so much that reading must pause."""
    factor = ASKED_FACTOR if connection.asked else 1
    return events > factor * QUEUE_EVENTS_MAX or size > factor * QUEUE_BYTES_MAX


class GroupClient:
    """A handle whose events wait for `dispatch`.

    Args:
        name: of the handle, in errors.

    Attributes:
        context: whatever the application wants to find here again.
    """

    _connection: PortConnection

    def __init__(self, name: str) -> None:
        self.context: Any = None
        self._queue: Final = CallbackQueue(name, CS_WAITS)
        self._watch: select.epoll | None = None

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _push(self, events: Sequence[Any], size: int) -> None:
        self._queue.push_all(self._run, events, size)
        if behind(self._connection, len(self._queue), self._queue.bytes_waiting):
            self._connection.link.pause()

    def _run(self, event: Any) -> None:
        raise NotImplementedError

    def _patiently(self, queue: Callable[[], None], wait: float) -> None:
        """Queue a message; while the queue is full, wait up to so many seconds for room."""
        deadline = time.monotonic() + wait
        while True:
            try:
                return queue()
            except errors.TryAgainError:
                left = deadline - time.monotonic()
                if left <= 0 or not self._connection.wait_room(left):
                    raise

    @property
    def local_node(self) -> int:
        """Node id of the local node."""
        return self._connection.node_id

    @property
    def flow_controlled(self) -> bool:
        """True: a multicast of maximum size would be refused with ERR_TRY_AGAIN."""
        return self._connection.full

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait, or may.

        Who waits for it and then dispatches receives in its own thread.
        """
        queue = self._queue.fileno()
        if self._watch is None:
            self._watch = select.epoll()
            self._watch.register(queue, select.EPOLLIN)
            self._connection.link.attend(self._watch, self._queue.nudge)
        return self._watch.fileno()

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run the callbacks of events that wait, in this thread; return how many.

        Raises:
            AisError: ERR_LIBRARY, totemd is gone; ERR_BAD_HANDLE; ERR_INVALID_PARAM, unknown
                flags; ERR_TRY_AGAIN with ONE_NONBLOCKING when nothing waits.
        """
        link = self._connection.link
        if flags in CS_WAITS:
            link.leave_to_itself()
            self._queue.quiet(served=False)
        elif self._watch is not None:
            self._queue.quiet()
            link.serve()
        try:
            return self._queue.dispatch(flags)
        finally:
            if link.paused:
                link.resume()

    def close(self) -> None:
        """Leave and close; waiting events are dropped. May be repeated."""
        self._connection.close()
        self._queue.close()
        if self._watch is not None:
            self._watch.close()
