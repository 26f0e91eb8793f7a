"""Named situations of a cluster on the virtual clock."""

from __future__ import annotations

import pytest

from tests.sim.checkers import check_all
from tests.sim.cluster import GROUP, PAYLOAD_SIZE_MAX, Cluster, payloads
from tests.sim.network import MS, US, Faults
from totemd.protocol.local import Reason, View


def views(cluster: Cluster, node_id: int, connection: int) -> list[View]:
    stream = cluster.running[node_id].life.streams[connection]  # type: ignore[index]
    return [e for e in stream if isinstance(e, View)]


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 9])
def test_a_cold_start_forms_one_ring_in_under_a_second(nodes: int) -> None:
    cluster = Cluster(nodes)
    assert cluster.wait(cluster.one_ring, 1_000 * MS) < 1_000 * MS


@pytest.mark.parametrize("victim", [1, 2, 3, 4, 5])
def test_any_of_five_nodes_may_crash_and_come_back_under_load(victim: int) -> None:
    cluster = Cluster(5, seed=victim)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connections = {n: cluster.attach(n) for n in cluster.running}
    for k in range(400):
        for n in sorted(cluster.running):
            if n in connections:
                cluster.multicast(n, connections[n], b"%d-%d" % (n, k), 2 + k % 2)
        cluster.run(5 * MS)
        if k == 50:
            cluster.crash(victim)
            del connections[victim]
        if k == 350:
            cluster.boot(victim)
    cluster.run(500 * MS)
    assert cluster.one_ring()
    check_all(cluster)
    survivor = 1 + victim % 5
    down = [v for v in views(cluster, survivor, 1) if v.left]
    assert [c.reason for v in down for c in v.left] == [Reason.NODEDOWN]


def test_a_message_of_every_size_arrives_whole_on_a_lossy_wire() -> None:
    cluster = Cluster(3, faults=Faults(loss=0.05))
    cluster.wait(cluster.one_ring, 5_000 * MS)
    connections = {n: cluster.attach(n) for n in cluster.running}
    cluster.run(1_000 * MS)
    sizes = [0, 1, 2, *range(1255, 1300), 2 * 1292, 65_536, 1 << 20]
    for serial, size in enumerate(sizes):
        body = b"%d:" % serial + bytes(size)
        cluster.multicast(1, connections[1], body[: max(size, 8)])
    cluster.run(20_000 * MS)
    for n in (1, 2, 3):
        received = payloads(cluster.running[n].life.streams[connections[n]])
        assert [len(p) for p in received] == [len(p) for p in cluster.lives[0].submitted]
    check_all(cluster)


def test_each_side_of_a_partition_sees_the_other_go_and_come_back() -> None:
    cluster = Cluster(3)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connections = {n: cluster.attach(n) for n in cluster.running}
    cluster.run(100 * MS)
    cluster.wire.partition({1, 2}, {3})
    cluster.run(4_000 * MS)
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)

    def reasons(node_id: int) -> list[tuple[list[int], list[int], list[Reason]]]:
        return [
            (
                [c.member.node_id for c in v.left],
                [c.member.node_id for c in v.joined],
                [c.reason for c in (*v.left, *v.joined)],
            )
            for v in views(cluster, node_id, connections[node_id])
            if not any(c.reason is Reason.JOIN for c in v.joined)
        ]

    down, up = Reason.NODEDOWN, Reason.NODEUP
    assert reasons(1) == [([3], [], [down]), ([], [3], [up])]
    assert reasons(3) == [([1, 2], [], [down, down]), ([], [1, 2], [up, up])]


def test_a_planned_leave_is_known_at_once() -> None:
    cluster = Cluster(3)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    cluster.perform(3, cluster.node(3).leave(cluster.now_ns))
    took_ns = cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 1_000 * MS)
    assert took_ns < 100 * MS
    rings = cluster.node(1).ring.stats.rings_installed
    cluster.wait(lambda: cluster.lives[2].retired, 1_000 * MS)
    cluster.run(500 * MS)
    assert cluster.node(1).ring.stats.rings_installed == rings


def test_a_dead_process_leaves_once_with_the_reason() -> None:
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    watcher, victim = cluster.attach(1), cluster.attach(2)
    cluster.run(50 * MS)
    cluster.perform(2, cluster.node(2).disconnected(victim, cluster.now_ns))
    cluster.run(50 * MS)
    left = [c for v in views(cluster, 1, watcher) for c in v.left]
    assert [(c.member.node_id, c.reason) for c in left] == [(2, Reason.PROCDOWN)]


def test_the_group_of_a_restarted_node_is_told_apart_from_the_new_one() -> None:
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    watcher = cluster.attach(1)
    cluster.run(50 * MS)
    cluster.attach(2)
    cluster.run(50 * MS)
    cluster.crash(2)
    cluster.boot(2)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    cluster.attach(2, join=GROUP)
    cluster.run(50 * MS)
    reasons = [c.reason for v in views(cluster, 1, watcher) for c in (*v.left, *v.joined)]
    assert reasons == [Reason.JOIN, Reason.JOIN, Reason.NODEDOWN, Reason.JOIN]


def test_a_single_sender_is_not_slowed_down_by_an_idle_ring() -> None:
    cluster = Cluster(3, faults=Faults(delay_min_ns=100 * US, delay_max_ns=100 * US))
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connection = cluster.attach(1)
    cluster.run(1_000 * MS)
    cluster.multicast(1, connection, bytes(1 << 20))
    frames = (1 << 20) // PAYLOAD_SIZE_MAX
    visits = frames // cluster.parameters.max_messages
    stream = cluster.running[1].life.streams[connection]
    took_ns = cluster.wait(lambda: len(payloads(stream)) == 1, 1_000 * MS)
    assert took_ns < 2 * visits * 3 * cluster.wire.faults.delay_max_ns
