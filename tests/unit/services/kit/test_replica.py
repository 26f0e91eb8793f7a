"""Replicas that meet, part, die and return hold one state, and apply each request once."""

from __future__ import annotations

import random

import pytest

from openais.wire.port import Reason
from openais.wire.status import Status
from services.kit import entries
from services.kit.effects import State
from services.kit.machine import NodeId, SessionId
from tests.sim.replicas import SECOND, Client, Stage
from tests.sim.toy import TABLE, Add, Break, Toy, Value, Wait


def session(node_id: int) -> SessionId:
    return SessionId(b"session of node%2d" % node_id)


def stage(count: int) -> Stage:
    """Return a stage with live replicas and an open session at each node."""
    made = Stage(lambda _node: Toy())
    for node_id in range(1, count + 1):
        made.join(node_id, [1] if node_id > 1 else None)
        made.run()
        made.send(node_id, entries.SessionOpened(session(node_id)))
        made.run()
    assert made.live()
    return made


def ask(made: Stage, node_id: int, number: int, operation: object, acknowledged: int = 0) -> None:
    made.send(
        node_id,
        entries.Operation(
            made.now().wall_ns, session(node_id), number, acknowledged, TABLE.encode(operation)
        ),
    )


def add(made: Stage, node_id: int, number: int, name: bytes = b"n") -> None:
    ask(made, node_id, number, Add(name))


def toy(made: Stage, node_id: int) -> Toy:
    machine = made.hosts[node_id].replica.machine
    assert isinstance(machine, Toy)
    return machine


def serving(made: Stage, node_id: int) -> bool:
    return made.hosts[node_id].replica.serving


def values(made: Stage, node_id: int) -> list[int]:
    return [TABLE.decode(r.body).value for r in made.hosts[node_id].replies if r.body]


def test_every_replica_applies_and_the_caller_s_node_alone_answers() -> None:
    made = stage(3)
    add(made, 1, 1)
    add(made, 2, 1)
    made.run()
    assert [toy(made, n).counters for n in (1, 2, 3)] == [{b"n": 2}] * 3
    assert (values(made, 1), values(made, 2), values(made, 3)) == ([1], [2], [])
    assert len(made.digests()) == 1


def test_a_request_sent_again_is_answered_again_and_applied_once() -> None:
    made = stage(2)
    for _ in range(3):
        add(made, 1, 1)
    made.run()
    assert values(made, 1) == [1, 1, 1]
    assert toy(made, 2).counters == {b"n": 1}


def test_an_acknowledged_answer_is_forgotten_and_its_request_still_not_applied() -> None:
    made = stage(1)
    add(made, 1, 1)
    ask(made, 1, 2, Add(b"n"), acknowledged=1)
    add(made, 1, 1)
    made.run()
    assert values(made, 1) == [1, 2]
    assert sorted(made.hosts[1].replica.sessions.open[session(1)].answers) == [2]


def test_an_answer_may_come_with_a_later_operation() -> None:
    made = stage(2)
    ask(made, 1, 1, Wait(b"n"))
    made.run()
    assert values(made, 1) == []
    add(made, 2, 1)
    made.run()
    assert values(made, 1) == [1]


def test_a_bug_in_apply_answers_library_on_all_replicas_alike() -> None:
    made = stage(2)
    ask(made, 1, 1, Break())
    made.run()
    assert [r.status for r in made.hosts[1].replies] == [Status.ERR_LIBRARY]
    assert len(made.digests()) == 1


def test_bytes_that_are_no_operation_are_answered_invalid() -> None:
    made = stage(1)
    made.send(1, entries.Operation(0, session(1), 1, 0, b"\x91\x7f"))
    made.run()
    assert [r.status for r in made.hosts[1].replies] == [Status.ERR_INVALID_PARAM]


