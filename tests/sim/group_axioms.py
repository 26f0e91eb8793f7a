"""The rules of process groups (C) and of the synchronisation round (Y), on what clients are told.

The ids are those of docs/simulation.md. A client's events are judged together with the ring's
configurations at their place among them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.sim.axioms import History, Violation
from tests.sim.trace import REGULAR, SAFE, UNKNOWN, Ended, Installed, Life, stays
from totemd.protocol import groups, packing
from totemd.protocol.local import (
    Accepted,
    ConnectionId,
    Delivered,
    Event,
    Member,
    Reason,
    Refused,
    RingChanged,
    View,
)
from totemd.protocol.messages import RingId

_Key = tuple[object, ...]
LABEL: Final = re.compile(rb"\d+:\d+:\d+:")  # how the workload begins each message
ROUND: Final = (Reason.NODEDOWN, Reason.NODEUP, Reason.PROCDOWN)  # order of a round's views


@dataclass(slots=True)
class Span:
    """What one client was told while its node was in one regular configuration."""

    client: Client
    installed: Installed
    change: Installed | None = None
    following: Installed | None = None
    round: list[Event] = field(default_factory=list)  # up to the end of the round
    regular: list[Event] = field(default_factory=list)  # after it
    transitional: list[Event] = field(default_factory=list)
    finished: RingChanged | None = None


@dataclass(slots=True)
class Client:
    """One connection of a process."""

    life: Life
    connection: ConnectionId
    events: list[Event]
    spans: list[Span] = field(default_factory=list)

    @property
    def address(self) -> tuple[int, int]:
        """Node and pid."""
        return self.life.node_id, self.life.pids[self.connection]


def clients(lives: Iterable[Life]) -> list[Client]:
    """Cut what each client was told at the ring's configurations."""
    found = []
    for life in lives:
        for connection, stream in life.streams.items():
            if connection in life.pids:
                client = Client(life, connection, stream)
                _cut(client, life.marks.get(connection, []))
                found.append(client)
    return found


def _cut(client: Client, marks: list[tuple[int, Installed]]) -> None:
    ends = [position for position, _ in marks[1:]] + [len(client.events)]
    for (begin, mark), end in zip(marks, ends, strict=True):
        some = client.events[begin:end]
        if mark.kind is REGULAR:
            if client.spans:
                client.spans[-1].following = mark
            span = Span(client, mark)
            client.spans.append(span)
            for event in some:
                _sort(span, event)
        elif client.spans:
            client.spans[-1].change = mark
            for event in some:
                _sort(client.spans[-1], event)


def _sort(span: Span, event: Event) -> None:
    if isinstance(event, RingChanged) and event.ring == span.installed.ring:
        span.finished = event
    if not isinstance(event, View | Delivered | RingChanged):
        return
    if span.finished is None or isinstance(event, RingChanged):
        span.round.append(event)
    elif span.change is not None:
        span.transitional.append(event)
    else:
        span.regular.append(event)


class GroupHistory:
    """What all clients of a cluster were told."""

    def __init__(self, ring: History) -> None:
        self.ring: Final = ring
        self.clients: Final = clients(ring.lives)

    def views(self) -> Iterator[tuple[Client, View | None, View]]:
        """Yield each view with the one before it at that client, within one membership."""
        for client in self.clients:
            before: View | None = None
            for event in client.events:
                if isinstance(event, View):
                    yield client, before, event
                    gone = any(_is(client, c.member) for c in event.left)
                    before = None if gone else event


def _is(client: Client, member: Member) -> bool:
    return (member.node_id, member.pid) == client.address


def _broken(axiom: str, client: Client, what: str, ring: RingId | None = None) -> Violation:
    return Violation(axiom, client.life.node_id, ring, 0, f"client {client.connection}: {what}")


def _key(event: Event) -> _Key:
    """Return what is the same at every member: all but the client's own index."""
    match event:
        case Delivered():
            return (event.node_id, event.pid, event.payload)
        case View():
            return (event.group, event.ring, event.members, event.left, event.joined)
        case _:
            return (event,)


