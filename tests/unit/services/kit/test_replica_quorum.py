"""Replicas of a cluster with a quorum: a minority applies nothing, and gives way."""

from __future__ import annotations

import random

import pytest

from openais.wire.port import Parting
from openais.wire.status import Status
from services.kit import entries
from services.kit.quorum import Ballot
from tests.sim.replicas import SECOND, Stage
from tests.sim.toy import Add, Toy
from tests.unit.services.kit.test_replica import add, ask, session, toy


def stage(count: int, *, lasting: tuple[int, ...] = (), expected: int = 0) -> Stage:
    """Return a stage with a session at each node; those of ``lasting`` nodes never go stale."""
    made = Stage(lambda _node: Toy(), Ballot(1, expected or count))
    for node_id in range(1, count + 1):
        made.join(node_id, [1] if node_id > 1 else None)
        made.run()
    for node_id in range(1, count + 1):
        made.send(node_id, entries.SessionOpened(session(node_id), node_id in lasting))
    made.run()
    return made


def statuses(made: Stage, node_id: int) -> list[Status]:
    return [reply.status for reply in made.hosts[node_id].replies]


def test_a_minority_refuses_what_is_ordered_after_the_others_are_gone() -> None:
    # Danger: it is acknowledged before the view is in force, and lost with the minority's state.
    made = stage(3)
    add(made, 3, 1)  # on its way when the others go
    made.split([1, 2], [3])
    made.step(3)  # before anything settles
    assert statuses(made, 3) == [Status.ERR_UNAVAILABLE]
    made.run()
    assert toy(made, 3).counters == {}
    add(made, 1, 1)
    made.run()
    assert toy(made, 2).counters == {b"n": 1}


@pytest.mark.parametrize(
    ("lasting", "status"), [((), Status.ERR_UNAVAILABLE), ((3,), Status.ERR_TIMEOUT)]
)
def test_a_minority_does_not_know_what_becomes_of_what_its_old_ring_leaves_behind(
    lasting: tuple[int, ...], status: Status
) -> None:
    # Danger: a message is delivered before the view without the others, who may have it, or not.
    # To try again would be told to an old level what was certainly not done.
    made = stage(3, lasting=lasting)
    for node_id, nodes in ((3, (3,)), (1, (1, 2)), (2, (1, 2))):
        host = made.hosts[node_id]
        index = host.log[-1].index + 1
        made.perform(host, host.replica.parted(Parting(index, nodes)))
        assert not host.replica.settled, "a snapshot would forget who is gone"
    add(made, 3, 1)
    made.rings = [[1, 2], [3]]
    made.step(3)
    assert statuses(made, 3) == [status]
    add(made, 1, 1)
    made.step(1)
    assert toy(made, 2).counters == {b"n": 1}


def test_sessions_of_a_minority_go_stale_and_stay_so_after_the_merge() -> None:
    made = stage(3)
    made.split([1, 2], [3])
    made.run()
    assert made.hosts[3].stale == [session(3)]
    assert made.hosts[1].stale == []
    made.merge()
    made.run()
    assert made.live()
    assert session(3) not in made.hosts[3].replica.sessions.open
    assert session(1) in made.hosts[3].replica.sessions.open
    assert len(made.digests()) == 1


@pytest.mark.parametrize("lasting", [False, True])
def test_a_session_that_ends_with_the_state_of_a_minority_that_comes_is_stale(
    lasting: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    # Danger: only who brings the view into force ends its sessions; who receives that state finds
    # them gone, and says that they were lost.
    made = stage(4, lasting=(4,) if lasting else ())
    made.split([1, 2, 3], [4])
    add(made, 1, 1)
    made.step(1)
    made.step(1)  # 4 lacks it, and has no view without the others yet
    made.leave(1)
    made.leave(2)
    made.merge()
    made.run()
    assert made.live()
    assert not made.hosts[4].replica.acts
    assert made.hosts[4].replica.stats.states_received == 2
    assert made.hosts[4].stale == ([] if lasting else [session(4)])
    assert (session(4) in made.hosts[4].replica.sessions.open) is lasting


def test_a_session_of_an_old_level_is_told_to_try_again_and_works_after_the_merge() -> None:
    made = stage(3, lasting=(3,))
    made.split([1, 2], [3])
    add(made, 3, 1)
    made.run()
    assert statuses(made, 3) == [Status.ERR_TRY_AGAIN]
    made.merge()
    made.run()
    add(made, 3, 2)
    made.run()
    assert statuses(made, 3) == [Status.ERR_TRY_AGAIN, Status.OK]
    assert toy(made, 1).counters == {b"n": 1}


def test_a_session_opened_in_a_minority_is_stale_at_once() -> None:
    made = stage(3)
    made.split([1, 2], [3])
    made.run()
    late = entries.SessionOpened(b"a session of later")
    made.send(3, late)
    made.run()
    assert made.hosts[3].stale[-1] == late.session
    assert late.session not in made.hosts[3].replica.sessions.open


def test_the_side_that_was_quorate_last_wins_though_it_is_smaller() -> None:
    # Danger: what a majority acknowledged is lost, because its last survivor is outnumbered.
    made = stage(5)
    made.split([1, 2, 3], [4, 5])
    made.run()
    add(made, 1, 1)
    made.run()
    made.split([1], [2, 3])  # the majority ends
    made.run()
    made.leave(2)
    made.leave(3)
    made.run()
    made.merge()  # 1 knows of the acknowledged operation, 4 and 5 do not
    made.run()
    assert made.live()
    assert [toy(made, n).counters for n in (1, 4, 5)] == [{b"n": 1}] * 3
    assert made.hosts[4].replica.quorum.quorate


def test_nothing_expires_where_there_is_no_quorum() -> None:
    made = stage(3)
    ask(made, 1, 1, Add(b"short"))
    made.run()
    made.split([1, 2], [3])
    made.run()
    made.wait(5 * SECOND)
    assert toy(made, 3).counters == {b"short": 1}
    assert toy(made, 1).counters == {}


def test_a_cluster_that_starts_serves_when_a_majority_has_come() -> None:
    made = stage(1, expected=3)
    assert session(1) not in made.hosts[1].replica.sessions.open
    made.join(2, [1])
    made.run()
    made.send(1, entries.SessionOpened(session(1)))
    add(made, 1, 1)
    made.run()
    assert statuses(made, 1) == [Status.OK]


@pytest.mark.parametrize("seed", range(60))
def test_no_acknowledged_operation_is_lost_in_any_history_of_partitions(seed: int) -> None:
    choose = random.Random(seed)
    count = choose.choice((3, 4, 5))
    made = stage(count, lasting=tuple(range(1, count + 1)))
    number = dict.fromkeys(range(1, count + 1), 0)
    for _ in range(40):
        node = choose.randint(1, count)
        if choose.random() < 0.7:
            number[node] += 1
            add(made, node, number[node], b"%d.%d" % (node, number[node]))
        elif len(made.rings) > 1:
            made.merge()
        else:
            cut = choose.sample(range(1, count + 1), choose.randint(1, count - 1))
            made.split(sorted(cut), [n for n in number if n not in cut])
        for _ in range(choose.randint(0, 6)):
            made.step(choose.randint(1, count))
    if len(made.rings) > 1:
        made.merge()
    made.run()
    assert made.live()
    assert len(made.digests()) == 1
    done = {
        b"%d.%d" % (node, reply.number)
        for node in number
        for reply in made.hosts[node].replies
        if reply.status is Status.OK
    }
    assert done <= toy(made, 1).counters.keys()
    assert set(toy(made, 1).counters.values()) <= {1}
