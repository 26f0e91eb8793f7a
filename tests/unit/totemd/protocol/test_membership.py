"""Who is in the ring, and what must not decide it."""

from __future__ import annotations

import pytest

from tests.unit.totemd.protocol.rings import Lone, Rings
from totemd.protocol.effects import Cause, Configuration, Moved, Multicast, Noted, State
from totemd.protocol.messages import Commit, Data, Entry, Join, Leave, MergeDetect, Message, RingId
from totemd.protocol.parameters import MS, RingParameters

FAST = RingParameters(
    token_ns=200 * MS,
    token_coefficient_ns=0,
    token_retransmit_ns=47 * MS,
    hold_ns=28 * MS,
    consensus_ns=240 * MS,
    silent_fail_ns=100 * MS,
    join_ns=30 * MS,
)


def joins(rings: Rings, node: int) -> list[Join]:
    return [e.message for e in rings.all(node, Multicast) if isinstance(e.message, Join)]


# Pauses


def test_a_short_pause_is_noted_and_changes_nothing_else() -> None:
    rings = Rings(1, 2, 3).form()
    rings.run(100 * MS)
    effects = rings.rings[2].pause(600 * MS, rings.now_ns)
    assert [type(e) for e in effects] == [Noted]
    assert rings.rings[2].state is State.OPERATIONAL


def test_the_time_of_a_short_pause_is_no_loss_of_the_token() -> None:
    lone = Lone(FAST)
    lone.token(0)
    lone.now_ns += 150 * MS
    lone.do(2, lone.ring.pause(140 * MS, lone.now_ns))
    lone.now_ns += 60 * MS  # 210 ms after the token, of which it slept 140
    lone.do(2, lone.ring.expire(lone.now_ns))
    assert lone.ring.state is State.OPERATIONAL
    lone.run(140 * MS)
    assert lone.causes(2) == ["TOKEN_LOST"]


def test_a_node_that_is_late_itself_waits_a_little_longer_for_a_late_token_once() -> None:
    # Nodes of one busy machine are late together.
    lone = Lone(FAST)
    lone.token(0)
    begun = lone.now_ns
    lone.now_ns += 220 * MS  # 20 ms after the loss was due
    lone.do(2, lone.ring.expire(lone.now_ns))
    assert lone.ring.state is State.OPERATIONAL
    assert lone.ring.stats.verdicts_put_off == 1
    lone.run(100 * MS)
    assert lone.causes(2) == ["TOKEN_LOST"]
    assert lone.ring.gather_began_ns - begun == (220 + 4 * 20) * MS


def test_a_verdict_is_put_off_by_no_more_than_half_the_timeout_and_not_again() -> None:
    lone = Lone(FAST)
    lone.token(0)
    begun = lone.now_ns
    lone.now_ns += 290 * MS
    lone.do(2, lone.ring.expire(lone.now_ns))
    lone.now_ns += 150 * MS
    lone.do(2, lone.ring.expire(lone.now_ns))
    assert lone.causes(2)[0] == "TOKEN_LOST"
    assert lone.now_ns - begun == 440 * MS


def test_pauses_do_not_put_a_real_loss_off_for_ever() -> None:
    # The waits go on with the time that the node was awake.
    lone = Lone(FAST)
    lone.token(0)
    awake_ns = 0
    while lone.ring.state is State.OPERATIONAL:
        lone.now_ns += 120 * MS
        lone.do(2, lone.ring.pause(110 * MS, lone.now_ns))
        awake_ns += 10 * MS
        lone.do(2, lone.ring.expire(lone.now_ns))
        assert awake_ns <= 200 * MS


def test_after_a_token_timeout_of_sleep_a_node_asks_to_be_taken_in_again() -> None:
    rings = Rings(1, 2, 3).form()
    ring = rings.rings[2]
    rings.do(2, ring.pause(ring.token_loss_ns, rings.now_ns))
    assert rings.causes(2)[-1] == "PAUSE"
    rings.until(lambda: rings.one_ring(1, 2, 3))
    assert all(not ring.fail for ring in rings.rings.values())
    assert all(rings.configurations(n)[-1] == (1, 2, 3) for n in (1, 2, 3))


