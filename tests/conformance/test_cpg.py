"""Closed process groups with real nodes: membership, order, errors, dispatch.

C and T are the clauses and tests of docs/cpg.md.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from openais import cpg, errors
from openais.aio import cpg as aio_cpg
from openais.cpg import Guarantee, Reason
from tests.integration.cluster import Cluster, wait_for


class Member:
    """A connection and everything it saw, in order."""

    def __init__(
        self, cluster: Cluster, node_id: int, *, rejoin: bool = False, flags: int = 0
    ) -> None:
        self.events: list[cpg.Event] = []
        self.cpg = cpg.Cpg(
            self.events.append,
            self.events.append,
            self.events.append,
            run_dir=cluster.run_dir(node_id),
            rejoin=rejoin,
            flags=flags,
        )

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Dispatch until a condition holds."""
        wait_for(lambda: self.cpg.dispatch() is not None and condition(), what)

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


@pytest.mark.parametrize("size", [cpg.MESSAGE_SIZE_MAX + 1, 8 << 20])
def test_a_larger_message_is_sent_in_parts_and_arrives_whole(
    members: list[Member], size: int
) -> None:
    """T12, 7.2: and in its place among the others of its sender."""
    payload = os.urandom(size)
    sender = members[0].cpg
    sender.mcast(b"before")
    sender.mcast(memoryview(payload))
    sender.mcast(b"after")
    for member in members:
        member.wait(3)
        assert member.messages() == [(1, b"before"), (1, payload), (1, b"after")]


def test_a_change_of_the_group_interrupts_a_message_in_parts(
    cluster: Cluster, members: list[Member]
) -> None:
    """T12, 7.2, pitfall 19: nobody is delivered it, and the sender knows."""
    connection = members[0].cpg._connection
    interrupted = threading.Event()

    def send() -> None:
        try:
            members[0].cpg.mcast(bytes(40 << 20), wait=30)
        except errors.InterruptError:
            interrupted.set()

    sending = threading.Thread(target=send)
    sending.start()
    wait_for(lambda: connection._assembly.size, "the first part is delivered")
    members[1].cpg.leave()
    sending.join()
    assert interrupted.is_set()
    for member in (members[0], members[2]):
        member.until(
            lambda m=member: len(m.changes()[-1].members) == 2,  # type: ignore[misc]
            "the leave is told",
        )
        assert member.messages() == []
    members[0].cpg.mcast(b"again")
    members[2].until(lambda: members[2].messages()[-1:] == [(1, b"again")], "it goes on")


def test_what_cannot_ever_be_sent_is_told_at_once(cluster: Cluster, members: list[Member]) -> None:
    """Pitfall 20: not with ERR_TRY_AGAIN."""
    with pytest.raises(errors.TooBigError):
        members[0].cpg.mcast(bytes(cpg.LARGE_SIZE_MAX + 1))
    with pytest.raises(errors.InvalidParamError):
        members[0].cpg.mcast(b"x", 4)  # type: ignore[arg-type]
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as outside:
        for payload in (b"x", bytes(cpg.MESSAGE_SIZE_MAX + 1)):
            with pytest.raises(errors.NotExistError):
                outside.mcast(payload)


def test_a_buffer_may_be_used_again_after_the_call(members: list[Member]) -> None:
    """7.3."""
    buffer = bytearray(b"first")
    members[0].cpg.mcast(buffer)
    buffer[:] = b"other"
    members[0].wait(1)
    assert members[0].messages() == [(1, b"first")]


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
        with pytest.raises(errors.NameTooLongError):
            outside.members("n" * 129)
        with pytest.raises(errors.InvalidParamError):
            outside.members("")
    assert members[0].cpg.local_node == 1


