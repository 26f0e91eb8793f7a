"""What a call of ``./run bench`` asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Options that all measurements share.

    Attributes:
        quick: fewer and shorter rounds.
        keep: write the table to bench/results/.
        repeat: how often events are repeated, where events are measured; 0: as usual.
        minutes: for how long, where that matters; 0: as usual.
        sizes: of messages in bytes, where sizes are measured; empty: the usual ones.
    """

    quick: bool = False
    keep: bool = False
    repeat: int = 0
    minutes: float = 0
    sizes: tuple[int, ...] = ()
