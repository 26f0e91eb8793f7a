"""Closed process groups with real nodes: membership, order, errors, dispatch."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Iterator

import pytest

from openais import cpg, errors
from openais.aio import cpg as aio_cpg
from openais.cpg import Guarantee, Reason
from tests.integration.cluster import Cluster, wait_for


class Member:
    """A connection and everything it saw, in order."""

    def __init__(self, cluster: Cluster, node_id: int, *, rejoin: bool = False) -> None:
        self.events: list[cpg.Event] = []
        self.cpg = cpg.Cpg(
            self.events.append,
            self.events.append,
            self.events.append,
            run_dir=cluster.run_dir(node_id),
            rejoin=rejoin,
        )

    def wait(self, count: int, kind: type = cpg.Delivery) -> list[cpg.Event]:
        """Dispatch until so many events of a kind are there."""

        def found() -> list[cpg.Event] | None:
            self.cpg.dispatch()
            events = [e for e in self.events if isinstance(e, kind)]
            return events if len(events) >= count else None

        events: list[cpg.Event] = wait_for(found, f"{count} events {kind.__name__}")
        return events

    def messages(self) -> list[tuple[int, bytes]]:
        return [(e.sender.node_id, e.payload) for e in self.events if isinstance(e, cpg.Delivery)]

    def changes(self) -> list[cpg.ConfigurationChange]:
        return [e for e in self.events if isinstance(e, cpg.ConfigurationChange)]


@pytest.fixture
def members(cluster: Cluster) -> Iterator[list[Member]]:
    """Three members of a group, each of which has seen all three join."""
    made = [Member(cluster, n) for n in (1, 2, 3)]
    for member in made:
        member.cpg.join("conformance")
    for member in made:
        wait_for(
            lambda m=member: (
                m.cpg.dispatch() is not None  # type: ignore[misc]
                and m.changes()
                and len(m.changes()[-1].members) == 3
            ),
            "all three are members",
        )
    yield made
    for member in made:
        member.cpg.close()


def test_all_members_see_one_order(members: list[Member]) -> None:
    def talk(member: Member) -> None:
        for k in range(100):
            member.cpg.mcast(b"%d" % k, Guarantee.SAFE if k % 3 == 0 else Guarantee.AGREED, wait=5)

    talkers = [threading.Thread(target=talk, args=(m,)) for m in members]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    for member in members:
        member.wait(300)
    first = members[0].messages()
    assert all(member.messages() == first for member in members)
    for node_id in (1, 2, 3):
        mine = [payload for node, payload in first if node == node_id]
        assert mine == [b"%d" % k for k in range(100)]


def test_a_joiner_sees_its_own_join_first_and_nothing_before(
    cluster: Cluster, members: list[Member]
) -> None:
    members[0].cpg.mcast(b"before")
    members[0].wait(1)
    late = Member(cluster, 2)
    with late.cpg:
        # The process is a member already, by another connection of its node.
        with pytest.raises(errors.ExistError):
            late.cpg.join("conformance")
        late.cpg.join("conformance-other")
        change = late.wait(1, cpg.ConfigurationChange)[0]
        assert isinstance(change, cpg.ConfigurationChange)
        assert [c.reason for c in change.joined] == [Reason.JOIN]
        assert late.messages() == []


def test_leaving_ends_with_the_own_leave(members: list[Member]) -> None:
    leaver = members[2]
    leaver.cpg.mcast(b"last words")
    leaver.cpg.leave()
    wait_for(lambda: leaver.cpg.dispatch() is not None and leaver.changes()[-1].left, "it is told")
    assert leaver.messages()[-1] == (3, b"last words")
    assert [c.reason for c in leaver.changes()[-1].left] == [Reason.LEAVE]
    with pytest.raises(errors.NotExistError):
        leaver.cpg.mcast(b"too late")
    with pytest.raises(errors.NotExistError):
        leaver.cpg.leave()
    leaver.cpg.join("conformance-again")


def test_closing_is_a_leave_for_the_others(members: list[Member]) -> None:
    members[2].cpg.close()
    wait_for(
        lambda: members[0].cpg.dispatch() is not None and members[0].changes()[-1].left, "told"
    )
    left = members[0].changes()[-1].left
    assert [(c.address.node_id, c.reason) for c in left] == [(3, Reason.LEAVE)]


def test_the_oldest_member_is_the_same_for_all(members: list[Member]) -> None:
    oldest = {member.changes()[-1].oldest for member in members}
    assert len(oldest) == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("", errors.InvalidParamError), ("n" * 129, errors.NameTooLongError)]
)
def test_bad_group_names(cluster: Cluster, name: str, kind: type[errors.AisError]) -> None:
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as connection, pytest.raises(kind):
        connection.join(name)


def test_a_connection_is_in_one_group(members: list[Member]) -> None:
    with pytest.raises(errors.ExistError):
        members[0].cpg.join("another")


@pytest.mark.parametrize("size", [0, 1, 65_536, cpg.MESSAGE_SIZE_MAX])
def test_a_message_of_any_size_up_to_the_limit(members: list[Member], size: int) -> None:
    payload = os.urandom(size)
    members[0].cpg.mcast(payload)
    for member in members:
        member.wait(1)
        assert member.messages() == [(1, payload)]


def test_a_message_over_the_limit_and_without_a_group(
    cluster: Cluster, members: list[Member]
) -> None:
    with pytest.raises(errors.TooBigError):
        members[0].cpg.mcast(bytes(cpg.MESSAGE_SIZE_MAX + 1))
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as outside, pytest.raises(errors.NotExistError):
        outside.mcast(b"x")


def test_a_full_queue_is_told_and_empties(members: list[Member]) -> None:
    sender = members[0].cpg
    while not sender.flow_controlled:
        sender.mcast(bytes(cpg.MESSAGE_SIZE_MAX))
    with pytest.raises(errors.TryAgainError):
        _fill(sender)
    wait_for(
        lambda: sender.dispatch() is not None and not sender.flow_controlled, "there is room again"
    )


def _fill(sender: cpg.Cpg) -> None:
    for _ in range(100):
        sender.mcast(bytes(cpg.MESSAGE_SIZE_MAX))


def test_members_and_groups_of_others(cluster: Cluster, members: list[Member]) -> None:
    with cpg.Cpg(run_dir=cluster.run_dir(2)) as outside:
        found = outside.members("conformance")
        assert [address.node_id for address in found] == [1, 2, 3]
        assert outside.groups()["conformance"] == found
        assert outside.members("nobody") == ()
    assert members[0].cpg.local_node == 1


def test_the_descriptor_is_readable_exactly_while_events_wait(members: list[Member]) -> None:
    for member in members:
        member.cpg.dispatch()
    assert not select.select([members[1].cpg], [], [], 0)[0]
    members[0].cpg.mcast(b"x")
    assert select.select([members[1].cpg], [], [], 10)[0]
    members[1].cpg.dispatch()
    assert not select.select([members[1].cpg], [], [], 0)[0]


def test_dispatch_flags(members: list[Member]) -> None:
    member = members[0]
    member.cpg.dispatch()
    with pytest.raises(errors.TryAgainError):
        member.cpg.dispatch(cpg.DispatchFlags.ONE_NONBLOCKING)
    with pytest.raises(errors.InvalidParamError, match="DispatchFlags"):
        member.cpg.dispatch(9)
    member.cpg.mcast(b"one")
    assert member.cpg.dispatch(cpg.DispatchFlags.ONE) == 1  # waited for it
    member.events.clear()
    for _ in range(2):
        member.cpg.mcast(b"x")
    member.wait(2)
    blocked = threading.Thread(target=member.cpg.dispatch, args=(cpg.DispatchFlags.BLOCKING,))
    blocked.start()
    member.cpg.mcast(b"y")
    wait_for(lambda: len(member.messages()) == 3, "the blocked thread runs the callback")
    member.cpg.close()
    blocked.join(5)
    assert not blocked.is_alive()
    with pytest.raises(errors.BadHandleError):
        member.cpg.dispatch()


def test_a_forked_child_does_not_have_the_connection(members: list[Member]) -> None:
    child = os.fork()
    if child == 0:
        try:
            members[0].cpg.mcast(b"x")
        except errors.BadHandleError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    members[0].cpg.mcast(b"the parent goes on")
    members[0].wait(1)


def test_a_restart_of_totemd_ends_a_connection_or_makes_it_a_new_member(cluster: Cluster) -> None:
    plain, stubborn = Member(cluster, 3), Member(cluster, 3, rejoin=True)
    watcher = Member(cluster, 1)
    plain.cpg.join("restart-plain")
    stubborn.cpg.join("restart")
    watcher.cpg.join("restart")
    wait_for(
        lambda: (
            watcher.cpg.dispatch() is not None
            and watcher.changes()
            and len(watcher.changes()[-1].members) == 2
        ),
        "both are members",
    )
    cluster.supervisorctl(3, "restart", "totemd")
    wait_for(lambda: _fails(plain), "the plain one is told")
    wait_for(
        lambda: (
            watcher.cpg.dispatch() is not None
            and watcher.changes()[-1].joined
            and len(watcher.changes()[-1].members) == 2
        ),
        "the stubborn one is a member again",
    )
    reasons = [
        c.reason for change in watcher.changes() for c in change.left if c.address.node_id == 3
    ]
    assert reasons == [Reason.NODEDOWN]
    assert watcher.changes()[-1].oldest == cpg.Address(1, os.getpid())
    cluster.up()
    for member in (plain, stubborn, watcher):
        member.cpg.close()


def _fails(member: Member) -> bool:
    try:
        member.cpg.dispatch()
    except errors.LibraryError:
        return True
    return False


def test_the_asyncio_face(cluster: Cluster) -> None:
    async def program() -> list[bytes]:
        async with aio_cpg.Cpg(run_dir=cluster.run_dir(1)) as connection:
            await connection.join("asyncio")
            received: list[bytes] = []
            async for event in connection:
                if isinstance(event, cpg.ConfigurationChange):
                    assert [a.node_id for a in await connection.members("asyncio")] == [1]
                    for k in range(3):
                        await connection.mcast(b"%d" % k)
                elif isinstance(event, cpg.Delivery):
                    received.append(event.payload)
                    if len(received) == 3:
                        await connection.leave()
                        return received
        return []

    assert asyncio.run(program()) == [b"0", b"1", b"2"]
