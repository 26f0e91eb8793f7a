"""S20 and L4: as many nodes as a ring may have, and a network that never lets them settle."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster, payloads
from tests.sim.network import MS
from tests.sim.trace import REGULAR, Installed
from totemd.protocol.parameters import RingParameters

CUT_NS = 120_000 * MS
INSTALLED_MAX = 20  # of each node during the cut; undamped it is about 400


@pytest.mark.parametrize("nodes", [64, 128])
def test_a_large_cluster_starts_loses_a_node_splits_and_merges(nodes: int) -> None:
    cluster = Cluster(nodes)
    cluster.wait(cluster.one_ring, 2_000 * MS)
    members = {n: cluster.attach(n) for n in (1, 2, nodes // 2, nodes)}
    cluster.run(500 * MS)
    for n, connection in members.items():
        cluster.multicast(n, connection, b"%d:%d:1:" % (n, n), 2 + n % 2)
    cluster.run(500 * MS)
    told = [payloads(cluster.running[n].life.streams[c]) for n, c in members.items()]
    assert len(told[0]) == len(members)
    assert all(one == told[0] for one in told)
    detected_ns = 2 * cluster.parameters.token_loss_ns(nodes) + 2 * cluster.parameters.consensus_ns
    cluster.crash(nodes // 3)
    cluster.wait(cluster.one_ring, detected_ns)
    low, high = set(range(1, nodes // 2)), set(range(nodes // 2, nodes + 1))
    cluster.wire.partition(low, high)
    cluster.run(detected_ns)
    assert cluster.node(1).groups.nodes == tuple(sorted(low - {nodes // 3}))
    assert cluster.node(nodes).groups.nodes == tuple(sorted(high))
    cluster.wire.heal()
    cluster.boot(nodes // 3)
    cluster.wait(cluster.one_ring, detected_ns)
    check_all(cluster)


def test_a_cut_of_one_pair_makes_fewer_and_fewer_rings() -> None:
    calm_down(3, {(1, 3), (3, 1)})


def test_a_cut_of_two_pairs_makes_fewer_and_fewer_rings() -> None:
    calm_down(5, {(1, 2), (2, 1), (3, 5), (5, 3)})


def calm_down(nodes: int, cut: set[tuple[int, int]]) -> None:
    cluster = Cluster(nodes)
    cluster.wait(cluster.one_ring, 2_000 * MS)
    for n in cluster.running:
        cluster.attach(n)
    began_ns = cluster.now_ns
    number = cluster.wire.block(cut)
    cluster.run(CUT_NS)
    for life in cluster.lives:
        rings = [r for r in life.records if isinstance(r, Installed) and r.kind is REGULAR]
        times = [r.at_ns - began_ns for r in rings if r.at_ns > began_ns]
        early = sum(at < CUT_NS // 2 for at in times)
        assert len(times) < INSTALLED_MAX
        assert len(times) - early < early
    cluster.wire.unblock(number)
    cluster.wait(cluster.one_ring, cluster.parameters.flap_max_ns + 5_000 * MS)
    check_all(cluster)


def test_an_operator_ends_the_hold_offs_of_a_cut_that_has_healed() -> None:
    parameters = dataclasses.replace(RingParameters(), flap_max_ns=600_000 * MS)
    cluster = Cluster(3, parameters=parameters)
    cluster.wait(cluster.one_ring, 2_000 * MS)
    number = cluster.wire.block({(1, 3), (3, 1)})
    cluster.run(CUT_NS)
    cluster.wire.unblock(number)
    for n in (1, 2, 3):
        cluster.perform(n, cluster.node(n).clear_hold_offs(cluster.now_ns))
    cluster.wait(cluster.one_ring, 3_000 * MS)
    check_all(cluster)
