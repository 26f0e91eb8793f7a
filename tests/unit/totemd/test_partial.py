"""Unfinished blocks are kept within bounds."""

from __future__ import annotations

from totemd import partial
from totemd.partial import BlockKey, Partials

HEADER = bytes(28)


def key(number: int, count: int = 2) -> BlockKey:
    return (number.to_bytes(28, "big"), count, "peer")


def test_a_block_is_returned_when_its_last_slice_comes_and_then_forgotten() -> None:
    partials = Partials()
    assert partials.add(key(1, 4), 2, [b"c"]) is None
    assert partials.add(key(1, 4), 0, [b"a", b"b", b"C"]) is None
    assert partials.repeated == 1
    assert partials.add(key(1, 4), 3, [b"d"]) == [b"a", b"b", b"c", b"d"]
    assert (len(partials), partials.size) == (0, 0)


def test_blocks_of_other_sources_and_lengths_are_others() -> None:
    partials = Partials()
    assert partials.add((HEADER, 2, "a"), 0, [b"x"]) is None
    assert partials.add((HEADER, 2, "b"), 1, [b"y"]) is None
    assert partials.add((HEADER, 3, "a"), 1, [b"y", b"z"]) is None
    assert len(partials) == 3


def test_the_oldest_block_goes_when_there_are_too_many() -> None:
    partials = Partials()
    for number in range(partial.BLOCKS_MAX + 1):
        partials.add(key(number), 0, [b"x"])
    assert (len(partials), partials.dropped) == (partial.BLOCKS_MAX, 1)
    assert partials.add(key(0), 1, [b"y"]) is None
    assert partials.add(key(5), 1, [b"y"]) == [b"x", b"y"]


def test_the_oldest_blocks_go_when_they_are_too_big() -> None:
    partials = Partials()
    partials.bytes_max = 1_000
    partials.add(key(1, 3), 0, [bytes(300), bytes(300)])
    partials.add(key(2, 3), 0, [bytes(300)])
    partials.add(key(3, 3), 0, [bytes(300)])
    assert (partials.size, partials.dropped, len(partials)) == (600, 2, 2)
    partials.add(key(4), 0, [bytes(1_001)])
    assert (partials.size, len(partials)) == (0, 0)


def test_a_slice_does_not_keep_the_train_it_came_in() -> None:
    partials = Partials()
    train = bytearray(b"ab")
    partials.add(key(1), 0, [memoryview(train)[:1]])
    train[0] = 0
    assert partials.add(key(1), 1, [memoryview(train)[1:]]) == [b"a", b"b"]


def test_many_senders_share_what_there_is() -> None:
    assert partial.bytes_max(0) == partial.bytes_max(16) == partial.BYTES_MAX
    assert partial.bytes_max(64) == partial.BYTES_TOTAL_MAX // 64
    assert partial.bytes_max(1024) == partial.BYTES_MIN
