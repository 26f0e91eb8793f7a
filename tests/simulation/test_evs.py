"""EVS clients of simulated nodes, judged by the clauses of docs/evs.md."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from tests.sim.cluster import Cluster
from tests.sim.network import MS, US, Faults
from totemd.protocol.effects import Configuration, ConfigurationKind
from totemd.protocol.local import (
    Accepted,
    ConnectionId,
    Done,
    Event,
    EvsDelivered,
    EvsDeliveredOwn,
    EvsPassed,
    Refused,
)
from totemd.protocol.messages import RingId

KEYS = tuple(b"%d" % n + bytes(31) for n in range(3))
REGULAR, TRANSITIONAL = ConfigurationKind.REGULAR, ConfigurationKind.TRANSITIONAL


@dataclass(slots=True)
class Client:
    """One EVS client of a node's present life."""

    node_id: int
    stream: list[Event]
    cluster: Cluster
    id: ConnectionId
    kept: list[bytes]
    sent: int = 0

    def join(self, *keys: bytes) -> None:
        node = self.cluster.node(self.node_id)
        effects = node.evs_join(self.id, 1_000_000, keys, self.cluster.now_ns)
        self.cluster.perform(self.node_id, effects)

    def send(self, payload: bytes, *keys: bytes, guarantee: int = 2) -> None:
        self.sent += 1
        self.kept.append(payload)
        node = self.cluster.node(self.node_id)
        effects = node.evs_multicast(
            self.id, self.sent, guarantee, b"".join(keys), payload, self.cluster.now_ns
        )
        self.cluster.perform(self.node_id, effects)

    def events(self) -> list[Configuration | EvsDelivered]:
        """Return what it was told, with what it kept in the place of references to it."""
        return [
            EvsDelivered(self.node_id, self.kept[e.request - 1])
            if isinstance(e, EvsDeliveredOwn)
            else e
            for e in self.stream
            if isinstance(e, Configuration | EvsDelivered | EvsDeliveredOwn)
        ]

    def payloads(self) -> list[bytes]:
        return [bytes(e.payload) for e in self.events() if isinstance(e, EvsDelivered)]


@dataclass(slots=True)
class Clients:
    """A cluster with one client per node, which listens to all keys."""

    cluster: Cluster
    all: list[Client] = field(default_factory=list)

    def attach(self, node_id: int, *keys: bytes, keeps: bool | None = None) -> Client:
        running = self.cluster.running[node_id]
        running.connections += 1
        connection = ConnectionId(running.connections)
        stream = running.life.streams.setdefault(connection, [])
        now_ns = self.cluster.now_ns
        keeps = node_id % 2 == 0 if keeps is None else keeps
        effects = running.node.attach_evs(connection, 100, now_ns, keeps=keeps)
        self.cluster.perform(node_id, effects)
        client = Client(node_id, stream, self.cluster, connection, [])
        client.join(*(keys or KEYS))
        self.all.append(client)
        return client


def _facts(client: Client) -> list[tuple[object, ...]]:
    """Return what the port tells: not how long a node took to find out."""
    return [
        (e.kind, e.ring, e.members, e.left, e.joined)
        if isinstance(e, Configuration)
        else (e.node_id, bytes(e.payload))
        for e in client.events()
    ]


def alternation(client: Client) -> None:
    """E4: a regular one without predecessor, then pairs with one ring id and matching lists."""
    configurations = [e for e in client.events() if isinstance(e, Configuration)]
    assert isinstance(client.events()[0], Configuration)
    first, *rest = configurations
    assert (first.kind, first.left, first.joined) == (REGULAR, (), ())
    assert client.node_id in first.members
    old = first
    for transitional, regular in zip(rest[::2], rest[1::2], strict=True):
        assert (transitional.kind, regular.kind) == (TRANSITIONAL, REGULAR)
        assert transitional.ring == regular.ring > old.ring
        assert set(transitional.members) == set(old.members) - set(transitional.left)
        assert transitional.joined == regular.left == ()
        assert set(regular.joined) == set(regular.members) - set(transitional.members)
        assert client.node_id in transitional.members
        old = regular


Step = tuple[RingId, RingId, tuple[int, ...]]


def steps(client: Client) -> dict[Step, list[tuple[int, bytes]]]:
    """Return what was delivered between one regular configuration and the next."""
    found: dict[Step, list[tuple[int, bytes]]] = {}
    told: list[tuple[int, bytes]] = []
    ring = RingId(0, 0)
    transitional: tuple[int, ...] = ()
    for event in client.events():
        if isinstance(event, EvsDelivered):
            told.append((event.node_id, bytes(event.payload)))
        elif event.kind is TRANSITIONAL:
            transitional = event.members
        else:
            found[ring, event.ring, transitional] = told
            ring, told = event.ring, []
    return found