@dataclass(slots=True)
class Run:
    """What a client was told of one membership within one ring, after the round."""

    span: Span
    group: bytes
    keys: list[_Key] = field(default_factory=list)
    to_the_end: bool = False  # it was still a member when the ring ended


def _runs(client: Client) -> Iterator[Run]:
    group: bytes | None = None  # that it is a member of
    for span in client.spans:
        for event in span.round:
            group = _membership(client, event, group)
        run = Run(span, group) if group is not None else None
        for event in span.regular + (span.transitional if span.following else []):
            before, group = group, _membership(client, event, group)
            if before is None and group is not None:
                run = Run(span, group)
            if run is not None:
                run.keys.append(_key(event))
            if group is None and run is not None:
                yield run
                run = None
        if run is not None:
            open_end = client.connection in client.life.closed or span.following is None
            run.to_the_end = not open_end
            yield run


def _membership(client: Client, event: Event, group: bytes | None) -> bytes | None:
    if isinstance(event, View):
        if any(_is(client, c.member) for c in event.left):
            return None
        if any(_is(client, c.member) for c in event.joined):
            return event.group
    return group


def c1(h: GroupHistory) -> Iterator[Violation]:
    """One sequence per group: who moves together sees the same."""
    together: dict[tuple[bytes, RingId, RingId | None], list[Run]] = defaultdict(list)
    for client in h.clients:
        for run in _runs(client):
            following = run.span.following.ring if run.span.following else None
            if run.span.finished is not None:
                together[run.group, run.span.installed.ring, following].append(run)
    for (group, ring, following), some in together.items():
        for k, one in enumerate(some):
            for other in some[k + 1 :]:
                ends = one.to_the_end and other.to_the_end
                if not _consistent(one.keys, other.keys, to_the_end=ends):
                    what = f"group {group!r} to {following}: not as {other.span.client.address}"
                    yield _broken("C1", one.span.client, what, ring)
    yield from _tables(h)


def _tables(h: GroupHistory) -> Iterator[Violation]:
    """After a round all members of a ring know the same members of a group."""
    tables: dict[tuple[bytes, RingId], tuple[Member, ...]] = {}
    for client in h.clients:
        last: View | None = None
        for span in client.spans:
            for event in span.round:
                last = event if isinstance(event, View) else last
            if span.finished is not None and last is not None:
                ring = span.installed.ring
                known = tables.setdefault((last.group, ring), last.members)
                if known != last.members:
                    what = f"group {last.group!r} is {last.members}, elsewhere {known}"
                    yield _broken("C1", client, what, ring)
            for event in (*span.regular, *span.transitional):
                last = event if isinstance(event, View) else last
            if last is not None and any(_is(client, c.member) for c in last.left):
                last = None


def _consistent(one: list[_Key], other: list[_Key], *, to_the_end: bool) -> bool:
    """True: both are runs of one sequence; both its end, if both stayed in the group so long."""
    if not one or not other:
        return True
    if other[0] in one:
        one = one[one.index(other[0]) :]
    elif one[0] in other:
        other = other[other.index(one[0]) :]
    else:
        return True  # one left before the other came
    size = min(len(one), len(other))
    return one[:size] == other[:size] and not (to_the_end and len(one) != len(other))


def c2(h: GroupHistory) -> Iterator[Violation]:
    """A client's events begin with its own join and end with its own leave."""
    for client in h.clients:
        member = False
        for event in client.events:
            if isinstance(event, View):
                if any(_is(client, c.member) for c in event.joined):
                    member = True
                if not member:
                    yield _broken("C2", client, f"a view before its join: {event}")
                if any(_is(client, c.member) for c in event.left):
                    member = False
            elif isinstance(event, Delivered) and not member:
                yield _broken("C2", client, f"{event.payload[:20]!r} outside of its membership")


def c3(h: GroupHistory) -> Iterator[Violation]:
    """A message comes whole, once, from a member."""
    sent: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for life in h.ring.lives:
        for s in life.submissions:
            sent[life.node_id, life.pids[s.connection]].add(s.payload)
    for client in h.clients:
        members: set[tuple[int, int]] = set()
        seen: set[bytes] = set()
        for event in client.events:
            if isinstance(event, View):
                members = {(m.node_id, m.pid) for m in event.members}
            elif isinstance(event, Delivered):
                sender = (event.node_id, event.pid)
                if sender not in members:
                    yield _broken("C3", client, f"{event.payload[:20]!r} of no member {sender}")
                if event.payload in seen or event.payload not in sent[sender]:
                    yield _broken("C3", client, f"{event.payload[:20]!r} twice, or not sent so")
                seen.add(bytes(event.payload))


