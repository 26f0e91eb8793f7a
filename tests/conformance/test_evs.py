"""Extended virtual synchrony with real nodes; E and V are the clauses of docs/evs.md."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator

import pytest

from openais import cpg, errors, evs
from openais.aio import evs as aio_evs
from openais.evs import ConfigurationKind, Guarantee
from tests.integration.cluster import Cluster, wait_for


class Client:
    """A handle and everything it was told, in order."""

    def __init__(self, cluster: Cluster, node_id: int, *, rejoin: bool = False) -> None:
        self.events: list[evs.Event] = []
        self.evs = evs.Evs(
            self.events.append,
            self.events.append,
            run_dir=cluster.run_dir(node_id),
            rejoin=rejoin,
        )

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Dispatch until a condition holds."""
        wait_for(lambda: self.evs.dispatch() is not None and condition(), what)

    def messages(self) -> list[tuple[int, bytes]]:
        return [(e.node_id, e.payload) for e in self.events if isinstance(e, evs.Delivery)]

    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.messages()]

    def configurations(self) -> list[evs.ConfigurationChange]:
        return [e for e in self.events if isinstance(e, evs.ConfigurationChange)]

    def wait_messages(self, count: int) -> None:
        self.wait(lambda: len(self.messages()) >= count, f"{count} messages")


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[Client]]:
    """One handle on each of three nodes."""
    made = [Client(cluster, n) for n in (1, 2, 3)]
    yield made
    for client in made:
        client.evs.close()


def test_the_first_event_is_the_regular_configuration_of_now(clients: list[Client]) -> None:
    """V1, E4."""
    for client in clients:
        assert client.evs.membership().members == (1, 2, 3)  # known before the first dispatch
        client.evs.dispatch()
        (first,) = client.configurations()
        assert first.kind is ConfigurationKind.REGULAR
        assert (first.members, first.left, first.joined) == ((1, 2, 3), (), ())
        assert first.ring.seq > 0
    assert len({client.configurations()[0].ring for client in clients}) == 1
    assert [client.evs.local_node for client in clients] == [1, 2, 3]


def test_a_message_is_told_once_where_any_of_its_groups_is_joined(clients: list[Client]) -> None:
    """V2, E2: overlapping sets, and keys that differ in their last byte only."""
    near, nearer = b"k" * 31 + b"1", b"k" * 31 + b"2"
    clients[0].evs.join(["a", near])
    clients[1].evs.join(["a", "b", nearer])
    clients[2].evs.join(["c"])
    sender = clients[2].evs
    sent: list[tuple[list[str | bytes], bytes]] = [
        (["a", "b"], b"a b"),
        (["b"], b"b"),
        ([near], b"near"),
        ([nearer], b"nearer"),
        ([b"a" + bytes(31)], b"a, written out"),
        (["a", "b", "c", near, nearer], b"end"),
    ]
    for groups, payload in sent:
        sender.mcast_groups(groups, payload, wait=5)
    for client in clients:
        client.wait(lambda c=client: b"end" in c.payloads(), "the last message")  # type: ignore[misc]
    assert clients[0].payloads() == [b"a b", b"near", b"a, written out", b"end"]
    assert clients[1].payloads() == [b"a b", b"b", b"nearer", b"a, written out", b"end"]
    assert clients[2].messages() == [(3, b"end")]


def test_a_sender_need_not_be_in_the_group_it_sends_to(clients: list[Client]) -> None:
    """V3, and E3: a sender in the group receives its own message."""
    clients[1].evs.join(["open"])
    clients[0].evs.mcast_groups(["open"], b"from outside", wait=5)
    clients[1].wait_messages(1)
    clients[1].evs.mcast_joined(b"own", wait=5)
    clients[1].wait_messages(2)
    assert clients[1].messages() == [(1, b"from outside"), (2, b"own")]
    clients[0].evs.dispatch()
    assert clients[0].messages() == []


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_all_handles_see_one_order(clients: list[Client], guarantee: Guarantee) -> None:
    """E3, E7: over all groups and senders, and with every guarantee."""
    for client in clients:
        client.evs.join([f"order {n}" for n in range(3)])
    for k in range(50):
        for client in clients:
            client.evs.mcast_groups([f"order {k % 3}"], b"%d" % k, guarantee, wait=5)
    for client in clients:
        client.wait_messages(150)
    first = clients[0].messages()
    assert all(client.messages() == first for client in clients)
    for node_id in (1, 2, 3):
        assert [p for n, p in first if n == node_id] == [b"%d" % k for k in range(50)]


