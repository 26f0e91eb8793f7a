"""What a broken node that has the key may say: the others drop it and count it, and never end.

One test for each impossible content that the design of the ring lists, and for each message a node
could be made to send that nobody can read.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.totemd.protocol.rings import Lone, Rings, sent
from totemd.protocol.effects import Effect, Multicast, State, Unicast
from totemd.protocol.messages import (
    COUNT_MAX,
    Commit,
    Data,
    DecodeError,
    Entry,
    Message,
    RingId,
    Token,
    decode,
    encode,
)
from totemd.protocol.parameters import MS


def readable(effects: list[Effect]) -> None:
    """Everything that is sent can be read by a correct node."""
    for effect in effects:
        if isinstance(effect, Multicast | Unicast):
            decode(encode(effect.message))


class Holding(Rings):
    """Two nodes whose first one keeps the token of the idle ring; the test plays the other."""

    def __init__(self) -> None:
        super().__init__(1, 2)
        self.form()
        self.ring = self.rings[1]
        self.until(lambda: self.ring.held is not None)
        self.wire.clear()
        self.keep = lambda _sender, _receiver, _message: False

    def unnumbered(self, ahead: int = 1) -> Data:
        """Return a message with a number that nobody has given out."""
        return Data(self.ring.ring_id, self.ring.old.high + ahead, 2, 2, 0, 1, b"from nowhere")


@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize("ahead", [1, 2, 100])
def test_a_message_that_nobody_numbered_does_not_spoil_the_token_that_is_held(
    ahead: int, frames: int
) -> None:
    held = Holding()
    held.hear(1, 2, held.unnumbered(ahead))
    held.frames[1].put(frames)
    effects = held.do(1, held.ring.submitted(held.now_ns) if frames else [])
    held.run(1_000 * MS)
    readable([*effects, *held.log[1]])
    assert held.ring.state is State.OPERATIONAL or "TOKEN_LOST" in held.causes(1)
    assert held.ring.stats.protocol_errors == 1
    assert b"from nowhere" not in held.delivered(1)


@pytest.mark.parametrize("field", ["fcc", "backlog"])
def test_counts_of_a_token_that_no_ring_reaches_are_refused_before_they_overflow(
    field: str,
) -> None:
    lone = Lone()
    lone.source.put(5)
    lone.source.backlog = 7
    token = Token(lone.ring.ring_id, lone.token_seq + 3, 0, 0, 0, 0, 0, 0, ())
    setattr(token, field, (1 << 32) - 1)
    with pytest.raises(DecodeError, match="count"):
        decode(encode(token))
    setattr(token, field, COUNT_MAX)
    readable(lone.hear(2, 1, decode(encode(token))))


def test_a_token_number_that_jumps_is_dropped_and_the_next_token_is_taken() -> None:
    lone = Lone()
    far = Token(lone.ring.ring_id, (1 << 63) - 1, 0, 0, 0, 0, 0, 0, ())
    assert sent(lone.hear(2, 1, far)) == []
    assert lone.notes(2) == ["protocol_error"]
    assert sent(lone.token(0)) == ["token"]


def test_a_message_of_a_node_that_is_not_in_the_ring_is_not_kept() -> None:
    lone = Lone()
    lone.token(0)
    assert lone.hear(2, 1, lone.data(1, originator=77)) != []
    assert lone.ring.stats.protocol_errors == 1
    assert lone.ring.old.high == 0


def test_a_message_that_is_numbered_impossibly_far_ahead_is_not_kept() -> None:
    lone = Lone()
    store = lone.ring.old
    lone.hear(2, 1, lone.data(store.released + store.limit + 1))
    assert not store.messages
    assert sent(lone.token(0)) == ["token"]


def gathering() -> tuple[Rings, Commit]:
    """Return nodes 1 and 2 that agree on a ring, before 2 has the commit token that comes to it."""
    rings = Rings(1, 2).form()
    for node in (1, 2):
        rings.do(node, rings.rings[node].force_gather(rings.now_ns))
    taken: list[Commit] = []

    def keep(_sender: int, receiver: int, message: Message) -> bool:
        if isinstance(message, Commit) and receiver == 2:
            taken.append(message)
            return False
        return True

    rings.keep = keep
    rings.until(lambda: bool(taken))
    rings.keep = lambda _sender, _receiver, _message: True
    return rings, taken[0]


@pytest.mark.parametrize("position", [1 << 40, 1 << 62])
def test_a_commit_token_that_claims_an_impossible_position_is_dropped(position: int) -> None:
    rings, commit = gathering()
    ring = rings.rings[2]
    first = dataclasses.replace(commit.entries[0], old_aru=position, high_delivered=position)
    lie = dataclasses.replace(commit, entries=(first, commit.entries[1]))
    readable(rings.hear(2, 1, decode(encode(lie))))
    assert ring.stats.protocol_errors == 1
    rings.until(lambda: rings.one_ring(1, 2), 60_000 * MS)


def test_a_commit_token_without_this_node_is_dropped() -> None:
    rings, commit = gathering()
    ring = rings.rings[2]
    entries = (commit.entries[0], Entry(9))
    assert rings.hear(2, 1, dataclasses.replace(commit, entries=entries)) == []
    assert ring.state is State.GATHER
    rings.until(lambda: rings.one_ring(1, 2))


def test_a_commit_token_whose_entries_are_not_sorted_is_refused() -> None:
    entries = (Entry(3), Entry(2))
    with pytest.raises(DecodeError, match="strictly increase"):
        decode(encode(Commit(RingId(8, 1), 1, 0, entries)))


def test_a_commit_token_that_names_a_ring_twice_is_refused() -> None:
    ring = RingId(4, 1)
    entries = (Entry(1, ring, 5, 5), Entry(2, RingId(5, 2), 5, 5))
    data = bytearray(encode(Commit(RingId(8, 1), 2, 2, entries)))
    twice = bytes(data).replace(encode_ring(RingId(5, 2)), encode_ring(ring))
    with pytest.raises(DecodeError, match="twice"):
        decode(twice)


def encode_ring(ring: RingId) -> bytes:
    return ring.representative.to_bytes(4, "big") + ring.seq.to_bytes(8, "big")


def test_a_token_whose_aru_is_over_its_seq_is_refused() -> None:
    with pytest.raises(DecodeError, match="aru"):
        decode(encode(Token(RingId(4, 1), 1, 5, 6, 0, 0, 0, 0, ())))
