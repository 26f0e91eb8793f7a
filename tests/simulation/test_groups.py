"""Process groups of simulated nodes, judged by the clauses C1 to C12 of docs/cpg.md.

T and S in the docstrings are the tests that page lists.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from tests.sim.checkers import check_all
from tests.sim.cluster import GROUP, Cluster, payloads
from tests.sim.network import MS, US, Faults
from totemd.protocol.groups import MEMBERS_MAX, NODE_DOWN, NODE_UP, VANISHED
from totemd.protocol.local import (
    Change,
    ConnectionId,
    Delivered,
    Done,
    Event,
    Member,
    Reason,
    Refusal,
    Refused,
    RingChanged,
    View,
)
from totemd.protocol.messages import RingId

NUMBERS = {Reason.NODEDOWN: NODE_DOWN, Reason.NODEUP: NODE_UP}
STILL = Faults(delay_min_ns=100 * US, delay_max_ns=100 * US)


def formed(nodes: int, seed: int = 0, faults: Faults | None = None) -> Cluster:
    cluster = Cluster(nodes, seed, faults)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    return cluster


def stream(cluster: Cluster, node_id: int, connection: ConnectionId) -> list[Event]:
    return cluster.running[node_id].life.streams[connection]


def views(cluster: Cluster, node_id: int, connection: ConnectionId) -> list[View]:
    return [e for e in stream(cluster, node_id, connection) if isinstance(e, View)]


def reasons(some: list[View]) -> list[list[tuple[str, int, Reason]]]:
    """Return for each view who went and came, and why."""
    return [
        [("-", c.member.node_id, c.reason) for c in v.left]
        + [("+", c.member.node_id, c.reason) for c in v.joined]
        for v in some
    ]


def leave(cluster: Cluster, node_id: int, connection: ConnectionId, group: bytes = GROUP) -> None:
    effects = cluster.node(node_id).leave_group(connection, 9_999, group, cluster.now_ns)
    cluster.perform(node_id, effects)


def join(cluster: Cluster, node_id: int, connection: ConnectionId, group: bytes = GROUP) -> None:
    effects = cluster.node(node_id).join(connection, 9_998, group, cluster.now_ns)
    cluster.perform(node_id, effects)


def clauses(events: list[Event], node_id: int) -> None:
    """Judge what one connection was told."""
    index = 0
    members: tuple[Member, ...] = ()
    ring = RingId(0, 0)
    number = 0
    me: Member | None = None
    for event in events:
        if isinstance(event, Delivered):
            assert event.index == index + 1
            index = event.index
            assert (event.node_id, event.pid) in {(m.node_id, m.pid) for m in members}, "C3"
        elif isinstance(event, View):
            assert event.index == index + 1
            index = event.index
            _view(event, members, node_id)
            assert (event.ring, event.number) > (ring, number), "C5: one event per cause, in order"
            if not members:
                (me,) = (c.member for c in event.joined)
            over = any(c.member == me for c in event.left)
            members = () if over else event.members
            ring, number = event.ring, event.number
        elif isinstance(event, RingChanged) and members:
            assert event.ring >= ring, "C7: the ring is told after the changes it brings"


def _changes(view: View) -> tuple[Change, ...]:
    return (*view.left, *view.joined)


def _view(view: View, before: tuple[Member, ...], node_id: int) -> None:
    assert _changes(view), "a change changes something"
    assert list(view.members) == sorted(view.members), "C4"
    left, joined = ({c.member for c in some} for some in (view.left, view.joined))
    assert joined <= set(view.members), "C4"
    assert not (left - joined) & set(view.members), "C4"
    first = not before
    if first:
        assert any(m.node_id == node_id for m in joined), "C2: it begins with the own join"
    else:
        assert set(view.members) == (set(before) - left) | joined, "C4"
    kinds = {c.reason for c in _changes(view)}
    assert len(kinds) == 1, "C5: one cause"
    (kind,) = kinds
    if kind in NUMBERS:
        assert view.number == NUMBERS[kind], "C5"
    elif kind is not Reason.PROCDOWN:
        assert view.number > VANISHED
        assert len(_changes(view)) == 1, "C6"


def judge(cluster: Cluster) -> None:
    for life in cluster.lives:
        for events in life.streams.values():
            clauses(events, life.node_id)
    check_all(cluster)


@dataclass(slots=True)
class Workload:
    """Processes that come, go, send and die, and nodes that do."""

    cluster: Cluster
    size: int
    random: random.Random
    living: dict[tuple[int, ConnectionId], bool] = field(default_factory=dict)  # -> member
    sent: int = 0

    def step(self) -> None:
        for n in sorted(self.cluster.running):
            if sum(node == n for node, _ in self.living) < 3:
                self.living[n, self.cluster.attach(n)] = True
        for n, c in list(self.living):
            self._process(n, c)
        self.cluster.run(self.random.choice([1, 5, 50, 300]) * MS)
        self._fault()

    def _process(self, n: int, c: ConnectionId) -> None:
        dice = self.random.random()
        if dice < 0.4:
            self.sent += 1
            self.cluster.multicast(n, c, b"%d-%d" % (n, self.sent), self.random.choice([2, 3]))
        elif dice < 0.5:
            (leave if self.living[n, c] else join)(self.cluster, n, c)
            self.living[n, c] = not self.living[n, c]
        elif dice < 0.52:
            self.cluster.perform(n, self.cluster.node(n).disconnected(c, self.cluster.now_ns))
            del self.living[n, c]

    def _fault(self) -> None:
        dice, victim = self.random.random(), self.random.randint(1, self.size)
        if dice < 0.05 and victim in self.cluster.running and len(self.cluster.running) > 1:
            self.cluster.crash(victim)
            self.living = {key: m for key, m in self.living.items() if key[0] != victim}
        elif dice < 0.15 and victim not in self.cluster.running:
            self.cluster.boot(victim)
        elif dice < 0.2:
            others = set(range(1, self.size + 1)) - {victim}
            self.cluster.wire.partition({victim}, others)
        elif dice < 0.3:
            self.cluster.wire.heal()


@pytest.mark.parametrize("seed", range(8))
def test_random_joins_leaves_and_multicasts_under_faults(seed: int) -> None:
    """T1, T6, C1 to C7: several processes on each node, each in and out of the group."""
    rng = random.Random(seed)
    size = rng.randint(2, 4)
    cluster = Cluster(size, seed, Faults(loss=rng.choice([0, 0.02])))
    workload = Workload(cluster, size, rng)
    for _ in range(80):
        workload.step()
    cluster.wire.heal()
    cluster.wire.faults = Faults()
    cluster.run(5_000 * MS)
    cluster.wait(cluster.one_ring, 30_000 * MS)
    cluster.run(1_000 * MS)
    judge(cluster)
    tables = [r.node.groups.groups for r in cluster.running.values()]
    assert all(table == tables[0] for table in tables), "all nodes hold the same table"


def test_messages_before_the_own_join_are_not_delivered_and_those_before_the_leave_are() -> None:
    """T2, T3, C2."""
    cluster = formed(2, faults=STILL)
    one = cluster.attach(1)
    cluster.run(20 * MS)
    cluster.multicast(1, one, b"before")
    two = cluster.attach(2)
    cluster.multicast(2, two, b"with the join")  # JOIN_STARTED
    cluster.run(20 * MS)
    cluster.multicast(1, one, b"while a member")
    cluster.run(20 * MS)
    leave(cluster, 2, two)
    cluster.run(20 * MS)
    cluster.multicast(1, one, b"after")
    cluster.run(20 * MS)
    told = stream(cluster, 2, two)
    kinds = [e for e in told if isinstance(e, View | Delivered)]
    assert isinstance(kinds[0], View)
    assert isinstance(kinds[-1], View)
    assert [c.reason for c in kinds[-1].left] == [Reason.LEAVE]
    assert payloads(told) in (
        [b"with the join", b"while a member"],
        [b"before", b"with the join", b"while a member"][1:],
    )
    judge(cluster)


@pytest.mark.parametrize("explicit", [False, True])
def test_a_process_that_leaves_and_dies_leaves_once(explicit: bool) -> None:  # noqa: FBT001
    """T4, C6, pitfall 8: LEAVE then exit is LEAVE only; death alone is PROCDOWN, once."""
    cluster = formed(2)
    watcher, victim = cluster.attach(1), cluster.attach(2)
    cluster.run(50 * MS)
    if explicit:
        leave(cluster, 2, victim)
    cluster.perform(2, cluster.node(2).disconnected(victim, cluster.now_ns))
    cluster.run(50 * MS)
    left = [c.reason for v in views(cluster, 1, watcher) for c in v.left]
    assert left == [Reason.LEAVE if explicit else Reason.PROCDOWN]
    judge(cluster)


def test_a_process_that_dies_while_it_joins_is_no_ghost() -> None:
    """4.2, cpg_finalize: the daemon completes what was begun."""
    cluster = formed(2, faults=STILL)
    watcher = cluster.attach(1)
    cluster.run(20 * MS)
    victim = cluster.attach(2)
    cluster.perform(2, cluster.node(2).disconnected(victim, cluster.now_ns))
    cluster.run(50 * MS)
    assert len(views(cluster, 1, watcher)[-1].members) == 1
    assert len(cluster.node(2).members(GROUP)) == 1
    judge(cluster)


def test_the_pid_of_a_dead_process_may_come_again() -> None:
    """Pitfall 13: two uses of one pid are two members."""
    cluster = formed(2)
    watcher = cluster.attach(1)
    cluster.run(20 * MS)
    first = cluster.attach(2)
    cluster.run(50 * MS)
    node, again = cluster.node(2), ConnectionId(77)
    pid = views(cluster, 1, watcher)[-1].members[-1].pid
    cluster.perform(2, node.disconnected(first, cluster.now_ns))
    cluster.perform(2, node.attach_process(again, pid, cluster.now_ns))
    join(cluster, 2, again)
    cluster.run(50 * MS)
    told = reasons(views(cluster, 1, watcher))[1:]
    assert told == [
        [("+", 2, Reason.JOIN)],
        [("-", 2, Reason.PROCDOWN)],
        [("+", 2, Reason.JOIN)],
    ]
    judge(cluster)


def test_joining_again_before_the_leave_is_delivered_is_refused() -> None:
    """4.3, pitfall 9: BUSY for this connection, TRY_AGAIN for another one of the process."""
    cluster = formed(2, faults=STILL)
    one = cluster.attach(1)
    node, other = cluster.node(1), ConnectionId(50)
    cluster.run(20 * MS)
    cluster.perform(
        1, node.attach_process(other, cluster.running[1].life.pids[one], cluster.now_ns)
    )
    told = stream(cluster, 1, one)
    cluster.wire.partition({1}, {2})
    cluster.run(500 * MS)  # the token is lost on the wire: nothing is ordered meanwhile

    def last(events: list[Event]) -> Refusal | None:
        answer = next(e for e in reversed(events) if isinstance(e, Done | Refused))
        return answer.refusal if isinstance(answer, Refused) else None

    join(cluster, 1, other)
    assert last(stream(cluster, 1, other)) is Refusal.EXIST
    join(cluster, 1, one)
    assert last(told) is Refusal.EXIST
    leave(cluster, 1, one)
    assert last(told) is None
    leave(cluster, 1, one)
    assert last(told) is Refusal.NOT_EXIST
    join(cluster, 1, one)
    assert last(told) is Refusal.BUSY
    join(cluster, 1, other)
    assert last(stream(cluster, 1, other)) is Refusal.TRY_AGAIN
    cluster.run(3_000 * MS)
    assert [c.reason for c in views(cluster, 1, one)[-1].left] == [Reason.LEAVE]
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)
    cluster.wire.partition({1}, {2})
    cluster.run(500 * MS)
    join(cluster, 1, other)
    assert last(stream(cluster, 1, other)) is None
    leave(cluster, 1, other)
    assert last(stream(cluster, 1, other)) is Refusal.BUSY
    cluster.run(3_000 * MS)
    judge(cluster)


def test_three_nodes_that_fail_at_once_are_one_event_of_each_group() -> None:
    """T10, C5, pitfalls 10 and 14."""
    cluster = formed(5)
    watchers = {group: cluster.attach(1, join=group) for group in (b"a", b"b")}
    for n in (2, 3, 4, 5):
        for group in (b"a", b"a", b"b"):
            cluster.attach(n, join=group)
    cluster.run(100 * MS)
    for n in (3, 4, 5):
        cluster.crash(n)
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 10_000 * MS)
    down = [(n, Reason.NODEDOWN) for n in (3, 4, 5)]
    for group, each in ((b"a", 2), (b"b", 1)):
        last = views(cluster, 1, watchers[group])[-1]
        assert [(c.member.node_id, c.reason) for c in last.left] == [
            d for d in down for _ in range(each)
        ]
        assert {m.node_id for m in last.members} == {1, 2}
    judge(cluster)


def test_a_node_that_was_paused_goes_and_comes_for_all_sides() -> None:
    """T7, C10, pitfall 12; what it had not sent is sent when it is back."""
    cluster = formed(3)
    members = {n: cluster.attach(n) for n in (1, 2, 3)}
    cluster.run(50 * MS)
    before = {n: len(views(cluster, n, members[n])) for n in members}
    cluster.pause(3, 8_000 * MS)
    cluster.multicast(3, members[3], b"of the paused one")
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 8_000 * MS)
    cluster.multicast(1, members[1], b"meanwhile")
    cluster.run(9_000 * MS)
    cluster.wait(cluster.one_ring, 10_000 * MS)
    cluster.run(100 * MS)

    def since(n: int) -> list[list[tuple[str, int, Reason]]]:
        return reasons(views(cluster, n, members[n])[before[n] :])

    down, up = Reason.NODEDOWN, Reason.NODEUP
    for n in (1, 2):
        assert since(n) == [[("-", 3, down)], [("+", 3, up)]]
    assert since(3)[0] == [("-", 1, down), ("-", 2, down)]
    assert [c for view in since(3) for c in view if c[0] == "+"] == [("+", 1, up), ("+", 2, up)]
    # Its first ring after the pause may be one of its own.
    assert payloads(stream(cluster, 3, members[3])).count(b"of the paused one") == 1
    assert b"meanwhile" not in payloads(stream(cluster, 3, members[3]))
    judge(cluster)


def test_a_short_pause_changes_nothing() -> None:
    """T7: shorter than the token's timeout."""
    cluster = formed(3)
    members = {n: cluster.attach(n) for n in (1, 2, 3)}
    cluster.run(50 * MS)
    rings = cluster.node(1).groups.rounds_finished
    cluster.pause(3, 200 * MS)
    cluster.multicast(3, members[3], b"late")
    cluster.run(1_000 * MS)
    assert cluster.node(1).groups.rounds_finished == rings
    assert all(payloads(stream(cluster, n, c)) == [b"late"] for n, c in members.items())
    judge(cluster)


