"""S37: links, seal and ring on two networks, each of which may die, flap or be slow.

Copies on both are the same bytes, so the real seal is what drops the second one.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster
from tests.sim.host import Datagram, Host
from tests.sim.network import MS, US, Faults, Wire
from totemd.protocol.effects import Configuration, ConfigurationKind, Multicast, State, Unicast
from totemd.protocol.links import (
    LinkDown,
    LinkEffect,
    LinkParameters,
    Links,
    LinkUp,
    Mode,
    SendProbe,
)
from totemd.protocol.messages import Data, Probe

KEY = b"the key of two networks" * 3
NODES = (1, 2, 3, 4)
NOTICED_MS = 1_500  # a link is judged by then
PAIRS = {(a, b) for a in NODES for b in NODES if a != b}
FAST = Faults(delay_min_ns=50 * US, delay_max_ns=150 * US)
SLOW = Faults(delay_min_ns=1_000 * US, delay_max_ns=2_000 * US)


class Linked(Cluster):
    """Nodes on several networks; the shell asks `Links` where each datagram goes."""

    def __init__(self, mode: Mode, *networks: Faults) -> None:
        super().__init__(0, key=KEY)
        self.networks = [Wire(random.Random(k), faults) for k, faults in enumerate(networks)]
        self.links: dict[int, Links] = {}
        self._way: tuple[int, ...] = ()
        self.copies = 0
        parameters = LinkParameters(mode=mode, priorities=(1,) * len(networks))
        for node in NODES:
            others = tuple(n for n in NODES if n != node)
            self.links[node] = Links(parameters, others, self.now_ns)
            self.boot(node)
            self._probe(node)

    def _probe(self, node: int) -> None:
        self._probed(node, self.links[node].expire(self.now_ns))
        due = self.links[node].deadline_ns()
        assert due is not None
        self.at(max(1, due - self.now_ns), lambda: self._probe(node))

    def _probed(self, node: int, effects: list[LinkEffect]) -> None:
        for effect in effects:
            match effect:
                case SendProbe(link, None, probe):
                    for other in NODES:
                        if other != node:
                            self._send_probe(node, other, link, probe, multicast=True)
                case SendProbe(link, other, probe):
                    self._send_probe(node, other, link, probe, multicast=False)
                case LinkUp(other):
                    self.perform(node, self.node(node).link_up(other, self.now_ns))
                case LinkDown(other):
                    self.perform(node, self.node(node).link_down(other, self.now_ns))
                case _:
                    pass

    def _send_probe(
        self, node: int, other: int, link: int, probe: Probe, *, multicast: bool
    ) -> None:
        wire = self.networks[link]
        for delay_ns in wire.arrivals(node, other, probe.size, multicast=multicast):
            self.at(delay_ns, lambda: self._take_probe(other, node, link, probe))

    def _take_probe(self, node: int, sender: int, link: int, probe: Probe) -> None:
        self._probed(node, self.links[node].receive(link, sender, probe, self.now_ns))

    def _perform(self, host: Host, effects: Any) -> None:
        for effect in effects:
            links = self.links[host.address]
            if isinstance(effect, Multicast):
                operational = host.node.ring.state is State.OPERATIONAL
                data = isinstance(effect.message, Data) and not effect.again
                self._way = links.multicast_links() if data and operational else links.all
            elif isinstance(effect, Unicast):
                self._way = links.all if effect.again else links.unicast_links(effect.node_id)
            super()._perform(host, [effect])

    def _mark(self, host: Host, c: Configuration) -> None:
        super()._mark(host, c)
        if c.kind is ConfigurationKind.REGULAR:
            self.links[host.address].set_members(c.members)

    def _send(self, host: Host, address: int, datagram: Datagram) -> None:
        for link in self._way:
            wire = self.networks[link]
            self.copies += 1
            for delay_ns in wire.arrivals(
                host.address, address, len(datagram.data), multicast=datagram.multicast
            ):
                self._push(self.now_ns + delay_ns, address, datagram)

    def rings(self) -> list[int]:
        return [self.node(n).ring.stats.rings_installed for n in NODES]


def formed(mode: Mode, *networks: Faults) -> Linked:
    cluster = Linked(mode, *networks)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    cluster.run(2 * NOTICED_MS * MS)
    return cluster


def load(cluster: Linked, duration_ms: int) -> None:
    senders = {n: cluster.attach(n) for n in NODES}
    for k in range(duration_ms // 20):
        for n, connection in senders.items():
            label = b"%d:%d:%d:" % (n, connection, k)
            cluster.multicast(n, connection, label + bytes(700), 2 + k % 2)
        cluster.run(20 * MS)


def judge(cluster: Linked) -> None:
    cluster.run(500 * MS)
    check_all(cluster)


@pytest.mark.parametrize("mode", [Mode.PASSIVE, Mode.ACTIVE])
@pytest.mark.parametrize("dead", [0, 1])
def test_the_death_of_one_network_under_load_changes_no_ring(mode: Mode, dead: int) -> None:
    cluster = formed(mode, FAST, FAST)
    before = cluster.rings()
    load(cluster, 200)
    number = cluster.networks[dead].block(PAIRS)
    load(cluster, NOTICED_MS)
    cluster.networks[dead].unblock(number)
    load(cluster, NOTICED_MS)
    assert cluster.rings() == before
    judge(cluster)


def test_a_network_that_flaps_changes_no_ring() -> None:
    cluster = formed(Mode.PASSIVE, FAST, FAST)
    before = cluster.rings()
    for _ in range(10):
        number = cluster.networks[0].block(PAIRS)
        load(cluster, 300)
        cluster.networks[0].unblock(number)
        load(cluster, 300)
    assert cluster.rings() == before
    judge(cluster)


def test_a_node_that_loses_both_networks_is_alone_and_comes_back_with_one() -> None:
    cluster = formed(Mode.PASSIVE, FAST, FAST)
    around = {pair for pair in PAIRS if 4 in pair}
    numbers = [wire.block(around) for wire in cluster.networks]
    load(cluster, 5_000)
    assert cluster.node(1).groups.nodes == (1, 2, 3)
    assert cluster.node(4).groups.nodes == (4,)
    cluster.networks[1].unblock(numbers[1])
    cluster.wait(cluster.one_ring, 10_000 * MS)
    load(cluster, 200)
    judge(cluster)


def test_the_copies_on_a_fast_and_a_slow_network_are_taken_once() -> None:
    cluster = formed(Mode.ACTIVE, FAST, SLOW)
    before, copies, datagrams = cluster.rings(), cluster.copies, cluster.datagrams
    load(cluster, 1_000)
    assert cluster.copies - copies >= 2 * (cluster.datagrams - datagrams)
    assert cluster.rings() == before
    judge(cluster)