def test_notifications_are_numbered_kept_and_trimmed() -> None:
    made = stage(2)
    add(made, 1, 1)
    made.run()
    for number in (1, 2, 3):
        add(made, 2, number)
    made.run()
    assert [t.serial for t in made.hosts[1].told] == [1, 2, 3]
    assert [k[0] for k in made.hosts[1].replica.sessions.open[session(1)].kept] == [1, 2, 3]
    made.send(1, entries.Notified(session(1), 2))
    made.run()
    assert [k[0] for k in made.hosts[2].replica.sessions.open[session(1)].kept] == [3]


def test_a_joining_replica_gets_the_state_and_what_happened_meanwhile() -> None:
    made = stage(2)
    add(made, 1, 1)
    made.run()
    made.join(3, [1])
    add(made, 1, 2)
    add(made, 2, 1)
    made.run()
    assert made.live()
    assert toy(made, 3).counters == {b"n": 3}
    assert len(made.digests()) == 1


def test_members_that_have_the_state_go_on_while_it_is_sent() -> None:
    made = stage(2)
    made.join(3, [1])
    for node_id in (1, 2, 3):
        made.step(node_id)
    assert made.hosts[1].replica.state is State.LIVE
    assert made.hosts[3].replica.state is State.JOINING
    add(made, 2, 1)
    made.run()
    assert toy(made, 3).counters == {b"n": 1}


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("moment", range(12))
def test_a_killed_service_replays_what_it_missed(moment: int, snapshots: bool) -> None:  # noqa: FBT001
    made = stage(3)
    add(made, 2, 1)
    made.run()
    if snapshots:
        assert made.take_snapshot(2)
    add(made, 1, 1)
    ask(made, 2, 2, Wait(b"n"))
    made.join(4, [1])
    for _ in range(moment):
        for node_id in (1, 2, 3, 4):
            made.step(node_id)
    made.kill(2)
    add(made, 3, 1)
    for _ in range(3):
        for node_id in (1, 3, 4):
            made.step(node_id)
    made.restart(2)
    made.run()
    add(made, 1, 2)
    made.run()
    assert made.live()
    assert len(made.digests()) == 1
    assert toy(made, 2).counters[b"n"] == 4


def test_sessions_of_a_dead_node_are_closed_at_one_position() -> None:
    made = stage(3)
    add(made, 3, 1)
    made.run()
    made.leave(3)
    made.run()
    assert made.live()
    for node_id in (1, 2):
        replica = made.hosts[node_id].replica
        assert session(3) not in replica.sessions.open
        assert toy(made, node_id).owners == {}
    assert len(made.digests()) == 1


def test_the_settle_of_a_view_survives_the_death_of_its_proposer() -> None:
    made = stage(3)
    made.leave(3)
    made.leave(1)
    made.run()
    assert made.hosts[2].replica.view is not None
    assert made.hosts[2].replica.view.members == (2,)
    assert made.live()


def test_a_death_of_the_donor_in_the_middle_of_a_transfer() -> None:
    made = stage(2)
    add(made, 1, 1)
    made.run()
    made.join(3, [1])
    for node_id in (1, 2, 3):
        made.step(node_id)
    made.hosts[1].outbox.clear()
    made.leave(1)
    add(made, 2, 1)
    made.run()
    assert made.live()
    assert toy(made, 3).counters == {b"n": 2}
    assert len(made.digests()) == 1


def test_a_partition_goes_on_on_both_sides_and_the_larger_side_wins() -> None:
    made = stage(3)
    add(made, 1, 1)
    made.run()
    made.split([1], [2, 3])
    made.run()
    for number in range(2, 9):
        add(made, 1, number, b"n")
    add(made, 2, 1, b"n")
    made.run()
    made.merge()
    made.run()
    assert made.live()
    assert len(made.digests()) == 1
    assert toy(made, 1).counters == {b"n": 2}