def test_a_process_that_left_while_its_node_was_apart_is_not_kept() -> None:
    """C9, pitfall 11: nobody on the other side hears of it again."""
    cluster = formed(2)
    watcher, stays, goes = cluster.attach(1), cluster.attach(2), cluster.attach(2)
    cluster.run(50 * MS)
    cluster.wire.partition({1}, {2})
    cluster.wait(lambda: cluster.node(2).groups.nodes == (2,), 5_000 * MS)
    cluster.perform(2, cluster.node(2).disconnected(goes, cluster.now_ns))
    cluster.run(100 * MS)
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)
    told = reasons(views(cluster, 1, watcher)[-2:])
    assert told == [
        [("-", 2, Reason.NODEDOWN), ("-", 2, Reason.NODEDOWN)],
        [("+", 2, Reason.NODEUP)],
    ]
    assert [c.reason for v in views(cluster, 2, stays) for c in v.left] == [
        Reason.NODEDOWN,
        Reason.PROCDOWN,
    ]
    judge(cluster)


def test_the_restart_of_the_lowest_node_is_a_death_and_a_new_process() -> None:
    """T8, C11: even when it is faster than the failure detection."""
    cluster = formed(3)
    watcher = cluster.attach(3)
    cluster.attach(1)
    cluster.run(50 * MS)
    cluster.crash(1)
    cluster.boot(1)
    cluster.wait(cluster.one_ring, 10_000 * MS)
    cluster.attach(1)
    cluster.run(50 * MS)
    told = reasons(views(cluster, 3, watcher))
    assert told[-2:] == [[("-", 1, Reason.NODEDOWN)], [("+", 1, Reason.JOIN)]]
    judge(cluster)


