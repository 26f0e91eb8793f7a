"""What stands in the place of a bundle of CPG when a message is too large for one: its parts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from openais.wire.codec import Table


class Position(IntEnum):
    """Where a part stands in its message."""

    FIRST = 1
    MIDDLE = 2
    LAST = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message. The parts of one sender's message follow each other in order."""

    number: int  # of the message, counted by its sender
    total: int  # bytes of the whole message
    position: Position
    data: bytes


TABLE: Final = Table("part of a CPG message", {1: Part})
PART_OVERHEAD: Final = 32  # bytes that a part is larger than its data, at most
