"""Deadlines in a machine's state. Pure.

Time is an operation: the machine says when something is due (`deadline_ns`), the group's oldest
member has the operation ordered that `expired` proposes, and `apply` does it - unless the timer was
set anew meanwhile, which it finds out by `over`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

DUE_MAX: Final = 256  # timers told at a time; the rest is told when these are over


class Timers:
    """At most one deadline for each key, in ns since 1970."""

    def __init__(self) -> None:
        self._deadlines: Final[dict[bytes, int]] = {}
        self._heap: list[tuple[int, bytes]] = []

    def set(self, key: bytes, at_ns: int) -> None:
        """Set a deadline, in the place of the one there was."""
        self._deadlines[key] = at_ns
        heapq.heappush(self._heap, (at_ns, key))
        if len(self._heap) > 64 + 4 * len(self._deadlines):  # mostly of timers that were moved
            self._heap = [(at, k) for k, at in self._deadlines.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: bytes) -> None:
        """Forget a deadline, if there is one."""
        self._deadlines.pop(key, None)

    def over(self, key: bytes, now_ns: int) -> bool:
        """Return whether a deadline is over, and forget it then."""
        if self._deadlines.get(key, now_ns + 1) > now_ns:
            return False
        del self._deadlines[key]
        return True

    def deadline_ns(self) -> int | None:
        """Return the earliest deadline; None: there is none."""
        while self._heap and self._deadlines.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> list[bytes]:
        """Return the keys whose deadlines are over, earliest first; changes nothing."""
        over = [(at_ns, key) for key, at_ns in self._deadlines.items() if at_ns <= now_ns]
        return [key for _, key in heapq.nsmallest(DUE_MAX, over)]

    def values(self) -> list[list[int | bytes]]:
        """Return all deadlines as plain values, canonical."""
        return [[key, at_ns] for key, at_ns in sorted(self._deadlines.items())]

    def restore(self, values: Iterable[tuple[bytes, int]]) -> None:
        """Replace all deadlines by what `values` returned."""
        self._deadlines.clear()
        self._deadlines.update((key, at_ns) for key, at_ns in values)
        self._heap = [(at_ns, key) for key, at_ns in self._deadlines.items()]
        heapq.heapify(self._heap)
