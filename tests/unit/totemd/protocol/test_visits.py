"""What a node does while it holds the token."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.totemd.protocol.rings import HOP_NS, Lone, Rings, sent, sent_token
from totemd.protocol.effects import Effect, Multicast, State, Unicast
from totemd.protocol.messages import (
    POST,
    SEQ_MAX,
    Data,
    HoldCancel,
    Request,
    Token,
    decode,
    encode,
)
from totemd.protocol.parameters import MS, AccelPriority, Flow, RequestLimit, RingParameters
from totemd.protocol.visits import SEQ_RESERVE

PLAIN = RingParameters(accelerated_window_messages=0)
ACCELERATED = RingParameters(accelerated_window_messages=17)


# The accelerated ring


def test_of_many_frames_the_last_follow_the_token_that_numbers_them() -> None:
    lone = Lone(RingParameters(accelerated_window_messages=6))
    lone.source.put(10)
    effects = lone.token(0)
    assert sent(effects) == ["1", "2", "3", "4", "token", "5", "6", "7", "8", "9", "10"]
    assert sent_token(effects).seq == 10
    flags = [e.message.flags for e in effects if isinstance(e, Multicast)]  # type: ignore[union-attr]
    assert flags == [0] * 4 + [POST] * 6


@pytest.mark.parametrize("count", [2, 4])
def test_few_frames_all_go_before_the_token(count: int) -> None:
    # With little to send, acceleration only delays the knowledge that all have it.
    lone = Lone(ACCELERATED)
    lone.source.put(count)
    assert sent(lone.token(0))[-1] == "token"


def test_without_acceleration_all_frames_go_before_the_token() -> None:
    lone = Lone(PLAIN)
    lone.source.put(17)
    assert sent(lone.token(0))[-1] == "token"


def test_repairs_go_before_the_token_and_count_in_the_visit() -> None:
    lone = Lone(ACCELERATED)
    lone.hear(2, 1, lone.data(1))
    lone.source.put(17)
    effects = lone.token(1, aru=0, aru_id=3, requests=(Request(1, 1, 3),))
    assert sent(effects)[:2] == ["1", "token"]
    assert len(sent(effects)) == 2 + 16


def test_a_ring_of_one_has_nobody_to_overlap_with() -> None:
    rings = Rings(1).form()
    rings.frames[1].put(17)
    effects = rings.do(1, rings.rings[1].submitted(rings.now_ns))
    assert [e.message.flags for e in effects if isinstance(e, Multicast)] == [0] * 17  # type: ignore[union-attr]


def test_recovery_is_not_accelerated() -> None:
    rings = Rings(1, 2, 3, parameters=RingParameters(accel_min=0)).form()
    rings.frames[1].put(17)
    rings.keep = lambda _sender, receiver, m: not (isinstance(m, Data) and receiver == 2)
    rings.do(1, rings.rings[1].submitted(rings.now_ns))
    rings.run(1 * MS)
    rings.keep = lambda _sender, _receiver, _message: True
    for node in (1, 2, 3):
        rings.log[node].clear()
        rings.do(node, rings.rings[node].force_gather(rings.now_ns))
    recovered = []
    rings.until(lambda: rings.one_ring(1, 2, 3))
    for node in (1, 2, 3):
        recovered += [
            e.message
            for e in rings.all(node, Multicast)
            if isinstance(e.message, Data) and e.message.encapsulated
        ]
    assert recovered
    assert not any(m.flags & POST for m in recovered)


def test_a_node_that_leaves_the_ring_in_its_visit_sends_what_it_numbered() -> None:
    lone = Lone(RingParameters(fail_recv_count=20, fail_recv_ns=100 * MS, accel_min=0))
    seq = 0
    effects: list[Effect] = []
    while lone.ring.state is State.OPERATIONAL:
        lone.source.put(3)
        lone.now_ns += 10 * MS
        effects = lone.token(seq, aru=0, aru_id=3)
        numbers = [n for n in sent(effects) if n.isdigit()]
        assert numbers == [str(seq + 1), str(seq + 2), str(seq + 3)]
        seq += 3
    assert "token" not in sent(effects)


# Who is read first


def post(lone: Lone, seq: int, visit: int, flags: int = POST, sender: int = 1) -> bool:
    message = Data(lone.ring.ring_id, seq, sender, 2, flags, visit, b"x")
    lone.hear(2, sender, message)
    return lone.ring.token_first


def test_the_token_comes_first_once_the_predecessor_sends_what_follows_it() -> None:
    lone = Lone()
    lone.token(0)
    visits = lone.ring.visits
    assert not post(lone, 1, visits)
    assert not post(lone, 2, visits + 1, flags=0)
    assert not post(lone, 3, visits + 1, sender=3)
    assert post(lone, 4, visits + 1)
    lone.token(4)
    assert not lone.ring.token_first


def test_eager_priority_takes_any_message_of_the_new_round() -> None:
    lone = Lone(RingParameters(accel_priority=AccelPriority.EAGER))
    lone.token(0)
    assert post(lone, 1, lone.ring.visits + 1, flags=0)


def test_a_node_that_leaves_the_ring_prefers_no_token() -> None:
    lone = Lone()
    lone.token(0)
    assert post(lone, 1, lone.ring.visits + 1)
    lone.do(2, lone.ring.force_gather(lone.now_ns))
    assert not lone.ring.token_first


# Requests


def test_a_node_asks_only_for_what_was_numbered_before_its_last_visit() -> None:
    lone = Lone()
    lone.hear(2, 1, lone.data(2))
    assert sent_token(lone.token(2, aru=0, aru_id=3)).requests == ()
    assert sent_token(lone.token(3, aru=0, aru_id=3)).requests == (Request(1, 1, 2),)


def test_the_plain_ring_may_ask_at_once() -> None:
    lone = Lone(dataclasses.replace(PLAIN, request_limit=RequestLimit.CURRENT))
    assert sent_token(lone.token(3)).requests == (Request(1, 3, 2),)


def test_a_message_is_asked_for_after_so_many_misses() -> None:
    lone = Lone(RingParameters(miss_count=3))
    lone.token(1)
    asked = [sent_token(lone.token(1, aru=0, aru_id=2)).requests for _ in range(3)]
    assert asked == [(), (), (Request(1, 1, 2),)]


def test_a_request_that_several_make_names_nobody() -> None:
    lone = Lone()
    lone.token(1)
    token = sent_token(lone.token(1, aru=0, aru_id=3, requests=(Request(1, 1, 3),)))
    assert token.requests == (Request(1, 1, 0),)


def test_what_stays_asked_for_is_still_a_token() -> None:
    # Neighbouring requests were merged past what the codec accepts: the token was lost for good.
    lone = Lone()
    requests = (Request(1, 256, 3), Request(257, 256, 3), Request(513, 256, 3))
    token = sent_token(lone.token(1000, aru=0, aru_id=3, requests=requests))
    assert decode(encode(token)) == token
    assert sum(r.count for r in token.requests) == 768


def test_requests_that_fall_apart_stay_within_the_token() -> None:
    lone = Lone()
    for seq in range(2, 200, 2):
        lone.hear(2, 1, lone.data(seq))
    lone.ring.sent_again_at.update(dict.fromkeys(range(4, 200, 4), lone.now_ns))
    requests = tuple(Request(first, 3, 3) for first in range(1, 190, 3))
    token = sent_token(lone.token(200, aru=0, aru_id=3, requests=requests))
    assert decode(encode(token)) == token


def test_a_request_for_what_everybody_has_is_an_error_of_the_other() -> None:
    lone = Lone()
    lone.hear(2, 1, lone.data(1))
    for _ in range(3):
        lone.token(1)
    assert lone.ring.old.released == 1
    token = sent_token(lone.token(1, requests=(Request(1, 1, 3),)))
    assert token.requests == ()
    assert lone.ring.stats.protocol_errors == 1


def test_a_message_is_not_sent_again_before_its_last_copy_had_time() -> None:
    lone = Lone()
    lone.hear(2, 1, lone.data(1))
    asked = (Request(1, 1, 3),)
    assert sent(lone.token(1, aru=0, aru_id=3, requests=asked))[0] == "1"
    effects = lone.token(1, aru=0, aru_id=3, requests=asked)
    assert sent(effects) == ["token"]
    assert sent_token(effects).requests == asked
    lone.now_ns += 2 * MS
    assert sent(lone.token(1, aru=0, aru_id=3, requests=asked))[0] == "1"


def test_a_node_that_asks_on_three_visits_gets_the_message_alone_too() -> None:
    lone = Lone()
    lone.hear(2, 1, lone.data(1))
    copies = []
    for _ in range(3):
        lone.now_ns += 5 * MS
        effects = lone.token(1, aru=0, aru_id=3, requests=(Request(1, 1, 3),))
        copies.append([type(e) for e in effects if getattr(e, "message", 0) == lone.data(1)])
    assert copies == [[Multicast], [Multicast], [Multicast, Unicast]]


def test_several_nodes_that_ask_are_served_together() -> None:
    lone = Lone()
    lone.hear(2, 1, lone.data(1))
    for requester in (3, 0, 3, 0, 3):
        lone.now_ns += 5 * MS
        effects = lone.token(1, aru=0, aru_id=3, requests=(Request(1, 1, requester),))
        assert [type(e) for e in effects if getattr(e, "message", 0) == lone.data(1)] == [Multicast]


# Bounds


def test_a_greedy_ring_leaves_each_member_its_share() -> None:
    lone = Lone(RingParameters(window_messages=50))
    lone.source.put(17)
    assert len(sent(lone.token(0, fcc=80))) == 1 + 50 // 3


def test_the_backlog_rule_gives_a_part_of_the_window() -> None:
    lone = Lone(RingParameters(window_messages=40, flow=Flow.BACKLOG))
    lone.source.backlog = 9
    lone.token(0)
    lone.source.put(17)
    lone.source.backlog = 0
    # 9 of the 39 that waited everywhere waited here: 9/47 of 40, now that 17 do.
    assert len(sent(lone.token(0, backlog=39))) - 1 == 40 * 9 // 47


def test_under_the_backlog_rule_nobody_is_shut_out() -> None:
    lone = Lone(RingParameters(flow=Flow.BACKLOG))
    lone.source.put(5)
    assert len(sent(lone.token(0, backlog=1000))) - 1 == 1


def test_payload_that_waits_for_receipt_is_bounded_in_bytes() -> None:
    # Frames may be as large as a datagram; 17 of them are a megabyte.
    lone = Lone(RingParameters(max_unstable_bytes=1 << 20))
    lone.source.put(60, bytes(60_000))
    for _ in range(10):
        lone.token(lone.ring.prev_sent_seq, aru=0, aru_id=3)
    held = lone.ring.old.payload_bytes
    assert (1 << 20) - 60_000 < held < (1 << 20) + 60_000


def test_numbers_do_not_run_further_ahead_than_the_gap() -> None:
    lone = Lone(RingParameters(max_gap_messages=20))
    lone.source.put(60)
    for _ in range(5):
        lone.token(lone.ring.prev_sent_seq, aru=0, aru_id=3)
    assert lone.ring.prev_sent_seq == 20


@pytest.mark.parametrize("base", [(1 << 31) - 300, (1 << 32) - 300, SEQ_MAX - (1 << 20)])
def test_sequence_numbers_are_plain_numbers_everywhere(base: int) -> None:
    rings = Rings(1, 2, 3, parameters=RingParameters(seq_base=base)).form()
    lost = 0

    def lossy(_sender: int, receiver: int, message: object) -> bool:
        nonlocal lost
        lost += isinstance(message, Data) and receiver == 3
        return not (isinstance(message, Data) and receiver == 3 and lost % 7 == 0)

    rings.keep = lossy
    for node in (1, 2, 3):
        rings.frames[node].put(200, guarantee=2 + node % 2)
        rings.do(node, rings.rings[node].submitted(rings.now_ns))
    rings.run(200 * MS)
    assert [len(rings.delivered(n)) for n in (1, 2, 3)] == [600] * 3
    assert rings.rings[1].old.delivered == base + 600
    assert rings.rings[1].members == (1, 2, 3)


def test_a_ring_whose_numbers_end_is_replaced_by_a_new_one() -> None:
    base = SEQ_MAX - SEQ_RESERVE - 10
    rings = Rings(1, 2, parameters=RingParameters(seq_base=base)).form()
    first = rings.rings[1].ring_id
    rings.frames[2].put(40)
    rings.do(2, rings.rings[2].submitted(rings.now_ns))
    rings.until(lambda: "FORCED" in rings.causes(1))
    rings.until(lambda: rings.one_ring(1, 2))
    assert rings.rings[1].ring_id > first
    assert "sequence_numbers_used_up" in rings.notes(1)
    rings.run(100 * MS)
    assert [len(rings.delivered(n)) for n in (1, 2)] == [40, 40]


# The token on the wire


def test_the_token_is_sent_again_after_ever_longer_waits() -> None:
    lone = Lone(RingParameters(token_retransmit_ns=100 * MS, hold_ns=60 * MS))
    for seq in range(1, 30):
        lone.hear(2, 1, lone.data(seq))
        lone.token(seq)
    waits = []
    for _ in range(7):
        before = lone.now_ns
        lone.now_ns = lone.ring.deadline_ns() or 0
        assert sent(lone.do(2, lone.ring.expire(lone.now_ns))) == ["token"]
        waits.append((lone.now_ns - before) / MS)
    assert waits == [5, 10, 20, 40, 80, 100, 100]


def test_what_may_have_been_lost_is_marked_for_all_links_and_nothing_else_is() -> None:
    # On several links a dead one would take every copy of the token until probes condemn it.
    lone = Lone()
    lone.hear(2, 1, lone.data(1))
    lone.source.put(2)
    effects = lone.token(1, aru=0, aru_id=3, requests=(Request(1, 1, 3),))
    marks = [
        (e.message.seq if isinstance(e.message, Data) else "token", e.again)
        for e in effects
        if isinstance(e, Multicast | Unicast)
    ]
    assert marks == [(1, True), (2, False), (3, False), ("token", False)]
    lone.now_ns = lone.ring.deadline_ns() or 0
    (again,) = [e for e in lone.ring.expire(lone.now_ns) if isinstance(e, Unicast)]
    assert again.again


def test_a_message_beyond_the_token_shows_that_it_arrived() -> None:
    lone = Lone()
    lone.token(0)
    lone.hear(2, 3, lone.data(1, originator=3))
    deadline = lone.ring.deadline_ns()
    assert deadline is not None
    assert deadline - lone.now_ns > 900 * MS


def test_a_doubled_token_makes_the_node_send_its_own_again_once() -> None:
    lone = Lone()
    lone.token(0)
    doubled = dataclasses.replace(sent_token(lone.log[2]), token_seq=lone.token_seq)
    assert sent(lone.hear(2, 1, doubled)) == []  # mine may be on the way
    lone.now_ns += 2 * MS
    assert sent(lone.hear(2, 1, doubled)) == ["token"]
    lone.now_ns += 2 * MS
    assert sent(lone.hear(2, 1, doubled)) == []
    assert lone.ring.stats.tokens_duplicate == 3


def test_a_token_that_denies_numbers_that_were_given_out_is_dropped() -> None:
    lone = Lone()
    lone.hear(2, 1, lone.data(5))
    assert sent(lone.token(4)) == []
    assert lone.notes(2) == ["protocol_error"]
    lone.run(2_000 * MS)
    assert "TOKEN_LOST" in lone.causes(2)


def test_a_token_that_runs_impossibly_far_ahead_is_dropped() -> None:
    # What is missing is looked up number by number, so a jump would never come to an end.
    lone = Lone()
    far = lone.ring.old.released + lone.ring.old.limit
    assert sent(lone.token(far + 1)) == []
    assert lone.notes(2) == ["protocol_error"]
    assert lone.ring.stats.messages_requested == 0
    lone.run(2_000 * MS)
    assert "TOKEN_LOST" in lone.causes(2)


def test_only_the_member_before_can_bring_the_token() -> None:
    # An eavesdropper may pass a token of two others on to a third: there would be two tokens.
    lone = Lone()
    token = Token(lone.ring.ring_id, lone.token_seq + 3, 0, 0, 0, 0, 0, 0, ())
    assert lone.hear(2, 3, token) == []
    assert lone.ring.stats.tokens_astray == 1
    assert sent(lone.hear(2, 1, token)) == ["token"]


def test_a_doubled_token_changes_nothing_else() -> None:
    lone = Lone(RingParameters(fail_recv_count=5, fail_recv_ns=10 * MS))
    lone.hear(2, 1, lone.data(1))
    lone.token(1, aru=0, aru_id=3)
    before = (lone.ring.aru_count, lone.ring.prev_sent_aru, lone.ring.idle, lone.ring.visits)
    doubled = dataclasses.replace(sent_token(lone.log[2]), token_seq=lone.token_seq)
    for _ in range(100):
        lone.now_ns += 1 * MS
        lone.hear(2, 1, doubled)
    now = (lone.ring.aru_count, lone.ring.prev_sent_aru, lone.ring.idle, lone.ring.visits)
    assert now == before
    lone.now_ns += lone.ring.token_loss_ns - 100 * MS
    lone.do(2, lone.ring.expire(lone.now_ns))
    assert lone.ring.state is State.GATHER, "a doubled token put the loss off"


def test_a_held_token_is_never_sent_again() -> None:
    rings = Rings(1, 2).form()
    rings.until(lambda: rings.rings[1].held is not None)
    before = rings.rings[1].stats.tokens_sent_again
    rings.run(100 * MS)
    assert rings.rings[1].held is not None
    assert rings.rings[1].stats.tokens_sent_again == before


def test_a_heartbeat_notices_a_lost_token_of_a_busy_ring_sooner() -> None:
    lone = Lone(
        RingParameters(
            heartbeat_failures_allowed=2,
            token_retransmit_ns=100 * MS,
            hold_ns=60 * MS,
            max_network_delay_ns=50 * MS,
        )
    )
    lone.source.put(2)
    lone.token(0)
    begun = lone.now_ns
    lone.run(400 * MS)
    assert lone.causes(2)[0] == "HEARTBEAT_LOST"
    assert lone.ring.gather_began_ns - begun == 250 * MS


def test_a_heartbeat_does_not_beat_while_the_token_may_be_held() -> None:
    rings = Rings(1, 2, parameters=RingParameters(heartbeat_failures_allowed=1)).form()
    ring = rings.rings[1].ring_id
    rings.run(3_000 * MS)
    assert rings.rings[2].ring_id == ring


def test_a_late_token_is_reported_with_its_last_intervals() -> None:
    lone = Lone()
    lone.token(0)
    lone.now_ns += 800 * MS
    effects = lone.token(0)
    (note,) = [e for e in effects if getattr(e, "event", "") == "token_late"]
    fields = dict(note.fields)  # type: ignore[union-attr]
    assert fields["intervals_ms"].endswith(",800")
    assert lone.ring.stats.tokens_late == 1


def test_a_cancel_that_comes_before_the_token_keeps_it_from_being_held() -> None:
    rings = Rings(1, 2, 3).form()
    ring = rings.rings[1]
    rings.until(lambda: ring.held is not None)
    rings.hear(1, 2, HoldCancel(ring.ring_id))
    assert ring.held is None
    assert ring.idle == 0
    rings.run(2 * HOP_NS)
    rings.hear(1, 2, HoldCancel(ring.ring_id))
    rings.run(2 * HOP_NS)
    assert ring.held is None


# Failure to receive


def test_a_member_that_cannot_receive_is_failed_by_the_count_of_visits() -> None:
    lone = Lone(RingParameters(fail_recv_count=50, fail_recv_ns=500 * MS))
    lone.hear(2, 1, lone.data(1))
    visits = 0
    while lone.ring.state is State.OPERATIONAL:
        lone.now_ns += 5 * MS
        lone.token(1, aru=0, aru_id=3)
        visits += 1
    assert 500 / 5 - 1 <= visits <= 500 / 5 + 1
    assert lone.ring.fail == {3}


def test_paced_visits_count_for_the_time_they_took() -> None:
    # 2500 visits of a token that is held 180 ms each would be seven minutes.
    lone = Lone()
    lone.hear(2, 1, lone.data(1))
    begun = lone.now_ns
    while lone.ring.state is State.OPERATIONAL:
        lone.now_ns += 180 * MS
        lone.token(1, aru=0, aru_id=3)
    assert lone.now_ns - begun < 3_000 * MS


def test_nobody_is_failed_for_a_few_slow_visits() -> None:
    lone = Lone(RingParameters(fail_recv_count=50, fail_recv_ns=500 * MS))
    lone.hear(2, 1, lone.data(1))
    for _ in range(5):
        lone.now_ns += 700 * MS
        lone.token(1, aru=0, aru_id=3)
    assert lone.ring.state is State.OPERATIONAL


def test_a_node_never_fails_itself() -> None:
    lone = Lone(RingParameters(fail_recv_count=50, fail_recv_ns=500 * MS))
    lone.token(1)
    for _ in range(200):
        lone.now_ns += 20 * MS
        lone.token(1, aru=0, aru_id=2)
    assert lone.ring.state is State.OPERATIONAL


def test_who_cannot_receive_in_a_recovery_is_left_out_of_the_next_attempt() -> None:
    rings = Rings(1, 2, 3, parameters=RingParameters(fail_recv_count=30, fail_recv_ns=30 * MS))
    rings.form()
    rings.frames[1].put(3)
    rings.keep = lambda _sender, receiver, m: not (isinstance(m, Data) and receiver == 3)
    rings.do(1, rings.rings[1].submitted(rings.now_ns))
    rings.run(1 * MS)
    for node in (1, 2, 3):
        rings.do(node, rings.rings[node].force_gather(rings.now_ns))
    rings.until(lambda: "FAILED_TO_RECEIVE" in rings.causes(1) + rings.causes(2))
    rings.until(lambda: rings.one_ring(1, 2))