@pytest.mark.parametrize("slept_ms", [90, 250, 5_000])
def test_a_node_that_slept_while_gathering_fails_nobody_for_it(slept_ms: int) -> None:
    rings = Rings(1, 2, 3, parameters=FAST).form()
    rings.do(2, rings.rings[2].force_gather(rings.now_ns))
    rings.wire.clear()  # nobody has answered yet
    rings.now_ns += slept_ms * MS
    rings.do(2, rings.rings[2].pause(slept_ms * MS, rings.now_ns))
    rings.do(2, rings.rings[2].expire(rings.now_ns))
    assert rings.rings[2].fail == set()
    assert {"SILENT", "CONSENSUS_TIMEOUT", "COMMIT_TIMEOUT"}.isdisjoint(rings.causes(2))


def test_a_long_pause_while_gathering_forgets_who_agreed() -> None:
    # The joins from before the sleep are of a membership that may be gone.
    rings = Rings(1, 2, 3).form()
    ring = rings.rings[1]
    rings.do(1, ring.force_gather(rings.now_ns))
    rings.hear(1, 2, Join(ring.ring_id, 1, ring.max_seq, (1, 2, 3), ()))
    assert ring.consensus == {1, 2}
    assert ring.heard == {1, 2}
    rings.now_ns += 2_000 * MS
    rings.do(1, ring.pause(2_000 * MS, rings.now_ns))
    assert ring.consensus == {1}
    assert ring.heard == {1}
    assert rings.causes(1)[-1] == "PAUSE"


def test_nodes_that_are_set_against_each_other_calm_down() -> None:
    # Each began a ring at once that the joins on the way broke again, ten thousand times a second.
    rings = Rings(1, 2, 3).form()
    ring = rings.rings[2]
    rings.do(2, ring.force_gather(rings.now_ns))
    for accuser in (1, 3):
        rings.hear(2, accuser, Join(ring.ring_id, 1, ring.max_seq, (1, 2, 3), (2,)))
    rings.run(10_000 * MS)
    assert rings.one_ring(1, 2, 3)
    assert max(r.stats.rings_installed for r in rings.rings.values()) < 8


def test_after_a_long_sleep_old_proposals_are_not_heard() -> None:
    rings = Rings(1, 2, 3).form()
    ring = rings.rings[2]
    rings.now_ns += 2_000 * MS
    rings.do(2, ring.pause(2_000 * MS, rings.now_ns))
    for message in (
        Join(ring.ring_id, 1, ring.max_seq, (1, 2, 3), (2,)),
        Leave(ring.ring_id, 1, ring.max_seq, (1, 2, 3), ()),
        MergeDetect(RingId(9_000, 1), (1, 3)),
        Data(RingId(9_000, 1), 1, 1, 2, 0, 1, b""),
    ):
        rings.hear(2, 1, message)
    assert ring.fail == set()
    assert ring.heard == {2}
    rings.until(lambda: rings.one_ring(1, 2, 3), 200 * MS)


def test_time_slept_does_not_count_as_failure_to_receive() -> None:
    lone = Lone(RingParameters(fail_recv_count=50, fail_recv_ns=500 * MS))
    lone.hear(2, 1, lone.data(1))
    for _ in range(60):
        lone.now_ns += 1 * MS
        lone.token(1, aru=0, aru_id=3)
    lone.now_ns += 900 * MS
    lone.do(2, lone.ring.pause(900 * MS, lone.now_ns))
    lone.token(1, aru=0, aru_id=3)
    assert lone.ring.state is State.OPERATIONAL


def test_a_node_that_left_says_nothing_more_whatever_happens_to_it() -> None:
    rings = Rings(1, 2).form()
    ring = rings.rings[2]
    rings.do(2, ring.leave(rings.now_ns))
    assert ring.pause(9_000 * MS, rings.now_ns) == []
    assert ring.submitted(rings.now_ns) == []
    assert ring.force_gather(rings.now_ns) == []


# Joins


def test_a_join_begins_the_gathering_and_counts_as_heard_and_as_agreement() -> None:
    rings = Rings(1, 2).form()
    ring = rings.rings[1]
    rings.keep = lambda _sender, _receiver, _message: False
    rings.hear(1, 2, Join(ring.ring_id, 1, ring.max_seq, (1, 2), ()))
    assert ring.heard == {1, 2}
    assert ring.state is State.COMMIT  # both propose the same, and node 1 begins the ring


