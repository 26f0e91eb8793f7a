"""The wire of the simulated cluster: seeded loss, delay, duplication, cuts.

It decides what becomes of each copy of a datagram. Multicast and unicast travel apart, as they do
through a switch: each may be slow or dead while the other lives.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

US = 1_000
MS = 1_000_000
SMALL_BYTES: Final = 1000
Pair = tuple[int, int]  # sender, receiver


@dataclass(slots=True)
class Faults:
    """What the wire does to datagrams; probabilities in 0..1.

    Attributes:
        loss: of every copy.
        link_loss: of the copies of one direction of one link, instead.
        duplicate: a second copy arrives, with a delay of its own.
        corrupt: a bit is turned; the seal has to notice.
        replay: an old datagram of anybody arrives again beside this one.
        delay_min_ns: shortest delay.
        delay_max_ns: longest, but for the tail.
        tail: this part of the copies takes longer, up to `tail_ns` more.
        tail_ns: see there.
        multicast_late_ns: added to the delay of multicast only.
        large_loss: of datagrams above SMALL_BYTES, besides; a path that passes only small ones.
    """

    loss: float = 0.0
    link_loss: dict[Pair, float] = field(default_factory=dict)
    duplicate: float = 0.0
    corrupt: float = 0.0
    replay: float = 0.0
    delay_min_ns: int = 50 * US
    delay_max_ns: int = 150 * US
    tail: float = 0.0
    tail_ns: int = 0
    multicast_late_ns: int = 0
    large_loss: float = 0.0


class Wire:
    """Decides when a datagram arrives, if it does.

    Attributes:
        cut: directed pairs that hear nothing of each other; `partition` and `heal` set it.
        faults: what happens to the rest; may be replaced at any time.
    """

    def __init__(self, source: random.Random, faults: Faults) -> None:
        self.random = source
        self.faults = faults
        self.cut: set[Pair] = set()
        self._blocks: dict[int, tuple[frozenset[Pair], bool, bool]] = {}
        self._storms: dict[int, float] = {}
        self._narrows: dict[int, int] = {}
        self._number = 0
        self._dead_multicast: frozenset[Pair] = frozenset()
        self._dead_unicast: frozenset[Pair] = frozenset()
        self._storm = 0.0
        self._narrow: frozenset[int] = frozenset()

    def arrivals(
        self, sender: int, receiver: int, size: int = 0, *, multicast: bool = True
    ) -> Sequence[int]:
        """Return the delays in ns of the copies that arrive."""
        pair = (sender, receiver)
        dead = self._dead_multicast if multicast else self._dead_unicast
        if pair in dead or pair in self.cut:
            return ()
        f, rnd = self.faults, self.random.random
        loss = f.link_loss.get(pair, f.loss) if f.link_loss else f.loss
        if loss and rnd() < loss:
            return ()
        if self._storm and rnd() < self._storm:
            return ()
        if size > SMALL_BYTES and (receiver in self._narrow or rnd() < f.large_loss):
            return ()
        if f.duplicate and rnd() < f.duplicate:
            return self._delay(multicast=multicast), self._delay(multicast=multicast)
        return (self._delay(multicast=multicast),)

    def _delay(self, *, multicast: bool) -> int:
        f, rnd = self.faults, self.random.random
        delay = f.delay_min_ns + int(rnd() * (f.delay_max_ns - f.delay_min_ns))
        if f.tail and rnd() < f.tail:
            delay += int(f.tail_ns * rnd() ** 3)
        return delay + f.multicast_late_ns if multicast else delay

    def damage(self, data: bytes) -> bytes:
        """Return the datagram as it arrives, perhaps with one bit turned."""
        if not self.faults.corrupt or self.random.random() >= self.faults.corrupt:
            return data
        position = self.random.randrange(len(data))
        turned = data[position] ^ 1 << self.random.randrange(8)
        return data[:position] + bytes((turned,)) + data[position + 1 :]

    def block(self, pairs: Iterable[Pair], *, multicast: bool = True, unicast: bool = True) -> int:
        """Cut directed pairs, beside what else is cut; return a number for `unblock`."""
        self._number += 1
        self._blocks[self._number] = (frozenset(pairs), multicast, unicast)
        self._compile()
        return self._number

    def storm(self, loss: float) -> int:
        """Lose so much everywhere, besides; return a number for `unblock`."""
        self._number += 1
        self._storms[self._number] = loss
        self._compile()
        return self._number

    def narrow(self, receiver: int) -> int:
        """Let only small datagrams reach a node; return a number for `unblock`."""
        self._number += 1
        self._narrows[self._number] = receiver
        self._compile()
        return self._number

    def unblock(self, number: int) -> None:
        """End one block, storm or narrow path."""
        self._narrows.pop(number, None)
        self._blocks.pop(number, None)
        self._storms.pop(number, None)
        self._compile()

    def _compile(self) -> None:
        blocks = list(self._blocks.values())
        self._dead_multicast = frozenset().union(*(b[0] for b in blocks if b[1]))
        self._dead_unicast = frozenset().union(*(b[0] for b in blocks if b[2]))
        self._narrow = frozenset(self._narrows.values())
        self._storm = max(self._storms.values(), default=0.0)

    def partition(self, *sides: set[int]) -> None:
        """Let only nodes of one side hear each other."""
        self.cut = between(*sides)

    def heal(self) -> None:
        """Let all hear all."""
        self.cut = set()
        self._blocks.clear()
        self._storms.clear()
        self._narrows.clear()
        self._compile()


def between(*sides: set[int]) -> set[Pair]:
    """Return the directed pairs of nodes of different sides."""
    return {
        (a, b) for one in sides for other in sides if one is not other for a in one for b in other
    }