def test_sessions_of_the_losing_side_live_on() -> None:
    made = stage(3)
    made.split([1], [2, 3])
    made.run()
    add(made, 1, 1)
    add(made, 2, 1)
    made.run()
    made.merge()
    made.run()
    for node_id in (1, 2, 3):
        assert set(made.hosts[node_id].replica.sessions.open) == {session(n) for n in (1, 2, 3)}
    add(made, 1, 2)
    made.run()
    assert toy(made, 3).counters == {b"n": 2}
    assert toy(made, 3).owners == {session(1): 2, session(2): 1}


def test_a_restart_of_the_ring_process_is_a_pause_for_its_clients() -> None:
    made = stage(3)
    add(made, 1, 1)
    made.run()
    made.restart_ring_process(1)
    made.run()
    assert made.live()
    add(made, 1, 1)  # not acknowledged yet: the client sends it again
    add(made, 1, 2)
    made.run()
    assert toy(made, 2).counters == {b"n": 2}
    assert len(made.digests()) == 1


def test_a_request_that_others_applied_before_the_ring_process_died_is_applied_once() -> None:
    made = stage(2)
    add(made, 1, 1)
    entry = made.hosts[1].outbox[0]
    host = made.hosts[1]
    made.rings[0].remove(1)  # node 1 sends, and does not see it delivered
    made.rings[0].append(1)
    made.hosts[2].outbox.append(entry)  # stands for the ring: ordered, seen by node 2 only
    host.outbox.clear()
    made.rings = [[2], [1]]
    made.step(2)
    made.rings = [[1, 2]]
    made.restart_ring_process(1)
    made.run()
    add(made, 1, 1)
    made.run()
    assert made.live()
    assert len(made.digests()) == 1
    assert toy(made, 1).counters.get(b"n", 0) <= 1


def test_one_node_alone_keeps_its_memory_when_its_ring_process_restarts() -> None:
    made = stage(1)
    add(made, 1, 1)
    made.run()
    made.restart_ring_process(1)
    made.run()
    assert made.live()
    assert toy(made, 1).counters == {b"n": 1}
    assert session(1) in made.hosts[1].replica.sessions.open
    made.kill(1)
    made.restart(1)
    made.run()
    assert toy(made, 1).counters == {b"n": 1}


def test_who_does_not_announce_is_left_out_and_the_others_go_on() -> None:
    made = stage(2)
    made.join(3, [1])
    made.kill(2)
    made.run()
    assert not serving(made, 1)
    made.wait(7 * SECOND)
    assert serving(made, 1)
    assert serving(made, 3)
    assert len(made.digests(1, 3)) == 1
    made.restart(2)
    assert made.hosts[2].rejoins


