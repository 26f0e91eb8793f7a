"""SAI-AIS-CLM with real nodes, by the ids of docs/conformance.md.

A handle of each level where levels differ. What needs many changes of the membership, partitions
or time is in test_clm_views.py and test_clm_administration.py, on the same code without a network.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openais import ckpt, clm, errors
from openais.aio import clm as aio_clm
from openais.clm import AdminOperation, ChangeStep, Response, TrackFlags
from openais.wire import clm as wire
from openais.wire.clm import Level
from openais.wire.status import ONE_SECOND_NS, TIME_END, Status
from tests.conformance.clm_handles import items
from tests.integration.cluster import Cluster, wait_for

CURRENT, CHANGES, ONLY = TrackFlags.CURRENT, TrackFlags.CHANGES, TrackFlags.CHANGES_ONLY
LOCAL, START = TrackFlags.LOCAL, TrackFlags.START_STEP
VALIDATE = TrackFlags.VALIDATE_STEP
LEVELS = ("B.01", "B.02", "B.03", "B.04")
NO_MEMBER = 77
ALL_UNCHANGED = [(n, "NO_CHANGE") for n in (1, 2, 3)]
_NODE = wire.Node(1, "n", "d", wire.AddressFamily.INET6, "::", 1, 1, 1, member=True)
_SUBSCRIBER = """
import sys
from openais import clm
client = clm.Client(track_callback=lambda *_: None, run_dir=sys.argv[1])
client.track(clm.TrackFlags.CHANGES | clm.TrackFlags.START_STEP)
print("tracks", flush=True)
sys.stdin.read()
"""


class Follower:
    """A client and what it was told."""

    def __init__(self, cluster: Cluster, level: str = "B.04", node_id: int = 1) -> None:
        self.told: list[clm.NotificationBuffer] = []
        self.nodes: list[tuple[int, clm.ClusterNode | None, str]] = []
        self.client = clm.Client(
            lambda i, n, s: self.nodes.append((i, n, s.name)),
            lambda buffer, _members, _status: self.told.append(buffer),
            level=level,
            run_dir=cluster.run_dir(node_id),
        )

    def hear(self) -> list[clm.NotificationBuffer]:
        self.client.dispatch()
        return self.told

    def items(self) -> list[list[tuple[int, str]]]:
        return [items(buffer) for buffer in self.hear()]


@pytest.fixture
def follow(cluster: Cluster) -> Iterator[Callable[..., Follower]]:
    """Make handles that are closed after the test."""
    made: list[Follower] = []

    def make(level: str = "B.04", node_id: int = 1) -> Follower:
        made.append(Follower(cluster, level, node_id))
        return made[-1]

    yield make
    for one in made:
        one.client.close()


@pytest.fixture(params=LEVELS)
def handle(request: pytest.FixtureRequest, follow: Callable[..., Follower]) -> Follower:
    """A handle of each level at node 1."""
    return follow(request.param)


@pytest.fixture
def mute(cluster: Cluster) -> Iterator[clm.Client]:
    """A handle without callbacks."""
    with clm.Client(run_dir=cluster.run_dir(1)) as client:
        yield client


@pytest.fixture
def unlocked(cluster: Cluster) -> Iterator[None]:
    """Unlock every node after the test."""
    yield
    with clm.Client(run_dir=cluster.run_dir(1)) as client:
        for node_id in (1, 2, 3):
            with contextlib.suppress(errors.NoOpError):
                client.administer(AdminOperation.UNLOCK, node_id)
        wait_for(lambda: client.track(CURRENT).number_of_members == 3, "all are members")  # type: ignore[union-attr]


def listing(client: clm.Client, flags: int = CURRENT) -> clm.NotificationBuffer:
    buffer = client.track(flags)
    assert buffer is not None
    return buffer


def refused(
    kind: type[errors.AisError], call: Callable[..., Any], *arguments: Any, **named: Any
) -> errors.AisError:
    with pytest.raises(kind) as caught:
        call(*arguments, **named)
    return caught.value


# NodeGet


def test_clm_01_02_03_node_get_of_the_local_node(handle: Follower) -> None:
    local = handle.client.node_get(clm.LOCAL_NODE_ID, 5 * ONE_SECOND_NS)
    assert local.member is True
    assert handle.client.node_get(local.node_id) == local
    assert local.node_id not in (0, clm.LOCAL_NODE_ID)
    plain = handle.client.level is Level.B_01
    assert local.node_name == ("node1" if plain else "safNode=node1,safCluster=myClmCluster")
    assert local.execution_environment == ""


def test_clm_04_the_address_is_text_of_its_family(handle: Follower) -> None:
    for node_id in (1, 2, 3):
        address = handle.client.node_get(node_id).node_address
        parsed = ipaddress.ip_address(address.value)
        assert address.family == {4: 1, 6: 2}[parsed.version]
        assert len(address.value) <= 64


def test_clm_05_the_boot_time_outlives_the_service(cluster: Cluster, handle: Follower) -> None:
    first = handle.client.node_get().boot_timestamp
    assert 0 < first <= time.time_ns()
    pid = cluster.kill(1, "clm")
    cluster.wait_restarted(1, "clm", pid)
    assert handle.client.node_get().boot_timestamp == first


def test_clm_06_the_initial_view_is_not_later_than_the_present_one(handle: Follower) -> None:
    view = listing(handle.client).view_number
    for node_id in (1, 2, 3):
        assert 0 < handle.client.node_get(node_id).initial_view_number <= view


def test_clm_07_a_node_is_returned_whole_or_not_at_all(handle: Follower) -> None:
    # In C the place for it may be missing; here the result is a value that later views leave alone.
    node = handle.client.node_get()
    with pytest.raises(AttributeError):
        node.node_id = 7  # type: ignore[misc]


def test_clm_08_node_get_with_no_time(handle: Follower) -> None:
    refused(errors.AisTimeoutError, lambda: handle.client.node_get(1, 0))


def test_clm_09_node_get_with_a_negative_time(handle: Follower) -> None:
    refused(errors.InvalidParamError, lambda: handle.client.node_get(1, -1))
    refused(errors.InvalidParamError, lambda: handle.client.node_get(1, -(2**63)))


def test_clm_10_11_node_get_of_no_member(handle: Follower) -> None:
    newest = handle.client.level is Level.B_04
    kind = errors.NotExistError if newest else errors.InvalidParamError
    refused(kind, lambda: handle.client.node_get(NO_MEMBER))


def test_clm_12_node_get_of_node_0(handle: Follower) -> None:
    refused(errors.InvalidParamError, lambda: handle.client.node_get(0))
    refused(errors.InvalidParamError, lambda: handle.client.node_get_async(1, 0))


def test_clm_13_the_longest_time_does_not_overflow(handle: Follower) -> None:
    assert handle.client.node_get(2, TIME_END).node_id == 2


def test_clm_14_node_get_by_callback(handle: Follower) -> None:
    handle.client.node_get_async(77)
    wait_for(handle.client.dispatch, "the callback")
    assert handle.nodes == [(77, handle.client.node_get(), "OK")]
    assert handle.client.dispatch() == 0


def test_clm_15_node_get_async_without_its_callback(mute: clm.Client) -> None:
    refused(errors.InitError, lambda: mute.node_get_async(1))


def test_clm_16_node_get_async_of_no_member_fails_in_the_callback(handle: Follower) -> None:
    handle.client.node_get_async(1, NO_MEMBER)
    wait_for(handle.client.dispatch, "the callback")
    newest = handle.client.level is Level.B_04
    assert handle.nodes == [(1, None, "ERR_NOT_EXIST" if newest else "ERR_INVALID_PARAM")]


def test_clm_17_callbacks_come_in_the_order_of_the_requests(handle: Follower) -> None:
    asked = [(0, 2), (2**64 - 1, NO_MEMBER), (5, 3)]
    for invocation, node_id in asked:
        handle.client.node_get_async(invocation, node_id)
    wait_for(lambda: handle.client.dispatch() >= 0 and len(handle.nodes) == 3, "three callbacks")
    assert [invocation for invocation, _, _ in handle.nodes] == [i for i, _ in asked]


# Track


def test_clm_18_a_listing_has_all_members_unchanged(handle: Follower) -> None:
    buffer = listing(handle.client)
    assert items(buffer) == ALL_UNCHANGED
    assert (buffer.number_of_members, buffer.step) == (3, ChangeStep.COMPLETED)
    assert (buffer.invocation, buffer.root_cause_entity, buffer.time_supervision) == (0, "", 0)
    handle.client.close()
    assert items(buffer) == ALL_UNCHANGED, "a buffer needs no handle and is not freed"


def test_clm_19_more_room_than_members(handle: Follower) -> None:
    buffer = handle.client.track(CURRENT, items_max=9)
    assert buffer is not None
    assert len(buffer.notification) == 3


def test_clm_20_less_room_than_members(handle: Follower) -> None:
    for flags in (CURRENT, CURRENT | CHANGES):
        error = refused(errors.NoSpaceError, handle.client.track, flags, items_max=2)
        assert error.detail == 3
    refused(errors.NotExistError, handle.client.track_stop)
    assert handle.client.track(CURRENT | CHANGES, items_max=3) is not None


def test_clm_21_no_room(handle: Follower) -> None:
    refused(errors.InvalidParamError, lambda: handle.client.track(CURRENT, items_max=0))
    handle.client.track(CHANGES, items_max=0)  # counts with CURRENT only


def test_clm_22_a_listing_by_callback_comes_once(handle: Follower) -> None:
    assert handle.client.track(CURRENT, callback=True) is None
    assert handle.items() == [ALL_UNCHANGED]
    handle.client.node_get()
    assert handle.client.dispatch() == 0


def test_clm_23_25_tracking_by_callback_without_one(mute: clm.Client) -> None:
    refused(errors.InitError, lambda: mute.track(CURRENT, callback=True))
    for flags in (CHANGES, ONLY, CURRENT | CHANGES):
        refused(errors.InitError, mute.track, flags)


def test_clm_24_a_listing_needs_no_callback(mute: clm.Client) -> None:
    assert len(listing(mute).notification) == 3


@pytest.mark.parametrize(
    "flags",
    [0, CHANGES | ONLY, CURRENT | CHANGES | ONLY, 0x40, 0x80, 0x80 | CURRENT, 0x100 | CHANGES],
)
def test_clm_26_27_28_bad_flags(handle: Follower, flags: int) -> None:
    refused(errors.BadFlagsError, lambda: handle.client.track(flags))


@pytest.mark.parametrize("flags", [LOCAL, START, VALIDATE, CURRENT | VALIDATE, CURRENT | START])
def test_clm_29_flags_that_need_others(handle: Follower, flags: int) -> None:
    refused(errors.BadFlagsError, lambda: handle.client.track(flags))


@pytest.mark.parametrize("flags", [START | CHANGES, VALIDATE | ONLY, LOCAL | CHANGES])
def test_clm_30_flags_of_a_newer_level(handle: Follower, flags: int) -> None:
    allowed = handle.client.level is Level.B_04 or (
        handle.client.level is Level.B_03 and flags & LOCAL
    )
    if allowed:
        handle.client.track(flags)
    else:
        refused(errors.BadFlagsError, lambda: handle.client.track(flags))


def test_clm_31_32_the_listing_comes_first_and_a_new_mode_replaces_the_old(
    follow: Callable[..., Follower], unlocked: None
) -> None:
    handle = follow()
    handle.client.track(CURRENT | CHANGES, callback=True)
    handle.client.track(ONLY)
    handle.client.administer(AdminOperation.LOCK, 3)
    wait_for(lambda: len(handle.hear()) == 2, "the change")
    assert handle.items() == [ALL_UNCHANGED, [(3, "LEFT")]]


def test_clm_33_34_track_stop(handle: Follower) -> None:
    refused(errors.NotExistError, handle.client.track_stop)
    handle.client.track(CURRENT)
    refused(errors.NotExistError, handle.client.track_stop)
    handle.client.track(CHANGES)
    handle.client.track_stop()
    refused(errors.NotExistError, handle.client.track_stop)


def test_clm_35_track_stop_drops_track_callbacks_only(handle: Follower) -> None:
    handle.client.track(CURRENT | CHANGES, callback=True)
    handle.client.node_get_async(5)
    handle.client.node_get()  # the answer to the one before it is here now
    handle.client.track_stop()
    assert handle.client.dispatch() == 1
    assert (handle.told, [i for i, _, _ in handle.nodes]) == ([], [5])


def test_clm_39_40_41_43_46_a_node_goes_and_comes(
    cluster: Cluster, follow: Callable[..., Follower]
) -> None:
    every, only = follow("B.01"), follow()
    every.client.track(CHANGES)
    only.client.track(CURRENT | ONLY, callback=True)
    before = {n: every.client.node_get(n).initial_view_number for n in (1, 2, 3)}
    cluster.kill_node(3)
    wait_for(lambda: len(every.hear()) == 1 and len(only.hear()) == 2, "node 3 leaves")
    assert every.items() == [[(1, "NO_CHANGE"), (2, "NO_CHANGE"), (3, "LEFT")]]
    assert every.told[0].notification[2].cluster_node.member is False
    assert only.items()[1] == [(3, "LEFT")]
    assert only.told[1].number_of_members == 2
    assert only.told[1].root_cause_entity == "safNode=node3,safCluster=myClmCluster"
    cluster.up()
    wait_for(lambda: (3, "JOINED") in only.items()[-1], "node 3 joins")
    assert every.items()[-1] == [(1, "NO_CHANGE"), (2, "NO_CHANGE"), (3, "JOINED")]
    after = {n: every.client.node_get(n).initial_view_number for n in (1, 2, 3)}
    assert after[3] > before[3]
    assert {n: after[n] for n in (1, 2)} == {n: before[n] for n in (1, 2)}
    numbers = [buffer.view_number for buffer in only.told]
    assert numbers == sorted(set(numbers))


def test_clm_43_view_numbers_grow_over_a_restart_of_all_nodes(cluster: Cluster) -> None:
    with clm.Client(run_dir=cluster.run_dir(1)) as client:
        before = listing(client).view_number
    cluster.down()
    cluster.up()
    with clm.Client(run_dir=cluster.run_dir(1)) as client:
        assert listing(client).view_number > before
        wait_for(lambda: listing(client).number_of_members == 3, "all are members again")


def test_clm_44_45_all_nodes_agree(cluster: Cluster) -> None:
    def seen() -> set[tuple[object, ...]]:
        views: set[tuple[object, ...]] = set()
        for node in cluster.nodes:
            with clm.Client(run_dir=node.run_dir) as client:
                buffer = listing(client)
                views.add((buffer.view_number, buffer.notification))
        return views

    wait_for(lambda: len(seen()) == 1, "one view everywhere")


# Administration


def test_clm_52_62_lock_and_unlock(follow: Callable[..., Follower], unlocked: None) -> None:
    subscriber, there = follow(node_id=1), follow(node_id=2)
    subscriber.client.track(CHANGES | START)
    there.client.track(CHANGES)
    before = there.client.node_get().initial_view_number

    async def lock() -> None:
        async with aio_clm.Client(run_dir=cluster_dir(there)) as admin:
            locking = asyncio.create_task(admin.administer(AdminOperation.LOCK, 2))
            await asyncio.to_thread(wait_for, subscriber.hear, "START")
            assert not locking.done()
            subscriber.client.response(subscriber.told[0].invocation, Response.OK)
            await locking

    asyncio.run(lock())
    start = subscriber.told[0]
    assert (start.step, start.invocation > 0) == (ChangeStep.START, True)
    assert start.time_supervision == 50 * ONE_SECOND_NS
    wait_for(lambda: len(subscriber.hear()) == 2 and there.hear(), "COMPLETED")
    assert subscriber.items()[1] == [(1, "NO_CHANGE"), (2, "LEFT"), (3, "NO_CHANGE")]
    assert subscriber.told[1].invocation == 0
    assert there.items() == [[(2, "LEFT")]]
    refused(errors.UnavailableError, there.client.node_get)
    refused(errors.UnavailableError, lambda: there.client.response(1, Response.OK))
    there.client.administer(AdminOperation.UNLOCK, clm.LOCAL_NODE_ID)
    wait_for(lambda: len(there.hear()) == 2 and len(subscriber.hear()) == 3, "unlocked")
    assert there.items()[1] == [(n, "JOINED") for n in (1, 2, 3)]
    assert subscriber.items()[2] == [(1, "NO_CHANGE"), (2, "JOINED"), (3, "NO_CHANGE")]
    assert there.client.node_get().initial_view_number > before


def cluster_dir(follower: Follower) -> Any:
    return follower.client._session._path.parent


def test_clm_61_other_services_take_a_locked_node_for_one_that_left(
    cluster: Cluster, follow: Callable[..., Follower], unlocked: None
) -> None:
    admin = follow()
    stale = ckpt.Client(run_dir=cluster.run_dir(2))
    admin.client.administer(AdminOperation.LOCK, 2)
    with stale:
        wait_for(lambda: _unavailable(stale.checkpoints), "the handle is stale")
        refused(errors.UnavailableError, ckpt.Client, run_dir=cluster.run_dir(2))
        admin.client.administer(AdminOperation.UNLOCK, 2)
        wait_for(lambda: _opens(cluster), "new handles are served again")
        refused(errors.UnavailableError, stale.checkpoints)


def _unavailable(call: Callable[[], object]) -> bool:
    try:
        call()
    except errors.UnavailableError:
        return True
    return False


def _opens(cluster: Cluster) -> bool:
    with (
        contextlib.suppress(errors.UnavailableError),
        ckpt.Client(run_dir=cluster.run_dir(2)) as new,
    ):
        new.checkpoints()
        return True
    return False


def test_a_locked_node_stays_locked_over_a_restart_of_its_service_and_of_all_nodes(
    cluster: Cluster, follow: Callable[..., Follower], unlocked: None
) -> None:
    admin = follow()
    admin.client.administer(AdminOperation.LOCK, 2)
    pid = cluster.kill(2, "clm")
    cluster.wait_restarted(2, "clm", pid)
    assert listing(admin.client).number_of_members == 2
    admin.client.close()
    cluster.down()
    cluster.up()
    with clm.Client(run_dir=cluster.run_dir(1)) as client:
        states = {n.node_id: n.state.name for n in client.nodes().nodes}
        assert states[2] == "LOCKED"
        wait_for(lambda: [i for i, _ in items(listing(client))] == [1, 3], "two members")


def test_clm_56_58_response_of_nothing_and_at_older_levels(handle: Follower) -> None:
    client = handle.client
    if client.level < Level.B_03:
        refused(errors.VersionError, lambda: client.response(1, Response.OK))
        return
    answer = Response.OK if client.level is Level.B_04 else Status.OK
    for invocation in (0, -1, 2**64, 999_999):
        refused(
            errors.InvalidParamError,
            client.response,
            invocation,
            answer,
        )
    wrong = Status.OK if client.level is Level.B_04 else Status.ERR_BUSY
    refused(errors.InvalidParamError, lambda: client.response(1, wrong))


def test_clm_64_a_subscriber_that_is_killed_is_not_waited_for(
    cluster: Cluster, follow: Callable[..., Follower], unlocked: None
) -> None:
    command = [sys.executable, "-c", _SUBSCRIBER, str(cluster.run_dir(3))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as subscriber:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "tracks\n"
        admin = follow()

        async def lock() -> None:
            async with aio_clm.Client(run_dir=cluster.run_dir(1)) as client:
                locking = asyncio.create_task(client.administer(AdminOperation.LOCK, 2))

                def waits() -> bool:
                    return any(n.operation for n in admin.client.nodes().nodes)

                await asyncio.to_thread(wait_for, waits, "the lock waits")
                subscriber.kill()
                await asyncio.wait_for(locking, 30)

        asyncio.run(lock())
    assert [i for i, _ in items(listing(admin.client))] == [1, 3]


def test_administration_needs_the_newest_level(handle: Follower) -> None:
    if handle.client.level is Level.B_04:
        refused(errors.NotSupportedError, lambda: handle.client.administer(AdminOperation.RESET, 2))
        refused(errors.InvalidParamError, lambda: handle.client.administer(AdminOperation.LOCK, 0))
        refused(
            errors.NotExistError, lambda: handle.client.administer(AdminOperation.LOCK, NO_MEMBER)
        )
        refused(errors.NoOpError, lambda: handle.client.administer(AdminOperation.UNLOCK, 2))
    else:
        refused(errors.VersionError, lambda: handle.client.administer(AdminOperation.UNLOCK, 2))
        refused(errors.VersionError, handle.client.nodes)


def test_the_eviction_callback_of_level_b_03(cluster: Cluster, unlocked: None) -> None:
    asked: list[tuple[int, AdminOperation]] = []
    refused(errors.VersionError, lambda: clm.Client(None, None, lambda *_: None))
    with clm.Client(
        None,
        None,
        lambda invocation, operation: asked.append((invocation, operation)),
        level="B.03",
        run_dir=cluster.run_dir(2),
    ) as client:

        async def lock() -> None:
            async with aio_clm.Client(run_dir=cluster.run_dir(1)) as admin:
                locking = asyncio.create_task(admin.administer(AdminOperation.LOCK, 2))
                await asyncio.to_thread(wait_for, lambda: client.dispatch() and asked, "asked")
                client.response(asked[0][0], Status.ERR_FAILED_OPERATION)
                with pytest.raises(errors.RepairPendingError):
                    await locking

        asyncio.run(lock())
    assert [operation for _, operation in asked] == [AdminOperation.LOCK]


# Handles


def test_clm_66_a_handle_that_does_not_dispatch_stays_bounded(
    follow: Callable[..., Follower],
) -> None:
    handle = follow()
    handle.client.track(CHANGES)
    present = listing(handle.client)
    nodes = [dataclasses.replace(_NODE, node_id=n, name=f"n{n}", incarnation=n) for n in (1, 9)]
    for k in range(10_000):
        view = wire.Membership(present.view_number + 1 + k, tuple(nodes[: 1 + k % 2]))
        handle.client._changed(view)
    assert len(handle.client._queue) == clm.CALLBACKS_WAITING_MAX
    while handle.client.dispatch():
        pass
    last = handle.told[-1]
    assert last.view_number == present.view_number + 10_000
    assert [n.cluster_node.node_id for n in last.notification] == [1, 9]
    assert len(handle.told) == clm.CALLBACKS_WAITING_MAX + 1


def test_clm_67_68_two_handles_have_their_own_forms_and_lives(
    follow: Callable[..., Follower], unlocked: None
) -> None:
    every, only, admin = follow("B.02"), follow("B.03"), follow()
    closed = follow()
    every.client.track(CHANGES)
    only.client.track(ONLY)
    closed.client.track(CHANGES)
    closed.client.close()
    admin.client.administer(AdminOperation.LOCK, 3)
    wait_for(lambda: every.hear() and only.hear(), "both are told")
    assert every.items() == [[(1, "NO_CHANGE"), (2, "NO_CHANGE"), (3, "LEFT")]]
    assert only.items() == [[(3, "LEFT")]]
    assert closed.told == []
    refused(errors.BadHandleError, closed.client.dispatch)


def test_every_call_on_a_closed_handle_is_refused_before_anything_else(handle: Follower) -> None:
    client = handle.client
    client.close()
    client.close()
    for call in (
        lambda: client.node_get(0, -1),
        lambda: client.node_get_async(1, 0),
        lambda: client.track(0),
        client.track_stop,
        lambda: client.response(0, Response.OK),
        lambda: client.administer(AdminOperation.LOCK, 0),
        client.nodes,
        client.fileno,
        client.dispatch,
    ):
        refused(errors.BadHandleError, call)


def test_a_change_that_comes_while_the_answer_is_on_the_way_is_told(
    follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = follow()
    client = handle.client
    call = client._session.call

    def slow(name: str, message: object, **options: Any) -> Any:
        answer = call(name, message, **options)
        if name == "track":
            client._changed(wire.Membership(answer.view + 1, answer.members[:2]))
        return answer

    monkeypatch.setattr(client._session, "call", slow)
    assert client.track(CURRENT | ONLY, callback=True) is None
    assert handle.items() == [ALL_UNCHANGED, [(3, "LEFT")]]


def test_a_restart_of_the_service_is_no_change(cluster: Cluster, handle: Follower) -> None:
    handle.client.track(CHANGES)
    before = handle.client.node_get()
    cluster.supervisorctl(1, "restart", "clm")
    assert handle.client.node_get() == before
    assert handle.hear() == []


def test_the_asyncio_face(cluster: Cluster, unlocked: None) -> None:
    async def program() -> list[list[tuple[int, str]]]:
        told = []
        async with aio_clm.Client(run_dir=cluster.run_dir(2)) as client:
            assert (await client.node_get()).node_id == 2
            assert (await client.members()).number_of_members == 3
            assert len((await client.nodes()).nodes) == 3
            locking = None
            async for buffer in client.watch(CURRENT | CHANGES | START):
                told.append(items(buffer))
                if locking is None:
                    locking = asyncio.create_task(client.administer(AdminOperation.LOCK, 3))
                elif buffer.step is ChangeStep.START:
                    await client.response(buffer.invocation, Response.OK)
                else:
                    break
            assert locking is not None
            await locking
            await client.stop()
            with pytest.raises(errors.NotExistError):
                await client.stop()
        return told

    planned = [(1, "NO_CHANGE"), (2, "NO_CHANGE"), (3, "LEFT")]
    assert asyncio.run(program()) == [ALL_UNCHANGED, planned, planned]
