"""SAI-AIS-CLM with real nodes: node get, tracking, names by level."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from openais import clm, errors
from openais.aio import clm as aio_clm
from openais.clm import ClusterChange, TrackFlags
from tests.integration.cluster import Cluster, wait_for

Told = list[clm.NotificationBuffer]


class Follower:
    """A client and what it was told."""

    def __init__(self, cluster: Cluster, level: clm.LevelName = "B.04") -> None:
        self.told: Told = []
        self.nodes: list[tuple[int, clm.ClusterNode | None, str]] = []
        self.client = clm.Client(
            lambda i, n, s: self.nodes.append((i, n, s.name)),
            lambda buffer, _members, _status: self.told.append(buffer),
            level=level,
            run_dir=cluster.run_dir(1),
        )

    def changes(self) -> list[tuple[int, str]]:
        self.client.dispatch()
        return [
            (n.cluster_node.node_id, n.cluster_change.name)
            for buffer in self.told
            for n in buffer.notification
        ]


@pytest.fixture
def follower(cluster: Cluster) -> Iterator[Follower]:
    made = Follower(cluster)
    yield made
    made.client.close()


def test_node_get_of_the_local_and_of_another_node(follower: Follower) -> None:
    local = follower.client.node_get()
    assert (local.node_id, local.member) == (1, True)
    assert local.node_address.value == "127.0.0.1"
    assert follower.client.node_get(2).node_id == 2
    assert follower.client.node_get(1) == local


def test_node_get_refused(follower: Follower) -> None:
    client = follower.client
    with pytest.raises(errors.NotExistError):
        client.node_get(77)
    with pytest.raises(errors.InvalidParamError):
        client.node_get(0)
    with pytest.raises(errors.InvalidParamError):
        client.node_get(1, -1)
    with pytest.raises(errors.AisTimeoutError):
        client.node_get(1, 0)


def test_an_older_level_has_plain_names_and_older_errors(cluster: Cluster) -> None:
    old = Follower(cluster, "B.01").client
    with old:
        assert old.node_get().node_name == "node1"
        with pytest.raises(errors.InvalidParamError):
            old.node_get(77)
    with pytest.raises(errors.VersionError):
        clm.Client(level="B.09", run_dir=cluster.run_dir(1))  # type: ignore[arg-type]


def test_node_get_by_callback_in_the_order_of_the_requests(follower: Follower) -> None:
    for invocation, node_id in ((1, 2), (2, 77), (3, 3)):
        follower.client.node_get_async(invocation, node_id)
    wait_for(
        lambda: follower.client.dispatch() is not None and len(follower.nodes) == 3, "all answers"
    )
    assert [(i, s) for i, _, s in follower.nodes] == [
        (1, "OK"),
        (2, "ERR_NOT_EXIST"),
        (3, "OK"),
    ]


def test_callbacks_that_were_not_given_are_missed_at_once(cluster: Cluster) -> None:
    with clm.Client(run_dir=cluster.run_dir(1)) as client:
        with pytest.raises(errors.InitError):
            client.node_get_async(1)
        with pytest.raises(errors.InitError):
            client.track(TrackFlags.CHANGES)
        buffer = client.track(TrackFlags.CURRENT)
        assert buffer is not None


@pytest.mark.parametrize("flags", [0, 0x6, 0x8, 0x10])
def test_bad_track_flags(follower: Follower, flags: int) -> None:
    with pytest.raises(errors.BadFlagsError):
        follower.client.track(flags)


def test_current_lists_every_member(follower: Follower) -> None:
    buffer = follower.client.track(TrackFlags.CURRENT)
    assert buffer is not None
    assert buffer.number_of_members == 3
    assert [n.cluster_node.node_id for n in buffer.notification] == [1, 2, 3]
    assert {n.cluster_change for n in buffer.notification} == {ClusterChange.NO_CHANGE}
    follower.client.track(TrackFlags.CURRENT, callback=True)
    wait_for(lambda: follower.changes() == [(n, "NO_CHANGE") for n in (1, 2, 3)], "the callback")


def test_changes_tell_all_members_and_changes_only_the_changed(
    cluster: Cluster, follower: Follower
) -> None:
    only = Follower(cluster)
    follower.client.track(TrackFlags.CHANGES)
    only.client.track(TrackFlags.CHANGES_ONLY)
    cluster.supervisorctl(3, "stop", "cluster")
    wait_for(lambda: (3, "LEFT") in follower.changes() and only.changes(), "node 3 leaves")
    assert follower.changes() == [(1, "NO_CHANGE"), (2, "NO_CHANGE"), (3, "LEFT")]
    assert only.changes() == [(3, "LEFT")]
    assert only.told[0].number_of_members == 2
    cluster.up()
    wait_for(lambda: only.changes() == [(3, "LEFT"), (3, "JOINED")], "node 3 comes")
    assert only.told[1].view_number > only.told[0].view_number
    only.client.close()


def test_track_stop(cluster: Cluster, follower: Follower) -> None:
    with pytest.raises(errors.NotExistError):
        follower.client.track_stop()
    follower.client.track(TrackFlags.CHANGES)
    follower.client.track_stop()
    with pytest.raises(errors.NotExistError):
        follower.client.track_stop()


def test_a_restart_of_the_service_is_no_change(cluster: Cluster, follower: Follower) -> None:
    follower.client.track(TrackFlags.CHANGES)
    before = follower.client.node_get()
    cluster.supervisorctl(1, "restart", "clm")
    assert follower.client.node_get() == before
    assert follower.changes() == []


def test_all_nodes_agree_on_the_view(cluster: Cluster) -> None:
    def seen() -> set[tuple[object, ...]]:
        views: set[tuple[object, ...]] = set()
        for node in cluster.nodes:
            with clm.Client(run_dir=node.run_dir) as client:
                buffer = client.track(TrackFlags.CURRENT)
                assert buffer is not None
                views.add((buffer.view_number, buffer.notification))
        return views

    wait_for(lambda: len(seen()) == 1, "one view everywhere")


def test_the_asyncio_face(cluster: Cluster) -> None:
    async def program() -> list[int]:
        async with aio_clm.Client(run_dir=cluster.run_dir(2)) as client:
            assert (await client.node_get()).node_id == 2
            assert (await client.members()).number_of_members == 3
            async for buffer in client.watch():
                return [n.cluster_node.node_id for n in buffer.notification]
        return []

    assert asyncio.run(program()) == [1, 2, 3]