def test_a_join_that_was_overtaken_is_dropped() -> None:
    rings = Rings(1, 2).form()
    ring = rings.rings[1]
    newer, older = rings.packets + 2, rings.packets + 1
    join = Join(ring.ring_id, 1, ring.max_seq, (1, 2), ())
    rings.hear(1, 2, join, newer)
    before = ring.stats.joins_stale
    rings.hear(1, 2, join, older)
    assert ring.stats.joins_stale == before + 1


def test_other_parameters_are_reported_once_an_hour_and_refuse_nobody() -> None:
    rings = Rings(1, 2)
    rings.rings.pop(2)
    rings.parameters = RingParameters(token_ns=1_200 * MS)
    rings.boot(2, epoch=2)
    rings.form()
    assert rings.notes(1) == ["parameters_differ"]
    for _ in range(3):
        rings.do(2, rings.rings[2].force_gather(rings.now_ns))
        rings.run(200 * MS)
    assert rings.notes(1) == ["parameters_differ"]
    rings.now_ns += 3_600_000 * MS
    rings.do(2, rings.rings[2].force_gather(rings.now_ns))
    rings.run(200 * MS)
    assert rings.notes(1).count("parameters_differ") == 2


def test_a_hash_that_is_not_told_is_no_difference() -> None:
    rings = Rings(1)
    rings.hear(1, 2, Join(RingId(5, 2), 1, 5, (2,), ()))
    assert rings.notes(1) == []


def test_a_ring_takes_no_more_nodes_than_allowed() -> None:
    rings = Rings(1, 2, parameters=RingParameters(max_nodes=2)).form()
    ring = rings.rings[1]
    rings.hear(1, 3, Join(RingId(5, 3), 1, 5, (3,), ()))
    rings.hear(1, 3, MergeDetect(RingId(5_000, 3), (3,)))
    rings.hear(1, 3, Data(RingId(5_000, 3), 1, 3, 2, 0, 1, b""))
    assert ring.state is State.OPERATIONAL
    assert ring.proc == {1, 2}
    assert rings.notes(1) == ["too_many_nodes"]


def test_a_delay_makes_one_join_of_several() -> None:
    def sent(send_join_ns: int) -> int:
        nodes = tuple(range(1, 13))
        rings = Rings(*nodes, parameters=RingParameters(send_join_ns=send_join_ns)).form()
        return sum(len(joins(rings, n)) for n in nodes)

    assert sent(5 * MS) < sent(0) // 2


def test_with_many_nodes_joins_are_delayed_without_being_told_to() -> None:
    p = RingParameters()
    assert [p.send_join_max_ns(n) for n in (16, 17)] == [0, 5 * MS]
    assert RingParameters(send_join_ns=9 * MS).send_join_max_ns(2) == 9 * MS


def test_the_delay_of_a_join_repeats_with_the_seed() -> None:
    delays = []
    for epoch in (7, 7, 8):
        rings = Rings(parameters=RingParameters(send_join_ns=20 * MS))
        ring = rings.boot(1, epoch=epoch)
        assert joins(rings, 1) == []
        assert ring.deadline_ns() is not None
        delays.append(ring.deadline_ns())
    assert delays[0] == delays[1] != delays[2]


def test_the_network_is_suspected_when_gathering_times_out_again_and_again() -> None:
    # A firewall that is open in one direction.
    rings = Rings(1, 2)
    rings.keep = lambda sender, _receiver, _message: sender == 2
    rings.until(lambda: "continuous_gather" in rings.notes(1))
    (note,) = [n for n in rings.all(1, Noted) if n.event == "continuous_gather"]
    assert dict(note.fields)["peers"] == "2:deaf"


def test_one_crash_after_another_is_no_reason_to_suspect_the_network() -> None:
    rings = Rings(1, 2, 3, 4).form()
    for victim in (4, 3, 2):
        rings.rings.pop(victim)
        rings.until(lambda: rings.one_ring(*rings.rings))
        rings.run(60_000 * MS)
    assert rings.notes(1) == []


# Failing a member


