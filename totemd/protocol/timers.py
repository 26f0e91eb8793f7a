"""Named timers of a core that reads no clock: set, cancel, ask for the earliest."""

from __future__ import annotations

from enum import Enum


class Timer(Enum):
    """The timers of the ring; one instance each."""

    TOKEN_LOSS = "token loss"  # noqa: S105 - the ring's token, not a password
    TOKEN_RETRANSMIT = "token retransmit"  # noqa: S105
    HOLD = "hold"
    HOLD_CANCEL = "hold cancel"
    JOIN = "join"
    CONSENSUS = "consensus"
    MERGE = "merge"
    LEAVE = "leave"


class Timers:
    """Deadlines by name."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Timer, int] = {}

    def set(self, timer: Timer, at_ns: int) -> None:
        """Arm a timer; replaces an earlier deadline."""
        self._deadlines[timer] = at_ns

    def cancel(self, *timers: Timer) -> None:
        """Disarm timers."""
        for timer in timers:
            self._deadlines.pop(timer, None)

    def armed(self, timer: Timer) -> bool:
        """True while a timer is armed."""
        return timer in self._deadlines

    def deadline_ns(self) -> int | None:
        """Return the earliest deadline."""
        return min(self._deadlines.values(), default=None)

    def pop_due(self, now_ns: int) -> Timer | None:
        """Disarm and return the earliest timer that is due."""
        due = [(at, timer.value, timer) for timer, at in self._deadlines.items() if at <= now_ns]
        if not due:
            return None
        timer = min(due)[2]
        del self._deadlines[timer]
        return timer
