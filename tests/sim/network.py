"""The wire of the simulated cluster: seeded loss, delay, duplication, cuts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

US = 1_000
MS = 1_000_000


@dataclass(slots=True)
class Faults:
    """What the wire does to datagrams; probabilities in 0..1."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay_min_ns: int = 50 * US
    delay_max_ns: int = 150 * US


@dataclass(slots=True)
class Wire:
    """Decides when a datagram arrives, if it does."""

    random: random.Random
    faults: Faults = field(default_factory=Faults)
    cut: set[tuple[int, int]] = field(default_factory=set)

    def arrivals(self, sender: int, receiver: int) -> list[int]:
        """Return the delays in ns of the copies that arrive."""
        if (sender, receiver) in self.cut or self.random.random() < self.faults.loss:
            return []
        copies = 2 if self.random.random() < self.faults.duplicate else 1
        low, high = self.faults.delay_min_ns, self.faults.delay_max_ns
        return [self.random.randint(low, high) for _ in range(copies)]

    def damage(self, data: bytes) -> bytes:
        """Return the datagram as it arrives; the seal would drop what is damaged."""
        return b"" if self.random.random() < self.faults.corrupt else data

    def partition(self, *sides: set[int]) -> None:
        """Let only nodes of one side hear each other."""
        self.cut = {
            (a, b)
            for one in sides
            for other in sides
            if one is not other
            for a in one
            for b in other
        }

    def heal(self) -> None:
        """Let all hear all."""
        self.cut = set()
