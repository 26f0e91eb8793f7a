"""One replica of a service: a deterministic function of the ordered stream of its group. Pure.

It applies operations to the machine, keeps the sessions, and brings replicas that meet to one
state. Whatever it decides, it decides from delivered entries alone, so every replica decides the
same at the same position, and a process that replays the stream decides it again.

A view in which nobody is new comes into force by one ordered `Settle`; operations go on meanwhile.
When somebody is new, every member announces what it remembers, operations wait, and when all have
announced, the side with the most members (then the most applied entries, then the lowest id) wins.
Its members go on at once; the lowest of them sends the state to those that lack it, who apply
what waited afterwards. Quorum, where there is one: the side with the most quorate steps wins; a
minority applies no request, from the event on that tells that the others are gone.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from openais.wire import port
from openais.wire.codec import Buffer, DecodeError, pack_state, unpack_bundle, unpack_state
from openais.wire.port import Reason, RingId
from services.kit import entries
from services.kit.application import Application
from services.kit.effects import (
    Dropped,
    Effect,
    LeftOut,
    Moved,
    Now,
    Rejoin,
    ReplicaStats,
    Send,
    State,
)
from services.kit.entries import RoundId
from services.kit.machine import (
    KEPT,
    Context,
    Machine,
    NodeId,
    Notifications,
    Report,
    View,
)
from services.kit.memory import Memory
from services.kit.quorum import NO_QUORUM, Ballot, Quorum
from services.kit.sessions import Sessions
from services.kit.versions import Offer, Span, Versions, unspeakable

ANNOUNCE_NS: Final = 6_000_000_000  # who has not announced by then is left out; > seat grace
SETTLE_AGAIN_NS: Final = 500_000_000  # a settle that was lost with its sender is sent again
TRANSFER_NS: Final = 30_000_000_000  # without a part of the state; then the member joins anew
PROPOSE_AGAIN_NS: Final = 1_000_000_000  # what expired is proposed again
DEFERRED_BYTES_MAX: Final = 512 << 20  # waiting for the state; more: the member joins anew


@dataclass(slots=True)
class _Round:
    id: RoundId
    members: tuple[int, ...]
    meeting: bool  # somebody is new: everybody announces
    began_ns: int
    announces: dict[int, entries.Announce] = field(default_factory=dict)
    settle_sent_ns: int = 0


@dataclass(slots=True)
class _Transfer:
    """A state on its way; tracked by every member, assembled by those that lack it."""

    round: RoundId
    donor: int
    receivers: frozenset[int]
    together: bool  # who has the state is no quorum without those that receive it: all wait
    settle: _Plan
    last_ns: int
    position: int = 0
    parts: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a meeting decided."""

    round: RoundId
    nodes: tuple[int, ...]
    winners: frozenset[int]
    now_ns: int
    announces: dict[int, entries.Announce]


