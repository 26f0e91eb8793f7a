"""Collect the datagrams of a sealed block that did not come together. Bytes only, no keys, no IO.

Nothing here is authenticated yet: whoever can send a datagram can begin a block. So everything is
bounded, the oldest goes first, and a block of one source never mixes with that of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

BLOCKS_MAX: Final = 64  # of one sender
BYTES_MAX: Final = 4 << 20  # of one sender
BYTES_TOTAL_MAX: Final = 64 << 20  # of all senders together: shared out when there are many
BYTES_MIN: Final = 1 << 16  # of one sender, however many there are

BlockKey: TypeAlias = tuple[bytes, int, str]  # clear header, datagrams, source


@dataclass(slots=True)
class _Block:
    slices: list[bytes]  # b"" where none has come
    missing: int
    size: int = 0


class Partials:
    """The unfinished blocks of one sender.

    Attributes:
        bytes_max: of all its blocks; set by the owner when the number of senders changes.
        size: bytes held.
        dropped: datagrams thrown away because their block did not become whole in time.
        repeated: datagrams thrown away because they had come before.
    """

    def __init__(self) -> None:
        self.bytes_max = BYTES_MAX
        self.size = 0
        self.dropped = 0
        self.repeated = 0
        self._blocks: Final[dict[BlockKey, _Block]] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def add(
        self, key: BlockKey, index: int, slices: Sequence[bytes | memoryview]
    ) -> list[bytes] | None:
        """Keep neighbouring slices of a block.

        Args:
            key: names the block.
            index: of the first slice; the last one is within the block.
            slices: none of them empty.

        Returns:
            All slices of the block if it is whole now; it is forgotten then.
        """
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block([b""] * key[1], key[1])
        for position, piece in enumerate(slices, index):
            if block.slices[position]:
                self.repeated += 1
            else:
                block.slices[position] = bytes(piece)  # not a view that holds a whole train
                block.missing -= 1
                block.size += len(piece)
                self.size += len(piece)
        if not block.missing:
            self._forget(key)
            return block.slices
        while self.size > self.bytes_max or len(self._blocks) > BLOCKS_MAX:
            oldest = self._forget(next(iter(self._blocks)))
            self.dropped += len(oldest.slices) - oldest.missing
        return None

    def give(self, other: Partials, stream: bytes, at: slice) -> None:
        """Hand over the blocks of one sender session.

        Args:
            other: takes them.
            stream: what their clear headers have in common.
            at: where it stands in them.
        """
        for key in [key for key in self._blocks if key[0][at] == stream]:
            block = self._forget(key)
            for index, piece in enumerate(block.slices):
                if piece:
                    other.add(key, index, (piece,))

    def _forget(self, key: BlockKey) -> _Block:
        block = self._blocks.pop(key)
        self.size -= block.size
        return block


def bytes_max(senders: int) -> int:
    """Return how many bytes each of so many senders may have in unfinished blocks."""
    return max(BYTES_MIN, min(BYTES_MAX, BYTES_TOTAL_MAX // max(senders, 1)))
