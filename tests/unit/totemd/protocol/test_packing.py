"""Messages into frames and back."""

from __future__ import annotations

import random

import pytest

from totemd.protocol.packing import MESSAGE_SIZE_MAX, SAFE, Assembler, Packer

SIZE = 100
ROOM = SIZE - 6 - 2  # bytes of one message in a frame of its own


def opened(packer: Packer) -> Packer:
    packer.gate_open = True
    return packer


def frames(packer: Packer) -> list[bytes]:
    found = []
    while (frame := packer.next_frame()) is not None:
        found.append(frame[1])
    return found


@pytest.mark.parametrize(
    "size", [0, 1, *range(ROOM - 8, ROOM + 9), *range(2 * ROOM - 3, 2 * ROOM + 3), 1 << 20]
)
def test_a_message_of_any_size_comes_back_whole_between_its_neighbours(size: int) -> None:
    packer, assembler = opened(Packer(SIZE)), Assembler()
    messages = [b"before", bytes(size), b"after", bytes(ROOM - 12), b"last"]
    for message in messages:
        packer.submit(message, 2)
    found = frames(packer)
    assert all(len(frame) <= SIZE for frame in found)
    assert [m for frame in found for m in assembler.open(1, frame)] == messages
    assert packer.queued_bytes == 0


def test_small_messages_share_one_frame() -> None:
    packer = opened(Packer(SIZE))
    for _ in range(5):
        packer.submit(b"small", 2)
    assert len(frames(packer)) == 1


def test_safe_messages_never_share_a_frame_with_others() -> None:
    packer = opened(Packer(SIZE))
    for guarantee in (2, SAFE, SAFE, 1):
        packer.submit(b"x", guarantee)
    guarantees = []
    while (frame := packer.next_frame()) is not None:
        guarantees.append(frame[0])
    assert guarantees == [2, SAFE, 2]


def test_a_closed_gate_lets_only_the_synchronisation_pass() -> None:
    packer = Packer(SIZE)
    packer.submit(b"application", 2)
    assert packer.next_frame() is None
    packer.submit_sync(b"sync")
    assert packer.backlog_frames() == 1
    assert [m for f in frames(packer) for m in Assembler().open(1, f)] == [b"sync"]


def test_a_message_sent_in_part_when_the_ring_ended_is_sent_again_whole() -> None:
    packer, assembler = opened(Packer(SIZE)), Assembler()
    packer.submit(bytes(3 * SIZE), 2, cookie=7)
    first = packer.next_frame()
    assert first is not None
    packer.ring_ended()
    packer.gate_open = True
    assert packer.sent() == []
    assembler.reset()
    assert [m for f in frames(packer) for m in assembler.open(1, f)] == [bytes(3 * SIZE)]
    assert packer.sent() == [7]


@pytest.mark.parametrize("kept", range(5))
def test_only_whole_messages_are_delivered_when_the_rest_of_the_frames_is_lost(kept: int) -> None:
    packer, assembler = opened(Packer(SIZE)), Assembler()
    messages = [b"a" * 150, b"b" * 150, b"c" * 20]
    for message in messages:
        packer.submit(message, 2)
    received = [m for f in frames(packer)[:kept] for m in assembler.open(1, f)]
    assert received == messages[: len(received)]


def test_after_a_lost_beginning_the_next_whole_message_is_delivered() -> None:
    packer, assembler = opened(Packer(SIZE)), Assembler()
    for message in (b"a" * 150, b"b" * 20):
        packer.submit(message, 2)
    assert [m for f in frames(packer)[1:] for m in assembler.open(1, f)] == [b"b" * 20]
    assert assembler.segments_dropped == 1


def test_frames_of_several_originators_do_not_mix() -> None:
    one, two, assembler = opened(Packer(SIZE)), opened(Packer(SIZE)), Assembler()
    one.submit(b"1" * 250, 2)
    two.submit(b"2" * 250, 2)
    received = []
    for a, b in zip(frames(one), frames(two), strict=True):
        received += assembler.open(1, a) + assembler.open(2, b)
    assert received == [b"1" * 250, b"2" * 250]


def test_garbage_frames_are_counted_and_give_nothing() -> None:
    rng, assembler = random.Random(1), Assembler()
    for _ in range(500):
        assembler.open(1, rng.randbytes(rng.randint(0, 60)))
    assert assembler.frames_malformed > 400


def test_an_endless_chain_is_dropped_at_the_size_limit() -> None:
    assembler = Assembler()
    head = bytes((1, 2, 0, 1, 0, 1, 0x80, 0)) + bytes(0x8000)
    middle = bytes((1, 3, 0, 1, 0, 1, 0x80, 0)) + bytes(0x8000)
    assert assembler.open(1, head) == []
    for _ in range(64):
        assert assembler.open(1, middle) == []
    assert assembler.segments_dropped > 0


def test_a_chain_of_empty_segments_does_not_grow_for_ever() -> None:
    # Their sizes add up to nothing, so the limit of a message's size never ends them.
    assembler = Assembler()
    head = bytes((1, 2, 0, 1, 0, 1, 0, 1)) + b"a"
    empty = bytes((1, 3, 0, 1, 0, 1, 0, 0))
    last = bytes((1, 1, 0, 1, 0, 1, 0, 1)) + b"z"
    assembler.open(1, head)
    for _ in range(3):
        assembler.open(1, empty)
    assert assembler.open(1, last) == [], "no sender cuts off nothing"
    assert assembler.segments_dropped > 0


def test_a_message_that_passes_the_size_limit_with_its_last_segment_is_dropped() -> None:
    assembler = Assembler()
    piece = MESSAGE_SIZE_MAX // 32
    size = piece.to_bytes(2, "big")
    assembler.open(1, bytes((1, 2, 0, 1, 0, 1)) + size + bytes(piece))
    for _ in range(31):
        assembler.open(1, bytes((1, 3, 0, 1, 0, 1)) + size + bytes(piece))
    end = bytes((1, 1, 0, 1, 0, 2)) + size + b"\0\3" + bytes(piece) + b"own"
    assert assembler.open(1, end) == [b"own"]
    assert assembler.segments_dropped > 0