def c4(h: GroupHistory) -> Iterator[Violation]:
    """A view lists the members after the change, sorted, and the change explains them."""
    for client, before, view in h.views():
        members, left = set(view.members), {c.member for c in view.left}
        joined = {c.member for c in view.joined}
        wrong = list(view.members) != sorted(view.members) or not joined <= members
        if wrong or left & members or not (left or joined):
            yield _broken("C4", client, f"contradicts itself: {view}", view.ring)
        elif before is not None and (set(before.members) - left) | joined != members:
            yield _broken("C4", client, f"{view} after {before}", view.ring)


def c5(h: GroupHistory) -> Iterator[Violation]:
    """One view per cause of a round: all nodes down in one, all nodes up in one."""
    for client in h.clients:
        for span in client.spans:
            seen: set[tuple[bytes, Reason]] = set()
            for event in span.round:
                if isinstance(event, View):
                    causes = {c.reason for c in (*event.left, *event.joined)}
                    for cause in causes:
                        if (event.group, cause) in seen or len(causes) > 1:
                            what = f"{cause.name} more than once, or mixed: {event}"
                            yield _broken("C5", client, what, event.ring)
                        seen.add((event.group, cause))


def c6(h: GroupHistory) -> Iterator[Violation]:
    """A member leaves once, for one reason; joins and leaves of processes come one by one."""
    for client in h.clients:
        gone: set[Member] = set()
        for span in client.spans:
            for event in (*span.round, *span.regular, *span.transitional):
                if not isinstance(event, View):
                    continue
                changes = (*event.left, *event.joined)
                ordered = event not in span.round
                if ordered and (len(changes) != 1 or changes[0].reason in ROUND[:2]):
                    yield _broken("C6", client, f"not one change of a process: {event}")
                if any(_is(client, c.member) for c in event.joined):
                    gone.clear()  # what happened before its own join it was not told
                for change in event.left:
                    if change.member in gone:
                        yield _broken("C6", client, f"{change.member} left twice", event.ring)
                    gone.add(change.member)
                gone -= {c.member for c in event.joined}


def c7(h: GroupHistory) -> Iterator[Violation]:
    """After a change: nodes down, nodes up, processes down, the ring, then messages."""
    for client in h.clients:
        for span in client.spans[1:]:
            order = []
            for event in span.round:
                if isinstance(event, Delivered):
                    what = f"{event.payload[:20]!r} before the round of its ring is over"
                    yield _broken("C7", client, what, span.installed.ring)
                elif isinstance(event, View):
                    reason = (*event.left, *event.joined)[0].reason
                    if reason in ROUND:
                        order.append(ROUND.index(reason))
                    else:
                        yield _broken("C7", client, f"in a round: {event}", span.installed.ring)
            if order != sorted(order):
                yield _broken("C7", client, f"order of reasons {order}", span.installed.ring)


def c8(h: GroupHistory) -> Iterator[Violation]:
    """A finished round is told to every client, once, with the ring and its members."""
    for client in h.clients:
        installed = {stay.ring: stay.installed for stay in stays(client.life)}
        for k, event in enumerate(client.events):
            if isinstance(event, RingChanged):
                known = installed.get(event.ring)
                if known is None or known.members != event.nodes:
                    yield _broken("C8", client, f"{event} of {known}", event.ring)
                if event.current and k > 1:
                    yield _broken("C8", client, "an old ring is told late", event.ring)
    for life in h.ring.lives:
        mine = [c for c in h.clients if c.life is life and c.connection not in life.closed]
        told = {c.connection: [s for s in c.spans[1:] if s.finished is not None] for c in mine}
        for ring in {s.installed.ring for some in told.values() for s in some}:
            for client in mine:
                there = ring in {s.installed.ring for s in client.spans[1:]}
                if there and ring not in {s.installed.ring for s in told[client.connection]}:
                    yield _broken("C8", client, "was not told of the ring", ring)