def test_joining_again_changes_nothing_and_leaving_is_all_or_nothing(
    clients: list[Client],
) -> None:
    client = clients[0]
    client.evs.join(["a", "b"])
    client.evs.join(["b", "b", "a"])
    with pytest.raises(errors.NotExistError):
        client.evs.leave(["a", "never joined"])
    client.evs.mcast_groups(["a"], b"still in", wait=5)
    client.wait_messages(1)
    client.evs.leave(["a", "a"])
    with pytest.raises(errors.NotExistError):
        client.evs.leave(["a"])
    client.evs.mcast_groups(["a"], b"left", wait=5)
    client.evs.mcast_groups(["a", "b"], b"end", wait=5)
    client.wait(lambda: b"end" in client.payloads(), "the last message")
    assert client.payloads() == [b"still in", b"end"]


def test_the_limits_of_groups(clients: list[Client]) -> None:
    """V5: 50 in a call, 256 of a handle, 32 of a message."""
    client = clients[0].evs
    with pytest.raises(errors.TooManyGroupsError) as caught:
        client.join([b"%d" % n for n in range(51)])
    assert caught.value.status == 30
    with pytest.raises(errors.NotExistError):
        client.mcast_joined(b"none of the 51 was joined")
    for k in range(5):
        client.join([b"%d" % n for n in range(50 * k, 50 * k + 50)])
    with pytest.raises(errors.TooManyGroupsError):
        client.join([b"%d" % n for n in range(250, 257)])
    client.join([b"%d" % n for n in range(240, 256)])
    with pytest.raises(errors.TooManyGroupsError):
        client.mcast_joined(b"to 256 groups")
    client.mcast_groups([b"%d" % n for n in range(32)], b"to 32", wait=5)
    clients[0].wait_messages(1)
    with pytest.raises(errors.TooManyGroupsError):
        client.mcast_groups([b"%d" % n for n in range(33)], b"to 33")


def test_what_is_refused(clients: list[Client]) -> None:
    client = clients[0].evs
    for call in (client.join, client.leave):
        with pytest.raises(errors.InvalidParamError):
            call([])
    with pytest.raises(errors.InvalidParamError):
        client.mcast_groups([], b"x")
    with pytest.raises(errors.InvalidParamError, match="33 bytes"):
        client.join(["k" * 33])
    with pytest.raises(errors.NotExistError):
        client.mcast_joined(b"x")
    with pytest.raises(errors.InvalidParamError):
        client.mcast_groups(["a"], b"x", 4)  # type: ignore[arg-type]
    with pytest.raises(errors.TooBigError):
        client.mcast_groups(["a"], bytes(evs.MESSAGE_SIZE_MAX + 1))
    with pytest.raises(errors.InvalidParamError):
        client.dispatch(0)


@pytest.mark.parametrize("size", [0, 1, 65_536, evs.MESSAGE_SIZE_MAX])
def test_a_message_of_any_size_to_the_most_groups(clients: list[Client], size: int) -> None:
    groups = [f"size {n}" for n in range(32)]
    clients[2].evs.join(groups[-1:])
    payload = os.urandom(size)
    clients[0].evs.mcast_groups(groups, payload, Guarantee.SAFE, wait=5)
    clients[2].wait_messages(1)
    assert clients[2].messages() == [(1, payload)]


