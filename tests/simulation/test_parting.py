"""Seats learn in the total order that members are gone before what reaches those no more."""

from __future__ import annotations

import pytest

from tests.sim.cluster import Cluster
from tests.sim.network import MS
from totemd.protocol.local import ConnectionId, Delivered, Event, Parting, View

SEAT = ConnectionId(77)


def events(cluster: Cluster, node: int) -> list[Event]:
    return cluster.running[node].life.streams[SEAT]


@pytest.mark.parametrize("seed", range(12))
def test_a_safe_message_is_delivered_before_the_parting_by_all_or_after_it(seed: int) -> None:
    # Danger: a minority delivers, and acknowledges, what the others never receive.
    cluster = Cluster(3, seed)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    for node in (1, 2, 3):
        effects = cluster.node(node).attach_seat(SEAT, b"ckpt", b"", 0, cluster.now_ns)
        cluster.perform(node, effects)
        cluster.run(20 * MS)
    for request in range(1, 60):
        if request == 20 + seed:
            cluster.wire.partition({1, 2}, {3})
        for node in (1, 3):
            payload = b"%d.%d" % (node, request)
            sent = cluster.node(node).multicast(SEAT, request, 3, payload, cluster.now_ns)
            cluster.perform(node, sent)
        cluster.run(300_000)
    cluster.wait(lambda: cluster.node(3).groups.nodes == (3,), 10_000 * MS)
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 10_000 * MS)
    cluster.run(100 * MS)
    before: dict[int, set[bytes]] = {}
    for node, rest in ((1, (1, 2)), (2, (1, 2)), (3, (3,))):
        told = events(cluster, node)
        at = next(i for i, e in enumerate(told) if isinstance(e, Parting))
        parting = told[at]
        assert isinstance(parting, Parting)
        assert parting.nodes == rest
        view = next(e for e in told[at:] if isinstance(e, View))
        assert tuple(m.node_id for m in view.members) == rest
        before[node] = {bytes(e.payload) for e in told[:at] if isinstance(e, Delivered)}
        indexes = [e.index for e in told if isinstance(e, Delivered | View | Parting)]
        assert indexes == list(range(1, len(indexes) + 1)), "a seat's log has no gap"
    everywhere = {
        node: {bytes(e.payload) for e in events(cluster, node) if isinstance(e, Delivered)}
        for node in before
    }
    assert before[3] <= everywhere[1] & everywhere[2], "delivered as safe, and not by all"


def test_a_seat_whose_members_all_come_along_is_not_told() -> None:
    cluster = Cluster(3)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    for node in (1, 2):
        effects = cluster.node(node).attach_seat(SEAT, b"ckpt", b"", 0, cluster.now_ns)
        cluster.perform(node, effects)
        cluster.run(20 * MS)
    cluster.crash(3)
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 10_000 * MS)
    assert not [e for e in events(cluster, 1) if isinstance(e, Parting)]