def _rounds(client: Client) -> Iterator[tuple[Span, frozenset[int]]]:
    """Yield each finished round with the nodes that came along in every hop since the last."""
    shared: frozenset[int] | None = None
    for span in client.spans:
        if span.finished is not None and shared is not None:
            yield span, shared
        if span.finished is not None:
            shared = frozenset(span.installed.members)
        if span.change is not None and shared is not None:
            shared &= frozenset(span.change.members)


def c9(h: GroupHistory) -> Iterator[Violation]:
    """Only whose node did not come along comes up."""
    for client in h.clients:
        for span, shared in _rounds(client):
            up = {
                c.member
                for e in span.round
                if isinstance(e, View)
                for c in e.joined
                if c.reason is Reason.NODEUP and c.member.node_id in shared
            }
            if up:
                what = f"nodes up {sorted(up)}, but {sorted(shared)} came along"
                yield _broken("C9", client, what, span.installed.ring)


def c10(h: GroupHistory) -> Iterator[Violation]:
    """Whose node did not come along goes down, and only they."""
    for client in h.clients:
        rounds = {id(span): shared for span, shared in _rounds(client)}
        members: dict[bytes, set[Member]] = {}
        for span in client.spans:
            shared = rounds.get(id(span))
            if shared is not None:
                down = {
                    c.member
                    for e in span.round
                    if isinstance(e, View)
                    for c in e.left
                    if c.reason is Reason.NODEDOWN
                }
                owed = {m for some in members.values() for m in some if m.node_id not in shared}
                if down != owed:
                    what = f"nodes down {sorted(down)}, should be {sorted(owed)}"
                    yield _broken("C10", client, what, span.installed.ring)
            for event in (*span.round, *span.regular, *span.transitional):
                if isinstance(event, View):
                    members[event.group] = set(event.members)
                    if any(_is(client, c.member) for c in event.left):
                        members.pop(event.group)


def c11(h: GroupHistory) -> Iterator[Violation]:
    """A node that started again is down before its new processes come; it did not lose some."""
    owners: dict[tuple[int, int], list[tuple[Life, ConnectionId]]] = defaultdict(list)
    for life in h.ring.lives:
        for connection, pid in life.pids.items():
            owners[life.node_id, pid].append((life, connection))
    owner = {key: some[0] for key, some in owners.items() if len(some) == 1}
    for client, _, view in h.views():
        epochs: dict[int, set[int]] = defaultdict(set)
        for m in view.members:
            if (m.node_id, m.pid) in owner:
                epochs[m.node_id].add(owner[m.node_id, m.pid][0].epoch)
        for node_id, some in epochs.items():
            if len(some) > 1:
                what = f"node {node_id} has processes of {len(some)} lives: {view.members}"
                yield _broken("C11", client, what, view.ring)
        for c in view.left:
            left = owner.get((c.member.node_id, c.member.pid))
            if c.reason is Reason.PROCDOWN and left and left[1] not in left[0].closed:
                yield _broken("C11", client, f"{c.member} did not die alone", view.ring)


def c12(h: GroupHistory) -> Iterator[Violation]:
    """A message that was to be safe travels in frames that are."""
    safe = {
        match.group()
        for life in h.ring.lives
        for s in life.submissions
        if s.guarantee == SAFE and (match := LABEL.match(s.payload))
    }
    for ring, sent in h.ring.origins.items():
        for seq, (node, one) in sent.items():
            if one.guarantee != SAFE and not safe.isdisjoint(LABEL.findall(one.payload)):
                yield Violation("C12", node, ring, seq, "a safe message in a frame that is not")


# The round


def _is_list(payload: bytes) -> bool:
    """True: the frame begins a process list, which only the round sends."""
    segments = packing.HEADER.unpack_from(payload)[3]
    start = packing.HEADER.size + packing.LENGTH_SIZE * segments
    continues = payload[1] & packing.FIRST_CONTINUES
    return not continues and payload[start : start + 1] == bytes((groups.Kind.PROCESS_LIST,))