def test_iterations_over_names_one_group_and_all(cluster: Cluster, members: list[Member]) -> None:
    """T9: a snapshot, whatever happens meanwhile."""
    kind = cpg.IterationType
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as outside:
        names = outside.iterate(kind.NAME_ONLY)
        one = outside.iterate(kind.ONE_GROUP, "conformance")
        every = outside.iterate(kind.ALL)
        members[2].cpg.leave()
        members[2].until(lambda: members[2].changes()[-1].left, "the leave is told")
        assert cpg.Description("conformance", 0, 0) in list(names)
        found = list(one)
        assert [(d.group, d.node_id) for d in found] == [("conformance", n) for n in (1, 2, 3)]
        assert [d for d in every if d.group == "conformance"] == found
        assert len(list(outside.iterate(kind.ONE_GROUP, "conformance"))) == 2
        assert list(outside.iterate(kind.ONE_GROUP, "nobody")) == []
        for bad in ((kind.ONE_GROUP, None), (kind.ALL, "x"), (kind.NAME_ONLY, "x"), (9, None)):
            with pytest.raises(errors.InvalidParamError):
                outside.iterate(*bad)
        with pytest.raises(errors.NameTooLongError):
            outside.iterate(kind.ONE_GROUP, "n" * 129)
        last = outside.iterate(kind.ALL)
        ended = outside.iterate(kind.ALL)
        ended.close()
        for call in (ended.close, lambda: next(ended)):
            with pytest.raises(errors.BadHandleError):
                call()
    with pytest.raises(errors.BadHandleError):
        next(last)


def test_groups_whose_names_share_a_prefix_are_told_apart(cluster: Cluster) -> None:
    """T9, pitfall 14: also names with zero bytes, and names that are no text."""
    names = [b"share", b"share\0", b"share\0d", b"shared", b"\xff\xfe", b"n" * 128]
    handles = [Member(cluster, 1 + k % 3) for k in range(len(names))]
    for handle, name in zip(handles, names, strict=True):
        handle.cpg.join(name)
        handle.until(handle.changes, "it is a member")
        (change,) = handle.changes()
        assert len(change.members) == 1
        assert handle.cpg.members(change.group) == change.members
    for handle in handles:
        handle.cpg.mcast(b"to my group")
    for handle in handles:
        handle.wait(1)
        assert len(handle.messages()) == 1
        handle.cpg.close()


def test_the_ring_is_told_once_when_asked_for(cluster: Cluster) -> None:
    """C8: after the first change of the handle, with the flag; else only when it changes."""
    silent = Member(cluster, 1)
    asking = Member(cluster, 2, flags=cpg.Flags.DELIVER_INITIAL_TOTEM_CONF)
    for member in (silent, asking):
        member.cpg.join("initial")
    for member in (silent, asking):
        member.until(
            lambda m=member: m.changes() and len(m.changes()[-1].members) == 2,  # type: ignore[misc]
            "both are members",
        )
    assert not [e for e in silent.events if isinstance(e, cpg.RingChange)]
    rings = [(i, e) for i, e in enumerate(asking.events) if isinstance(e, cpg.RingChange)]
    assert [(i, e.nodes) for i, e in rings] == [(1, (1, 2, 3))]
    with pytest.raises(errors.InvalidParamError):
        cpg.Cpg(run_dir=cluster.run_dir(1), flags=2)
    silent.cpg.close()
    asking.cpg.close()


def test_joining_again_waits_for_the_leave(cluster: Cluster) -> None:
    """4.3: LEAVE_STARTED refuses multicasts and leaves, and a join waits; pitfall 9."""
    member, other = Member(cluster, 1), Member(cluster, 1)
    for k in range(5):
        member.cpg.join("again")
        with pytest.raises(errors.ExistError):
            member.cpg.join("again")
        member.cpg.mcast(b"%d" % k)
        member.cpg.leave()
        with pytest.raises(errors.NotExistError):
            member.cpg.mcast(b"too late")
        with pytest.raises(errors.NotExistError):
            member.cpg.leave()
        other.cpg.join("again")  # the same process: waits for the leave of the other handle
        other.cpg.leave()
    member.until(lambda: len(member.changes()) == 10, "all joins and leaves")
    assert [payload for _, payload in member.messages()] == [b"%d" % k for k in range(5)]
    for change in member.changes():
        assert len(change.members) + len(change.left) == 1
    member.cpg.close()
    other.cpg.close()


