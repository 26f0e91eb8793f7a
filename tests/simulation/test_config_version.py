"""Nodes whose configurations have different versions: an older one does not come in."""

from __future__ import annotations

from tests.sim.checkers import check_all
from tests.sim.cluster import GROUP, Cluster, payloads
from tests.sim.host import Host
from tests.sim.network import MS
from totemd.protocol.effects import KeptOut, Noted
from totemd.protocol.local import ConnectionId, View


def kept_out(cluster: Cluster) -> list[tuple[int, KeptOut]]:
    return [(n, e) for _, n, e in cluster.notes if isinstance(e, KeptOut)]


def noted(cluster: Cluster, node_id: int) -> list[dict[str, str]]:
    return [
        dict(e.fields)
        for _, n, e in cluster.notes
        if n == node_id and isinstance(e, Noted) and e.event == "config_version_outdated"
    ]


def formed(versions: dict[int, int]) -> Cluster:
    """Return a ring of nodes 1 and 2 that came together, with a member on each."""
    cluster = Cluster(0)
    cluster.config_versions |= versions
    for n in (1, 2):
        cluster.boot(n)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    return cluster


def told(host: Host, connection: ConnectionId) -> list[View]:
    return [e for e in host.life.streams[connection] if isinstance(e, View)]


def test_a_newcomer_with_an_older_configuration_leaves_and_nobody_sees_a_ghost_of_it() -> None:
    cluster = formed({1: 5, 2: 5, 3: 4})
    member = cluster.attach(1)
    cluster.run(50 * MS)
    cluster.boot(3)
    newcomer = cluster.running[3]
    stranger = cluster.attach(3)
    cluster.wait(lambda: 3 not in cluster.running, 5_000 * MS)
    assert newcomer.life.retired
    assert kept_out(cluster) == [(3, KeptOut(4, 5))]
    assert noted(cluster, 1) == [{"node": "3", "config_version": "4", "highest": "5"}]
    cluster.wait(cluster.one_ring, 5_000 * MS)
    cluster.multicast(1, member, b"on")
    cluster.run(50 * MS)
    assert [v.members for v in told(cluster.running[1], member)] == [cluster.node(2).members(GROUP)]
    assert payloads(cluster.running[1].life.streams[member]) == [b"on"]
    assert told(newcomer, stranger) == []
    check_all(cluster)


def test_a_newcomer_with_a_newer_configuration_comes_in_and_the_others_stay() -> None:
    cluster = formed({1: 5, 2: 5, 3: 6})
    cluster.boot(3)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    assert kept_out(cluster) == []
    cluster.crash(2)  # which comes back with the file that was good enough before
    cluster.boot(2)
    cluster.wait(lambda: 2 not in cluster.running, 5_000 * MS)
    assert kept_out(cluster) == [(2, KeptOut(5, 6))]
    check_all(cluster)


def test_a_node_without_a_version_fits_every_ring() -> None:
    cluster = formed({1: 5, 2: 5})
    cluster.boot(3)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    assert kept_out(cluster) == []


def test_of_nodes_that_meet_for_the_first_time_the_newest_configuration_stays() -> None:
    cluster = Cluster(0)
    cluster.config_versions |= {1: 4, 2: 5, 3: 4}
    for n in (1, 2, 3):
        cluster.boot(n)
    cluster.wait(lambda: set(cluster.running) == {2} and cluster.one_ring(), 10_000 * MS)
    assert sorted(n for n, _ in kept_out(cluster)) == [1, 3]


def test_parts_of_a_ring_that_meet_again_stay_together_whatever_their_versions() -> None:
    cluster = formed({1: 5, 2: 5, 3: 6})
    cluster.boot(3)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    cluster.wire.partition({1, 2}, {3})
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 5_000 * MS)
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)
    assert kept_out(cluster) == []
    check_all(cluster)