def test_a_full_group_refuses_one_more_and_is_told_whole() -> None:
    """T9: 128 members; joins that are still on their way count."""
    cluster = formed(3, faults=STILL)
    for k in range(MEMBERS_MAX - 2):
        cluster.attach(1 + k % 3)
    cluster.run(200 * MS)
    for _ in range(2):
        cluster.attach(1)
    late = cluster.attach(1)
    refused = [e for e in stream(cluster, 1, late) if isinstance(e, Refused)]
    assert [e.refusal for e in refused] == [Refusal.NO_RESOURCES]
    cluster.run(50 * MS)
    tables = [cluster.node(n).members(GROUP) for n in (1, 2, 3)]
    assert all(len(t) == MEMBERS_MAX and t == tables[0] for t in tables)
    assert list(tables[0]) == sorted(tables[0])
    first = views(cluster, 1, ConnectionId(1))
    assert first[-1].members == tables[0]
    judge(cluster)


def test_two_that_send_without_pause_share_the_ring_and_lose_nothing() -> None:
    """T13: two connections of one node, and one of another, each always at its window."""
    cluster = formed(2, faults=STILL)
    senders = [(1, cluster.attach(1)), (1, cluster.attach(1)), (2, cluster.attach(2))]
    cluster.run(50 * MS)
    told = stream(cluster, 2, senders[2][1])
    sent = dict.fromkeys(senders, 0)
    for _ in range(40):
        for n, c in senders:
            for _ in range(10):
                cluster.multicast(n, c, b"%d-%d-%d-" % (n, c, sent[n, c]) + bytes(1_000))
                sent[n, c] += 1
        cluster.run(US * 500)
    half = len(payloads(told))
    shares = [
        sum(p.startswith(b"%d-%d-" % (n, c)) for p in payloads(told)[:half]) for n, c in senders
    ]
    assert min(shares) * 2 > max(shares) > 0
    cluster.run(1_000 * MS)
    for n, c in senders:
        mine = [p for p in payloads(told) if p.startswith(b"%d-%d-" % (n, c))]
        assert [int(p.split(b"-")[2]) for p in mine] == list(range(sent[n, c]))
    assert not [e for n, c in senders for e in stream(cluster, n, c) if isinstance(e, Refused)]
    judge(cluster)


