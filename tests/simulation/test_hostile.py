"""S40: a member whose memory turns bits behind the seal. What it breaks heals; nobody dies of it.

The axioms cannot hold meanwhile: a bit of a payload is turned as well as one of a token.
"""

from __future__ import annotations

import random

import pytest

from tests.sim.cluster import Cluster, payloads
from tests.sim.host import Datagram, Host
from tests.sim.invariants import Invariants
from tests.sim.network import MS
from totemd.protocol.messages import (
    REQUESTED_MAX,
    Commit,
    DecodeError,
    Entry,
    Message,
    Request,
    RingId,
    decode,
    encode,
)
from totemd.protocol.ordering import Store
from totemd.protocol.parameters import RingParameters

NODES = (1, 2, 3, 4)
ROUNDS = 30
HEALING_NS = 10_000 * MS


class Unwatched(Invariants):
    """What the members of one ring promise each other, a turned bit breaks."""

    def sent(self, message: Message) -> None:
        pass

    def accepted(self, host: Host, ring: RingId, token_seq: int) -> None:
        pass


class Turning(Cluster):
    """Turns one bit of some messages after they are opened."""

    chance = 0.0

    def _check(self, host: Host) -> None:
        host.node.ring.check()  # what is told of processes is taken as it is told

    def _take(self, host: Host, datagram: Datagram) -> None:
        if self.random.random() >= self.chance:
            super()._take(host, datagram)
            return
        data = bytearray(datagram.data)
        bit = self.random.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        try:
            decode(bytes(data))
        except DecodeError:
            return
        d = datagram
        turned = Datagram(d.source, d.sender, d.order, bytes(data), multicast=d.multicast)
        super()._take(host, turned)


@pytest.mark.parametrize("seed", range(24))
def test_turned_bits_behind_the_seal_kill_no_node_and_the_ring_heals(seed: int) -> None:
    cluster = Turning(len(NODES), seed)
    cluster.invariants = Unwatched(RingParameters())
    cluster.wait(cluster.one_ring, 5_000 * MS)
    members = {n: cluster.attach(n) for n in NODES}
    cluster.chance = random.Random(seed).choice([0.001, 0.01, 0.05, 0.3])
    for k in range(ROUNDS):
        for n in NODES:
            cluster.multicast(n, members[n], b"%d:%d:" % (n, k) + bytes(600), 2 + k % 2)
        cluster.run(100 * MS)
    cluster.chance = 0.0
    cluster.run(HEALING_NS)  # a wounded ring may still look whole
    cluster.wait(cluster.one_ring, 60_000 * MS)
    fresh = {n: cluster.attach(n, join=b"fresh") for n in NODES}
    cluster.run(1_000 * MS)
    for n in NODES:
        cluster.multicast(n, fresh[n], b"healed %d" % n, 3)
    cluster.run(1_000 * MS)
    told = [payloads(cluster.running[n].life.streams[fresh[n]]) for n in NODES]
    assert sorted(told[0]) == [b"healed %d" % n for n in NODES]
    assert all(one == told[0] for one in told)
    for n in NODES:
        cluster.node(n).ring.check()


def test_entries_that_cannot_be_of_one_ring_do_not_stop_who_passes_them_on() -> None:
    # They are told as differences of 32 bits: one turned bit, and they do not fit.
    ring = RingId(5, 1)
    entries = (Entry(1, ring, 1 << 62, 1 << 62), Entry(2, ring, 40, 38))
    token = decode(encode(Commit(RingId(9, 1), 2, 2, entries)))
    assert isinstance(token, Commit)
    assert token.entries[1] == entries[1]
    assert token.entries[0].old_aru > 1 << 31


def test_requests_that_overlap_count_twice() -> None:
    # The bound of a token counts each request, so what is added has to count them likewise.
    store = Store(RingId(5, 1), 0, 4096)
    asked = (Request(1, 500, 2), Request(1, 500, 2))
    found = store.missing(4000, asked, 3, {}, 1)
    assert sum(r.count for r in found) <= REQUESTED_MAX