def _lists(h: GroupHistory) -> dict[RingId, dict[int, int]]:
    """Return ring -> node -> position of its part of the round."""
    found: dict[RingId, dict[int, int]] = defaultdict(dict)
    for ring, sent in h.ring.origins.items():
        for seq, (node, one) in sent.items():
            if _is_list(one.payload):
                found[ring][node] = max(seq, found[ring].get(node, 0))
    return found


def y1(h: GroupHistory) -> Iterator[Violation]:
    """A round ends at every member that delivered all its parts, and at no other."""
    lists = _lists(h)
    got = {(id(stay.life), stay.ring): {m.seq for m in stay.got} for stay in h.ring.stays}
    for client in h.clients:
        for span in client.spans[1:]:
            ring = span.installed.ring
            parts = lists.get(ring, {})
            delivered = got.get((id(client.life), ring), set())
            whole = set(parts) >= set(span.installed.members) and set(parts.values()) <= delivered
            open_end = client.life.ended is not Ended.RUNNING and span.following is None
            if client.connection in client.life.closed:
                continue
            if whole != (span.finished is not None) and not open_end:
                what = f"round finished: {span.finished is not None}, should be {whole}"
                yield _broken("Y1", client, what, ring)


def y2(h: GroupHistory) -> Iterator[Violation]:
    """Nothing but the round is originated before its sender has seen the round's end."""
    lists = _lists(h)
    for ring, sent in h.ring.origins.items():
        parts = lists.get(ring, {})
        members = h.ring.by_ring[ring][0].installed.members if ring in h.ring.by_ring else ()
        for seq, (node, one) in sent.items():
            known = one.delivered != UNKNOWN
            if known and not _is_list(one.payload) and seq not in parts.values():
                owed = [n for n in members if parts.get(n, seq) > one.delivered]
                if owed and parts.get(node, 0) < seq:
                    yield Violation("Y2", node, ring, seq, f"before the parts of {owed}")


def y5(h: GroupHistory) -> Iterator[Violation]:
    """The end of a round names the ring that is installed; a round ends once."""
    for client in h.clients:
        for span in client.spans:
            ends = [
                e
                for e in span.round + span.regular + span.transitional
                if isinstance(e, RingChanged)
            ]
            first = span is client.spans[0]
            if any(e.ring != span.installed.ring for e in ends) and not first:
                yield _broken("Y5", client, f"round of {ends}", span.installed.ring)
            if len(ends) > 1 and not first:
                yield _broken("Y5", client, "a round ends twice", span.installed.ring)


def d10(h: GroupHistory) -> Iterator[Violation]:
    """What a running node accepted is sent, and reaches its sender in order, once."""
    for client in h.clients:
        life = client.life
        if life.ended is not Ended.RUNNING or client.connection in life.closed:
            continue
        refused = {e.request for e in client.events if isinstance(e, Refused)}
        mine = [s for s in life.submissions if s.connection == client.connection]
        owed = [s.payload for s in mine if s.request not in refused]
        accepted = max((e.request for e in client.events if isinstance(e, Accepted)), default=0)
        waits = [s.request for s in mine if s.request not in refused and s.request > accepted]
        if waits:
            yield _broken("D10", client, f"requests {waits[:5]} were never sent")
        known = set(owed)
        received = [
            e.payload for e in client.events if isinstance(e, Delivered) and e.payload in known
        ]
        if received != owed:
            missing = [p[:20] for p in owed if p not in set(received)][:3]
            yield _broken("D10", client, f"of its own messages it lacks {missing}")


Rule = Callable[[GroupHistory], Iterator[Violation]]
RULES: Final[dict[str, Rule]] = {
    "C1": c1,
    "C2": c2,
    "C3": c3,
    "C4": c4,
    "C5": c5,
    "C6": c6,
    "C7": c7,
    "C8": c8,
    "C9": c9,
    "C10": c10,
    "C11": c11,
    "C12": c12,
    "D10": d10,
    "Y1": y1,
    "Y2": y2,
    "Y5": y5,
}


def violations(ring: History) -> list[Violation]:
    """Apply every rule."""
    history = GroupHistory(ring)
    return [v for rule in RULES.values() for v in rule(history)]