def test_what_expires_is_proposed_once_and_deleted_everywhere() -> None:
    made = stage(3)
    add(made, 2, 1, b"short")
    made.run()
    assert toy(made, 3).counters == {b"short": 1}
    made.wait(SECOND // 2)
    assert toy(made, 3).counters == {b"short": 1}
    made.wait(SECOND)
    assert [toy(made, n).counters for n in (1, 2, 3)] == [{}] * 3


def test_a_fence_passes_after_everything_before_it() -> None:
    made = stage(2)
    add(made, 1, 1)
    made.send(1, entries.Fence(7))
    made.run()
    assert made.hosts[1].fences == [7]
    assert made.hosts[2].fences == []


def test_an_entry_in_fragments_is_applied_whole() -> None:
    made = stage(2)
    whole = entries.TABLE.encode(
        entries.Operation(0, session(1), 1, 0, TABLE.encode(Add(b"x" * 5_000)))
    )
    for begin in range(0, len(whole), 1_000):
        made.send(1, entries.Fragment(begin, len(whole), whole[begin : begin + 1_000]))
    made.run()
    assert list(toy(made, 2).counters.values()) == [1]


def test_fragments_of_a_node_that_left_are_dropped() -> None:
    made = stage(2)
    made.send(2, entries.Fragment(0, 100, bytes(50)))
    made.run()
    assert not made.hosts[1].replica.settled
    made.leave(2)
    made.run()
    assert made.hosts[1].replica.settled


@pytest.mark.parametrize("seed", range(150))
def test_random_faults_end_in_one_state_and_no_request_counts_twice(seed: int) -> None:
    rng = random.Random(seed)
    made = stage(rng.randint(1, 4))
    numbers = dict.fromkeys(made.hosts, 0)
    for _ in range(60):
        random_step(made, rng, numbers)
    settle(made)
    for host in made.hosts.values():
        answered = [(r.session, r.number, r.body) for r in host.replies if r.status is Status.OK]
        per_request = {(s, n) for s, n, _ in answered}
        assert len(per_request) == len(set(answered)), "a request was applied twice"


@pytest.mark.parametrize("seed", range(200))
def test_requests_on_the_way_keep_their_order_whatever_happens_between_them(seed: int) -> None:
    # Danger: what waits for a meeting that is cut short is dropped, what was sent behind it is not.
    rng = random.Random(seed)
    made = stage(rng.randint(1, 4))
    for host in made.hosts.values():
        host.client = Client(host, session(host.node_id))
    for _ in range(120):
        _random_step_of_clients(made, rng)
    settle(made)
    for host in made.hosts.values():
        assert host.client is not None
        assert not host.client.pending, "a request is never answered"
        assert {r.status for r in host.client.answered.values()} <= {Status.OK}


def settle(made: Stage) -> None:
    """Let faults end and everything come to rest in one state."""
    for node_id, host in made.hosts.items():
        if host.down and any(node_id in ring for ring in made.rings):
            made.restart(node_id)
    if len(made.rings) > 1:
        made.merge()
    for _ in range(4):
        made.run()
        made.wait(3 * SECOND)
    assert made.live()
    assert len(made.digests()) == 1


def _random_step_of_clients(made: Stage, rng: random.Random) -> None:
    node_id = rng.choice(sorted(made.hosts))
    host = made.hosts[node_id]
    client = host.client
    assert client is not None
    dice = rng.random()
    if not host.down and dice < 0.4:
        for _ in range(rng.randint(1, 4)):
            body = TABLE.encode(Add(b"%d-%d" % (node_id, client.number)))
            client.ask(made.now().wall_ns, body)
    elif not host.down and dice < 0.43 and client.pending:
        client.give_up(rng.choice(sorted(client.pending)))
    elif not host.down and dice < 0.46:
        made.restart_ring_process(node_id)
    else:
        random_step(made, rng, None)


def random_step(made: Stage, rng: random.Random, numbers: dict[int, int] | None) -> None:
    """Do one thing at random: a request, a delivery, or a fault."""
    node_id = rng.choice(sorted(made.hosts))
    host = made.hosts[node_id]
    dice = rng.random()
    if host.down:
        if dice < 0.3:
            made.restart(node_id)
    elif dice < 0.5 and numbers is not None:
        numbers[node_id] += 1
        add(made, node_id, numbers[node_id], b"%d-%d" % (node_id, numbers[node_id]))
    elif dice < 0.8:
        made.step(node_id)
    elif dice < 0.84:
        made.kill(node_id)
    elif dice < 0.88:
        made.take_snapshot(node_id)
    elif dice < 0.92 and len(made.rings) == 1 and len(made.rings[0]) > 1:
        ring = sorted(made.rings[0])
        cut = rng.randint(1, len(ring) - 1)
        made.split(ring[:cut], ring[cut:])
    elif dice < 0.95 and len(made.rings) > 1:
        made.merge()
    elif dice < 0.98:
        made.run()
    assert host.replica.me == NodeId(node_id)


def test_a_value_is_what_the_answer_carries() -> None:
    made = stage(1)
    add(made, 1, 1)
    made.run()
    assert TABLE.decode(made.hosts[1].replies[0].body) == Value(1)


def test_a_node_that_left_in_order_is_told_with_its_reason() -> None:
    made = stage(2)
    made.leave(2, Reason.LEAVE)
    made.run()
    view = made.hosts[1].replica.view
    assert view is not None
    assert view.left == ((2, Reason.LEAVE),)
