"""What the members of a group see between two of its views, where a process may join repeatedly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.sim.trace import Life
from totemd.protocol.groups import VANISHED
from totemd.protocol.local import Delivered, Event, RingChanged, View
from totemd.protocol.messages import RingId


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
