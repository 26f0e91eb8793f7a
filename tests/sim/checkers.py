"""Judges of a simulated run, written from the axioms of extended virtual synchrony.

(Moser, Amir, Melliar-Smith, Agarwal: Extended Virtual Synchrony, section 2.) They see what nodes
delivered, never how.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.sim.cluster import Cluster, Life
from totemd.protocol.effects import Configuration, ConfigurationKind, Deliver
from totemd.protocol.groups import VANISHED
from totemd.protocol.local import Delivered, Event, RingChanged, View
from totemd.protocol.messages import RingId

SAFE = 3
Step = tuple[RingId, RingId]


def check_all(cluster: Cluster) -> None:
    """Apply every judge."""
    lives = cluster.lives
    total_order(lives)
    no_duplicates(lives)
    configurations_agree(lives)
    virtual_synchrony(lives)
    safe_delivery(lives)
    self_delivery(cluster)
    streams_agree(lives)


def total_order(lives: Iterable[Life]) -> None:
    """One (ring, seq) is one message everywhere; every node delivers in that order."""
    messages: dict[tuple[RingId, int], tuple[int, bytes]] = {}
    for life in lives:
        last: dict[RingId, int] = {}
        for m in life.ring_log:
            if isinstance(m, Deliver):
                known = messages.setdefault((m.ring, m.seq), (m.originator, bytes(m.payload)))
                assert known == (m.originator, m.payload), f"two messages are {m.ring} {m.seq}"
                assert m.seq > last.get(m.ring, -1), f"node {life.node_id}: out of order at {m.seq}"
                last[m.ring] = m.seq


def no_duplicates(lives: Iterable[Life]) -> None:
    """No payload reaches one process twice; payloads are unique."""
    for life in lives:
        for stream in life.streams.values():
            seen = [bytes(e.payload) for e in stream if isinstance(e, Delivered)]
            assert len(seen) == len(set(seen)), f"node {life.node_id}: delivered twice"


def _regulars(life: Life) -> list[Configuration]:
    return [
        c
        for c in life.ring_log
        if isinstance(c, Configuration) and c.kind is ConfigurationKind.REGULAR
    ]


def configurations_agree(lives: Iterable[Life]) -> None:
    """One ring id has one membership, which includes who installs it; ids only grow."""
    members: dict[RingId, tuple[int, ...]] = {}
    for life in lives:
        last = RingId(0, 0)
        for c in _regulars(life):
            assert members.setdefault(c.ring, c.members) == c.members, (
                f"{c.ring} has two memberships"
            )
            assert life.node_id in c.members
            assert c.ring > last, f"node {life.node_id}: ring {c.ring} after {last}"
            last = c.ring


def _steps(life: Life) -> dict[Step, tuple[tuple[int, ...], list[tuple[int, bytes]]]]:
    """Return (from ring, to ring) -> (transitional members, messages of the first ring)."""
    steps: dict[Step, tuple[tuple[int, ...], list[tuple[int, bytes]]]] = {}
    ring: RingId | None = None
    transitional: tuple[int, ...] = ()
    messages: list[tuple[int, bytes]] = []
    for m in life.ring_log:
        if isinstance(m, Deliver):
            messages.append((m.seq, bytes(m.payload)))
        elif m.kind is ConfigurationKind.TRANSITIONAL:
            transitional = m.members
        else:
            if ring is not None:
                steps[ring, m.ring] = (transitional, messages)
            ring, messages = m.ring, []
    return steps


def virtual_synchrony(lives: Iterable[Life]) -> None:
    """Nodes that go together from one ring to the next delivered the same messages in it."""
    by_step: dict[Step, dict[int, tuple[tuple[int, ...], list[tuple[int, bytes]]]]] = {}
    for life in lives:
        for step, what in _steps(life).items():
            by_step.setdefault(step, {})[life.node_id] = what
    for step, nodes in by_step.items():
        for node_id, (transitional, messages) in nodes.items():
            for other in transitional:
                if other in nodes and other != node_id:
                    assert nodes[other][0] == transitional, f"{step}: transitional sets differ"
                    assert nodes[other][1] == messages, f"{step}: {node_id} and {other} differ"


def safe_delivery(lives: list[Life]) -> None:
    """What is safe in a ring is delivered by each of its members, unless that one crashes."""
    members: dict[RingId, tuple[int, ...]] = {}
    delivered: dict[RingId, dict[int, set[int]]] = {}
    for life in lives:
        for c in _regulars(life):
            members[c.ring] = c.members
        for m in life.ring_log:
            if isinstance(m, Deliver):
                delivered.setdefault(m.ring, {}).setdefault(life.node_id, set()).add(m.seq)
    crashed = {life.node_id for life in lives if life.crashed or life.retired}
    for life in lives:
        for m in life.ring_log:
            if isinstance(m, Deliver) and m.guarantee == SAFE and not m.transitional:
                for member in members[m.ring]:
                    has = m.seq in delivered[m.ring].get(member, set())
                    assert has or member in crashed, f"safe {m.ring} {m.seq} missing at {member}"


def self_delivery(cluster: Cluster) -> None:
    """What a surviving process multicast it received itself, once and in its order."""
    for r in cluster.running.values():
        life = r.life
        received = [
            bytes(e.payload) for s in life.streams.values() for e in s if isinstance(e, Delivered)
        ]
        mine = set(life.submitted)
        assert [p for p in received if p in mine] == life.submitted, f"node {life.node_id} lost own"


def streams_agree(lives: Iterable[Life]) -> None:
    """Processes that go together from one ring to the next see the same between its events.

    In the transitional part of a ring each component has an order of its own, so only those whose
    next ring is the same are compared.
    """
    spans: dict[tuple[object, ...], tuple[int, tuple[object, ...], list[bytes]]] = {}
    for life in lives:
        for stream in life.streams.values():
            for key, members, span in _spans(life, stream):
                who, known, other = spans.setdefault(key, (life.node_id, members, span))
                assert known == members, f"{key}: two memberships at {who} and {life.node_id}"
                assert other == span, f"{key}: {who} and {life.node_id} differ"


def _spans(
    life: Life, stream: list[Event]
) -> Iterator[tuple[tuple[object, ...], tuple[object, ...], list[bytes]]]:
    """Yield (views between which, with the ring that came after; members; messages)."""
    begun: tuple[RingId, int, tuple[object, ...]] | None = None
    done: list[tuple[tuple[object, ...], tuple[object, ...], list[bytes]]] = []
    span: list[bytes] = []
    for e in stream:
        if isinstance(e, Delivered):
            assert begun is not None or done, f"node {life.node_id}: delivered before the join"
            span.append(bytes(e.payload))
        elif isinstance(e, View):
            # Below: the views of a round, where each side sees only what is new to it.
            if begun is not None and begun[0] == e.ring and e.number > VANISHED:
                done.append(((e.group, *begun[:2], e.number), begun[2], span))
            begun, span = (e.ring, e.number, e.members), []
        elif isinstance(e, RingChanged):
            yield from (((*key, e.ring), members, s) for key, members, s in done)
            done = []