def test_a_member_that_does_not_do_its_part_is_failed() -> None:
    rings = Rings(1, 2, 3).form()
    rings.rings.pop(3)
    for node in (1, 2):
        effects = rings.rings[node].fail_members(frozenset((3,)), Cause.SYNC_TIMEOUT, rings.now_ns)
        rings.do(node, effects)
    rings.until(lambda: rings.one_ring(1, 2), 10 * MS)
    assert "SYNC_TIMEOUT" in rings.causes(1)


@pytest.mark.parametrize("node", [2, 7])
def test_a_node_fails_neither_itself_nor_a_stranger(node: int) -> None:
    rings = Rings(1, 2).form()
    effects = rings.rings[2].fail_members(frozenset((node,)), Cause.SYNC_TIMEOUT, rings.now_ns)
    assert effects == []


def test_a_new_ring_tells_why_the_old_one_ended_and_who_went_without_a_word() -> None:
    rings = Rings(1, 2, 3).form()
    rings.do(3, rings.rings[3].leave(rings.now_ns))
    rings.until(lambda: rings.one_ring(1, 2))
    left = rings.all(1, Configuration)[-1]
    assert (left.failed, left.cause) == ((), Cause.LEAVE)
    rings.rings.pop(2)
    rings.until(lambda: rings.one_ring(1))
    died = rings.all(1, Configuration)[-1]
    assert (died.failed, died.cause) == ((2,), Cause.TOKEN_LOST)
    assert 299 * MS < died.took_ns < 310 * MS


# Commit tokens


def test_a_doubled_commit_token_never_starts_the_ring_twice() -> None:
    rings = Rings(1, 2)
    copies: list[Commit] = []

    def doubled(_sender: int, receiver: int, message: Message) -> bool:
        if isinstance(message, Commit) and receiver == 1:
            copies.append(message)
        return True

    rings.keep = doubled
    rings.until(lambda: rings.rings[1].started)
    before = rings.rings[1].visits
    for copy in copies * 3:
        rings.hear(1, 2, copy)
    assert rings.rings[1].visits == before
    rings.until(lambda: rings.one_ring(1, 2))
    ring = rings.rings[1].ring_id
    for copy in copies * 3:
        rings.hear(1, 2, copy)
        rings.hear(2, 1, copy)
    rings.run(3_000 * MS)
    assert rings.rings[1].ring_id == ring
    assert rings.rings[1].state is State.OPERATIONAL


def test_a_commit_token_that_contradicts_a_node_is_an_error_and_no_crash() -> None:
    # A member that claims less than everybody was known to have: its messages are freed.
    rings = Rings(1, 2).form()
    ring = rings.rings[2]
    rings.frames[1].put(5)
    rings.do(1, rings.rings[1].submitted(rings.now_ns))
    rings.run(5 * MS)
    assert ring.old.released == 5
    for node in (1, 2):
        rings.do(node, rings.rings[node].force_gather(rings.now_ns))
    rings.until(lambda: ring.state is State.COMMIT)
    assert ring.commit is not None
    entries = tuple(Entry(e.node, ring.installed_ring, 3, 3) for e in ring.commit.entries)
    rings.wire.clear()
    rings.hear(2, 1, Commit(ring.ring_id, 2, 2, entries))
    assert rings.causes(2)[-1] == "PROTOCOL_ERROR"
    assert "protocol_error" in rings.notes(2)
    rings.until(lambda: rings.one_ring(1, 2))


# Flapping


def flap(rings: Rings, node: int, times: int) -> None:
    """Exclude a node so often, letting it in again each time."""
    others = tuple(n for n in rings.rings if n != node)
    for _ in range(times):
        rings.keep = lambda sender, receiver, _message: node not in (sender, receiver)
        rings.until(lambda: rings.one_ring(*others) and rings.one_ring(node))
        rings.keep = lambda _sender, _receiver, _message: True
        rings.until(lambda: rings.one_ring(*rings.rings), 60_000 * MS)
    rings.keep = lambda sender, receiver, _message: node not in (sender, receiver)
    rings.until(lambda: rings.one_ring(*others) and rings.one_ring(node))


def held_off(rings: Rings, at: int, node: int) -> bool:
    return rings.rings[at].hold_offs.damped(node, rings.now_ns)


