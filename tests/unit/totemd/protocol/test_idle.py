"""Where the token rests: with a lone sender, with who sent last."""

from __future__ import annotations

import pytest

from tests.unit.totemd.protocol.rings import HOP_NS, Lone, Rings, sent, sent_token
from totemd.protocol.effects import Deliver, Effect, Multicast, Unicast
from totemd.protocol.idle import LINGER_MAX_NS, LINGER_MESSAGES_MAX, LINGER_NS, LINGER_SIZE_MAX
from totemd.protocol.messages import HoldCancel
from totemd.protocol.parameters import MS, RingParameters

SAFE = 3


def submit(lone: Lone, count: int = 1) -> list[Effect]:
    lone.source.put(count)
    return lone.do(2, lone.ring.submitted(lone.now_ns))


def cancels(effects: list[Effect]) -> list[int | None]:
    """Return whom a hold was cancelled with; None: all."""
    return [
        e.node_id if isinstance(e, Unicast) else None
        for e in effects
        if isinstance(e, Unicast | Multicast) and isinstance(e.message, HoldCancel)
    ]


def lone_sender() -> Lone:
    """Return a node that keeps the token after its message 1."""
    lone = Lone()
    lone.ring.rotation_ns = 3 * HOP_NS
    lone.source.put(1)
    assert sent(lone.token(0)) == ["1"]
    return lone


def test_a_lone_sender_sends_one_message_after_the_other_without_a_rotation() -> None:
    lone = lone_sender()
    for seq in (2, 3, 4):
        lone.now_ns += LINGER_NS // 2
        effects = submit(lone)
        assert sent(effects) == [str(seq)]
        assert [e.seq for e in effects if isinstance(e, Deliver)] == [seq]


def test_the_token_goes_on_when_the_lone_sender_falls_silent() -> None:
    lone = lone_sender()
    lone.now_ns += LINGER_NS
    token = sent_token(lone.do(2, lone.ring.expire(lone.now_ns)))
    assert (token.seq, token.aru, token.fcc) == (1, 1, 1)


def test_the_token_goes_on_after_a_while_however_much_the_lone_sender_sends() -> None:
    lone = lone_sender()
    began_ns = lone.now_ns
    while lone.ring.held is not None:
        lone.now_ns += LINGER_NS - 1
        submit(lone)
    assert lone.now_ns - began_ns <= LINGER_MAX_NS + LINGER_NS
    assert lone.ring.stats.messages_sent <= 2 + LINGER_MESSAGES_MAX


def test_the_token_goes_on_after_so_many_messages_of_the_lone_sender() -> None:
    lone = lone_sender()
    for _ in range(LINGER_MESSAGES_MAX - 1):
        lone.now_ns += LINGER_NS // 4
        submit(lone)
    assert lone.ring.held is not None
    lone.now_ns += LINGER_NS // 4
    assert sent(submit(lone))[-1] == "token"


@pytest.mark.parametrize("what", ["two frames", "another sender", "a gap", "a backlog"])
def test_nobody_keeps_the_token_while_others_need_it(what: str) -> None:
    lone = Lone()
    lone.source.put(2 if what == "two frames" else 1)
    if what == "another sender":
        lone.hear(2, 1, lone.data(1))
        effects = lone.token(1, fcc=1)
    elif what == "a gap":
        effects = lone.token(1, aru=0, aru_id=3)
    else:
        effects = lone.token(0, backlog=3 if what == "a backlog" else 0)
    assert sent(effects)[-1] == "token"


def test_nobody_keeps_the_token_after_a_large_or_a_safe_message() -> None:
    for guarantee, size in ((2, LINGER_SIZE_MAX + 1), (SAFE, 10)):
        lone = Lone()
        lone.source.put(1, bytes(size), guarantee)
        assert sent(lone.token(0))[-1] == "token"


def test_who_sends_faster_than_the_token_goes_round_does_not_keep_it() -> None:
    lone = lone_sender()
    lone.ring.rotation_ns = 1 * MS
    lone.now_ns += MS // 4
    assert sent(submit(lone)) == ["2", "token"]


def test_a_cancel_frees_the_token_of_a_lone_sender_at_once() -> None:
    lone = lone_sender()
    assert sent(lone.hear(2, 3, HoldCancel(lone.ring.ring_id))) == ["token"]


def test_who_has_a_message_asks_the_lone_sender_for_the_token_at_once() -> None:
    lone = Lone()
    lone.token(0)
    lone.hear(2, 3, lone.data(1, originator=3))
    assert cancels(submit(lone)) == [3]


def test_who_misses_a_message_of_a_lone_sender_asks_it_for_the_token() -> None:
    lone = Lone()
    lone.token(0)
    lone.hear(2, 3, lone.data(1, originator=3))
    assert cancels(lone.hear(2, 3, lone.data(3, originator=3))) == [3]


def test_among_several_senders_nobody_is_asked_for_the_token_at_once() -> None:
    lone = Lone()
    lone.token(0)
    lone.hear(2, 3, lone.data(1, originator=3))
    lone.hear(2, 1, lone.data(2, originator=1))
    assert cancels(submit(lone)) == []


def test_a_request_for_the_token_that_is_not_heard_goes_to_all() -> None:
    lone = Lone(RingParameters(hold_cancel_retry_ns=20 * MS))
    lone.token(0)
    lone.hear(2, 3, lone.data(1, originator=3))
    submit(lone)
    lone.now_ns += 20 * MS
    assert cancels(lone.do(2, lone.ring.expire(lone.now_ns))) == [None]


def test_the_token_of_an_idle_ring_rests_with_who_sent_last() -> None:
    rings = Rings(1, 2, 3).form()
    rings.until(lambda: rings.rings[1].held is not None)
    rings.frames[3].put(1)
    rings.do(3, rings.rings[3].submitted(rings.now_ns))
    rings.run(20 * MS)
    assert [node for node, ring in rings.rings.items() if ring.held is not None] == [3]
    assert {ring.keeper() for ring in rings.rings.values()} == {3}


def test_a_message_at_the_node_where_the_token_rests_waits_for_nothing() -> None:
    rings = Rings(1, 2, 3).form()
    rings.frames[3].put(1)
    rings.do(3, rings.rings[3].submitted(rings.now_ns))
    rings.until(lambda: rings.rings[3].idle > rings.rings[3].parameters.idle_rotations)
    rings.run(4 * HOP_NS)
    rings.frames[3].put(1)
    effects = rings.rings[3].submitted(rings.now_ns)
    assert [e.message.seq for e in effects if isinstance(e, Multicast)] == [2]  # type: ignore[union-attr]