def test_the_descriptor_dispatch_context_and_close(clients: list[Client]) -> None:
    client = clients[0]
    client.evs.join(["a"])
    client.evs.dispatch()
    assert not select.select([client.evs], [], [], 0)[0]
    with pytest.raises(errors.TryAgainError):
        client.evs.dispatch(evs.DispatchFlags.ONE_NONBLOCKING)
    client.evs.mcast_joined(b"x")
    assert client.evs.dispatch(evs.DispatchFlags.ONE) == 1  # waits for it
    assert client.evs.context is None
    client.evs.context = client
    assert client.evs.context is client
    client.evs.close()
    client.evs.close()
    for call in (
        lambda: client.evs.join(["b"]),
        lambda: client.evs.mcast_joined(b"x"),
        lambda: client.evs.mcast_groups(["a"], b"x"),
        client.evs.membership,
        client.evs.dispatch,
        client.evs.fileno,
    ):
        with pytest.raises(errors.BadHandleError):
            call()


def test_configurations_come_in_pairs_and_a_restart_ends_or_renews_a_handle(
    cluster: Cluster,
) -> None:
    """E4, V1, T5: totemd of node 3 is killed; the others see it go and come."""
    watcher, plain, stubborn = (
        Client(cluster, 1),
        Client(cluster, 3),
        Client(cluster, 3, rejoin=True),
    )
    stubborn.evs.join(["kept"])
    cluster.wait_restarted(3, "totemd", cluster.kill(3, "totemd"))
    watcher.wait(
        lambda: (
            len(watcher.configurations()) > 1 and watcher.configurations()[-1].members == (1, 2, 3)
        ),
        "node 3 came back",
    )
    _first, *changes = watcher.configurations()
    kinds = [c.kind for c in changes]
    assert kinds == [ConfigurationKind.TRANSITIONAL, ConfigurationKind.REGULAR] * (
        len(changes) // 2
    )
    for transitional, regular in zip(changes[::2], changes[1::2], strict=True):
        assert transitional.ring == regular.ring
        assert transitional.joined == regular.left == ()
        assert set(regular.members) == {*transitional.members, *regular.joined}
    assert [c.left for c in changes if c.left] == [(3,)]
    assert [c.joined for c in changes if c.joined] == [(3,)]
    assert watcher.evs.membership().ring == changes[-1].ring
    with pytest.raises(errors.LibraryError):
        wait_for(lambda: plain.evs.dispatch() < 0, "the plain handle fails")
    stubborn.wait(
        lambda: (
            len(stubborn.configurations()) > 1
            and stubborn.configurations()[-1].members == (1, 2, 3)
        ),
        "the stubborn one goes on",
    )
    watcher.evs.mcast_groups(["kept"], b"again", wait=5)
    stubborn.wait_messages(1)
    cluster.up()
    for client in (watcher, plain, stubborn):
        client.evs.close()


def test_the_asyncio_face(cluster: Cluster) -> None:
    async def program() -> list[bytes]:
        async with aio_evs.Evs(run_dir=cluster.run_dir(1)) as handle:
            await handle.join(["asyncio"])
            received: list[bytes] = []
            async for event in handle:
                if isinstance(event, evs.ConfigurationChange):
                    assert handle.membership().members == event.members == (1, 2, 3)
                    await handle.mcast_joined(b"joined")
                    await handle.mcast_groups(["asyncio", "other"], b"groups")
                else:
                    received.append(event.payload)
                    if len(received) == 2:
                        await handle.leave(["asyncio"])
                        return received
        return []

    assert asyncio.run(program()) == [b"joined", b"groups"]


def test_handles_that_come_and_go_leave_nothing_behind(cluster: Cluster) -> None:
    """T15: neither descriptors here nor clients in totemd."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def cycle() -> None:
        with (
            evs.Evs(run_dir=cluster.run_dir(1)) as open_group,
            cpg.Cpg(run_dir=cluster.run_dir(1)) as closed_group,
        ):
            open_group.join(["leak"])
            closed_group.join("leak")

    cycle()
    before = descriptors()
    for _ in range(30):
        cycle()
    wait_for(lambda: descriptors() <= before, "all descriptors are closed")
    with cpg.Cpg(run_dir=cluster.run_dir(1)) as outside:
        wait_for(lambda: outside.members("leak") == (), "no member is left")