def virtual_synchrony(clients: list[Client]) -> None:
    """E3, D7: who goes from one ring to the next together was told the same."""
    seen: dict[Step, list[tuple[int, bytes]]] = {}
    for client in clients:
        whole = list(steps(client).items())[2:]  # the first may have begun late
        for step, told in whole:
            if step[0] != RingId(0, 0):
                assert seen.setdefault(step, told) == told, f"{step}: told differently"


def test_every_change_is_a_pair_and_messages_stand_in_their_ring() -> None:
    """V1, V4, E4, E5, E6: a partition and its end, under load."""
    cluster = Cluster(3, seed=4, faults=Faults(loss=0.02))
    cluster.wait(cluster.one_ring, 5_000 * MS)
    clients = Clients(cluster)
    one, two, three = (clients.attach(n) for n in (1, 2, 3))
    for k in range(300):
        for client in clients.all:
            client.send(b"%d-%d" % (client.node_id, k), KEYS[k % 3], guarantee=2 + k % 2)
        cluster.run(20 * MS)
        if k == 50:
            cluster.wire.partition({1, 2}, {3})
        if k == 200:
            cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)
    cluster.run(3_000 * MS)
    for client in clients.all:
        alternation(client)
        assert [p for p in client.payloads() if p.startswith(b"%d-" % client.node_id)] == [
            b"%d-%d" % (client.node_id, k) for k in range(300)
        ]
    virtual_synchrony(clients.all)
    assert _facts(one) == _facts(two)
    left = [(c.left, c.joined) for c in one.events() if isinstance(c, Configuration)]
    assert [change for change in left if change != ((), ())] == [((3,), ()), ((), (3,))]
    left = [(c.left, c.joined) for c in three.events() if isinstance(c, Configuration)]
    assert [change for change in left if change != ((), ())] == [((1, 2), ()), ((), (1, 2))]


def test_messages_that_only_the_survivors_have_stand_between_the_pair() -> None:
    """V4, E5: a safe message that the dead node never acknowledged."""
    cluster = Cluster(3, faults=Faults(delay_min_ns=100 * US, delay_max_ns=100 * US))
    cluster.wait(cluster.one_ring, 1_000 * MS)
    clients = Clients(cluster)
    one, two = clients.attach(1), clients.attach(2)
    one.send(b"first", KEYS[0])  # the token of the idle ring rests with who sent last
    cluster.run(50 * MS)
    cluster.crash(3)
    one.send(b"safe", KEYS[0], guarantee=3)
    cluster.wait(lambda: cluster.node(1).groups.nodes == (1, 2), 5_000 * MS)
    cluster.run(50 * MS)
    for client in (one, two):
        kinds = [
            e.kind if isinstance(e, Configuration) else bytes(e.payload)
            for e in client.events()[2:]
        ]
        assert kinds == [TRANSITIONAL, b"safe", REGULAR]


def test_what_is_sent_after_a_regular_configuration_is_delivered_in_that_ring_or_later() -> None:
    """E6: a client is told the configuration while the gate is closed; its answer waits."""
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    clients = Clients(cluster)
    one, two = clients.attach(1), clients.attach(2)
    cluster.wire.partition({1}, {2})
    count = len(one.events())
    cluster.wait(lambda: len(one.events()) > count, 5_000 * MS)
    ring = one.events()[-1]
    assert isinstance(ring, Configuration)
    one.send(b"after", KEYS[0])
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 10_000 * MS)
    cluster.run(100 * MS)
    at = one.events().index(EvsDelivered(1, b"after"))
    assert one.events().index(ring) < at
    alternation(one)
    alternation(two)


def test_an_answer_marks_the_place_in_the_stream_where_a_filter_changes() -> None:
    """E1: nothing of the group before the join's answer, all of it after."""
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    clients = Clients(cluster)
    sender, listener = clients.attach(1), clients.attach(2, KEYS[1])
    for k in range(100):
        sender.send(b"%d" % k, KEYS[0])
        cluster.run(US * 300)
        if k == 50:
            listener.join(KEYS[0])
    cluster.run(50 * MS)
    answers = [i for i, e in enumerate(listener.stream) if isinstance(e, Done)]
    told = [(i, e.payload) for i, e in enumerate(listener.stream) if isinstance(e, EvsDelivered)]
    assert all(i > answers[1] for i, _ in told)
    numbers = [int(payload) for _, payload in told]
    assert numbers == list(range(numbers[0], 100))


