"""S31, S32: what one attempt to form a ring, or one round, leaves behind for the next."""

from __future__ import annotations

from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster, payloads
from tests.sim.host import Host
from tests.sim.network import MS, US, Faults
from tests.sim.trace import Originated
from totemd.protocol.effects import Moved, State
from totemd.protocol.messages import Data

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


def test_a_late_message_of_the_old_ring_is_not_taken_in_recovery() -> None:
    # Node 3 dies with a message that reaches 2 alone, after 2 has told what it has.
    cluster = Cluster(3, faults=STILL)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connections = {n: cluster.attach(n) for n in (1, 2, 3)}
    cluster.run(100 * MS)
    cluster.wire.block({(3, 1), (3, 2)}, unicast=False)
    cluster.multicast(3, connections[3], b"tardy")
    for _ in range(1_000):
        cluster.run(50 * US)
        if originated(cluster, 3, b"tardy"):
            break
    sent = next(
        r
        for r in reversed(cluster.running[3].life.records)
        if isinstance(r, Originated) and b"tardy" in r.payload
    )
    message = Data(sent.ring, sent.seq, 3, sent.guarantee, 0, 1, sent.payload)
    cluster.crash(3)
    arrived: list[int] = []

    def arrive() -> None:
        host = cluster.running[2]
        arrived.append(cluster.now_ns)
        cluster.perform(2, host.node.receive(message, 3, (3, 1 << 20), cluster.now_ns))

    def in_recovery(host: Host, moved: Moved) -> bool:
        if host.address == 2 and moved.new is State.RECOVERY and not arrived:
            cluster.at(10 * US, arrive)
        return False

    cluster.on_moved = in_recovery
    cluster.run(4_000 * MS)
    assert arrived
    check_all(cluster)


def test_a_node_that_left_and_came_back_in_aborted_rounds_goes_down() -> None:
    # Rings 1 2 and then 1 2 3 end before their rounds do; in the next one all come along.
    cluster = Cluster(3, faults=STILL)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    for n in (1, 2, 3):
        cluster.attach(n)
        cluster.run(20 * MS)
    everybody = {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}
    aborted: list[tuple[int, ...]] = []

    def abort(host: Host, moved: Moved) -> bool:
        members = host.node.ring.ring_members
        last = host.address == max(members) and moved.new is State.OPERATIONAL and 1 in members
        if last and len(aborted) < 2:
            aborted.append(members)
            cluster.wire.heal()
            number = cluster.wire.block(everybody)
            cluster.at(1_100 * MS, lambda: back(number))
        return False

    def back(number: int) -> None:
        cluster.wire.unblock(number)
        cluster.perform(3, cluster.node(3).force_gather(cluster.now_ns))

    cluster.wire.partition({1, 2}, {3})
    cluster.on_moved = abort
    cluster.run(15_000 * MS)
    assert aborted == [(1, 2), (1, 2, 3)]
    cluster.wait(cluster.one_ring, 30_000 * MS)
    check_all(cluster)
