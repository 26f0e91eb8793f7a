"""Named timers of a core that reads no clock, and its repeatable delays."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

NEVER: Final = 1 << 63  # ns; no clock gets there


class Timer(IntEnum):
    """The timers of the ring; one instance each. Of those due at one time the first is served."""

    CONSENSUS = 0
    HEARTBEAT = 1
    HOLD = 2
    HOLD_CANCEL = 3
    JOIN = 4
    LEAVE = 5
    MERGE = 6
    SEND_JOIN = 7
    TOKEN_LOSS = 8
    TOKEN_RETRANSMIT = 9


# A look-up of an enumeration's member costs more than arming a timer; every token arms several.
HEARTBEAT: Final = Timer.HEARTBEAT
HOLD_CANCEL: Final = Timer.HOLD_CANCEL
TOKEN_LOSS: Final = Timer.TOKEN_LOSS
TOKEN_RETRANSMIT: Final = Timer.TOKEN_RETRANSMIT
TIMERS: Final = tuple(Timer)


class Timers:
    """Deadlines by name."""

    __slots__ = ("_deadlines_ns",)

    def __init__(self) -> None:
        self._deadlines_ns = [NEVER] * len(TIMERS)

    def set(self, timer: Timer, at_ns: int) -> None:
        """Arm a timer; replaces an earlier deadline."""
        self._deadlines_ns[timer] = at_ns

    def cancel(self, *timers: Timer) -> None:
        """Disarm timers."""
        for timer in timers:
            self._deadlines_ns[timer] = NEVER

    def cancel_all(self, *, keep: tuple[Timer, ...] = ()) -> None:
        """Disarm all timers but some."""
        self.cancel(*(timer for timer in TIMERS if timer not in keep))

    def postpone(self, by_ns: int, *timers: Timer) -> None:
        """Move the deadlines of those timers that are armed."""
        for timer in timers:
            if self.armed(timer):
                self._deadlines_ns[timer] += by_ns

    def armed(self, timer: Timer) -> bool:
        """True while a timer is armed."""
        return self._deadlines_ns[timer] != NEVER

    def deadline_ns(self) -> int | None:
        """Return the earliest deadline."""
        earliest = min(self._deadlines_ns)
        return None if earliest == NEVER else earliest

    def pop_due(self, now_ns: int) -> Timer | None:
        """Disarm and return the earliest timer that is due."""
        earliest = min(self._deadlines_ns)
        if earliest > now_ns:
            return None
        timer = TIMERS[self._deadlines_ns.index(earliest)]
        self._deadlines_ns[timer] = NEVER
        return timer


class Jitter:
    """Delays that differ between nodes and repeat with the seed (SplitMix64)."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, bound: int) -> int:
        """Return a number in [0, bound)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ mixed >> 31) % bound


_MASK: Final = (1 << 64) - 1