def test_all_nodes_start_and_stop_at_once() -> None:
    """T15: every node sees every configuration, and a planned end is no death by silence."""
    cluster = formed(4)
    members = {n: cluster.attach(n) for n in (1, 2, 3, 4)}
    cluster.run(50 * MS)
    for n in members:
        cluster.perform(n, cluster.node(n).leave(cluster.now_ns))
    cluster.wait(lambda: not cluster.running, 5_000 * MS)
    assert all(life.retired for life in cluster.lives)
    for n in members:
        cluster.boot(n)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    again = {n: cluster.attach(n) for n in members}
    cluster.run(50 * MS)
    assert all(len(views(cluster, n, c)[-1].members) == 4 for n, c in again.items())
    judge(cluster)


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_node_that_dies_during_the_round_leaves_no_ghost(steps: int) -> None:
    """S1, S2, pitfalls 2, 3 and 5: at every moment of the round, and again in the next one."""
    cluster = formed(4, seed=steps, faults=STILL)
    members = {n: cluster.attach(n) for n in (1, 2, 3, 4)}
    cluster.run(50 * MS)
    cluster.wire.partition({1, 2}, {3, 4})
    cluster.run(4_000 * MS)
    cluster.wire.heal()
    apart = cluster.node(1).ring.stats.rings_installed
    cluster.wait(lambda: cluster.node(1).ring.stats.rings_installed > apart, 10_000 * MS)
    cluster.run(steps * 50 * US)  # the lists of the round are on their way
    cluster.crash(4)
    cluster.boot(4)
    cluster.run(steps * 50 * US)
    cluster.crash(3)
    cluster.wait(cluster.one_ring, 20_000 * MS)
    cluster.run(100 * MS)
    for n in (1, 2):
        assert [m.node_id for m in views(cluster, n, members[n])[-1].members] == [1, 2]
        assert [m.node_id for m in cluster.node(n).members(GROUP)] == [1, 2]
    assert cluster.node(4).groups.groups == cluster.node(1).groups.groups
    judge(cluster)
    check_all(cluster)


