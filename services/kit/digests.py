"""Digests that replicas compare while they work: who differs has a bug. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.kit.memory import Memory

EVERY_NS: Final = 5_000_000_000  # between two comparisons, where something changed
EVERY_IDLE_NS: Final = 60_000_000_000  # where nothing did
SHARE_MAX: Final = 100  # a digest costs one of so many parts of the time
SCRUB_BYTES: Final = 1 << 20  # hashed anew each time, though nobody touched it

_BYTE_NS: Final = 2  # estimates of what hashing costs
_PART_NS: Final = 1_000


@dataclass(slots=True)
class Comparison:
    """One position whose digests are compared."""

    asker: int
    number: int
    expected: frozenset[int]  # who holds the state
    digests: dict[int, bytes] = field(default_factory=dict)

    def take(self, node: int, digest: bytes) -> tuple[int, ...] | None:
        """Take the digest of a member.

        Returns:
            Who differs from the majority - of two equal parts, from the one with the lowest
            node - once all have told; None: not all have.
        """
        if node not in self.expected:
            return None
        self.digests.setdefault(node, digest)
        if len(self.digests) < len(self.expected):
            return None
        parts: dict[bytes, list[int]] = {}
        for member in sorted(self.expected):
            parts.setdefault(self.digests[member], []).append(member)
        right = max(parts.values(), key=lambda part: (len(part), -part[0]))
        return tuple(sorted(self.expected - set(right)))


class Pace:
    """When to compare again: often, but not at the cost of the work."""

    def __init__(self) -> None:
        self._next_ns = 0
        self._idle_ns = 0
        self._applied = -1

    def due_ns(self, applied: int) -> int:
        """Return when the next comparison is due."""
        return self._idle_ns if applied == self._applied else self._next_ns

    def compared(self, now_ns: int, applied: int, cost_ns: int) -> None:
        """Note a comparison and what hashing cost."""
        self._applied = applied
        self._next_ns = now_ns + max(EVERY_NS, SHARE_MAX * cost_ns)
        self._idle_ns = now_ns + max(EVERY_IDLE_NS, SHARE_MAX * cost_ns)


def measured(memory: Memory) -> tuple[bytes, int]:
    """Compute the digest of a state; return it and an estimate of its cost in ns."""
    size, parts = memory.hashed_bytes, memory.hashed_parts
    memory.scrub(SCRUB_BYTES)
    root = memory.root()
    cost_ns = (memory.hashed_bytes - size) * _BYTE_NS + (memory.hashed_parts - parts) * _PART_NS
    return root, cost_ns