def test_the_context_is_kept(members: list[Member]) -> None:
    assert members[0].cpg.context is None
    members[0].cpg.context = members
    assert members[0].cpg.context is members


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


def test_the_asyncio_face_has_large_messages_iterations_and_joins_that_wait(
    cluster: Cluster,
) -> None:
    large = os.urandom(3 << 20)

    async def program() -> list[bytes]:
        received: list[bytes] = []
        flags = cpg.Flags.DELIVER_INITIAL_TOTEM_CONF
        async with aio_cpg.Cpg(run_dir=cluster.run_dir(1), flags=flags) as handle:
            await handle.join("asyncio large")
            await handle.leave()
            await handle.join("asyncio large")
            await handle.mcast(large)  # waits for the membership, and for the delivery
            (only,) = await handle.iterate(cpg.IterationType.ONE_GROUP, "asyncio large")
            assert (only.node_id, only.pid) == (1, os.getpid())
            await handle.mcast(bytearray(b"small"))
            kinds = []
            async for event in handle:
                kinds.append(type(event))
                if isinstance(event, cpg.Delivery):
                    received.append(event.payload)
                if len(received) == 2:
                    break
            change = cpg.ConfigurationChange
            assert kinds == [change, cpg.RingChange, change, change, cpg.Delivery, cpg.Delivery]
        return received

    assert asyncio.run(program()) == [large, b"small"]


def test_a_member_that_is_killed_is_down_once_for_all(
    cluster: Cluster, members: list[Member]
) -> None:
    """T4, C6: kill -9 of an application."""
    text = "import sys; from openais import cpg; c = cpg.Cpg(); c.join('conformance'); "
    command = [sys.executable, "-c", text + "print(flush=True); sys.stdin.read()"]
    environment = os.environ | {"OPENAIS_RUN_DIR": str(cluster.run_dir(3))}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"\n"
        for member in members:
            member.until(
                lambda m=member: len(m.changes()[-1].members) == 4,  # type: ignore[misc]
                "the fourth is a member",
            )
        victim.kill()
    for member in members:
        member.until(lambda m=member: m.changes()[-1].left, "it is told")  # type: ignore[misc]
        left = [(c.address, c.reason) for e in member.changes() for c in e.left]
        assert left == [(cpg.Address(3, victim.pid), Reason.PROCDOWN)]


def test_a_callback_may_close_its_handle(cluster: Cluster) -> None:
    """Pitfall 16: no lock is held, what waits is dropped, and the call returns."""
    seen: list[bytes] = []

    def deliver(message: cpg.Delivery) -> None:
        seen.append(message.payload)
        handle.close()

    handle = cpg.Cpg(deliver, run_dir=cluster.run_dir(1))
    handle.join("closed by a callback")
    for k in range(5):
        handle.mcast(b"%d" % k)
    wait_for(lambda: handle.dispatch(cpg.DispatchFlags.ONE) and seen, "the first message")
    assert seen == [b"0"]
    with pytest.raises(errors.BadHandleError):
        handle.dispatch()
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as other:
        wait_for(lambda: other.members("closed by a callback") == (), "it has left")


def test_a_callback_that_closes_drops_the_rest_of_its_bundle(cluster: Cluster) -> None:
    seen: list[bytes] = []
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as sender:

        def deliver(message: cpg.Delivery) -> None:
            seen.append(message.payload)
            if message.payload == b"last words":
                handle.close()

        handle = cpg.Cpg(deliver, run_dir=cluster.run_dir(2))
        for one in (sender, handle):
            one.join("bundle")
        wait_for(lambda: len(sender.members("bundle")) == 2, "both are members")
        for payload in (b"last words", *[b"never seen"] * 50):
            sender.mcast(payload)

        def closed() -> bool:
            try:
                handle.dispatch()
            except errors.BadHandleError:
                return True
            return False

        wait_for(closed, "the handle is closed")
        assert seen == [b"last words"]
