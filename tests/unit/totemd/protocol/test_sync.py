"""The round of the process groups after each new ring has to end."""

from __future__ import annotations

import pytest

from tests.sim.cluster import Cluster
from tests.sim.network import MS
from totemd.protocol.effects import Moved, Noted
from totemd.protocol.local import Refusal, Refused


def silent(cluster: Cluster, node_id: int) -> None:
    """Let a node take part in the ring without telling its groups."""

    def nothing(message: bytes) -> None:
        assert message

    cluster.node(node_id).packer.submit_sync = nothing  # type: ignore[method-assign]


def noted(cluster: Cluster, node_id: int, event: str) -> list[dict[str, str]]:
    return [
        dict(e.fields)
        for _, n, e in cluster.notes
        if n == node_id and isinstance(e, Noted) and e.event == event
    ]


def test_a_member_that_does_not_tell_its_groups_is_failed_and_the_others_go_on() -> None:
    cluster = Cluster(3)
    silent(cluster, 3)
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 4_000 * MS)
    assert noted(cluster, 1, "sync_timeout") == [{"missing": "3"}]
    causes = {e.cause.name for _, n, e in cluster.notes if n in (1, 2) and isinstance(e, Moved)}
    assert "SYNC_TIMEOUT" in causes
    assert cluster.node(1).packer.gate_open
    assert cluster.node(1).stats.syncs_timed_out == 1


def test_a_node_that_does_not_see_its_own_part_accuses_nobody() -> None:
    cluster = Cluster(1)
    silent(cluster, 1)
    cluster.wait(lambda: bool(noted(cluster, 1, "sync_timeout")), 4_000 * MS)
    assert "FORCED" in {e.cause.name for _, _, e in cluster.notes if isinstance(e, Moved)}


def test_a_round_that_ends_in_time_is_not_overdue() -> None:
    cluster = Cluster(3)
    cluster.run(5_000 * MS)
    assert noted(cluster, 1, "sync_timeout") == []
    assert cluster.node(1).ring.stats.rings_installed == 1


@pytest.mark.parametrize("slept_ms", [500, 900])
def test_the_time_a_node_slept_does_not_make_a_round_overdue(slept_ms: int) -> None:
    cluster = Cluster(2)
    silent(cluster, 2)
    cluster.wait(lambda: cluster.node(1).ring.members == (1, 2), 1_000 * MS)
    cluster.run(1_990 * MS)
    cluster.perform(1, cluster.node(1).pause(slept_ms * MS, cluster.now_ns))
    cluster.run((slept_ms - 100) * MS)
    assert noted(cluster, 1, "sync_timeout") == []


def test_a_node_that_leaves_takes_no_more_messages() -> None:
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connection = cluster.attach(2)
    cluster.run(50 * MS)
    cluster.perform(2, cluster.node(2).leave(cluster.now_ns))
    cluster.multicast(2, connection, b"too late")
    stream = cluster.running[2].life.streams[connection]
    refused = [e for e in stream if isinstance(e, Refused)]
    assert [e.refusal for e in refused] == [Refusal.TRY_AGAIN]
