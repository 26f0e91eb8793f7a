"""S31, S32: what a node promised in one attempt to form a ring binds it in the next."""

from __future__ import annotations

from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster, payloads
from tests.sim.host import Host
from tests.sim.network import MS, US, Faults
from tests.sim.trace import Originated
from totemd.protocol.effects import Moved, State

STILL = Faults(delay_min_ns=100 * US, delay_max_ns=100 * US)


def originated(cluster: Cluster, node_id: int, text: bytes) -> bool:
    records = cluster.running[node_id].life.records
    return any(isinstance(r, Originated) and text in r.payload for r in records)


def test_a_promise_holds_when_the_sender_is_elsewhere_in_the_next_ring() -> None:
    # Node 1 installs and delivers the safe message after the gap; 2 promised to, and is cut off.
    # Alone with its filter it would drop it: its sender, 3, does not come along.
    cluster = Cluster(4, faults=STILL)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connections = {n: cluster.attach(n) for n in (1, 2, 3, 4)}
    cluster.run(100 * MS)
    cluster.wire.block({(4, n) for n in (1, 2, 3)}, unicast=False)
    cluster.multicast(4, connections[4], b"never heard")
    for _ in range(1_000):
        cluster.run(50 * US)
        if originated(cluster, 4, b"never heard"):
            break
    cluster.multicast(3, connections[3], b"after the gap", 3)
    for _ in range(1_000):
        cluster.run(50 * US)
        if originated(cluster, 3, b"after the gap"):
            break
    cluster.run(150 * US)
    cluster.crash(4)

    def cut_at_the_first_install(host: Host, moved: Moved) -> bool:
        if host.address == 1 and moved.new is State.OPERATIONAL:
            cluster.wire.partition({1}, {2}, {3})
        return False

    cluster.on_moved = cut_at_the_first_install
    cluster.run(8_000 * MS)
    cluster.on_moved = lambda _host, _moved: False
    for n in (1, 2):
        stream = cluster.running[n].life.streams[connections[n]]
        assert b"after the gap" in payloads(stream), f"node {n}"
        assert b"never heard" not in payloads(stream)
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 30_000 * MS)
    check_all(cluster)