def test_a_node_that_keeps_being_excluded_is_not_merged_with_for_a_while() -> None:
    rings = Rings(1, 2, 3).form()
    flap(rings, 3, 1)
    assert held_off(rings, 1, 3)
    before = len(rings.causes(1))
    rings.hear(1, 3, MergeDetect(RingId(9_000, 3), (3,)))
    assert rings.causes(1)[before:] == []
    assert rings.rings[1].stats.members_damped == 1
    rings.hear(1, 3, Join(RingId(9_000, 3), 1, 9_000, (3,), ()))  # always honoured
    assert rings.causes(1)[before:] == ["JOIN"]


def test_a_link_that_comes_back_ends_the_hold_offs_of_those_it_excluded() -> None:
    rings = Rings(1, 2, 3).form()
    flap(rings, 3, 1)
    rings.do(1, rings.rings[1].link_up(2, rings.now_ns))
    assert held_off(rings, 1, 3)
    rings.do(1, rings.rings[1].link_up(3, rings.now_ns))
    assert not held_off(rings, 1, 3)
    assert rings.notes(1)[-2:] == ["link_up", "link_up"]


def test_a_lost_link_is_noted_and_the_ring_stays() -> None:
    rings = Rings(1, 2).form()
    rings.do(1, rings.rings[1].link_down(2, rings.now_ns))
    assert rings.notes(1) == ["link_down"]
    assert rings.rings[1].state is State.OPERATIONAL


def test_an_operator_may_end_all_hold_offs() -> None:
    rings = Rings(1, 2, 3).form()
    flap(rings, 3, 1)
    rings.do(1, rings.rings[1].clear_hold_offs(rings.now_ns))
    assert not held_off(rings, 1, 3)


def test_a_node_that_started_anew_is_not_held_off() -> None:
    rings = Rings(1, 2, 3).form()
    flap(rings, 3, 1)
    rings.rings.pop(3)
    rings.keep = lambda _sender, _receiver, _message: True
    rings.boot(3, epoch=2, stored=9_000)
    rings.run(1 * MS)
    assert not held_off(rings, 1, 3)


def test_a_node_that_leaves_on_purpose_does_not_flap() -> None:
    rings = Rings(1, 2).form()
    for _ in range(3):
        rings.do(2, rings.rings[2].leave(rings.now_ns))
        rings.until(lambda: rings.one_ring(1))
        rings.run(100 * MS)
        assert not held_off(rings, 1, 2)
        rings.rings.pop(2)
        rings.boot(2, epoch=rings.now_ns, stored=rings.rings[1].max_seq + 100)
        rings.until(lambda: rings.one_ring(1, 2))


# Leaving


def test_what_could_not_be_sent_before_a_leave_is_told() -> None:
    rings = Rings(1, 2, parameters=RingParameters(silent_fail_ns=0)).form()
    rings.keep = lambda _sender, _receiver, _message: False
    rings.run(1_100 * MS)  # the token is lost; nothing can be sent
    assert rings.rings[2].state is State.GATHER
    rings.frames[2].put(3)
    rings.do(2, rings.rings[2].leave(rings.now_ns))
    rings.run(150 * MS)
    assert "leave_incomplete" not in rings.notes(2)
    rings.run(600 * MS)
    leaves = [e for e in rings.all(2, Multicast) if isinstance(e.message, Leave)]
    assert len(leaves) == 3
    assert "leave_incomplete" in rings.notes(2)


@pytest.mark.parametrize("state", [State.GATHER, State.COMMIT, State.RECOVERY])
def test_a_leave_works_in_every_state(state: State) -> None:
    rings = Rings(1, 2, 3).form()
    rings.do(3, rings.rings[3].force_gather(rings.now_ns))
    rings.until(lambda: rings.rings[1].state is state)
    ring = rings.rings[3]
    rings.rings.pop(3)
    for node in (1, 2):
        rings.hear(node, 3, Leave(ring.ring_id, 1, ring.max_seq, (1, 2, 3), ()))
    rings.until(lambda: rings.one_ring(1, 2), 200 * MS)
    lefts = [c.left for c in rings.all(1, Configuration) if c.left]
    assert lefts == [(3,)]
    assert "LEAVE" in [m.cause.name for m in rings.all(1, Moved)] or state is State.GATHER