@dataclass(slots=True)
class _Partial:
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Replica:
    """See the module.

    Args:
        node_id: this node.
        machine: a fresh state machine of the service.
        ballot: what this node brings to the count of votes.
        needs_quorum: without it requests are refused, and sessions go stale.
        notifications: how many are kept for a session, and what happens to more.
    """

    def __init__(
        self,
        node_id: int,
        machine: Machine,
        ballot: Ballot = NO_QUORUM,
        *,
        needs_quorum: bool = True,
        notifications: Notifications = KEPT,
    ) -> None:
        self.me: Final = NodeId(node_id)
        self.machine: Final = machine
        self.sessions: Final = Sessions()
        self.quorum: Final = Quorum()
        self.versions: Final = Versions()
        self.offer: Final = Offer(
            Span(entries.VERSION, entries.VERSION_MIN),
            Span(machine.table.version, machine.table.version_min),
        )
        self._ballot: Final = ballot
        self._needs_quorum: Final = needs_quorum
        self.stats: Final = ReplicaStats()
        self.application: Final = Application(self, notifications, self._emit)
        self.memory: Final = Memory(machine, self.sessions, self._head)
        self.state = State.JOINING
        self.index = 0  # of the last event of the stream
        self.applied = 0
        self.replaying = False
        self.view: View | None = None  # in force
        self.component: RoundId | None = None  # its round
        self._departed: dict[int, Reason] = {}  # since the view in force
        self._round: _Round | None = None
        self._transfer: _Transfer | None = None
        self._deferred: Final[deque[tuple[int, Any, int]]] = deque()
        self._deferred_bytes = 0
        self._proposed_ns = -PROPOSE_AGAIN_NS
        self._now = Now(0, 0)
        self._partial: Final[dict[int, _Partial]] = {}  # entries in fragments, by sender
        self._out: list[Effect] = []

    # The stream

    def delivered(self, event: port.Delivered, now: Now) -> list[Effect]:
        """Take one bundle of a member."""
        self._now = now
        self.index = event.index
        try:
            bundle = unpack_bundle(event.payload)
        except DecodeError:
            self.stats.entries_malformed += 1
            return self._take()
        for data in bundle:
            try:
                entry = entries.decode(data, self.versions.spoken.replicas)
            except DecodeError:
                self.stats.entries_malformed += 1
                continue
            self._entry(event.node_id, entry, len(data))
        return self._take()

    def viewed(self, event: port.View, now: Now) -> list[Effect]:
        """Take a change of the group's membership."""
        self._now = now
        self.index = event.index
        nodes = tuple(sorted({m.node_id for m in event.members}))
        joined = {c.member.node_id for c in event.joined}
        for change in event.left:
            self._departed[change.member.node_id] = change.reason
        self.quorum.reduce(set(nodes) - joined - set(self._departed))
        meeting = bool(joined) or self.view is None or self._transfer is not None
        if self._round is not None and self._round.meeting:
            meeting = True
        self._transfer = None
        round_id = RoundId(event.ring.seq, event.ring.representative, event.number)
        self._round = _Round(round_id, nodes, meeting, now.ns)
        for node in [n for n in self._partial if n not in nodes or n in joined]:
            del self._partial[node]
        if meeting:
            self.stats.meetings += 1
            self._drop_deferred()
            self._move(State.MERGING if self.view is not None else State.JOINING)
            if not self.replaying:
                self._announce()
        elif not self.replaying:
            self._propose_settle()
        return self._take()

    def caught_up(self, now: Now) -> list[Effect]:
        """The replay is over: say what was not said yet."""
        self._now = now
        self.replaying = False
        r = self._round
        if r is not None:
            r.began_ns = now.ns
            if r.meeting and self.me not in r.announces:
                self._announce()
            elif not r.meeting:
                self._propose_settle()
        t = self._transfer
        if t is not None:
            t.last_ns = now.ns
            if t.donor == self.me:
                self._send_state(t.round, b"".join(t.parts), t.position)
        self._say_versions()
        return self._take()

    def _say_versions(self) -> None:
        """Tell the others what this process speaks, if that of its predecessor differs."""
        rule = unspeakable(self.offer, self.versions.spoken)
        if rule is not None:
            self._rejoin(rule)
        elif self.versions.offers.get(self.me, self.offer) != self.offer:
            self._send(entries.Offer(*self.offer.replicas, *self.offer.service))

    def reattached(self, now: Now) -> list[Effect]:
        """Begin a new stream with the memory of the old one: the ring process was restarted."""
        self._now = now
        self.index = 0
        self.replaying = False
        self._round = self._transfer = None
        self._partial.clear()
        self._drop_deferred()
        if self.view is not None:
            self._departed |= {n: Reason.NODEDOWN for n in self.view.members if n != self.me}
            self.quorum.reduce({self.me})
            self._move(State.MERGING)
        return self._take()

    def wait_ns(self, now: Now) -> int | None:
        """Return in how many ns `expire` wants to be called; None: never."""
        self._now = now
        waits = []
        r = self._round
        if r is not None and not self.replaying:
            waits.append(r.began_ns + ANNOUNCE_NS - self._now.ns)
            if not r.meeting:
                waits.append(SETTLE_AGAIN_NS)
        if self._transfer is not None:
            waits.append(self._transfer.last_ns + TRANSFER_NS - self._now.ns)
        due = self.machine.deadline_ns() if self._proposes() else None
        if due is not None:
            again = self._proposed_ns + PROPOSE_AGAIN_NS - self._now.ns
            waits.append(max(due - now.wall_ns, again))
        return max(0, min(waits)) if waits else None

    def expire(self, now: Now) -> list[Effect]:
        """Do what time demands: propose what is due, go on without who is silent."""
        self._now = now
        r = self._round
        if r is not None and not self.replaying:
            if r.meeting and now.ns - r.began_ns >= ANNOUNCE_NS:
                self._go_on_without(r)
            elif not r.meeting:
                self._propose_settle()
        if self._transfer is not None and now.ns - self._transfer.last_ns >= TRANSFER_NS:
            self._rejoin("no state came")
        due = self.machine.deadline_ns() if self._proposes() else None
        again = now.ns - self._proposed_ns >= PROPOSE_AGAIN_NS
        if due is not None and due <= now.wall_ns and again:
            self._proposed_ns = now.ns
            for operation in self.machine.expired(now.wall_ns):
                self._send(entries.Own(now.wall_ns, self.application.encoded(operation)))
        return self._take()

    def _proposes(self) -> bool:
        return (
            self.state is State.LIVE
            and not self.replaying
            and self.view is not None
            and self.view.members[0] == self.me
            and self.acts
        )

    @property
    def acts(self) -> bool:
        """True: requests are served here, as far as the quorum is concerned."""
        return self.quorum.acts or not self._needs_quorum

    # Entries

    def _entry(self, node: int, entry: Any, size: int) -> None:
        match entry:
            case entries.Announce():
                self._announced(node, entry)
            case entries.Settle():
                self._settle_delivered(entry)
            case entries.Chunk():
                self._chunk(node, entry)
            case entries.Fragment():
                self._fragment(node, entry)
            case _:
                if self._must_wait():
                    self._defer(node, entry, size)
                else:
                    self._apply(node, entry)

    def _fragment(self, node: int, fragment: entries.Fragment) -> None:
        if fragment.position == 0:
            self._partial[node] = _Partial()
        partial = self._partial.get(node)
        size = fragment.position + len(fragment.data)
        if partial is None or partial.size != fragment.position or size > entries.ENTRY_SIZE_MAX:
            self._partial.pop(node, None)
            self.stats.entries_malformed += 1
            return
        partial.parts.append(fragment.data)
        partial.size = size
        if size < fragment.total:
            return
        del self._partial[node]
        try:
            entry = entries.decode(b"".join(partial.parts), self.versions.spoken.replicas)
        except DecodeError:
            self.stats.entries_malformed += 1
            return
        if not isinstance(entry, entries.Fragment):
            self._entry(node, entry, size)

    def _must_wait(self) -> bool:
        if self._round is not None and self._round.meeting:
            return True
        t = self._transfer
        return t is not None and (t.together or self.me in t.receivers)

    def _defer(self, node: int, entry: Any, size: int) -> None:
        self._deferred.append((node, entry, size))
        self._deferred_bytes += size
        if self._deferred_bytes > DEFERRED_BYTES_MAX:
            self._rejoin(f"over {DEFERRED_BYTES_MAX} bytes wait for the state")

    def _drop_deferred(self) -> None:
        """Forget what waited for a meeting that did not end.

        Members that come together again may have deferred different entries in different rings,
        so all drop them; who sent them does so again when it is live.
        """
        if self._deferred:
            self._deferred.clear()
            self._deferred_bytes = 0
            self._out.append(Dropped())

    def _apply_deferred(self) -> None:
        while self._deferred and not self._must_wait():
            node, entry, size = self._deferred.popleft()
            self._deferred_bytes -= size
            self._apply(node, entry)

    def _apply(self, node: int, entry: Any) -> None:
        if self.view is None:
            return  # of a time before this replica
        self.applied += 1
        self.quorum.step()
        if isinstance(entry, entries.Offer):
            self._offered(node, entry)
            return
        if isinstance(entry, entries.Own) and node == self.me:
            self._proposed_ns = self._now.ns - PROPOSE_AGAIN_NS
        self.application.apply(NodeId(node), entry, self.view)

    def _offered(self, node: int, entry: entries.Offer) -> None:
        """Fix anew what the group speaks: another process has taken the seat of a member."""
        before = self.versions.spoken
        spoken = self.versions.offered(node, entry.offer)
        rule = unspeakable(self.offer, spoken)
        if rule is not None:
            self._rejoin(rule)
        elif spoken.service != before.service:
            self._speak(spoken.service)

    # Views that come into force

    def _propose_settle(self) -> None:
        """Send the settle of a view in which nobody is new; its first member does."""
        r = self._round
        assert r is not None
        if r.members[0] != self.me:
            return
        if r.settle_sent_ns and self._now.ns - r.settle_sent_ns < SETTLE_AGAIN_NS:
            return
        r.settle_sent_ns = max(self._now.ns, 1)
        self._send(entries.Settle(r.id, self._now.wall_ns, r.members))

    def _go_on_without(self, r: _Round) -> None:
        """Somebody does not announce: its view settles without it."""
        if r.announces and min(r.announces) == self.me:
            r.began_ns = self._now.ns
            nodes = tuple(sorted(r.announces))
            self._send(entries.Settle(r.id, self._now.wall_ns, nodes))

    def _announce(self) -> None:
        r = self._round
        assert r is not None
        own = self.sessions.of_node(self.me)
        has_state = self.view is not None
        self._send(
            entries.Announce(
                r.id,
                self._now.wall_ns,
                *self.offer.replicas,
                has_state,
                self.component,
                self.digest() if has_state else b"",
                self.applied if has_state else 0,
                self.sessions.pack(own),
                self.machine.report(own),
                *self.offer.service,
                self._ballot,
                self.quorum.steps,
            )
        )

    def _announced(self, node: int, announce: entries.Announce) -> None:
        r = self._round
        if r is None or not r.meeting or announce.round != r.id or node not in r.members:
            return
        r.announces.setdefault(node, announce)
        if len(r.announces) == len(r.members):
            self._decide(r, r.members)

    def _settle_delivered(self, settle: entries.Settle) -> None:
        r = self._round
        if r is None or settle.round != r.id:
            return
        if r.meeting:
            nodes = tuple(n for n in settle.nodes if n in r.announces)
            if self.me not in nodes:
                self._rejoin("left out of the view: announced too late")
            elif nodes:
                self._decide(r, nodes)
            return
        self._round = None
        assert self.view is not None, "a first view begins with a meeting"
        members = tuple(n for n in r.members if n in self.view.members)  # not who was left out
        self._install(_Plan(r.id, members, frozenset(members), settle.now_ns, {}))

    def _decide(self, r: _Round, nodes: tuple[int, ...]) -> None:
        """All have announced: the side that was quorate last wins, else the largest."""
        self._round = None
        sides: dict[tuple[bool, RoundId | None, bytes], list[int]] = {}
        for node in nodes:
            a = r.announces[node]
            sides.setdefault((a.has_state, a.component, a.digest), []).append(node)

        def rank(side: tuple[bool, RoundId | None, bytes]) -> tuple[bool, int, int, int, int]:
            members = sides[side]
            a = r.announces[members[0]]
            return side[0], a.quorate_steps, len(members), a.applied, -members[0]

        winners = frozenset(sides[max(sides, key=rank)])
        offers = {n: r.announces[n].offer for n in nodes}
        out = self.versions.left_out(offers, winners)
        if self.me in out:
            self._out.append(LeftOut(out[self.me]))
            return
        nodes = tuple(n for n in nodes if n not in out)
        winners -= out.keys()
        if self.me in winners:  # before the state is sent: it is told in what all understand
            self.versions.install(nodes, offers)
            self.machine.speak(self.versions.spoken.service)
        now_ns = max(a.now_ns for node, a in r.announces.items() if node in nodes)
        plan = _Plan(r.id, nodes, winners, now_ns, {n: r.announces[n] for n in nodes})
        receivers = frozenset(nodes) - winners
        together = bool(receivers) and not self._reached_by(winners, plan)
        if receivers:
            donor = min(winners)
            self._transfer = _Transfer(r.id, donor, receivers, together, plan, self._now.ns)
            if donor == self.me and self.replaying:
                self._transfer.parts.append(self.dump())  # its rest is sent after the replay
            elif donor == self.me:
                self._send_state(r.id, self.dump(), 0)
        if self.me in winners and not together:
            self._install(plan)

    def _reached_by(self, winners: frozenset[int], plan: _Plan) -> bool:
        """True: the winners alone are a quorum, so what they acknowledge now is not lost."""
        ballots = {n: plan.announces[n].ballot for n in plan.nodes}
        return not self._needs_quorum or self.quorum.reached_by(winners, ballots)

    def _send_state(self, round_id: RoundId, state: bytes, begin: int) -> None:
        self.stats.states_sent += 1
        for position in range(begin, len(state), entries.CHUNK_SIZE_MAX):
            part = state[position : position + entries.CHUNK_SIZE_MAX]
            self._send(entries.Chunk(round_id, position, len(state), part), bulk=True)

    def _chunk(self, node: int, chunk: entries.Chunk) -> None:
        t = self._transfer
        if t is None or chunk.round != t.round or node != t.donor or chunk.position != t.position:
            return
        t.position += len(chunk.data)
        t.last_ns = self._now.ns
        receiving = self.me in t.receivers
        if receiving:
            t.parts.append(chunk.data)
        if t.position < chunk.total:
            return
        self._transfer = None
        if receiving:
            self.stats.states_received += 1
            self.load(b"".join(t.parts))
        if receiving or t.together:
            self._install(t.settle)

    def _install(self, plan: _Plan) -> None:
        """Bring a view into force: end and open sessions, tell the machine, apply what waited."""
        before = self.view
        continuing = set(before.members if before else ()) & plan.winners - set(self._departed)
        first = before is None
        joined = tuple(NodeId(n) for n in plan.nodes if n not in continuing)
        left = dict(self._departed)
        for node in before.members if before else ():
            if node not in continuing:
                left.setdefault(node, Reason.NODEDOWN)
        ring = RingId(plan.round.ring_seq, plan.round.representative)
        members = tuple(NodeId(n) for n in plan.nodes)
        gone = tuple((NodeId(n), left[n]) for n in sorted(left))
        spoken = self.versions.install(plan.nodes, {n: a.offer for n, a in plan.announces.items()})
        self.machine.speak(spoken.service)
        quorate = self.quorum.install(plan.nodes, {n: a.ballot for n, a in plan.announces.items()})
        self.view = View(ring, members, joined, gone, quorate, spoken.service)
        self.component = plan.round
        self._departed = {}
        context = Context(plan.now_ns, members[0], None, self.view)
        for session in sorted(self.sessions.open):
            if self.sessions.open[session].node_id not in continuing:
                self.application.park(session, context)
        reporting = members if first else joined
        told = {n: plan.announces[n] for n in reporting if n in plan.announces}
        for node, announce in told.items():
            self.sessions.revive(node, announce.sessions)
        if not self.acts:
            self.application.end_stale(context)
        if any(self.sessions.open[s].again for s in self.sessions.of_node(self.me)):
            self._out.append(Dropped())
        reports = {n: Report(n, a.report) for n, a in told.items()}
        effects = self.machine.view_changed(self.view, reports, context)
        self.application.view_changed(effects, context)
        self._move(State.LIVE)
        self._apply_deferred()

    def _speak(self, version: int) -> None:
        assert self.view is not None
        self.machine.speak(version)
        self.view = dataclasses.replace(self.view, version=version)

    # Memory

    def _head(self) -> bytes:
        view, c = self.view, self.component
        assert view is not None
        assert c is not None
        return pack_state(
            [
                [c.ring_seq, c.representative, c.number],
                list(view.members),
                sorted([node, int(reason)] for node, reason in self._departed.items()),
                self.applied,
                self.quorum.values(),
                self.versions.values(),
            ]
        )

    def load_head(self, data: Buffer) -> None:
        """Take up what belongs to no object."""
        component, members, departed, self.applied, quorum, versions = unpack_state(data)
        self.versions.load(versions)
        rule = unspeakable(self.offer, self.versions.spoken)
        if rule is not None:
            raise DecodeError(f"state: {rule}")
        self.machine.speak(self.versions.spoken.service)
        self.quorum.load(quorum)
        self._departed = {node: Reason(reason) for node, reason in departed}
        self.quorum.reduce(set(members) - set(self._departed))
        self.component = RoundId(*component)
        ring = RingId(self.component.ring_seq, self.component.representative)
        nodes = tuple(NodeId(n) for n in members)
        quorate, version = self.quorum.quorate, self.versions.spoken.service
        self.view = View(ring, nodes, (), (), quorate, version)

    def dump(self) -> bytes:
        """Return everything that replicas share, canonical."""
        memory = self.memory
        objects = [[name, b"".join(memory.dump(name))] for name in memory.names()]
        return pack_state([self._head(), objects])

    def load(self, data: bytes) -> None:
        """Replace everything by what a replica dumped.

        Raises:
            DecodeError: damaged.
        """
        try:
            head, objects = unpack_state(data)
            self.load_head(head)
            loaded: dict[bytes, bytes | None] = dict(objects)
            gone: dict[bytes, bytes | None] = dict.fromkeys(self.memory.names())
            self.memory.load(gone | loaded)
        except (TypeError, ValueError) as error:
            raise DecodeError(f"state: {error}") from error

    @property
    def serving(self) -> bool:
        """True: the state is in force and of now."""
        return self.state is State.LIVE and not self.replaying

    @property
    def settled(self) -> bool:
        """True: a snapshot of now tells everything."""
        busy = self._round is not None or self._transfer is not None or bool(self._partial)
        return self.state is State.LIVE and not busy

    def digest(self) -> bytes:
        """Return a digest of what replicas share."""
        return self.memory.root()

    # Effects

    def _emit(self, effect: Effect) -> None:
        self._out.append(effect)

    def _send(self, entry: Any, *, bulk: bool = False) -> None:
        self._out.append(Send(entry, bulk))

    def _move(self, new: State) -> None:
        if new is not self.state:
            self._out.append(Moved(self.state, new))
            self.state = new

    def _rejoin(self, rule: str) -> None:
        self._out.append(Rejoin(rule))

    def _take(self) -> list[Effect]:
        out = self._out
        self._out = []
        return out

    def check(self) -> None:
        """Assert every invariant."""
        self.machine.check()
        self.sessions.check()
        self.quorum.check()
        assert (self.view is None) == (self.component is None)
        assert self.state is not State.LIVE or self.view is not None
