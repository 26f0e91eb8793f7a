"""Messages of CPG that are larger than one multicast: cut into parts, and put together again.

All members put the same messages together, because what ends one early stands in the total order
too: any change of the group between the first and the last part drops it at every member. The
sender is a member and sees the same, so it knows exactly whether its message was delivered.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from openais.wire.parts import PART_OVERHEAD, TABLE, Part, Position
from openais.wire.status import Status

LARGE_SIZE_MAX: Final = 64 << 20  # bytes of one message in parts
ASSEMBLED_BYTES_MAX: Final = 256 << 20  # of all unfinished messages of a connection


def cut(number: int, payload: bytes, size: int) -> Iterator[bytes]:
    """Yield the encoded parts of a message, each of at most ``size`` bytes; at least two."""
    step = size - PART_OVERHEAD
    total = len(payload)
    assert total > step, "a message that fits is not cut"
    view = memoryview(payload)
    for begin in range(0, total, step):
        if begin == 0:
            position = Position.FIRST
        else:
            position = Position.LAST if begin + step >= total else Position.MIDDLE
        data = bytes(view[begin : begin + step])
        yield TABLE.encode(Part(number, total, position, data))


class TooMuchError(Exception):
    """Unfinished messages take more than ASSEMBLED_BYTES_MAX."""


@dataclass(slots=True)
class _Unfinished:
    number: int
    total: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def continued_by(self, part: Part) -> bool:
        """True: a part is the next one of this message, as far as one can tell."""
        begins = part.position is Position.FIRST
        fits = self.size + len(part.data) <= self.total
        return part.number == self.number and begins == (not self.parts) and fits


class Assembly:
    """The unfinished messages of one connection, by sender."""

    def __init__(self) -> None:
        self._unfinished: Final[dict[Hashable, _Unfinished]] = {}
        self.size = 0  # bytes of all parts
        self.parts_skipped = 0

    def take(self, sender: Hashable, part: Part) -> bytes | None:
        """Take the next part of a sender's message; return the message when it is whole.

        Raises:
            TooMuchError: a bound is passed; messages may be lost from here on.
        """
        if part.position is Position.FIRST:
            self._drop(sender)
            if part.total <= LARGE_SIZE_MAX:
                self._unfinished[sender] = _Unfinished(part.number, part.total)
        message = self._unfinished.get(sender)
        if message is None or not message.continued_by(part):
            self._drop(sender)
            self.parts_skipped += 1
            return None
        message.parts.append(part.data)
        message.size += len(part.data)
        self.size += len(part.data)
        if part.position is Position.LAST:
            self._drop(sender)
            return b"".join(message.parts) if message.size == message.total else None
        if self.size > ASSEMBLED_BYTES_MAX:
            raise TooMuchError
        return None

    def _drop(self, sender: Hashable) -> None:
        message = self._unfinished.pop(sender, None)
        if message is not None:
            self.size -= message.size

    def changed(self, me: Hashable) -> int | None:
        """Drop everything: the group changed. Return the number of the message of ``me``."""
        mine = self._unfinished.get(me)
        self._unfinished.clear()
        self.size = 0
        return mine.number if mine else None


class Sending:
    """One message that is on its way in parts, and what became of it."""

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self._over: Final = threading.Event()
        self.status: Status | None = None

    def end(self, status: Status) -> None:
        """Tell the outcome; only the first one counts."""
        if self.status is None:
            self.status = status
        self._over.set()

    def wait(self, seconds: float) -> Status | None:
        """Return the outcome; None: not known in time."""
        self._over.wait(max(seconds, 0))
        return self.status