def test_a_node_that_left_and_came_back_over_aborted_rounds_goes_and_comes() -> None:
    """S2: the set of shared nodes is an intersection over all hops, not the last one."""
    cluster = formed(3, faults=Faults(delay_min_ns=2 * MS, delay_max_ns=2 * MS))
    members = {n: cluster.attach(n) for n in (1, 2, 3)}
    cluster.run(50 * MS)
    before = len(views(cluster, 1, members[1]))
    rings, rounds = _counts(cluster)
    cluster.wire.partition({1, 2}, {3})
    for _ in range(3):
        # Cut again as soon as the ring is there: some rounds end in time, some do not.
        cluster.wait(lambda: cluster.node(1).ring.members == (1, 2), 10_000 * MS)
        cluster.wire.heal()
        cluster.wait(lambda: cluster.node(1).ring.members == (1, 2, 3), 10_000 * MS)
        cluster.wire.partition({1, 2}, {3})
    cluster.wait(lambda: cluster.node(1).ring.members == (1, 2), 10_000 * MS)
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)
    after = _counts(cluster)
    assert after[0] - rings >= 8
    assert after[1] - rounds < after[0] - rings, "some round was aborted"
    told = [c for v in reasons(views(cluster, 1, members[1])[before:]) for c in v]
    assert [sign for sign, _, _ in told] == ["-", "+"] * (len(told) // 2)
    assert {node_id for _, node_id, _ in told} == {3}
    judge(cluster)


def _counts(cluster: Cluster) -> tuple[int, int]:
    node = cluster.node(1)
    return node.ring.stats.rings_installed, node.groups.rounds_finished


def test_a_member_that_does_not_take_part_in_the_round_is_left_behind() -> None:
    """S3: it stops between the configuration and its list; the others go on without it."""
    cluster = formed(3, faults=STILL)
    members = {n: cluster.attach(n) for n in (1, 2, 3)}
    cluster.run(50 * MS)
    cluster.wire.partition({1, 2}, {3})
    cluster.run(4_000 * MS)
    cluster.wire.heal()
    apart = cluster.node(3).ring.stats.rings_installed
    cluster.wait(lambda: cluster.node(3).ring.stats.rings_installed > apart, 10_000 * MS)
    cluster.crash(3)
    took_ns = cluster.wait(
        lambda: all(
            cluster.node(n).groups.nodes == (1, 2) and cluster.node(n).packer.gate_open
            for n in (1, 2)
        ),
        10_000 * MS,
    )
    assert took_ns < 3 * cluster.parameters.token_ns + cluster.parameters.consensus_ns
    cluster.multicast(1, members[1], b"on")
    cluster.run(50 * MS)
    assert payloads(stream(cluster, 2, members[2])) == [b"on"]
    judge(cluster)