def test_who_keeps_what_it_sends_is_told_of_it_by_reference_and_everybody_else_whole() -> None:
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    clients = Clients(cluster)
    one, neighbour, far = (clients.attach(n, KEYS[0], keeps=True) for n in (1, 1, 2))
    whole = clients.attach(1, KEYS[0], keeps=False)
    for k in range(200):
        one.send(b"%d" % k, KEYS[k % 2])  # every second one to a group that it is not in
        whole.send(b"whole %d" % k, KEYS[0])
        cluster.run(US * 100)
    cluster.run(100 * MS)
    assert [e.request for e in one.stream if isinstance(e, EvsDeliveredOwn)] == list(
        range(1, 201, 2)
    )
    assert [e for e in one.stream if isinstance(e, EvsPassed)][-1] == EvsPassed(200)
    for client in (neighbour, far, whole):
        assert not [e for e in client.stream if isinstance(e, EvsDeliveredOwn | EvsPassed)]
        assert client.payloads() == one.payloads()
    assert len(one.payloads()) == 300


def test_what_a_client_sent_that_is_gone_is_told_to_nobody_as_their_own() -> None:
    cluster = Cluster(1)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    clients = Clients(cluster)
    one, other = (clients.attach(1, KEYS[0], keeps=True) for _ in range(2))
    cluster.node(1).packer.gate_open = False
    one.send(b"last words", KEYS[0])
    other.send(b"mine", KEYS[0])
    cluster.perform(1, cluster.node(1).disconnected(one.id, cluster.now_ns))
    cluster.node(1).packer.gate_open = True
    cluster.run(100 * MS)
    assert other.payloads() == [b"last words", b"mine"]
    assert [e.request for e in other.stream if isinstance(e, EvsDeliveredOwn)] == [1]
    cluster.node(1).check()


def test_a_connection_of_evs_is_not_one_of_cpg() -> None:
    cluster = Cluster(1)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    client = Clients(cluster).attach(1)
    node = cluster.node(1)
    cluster.perform(1, node.join(client.id, 7, b"group", cluster.now_ns))
    cluster.perform(1, node.multicast(client.id, 8, 2, b"x", cluster.now_ns))
    cluster.perform(1, node.leave_group(client.id, 9, b"group", cluster.now_ns))
    refused = [e.request for e in client.stream if isinstance(e, Refused)]
    assert refused == [7, 8, 9]
    cluster.perform(1, node.disconnected(client.id, cluster.now_ns))
    node.check()


def test_every_message_is_accepted_once() -> None:
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    client = Clients(cluster).attach(1)
    for _ in range(20):
        client.send(bytes(5_000), KEYS[0])
    cluster.run(200 * MS)
    accepted = [e.request for e in client.stream if isinstance(e, Accepted)]
    assert accepted[-1] == 20
    assert accepted == sorted(set(accepted))


@pytest.mark.parametrize("seed", range(12))
def test_random_faults_never_break_the_clauses(seed: int) -> None:
    """E3 to E5 with loss, crashes, restarts, partitions."""
    rng = random.Random(seed)
    size = rng.randint(2, 4)
    cluster = Cluster(size, seed, Faults(loss=rng.choice([0, 0.02])))
    clients = Clients(cluster)
    living: dict[int, Client] = {}
    for k in range(60):
        for n in sorted(cluster.running):
            if n not in living:
                living[n] = clients.attach(n)
            living[n].send(
                b"%d-%d-%d" % (n, cluster.running[n].life.epoch, k),
                *rng.sample(KEYS, rng.randint(1, 3)),
                guarantee=rng.choice([2, 3]),
            )
        cluster.run(rng.choice([1, 10, 100, 400]) * MS)
        dice, victim = rng.random(), rng.randint(1, size)
        if dice < 0.05 and victim in cluster.running and len(cluster.running) > 1:
            cluster.crash(victim)
            del living[victim]
        elif dice < 0.15 and victim not in cluster.running:
            cluster.boot(victim)
        elif dice < 0.2:
            cluster.wire.partition({victim}, set(range(1, size + 1)) - {victim})
        elif dice < 0.3:
            cluster.wire.heal()
    cluster.wire.heal()
    cluster.wire.faults = Faults()
    cluster.run(5_000 * MS)
    cluster.wait(cluster.one_ring, 30_000 * MS)
    for client in clients.all:
        told = client.payloads()
        assert len(told) == len(set(told)), f"node {client.node_id}: told twice"
    for client in living.values():
        alternation(client)
    virtual_synchrony(clients.all)
