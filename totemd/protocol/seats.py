"""The seat of a service in its group: it belongs to the node, and outlives the process.

A seat logs what is delivered to it since its last snapshot, so that the next process of the
service goes on where the last one was killed. It knows positions and bounds; it refuses to know
what is delivered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from totemd.protocol.local import (
    Attached,
    CaughtUp,
    ConnectionId,
    Delivered,
    Event,
    GroupKey,
    Parting,
    Refusal,
    Refused,
    SnapshotWanted,
    View,
)

VIEW_SIZE_ESTIMATE: Final = 256  # bytes that a logged view is counted as
DELIVERED_SIZE_ESTIMATE: Final = 128  # bytes beside the payload


@dataclass(frozen=True, slots=True)
class SeatLimits:
    """Bounds of a seat.

    Attributes:
        log_bytes_max: past it a snapshot is asked for, past twice it the log is dropped.
        grace_ns: how long a seat without a process is kept.
    """

    log_bytes_max: int = 64 << 20
    grace_ns: int = 5_000_000_000


class Seat:
    """One seat.

    Args:
        group: of the service.
        number: of the membership, unique in the life of this node.
        history: names the stream that this seat's indexes count.
        limits: bounds.
        from_nothing: the process that took it first remembered nothing, so that its whole memory
            is in the log while that is complete.
    """

    def __init__(
        self,
        group: GroupKey,
        number: int,
        history: bytes,
        limits: SeatLimits,
        *,
        from_nothing: bool = True,
    ) -> None:
        self.group: Final = group
        self.number: Final = number
        self.history: Final = history
        self.connection: ConnectionId | None = None
        self.vacant_until_ns: int | None = None
        self.index = 0  # of the last event
        self.base = 0  # the log begins after this index
        self.log_bytes = 0
        self.logs_dropped = 0
        self._from_nothing: Final = from_nothing
        self._limits: Final = limits
        self._log: Final[deque[Delivered | View | Parting]] = deque()
        self._wanted = False

    def can_resume(self, history: bytes, index: int) -> bool:
        """True: a process that remembers up to ``index`` can be told everything since."""
        if not history:
            return self.base == 0 and self._from_nothing
        return history == self.history and self.base <= index <= self.index

    def take(self, connection: ConnectionId, index: int) -> list[Event]:
        """Give the seat to a process; return its stream up to now."""
        self.connection = connection
        self.vacant_until_ns = None
        self._wanted = False
        missed = [event for event in self._log if event.index > index]
        return [Attached(self.history, index, resumed=True), *missed, CaughtUp(self.index)]

    def vacate(self, now_ns: int) -> None:
        """The process is gone; keep the seat for a while."""
        self.connection = None
        self.vacant_until_ns = now_ns + self._limits.grace_ns

    def append(self, event: Delivered | View | Parting) -> list[Event]:
        """Log an event whose index is the seat's next; return what the process is told."""
        if isinstance(event, Delivered) and isinstance(event.payload, memoryview):
            event.payload = bytes(event.payload)  # kept long; a view would keep more alive
        self.index = event.index
        self._log.append(event)
        self.log_bytes += _size(event)
        limit = self._limits.log_bytes_max
        if self.log_bytes > 2 * limit:
            self._log.clear()
            self.base = self.index
            self.log_bytes = 0
            self.logs_dropped += 1
            return [event, SnapshotWanted(0)]  # only a later one is of use
        if self.log_bytes > limit and not self._wanted:
            self._wanted = True
            return [event, SnapshotWanted(self.log_bytes)]
        return [event]

    def snapshotted(self, index: int) -> list[Event]:
        """Cut the log at a position that is durable; return what the process is told."""
        if not 0 <= index <= self.index:
            return [Refused(0, Refusal.INVALID_PARAM, f"no position {index} in this log")]
        if index < self.base:  # begun before the log was dropped: nothing goes on from there
            self._wanted = True
            return [SnapshotWanted(self.log_bytes)]
        while self._log and self._log[0].index <= index:
            self.log_bytes -= _size(self._log.popleft())
        self.base = index
        self._wanted = False
        return []

    def describe(self, now_ns: int) -> dict[str, int | bool | None]:
        """Return what the status document tells."""
        vacant = self.vacant_until_ns
        return {
            "attached": self.connection is not None,
            "index": self.index,
            "log_base": self.base,
            "log_bytes": self.log_bytes,
            "log_bytes_max": self._limits.log_bytes_max,
            "logs_dropped": self.logs_dropped,
            "grace_ms": self._limits.grace_ns // 1_000_000,
            "grace_left_ms": None if vacant is None else max(0, vacant - now_ns) // 1_000_000,
        }

    def check(self) -> None:
        """Assert every invariant."""
        assert len(self._log) == self.index - self.base
        assert self.log_bytes == sum(map(_size, self._log))
        assert (self.connection is None) == (self.vacant_until_ns is not None)


def _size(event: Delivered | View | Parting) -> int:
    if isinstance(event, View | Parting):
        return VIEW_SIZE_ESTIMATE
    return len(event.payload) + DELIVERED_SIZE_ESTIMATE
