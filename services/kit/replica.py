"""One replica of a service: a deterministic function of the ordered stream of its group. Pure.

It applies operations to the machine, keeps the sessions, and brings replicas that meet to one
state. Whatever it decides, it decides from delivered entries alone, so every replica decides the
same at the same position, and a process that replays the stream decides it again.

A view in which nobody is new comes into force by one ordered `Settle`; operations go on meanwhile.
When somebody is new, every member announces what it remembers and operations wait until it is
decided whose state goes on (`meeting`). Those who hold it go on at once; those who lack it ask for
it in the order, and apply what is ordered after their question when it has come (`transfer`).
While they work, the replicas compare digests; who differs asks for the state again (`digests`).
Where there is a quorum, a minority applies no request, from the event on that tells that the
others are gone; and members that have the state but are no quorum without those that lack it hold
operations back until enough have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from openais.wire import port
from openais.wire.codec import DecodeError, unpack_bundle
from openais.wire.port import Reason, RingId
from services.kit import digests, entries, meeting
from services.kit.digests import Comparison, Pace
from services.kit.effects import (
    Discarded,
    Diverged,
    Dropped,
    Effect,
    LeftOut,
    Now,
    State,
)
from services.kit.entries import RoundId
from services.kit.fragments import Fragments
from services.kit.machine import (
    KEPT,
    Context,
    Foreign,
    Machine,
    NodeId,
    Notifications,
    Report,
    View,
)
from services.kit.meeting import Round, Side
from services.kit.memory import MACHINE
from services.kit.quorum import NO_QUORUM, Ballot
from services.kit.shared import Shared
from services.kit.transfer import (
    ATTEMPTS_MAX,
    EVERYBODY,
    STEP_NS,
    Gifts,
    Receiving,
    manifest,
    missing,
)
from services.kit.versions import unspeakable

ANNOUNCE_NS: Final = 6_000_000_000  # who has not announced by then is left out; > seat grace
SETTLE_AGAIN_NS: Final = 500_000_000  # a settle that was lost with its sender is sent again
PROPOSE_AGAIN_NS: Final = 1_000_000_000  # what expired is proposed again
DEFERRED_BYTES_MAX: Final = 128 << 20  # waiting for the state; more: it is asked for again


@dataclass(frozen=True, slots=True)
class _Plan:
    """A view that comes into force."""

    round: RoundId
    nodes: tuple[int, ...]
    winners: frozenset[int]
    now_ns: int
    announces: dict[int, entries.Announce]
    foreign: tuple[Foreign, ...] = ()
    sessions: tuple[bytes, ...] = ()  # what the sides that merge remember of them


class Replica(Shared):
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
        super().__init__(node_id, machine, needs_quorum=needs_quorum, notifications=notifications)
        self.index = 0  # of the last event of the stream
        self.replaying = False
        self.diverged: set[int] = set()  # incomplete, because their state differed
        self._ballot: Final = ballot
        self.clock_skews_ns: Final[dict[int, int]] = {}  # of others, when replicas met last
        self._round: Round | None = None
        self._receiving: Receiving | None = None
        self._staged: Final[dict[bytes, tuple[bytes, bytes]]] = {}  # came; not in force yet
        self._gifts: Final = Gifts(self.memory)
        self._deferred: Final[deque[tuple[int, Any, int]]] = deque()
        self._deferred_bytes = 0
        self._proposed_ns = -PROPOSE_AGAIN_NS
        self._comparison: Comparison | None = None
        self._pace: Final = Pace()
        self._now = Now(0, 0)
        self._fragments: Final = Fragments()

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
                self._entry(event.node_id, entry, len(data))
            except DecodeError:
                self.stats.entries_malformed += 1
        return self._take()

    def viewed(self, event: port.View, now: Now) -> list[Effect]:
        """Take a change of the group's membership."""
        self._now = now
        self.index = event.index
        self._applier.parting = False
        nodes = tuple(sorted({m.node_id for m in event.members}))
        joined = {c.member.node_id for c in event.joined}
        for change in event.left:
            self._departed[change.member.node_id] = change.reason
        self.quorum.reduce(set(nodes) - joined - set(self._departed))
        together = bool(joined) or self.view is None or bool(self.incomplete)
        if self._receiving is not None or (self._round is not None and self._round.meeting):
            together = True
        self._receiving = None
        self._comparison = None
        self._holding = False
        round_id = RoundId(event.ring.seq, event.ring.representative, event.number)
        self._round = Round(round_id, nodes, together, now.ns)
        self._fragments.keep(set(nodes) - joined)
        if together:
            self.stats.meetings += 1
            self._gifts.end()
            self._drop_deferred()
            self._move(State.MERGING if self.view is not None else State.JOINING)
            if not self.replaying:
                self._announce()
        elif not self.replaying:
            self._propose_settle()
        return self._take()

    def parted(self, event: port.Parting) -> list[Effect]:
        """Learn before the view who is gone: what follows may never reach the others."""
        self.index = event.index
        self._applier.parting = True
        self.quorum.reduce(set(self.quorum.present) & set(event.nodes))
        return self._take()

    def caught_up(self, now: Now) -> list[Effect]:
        """The replay is over: say what was not said yet."""
        self._now = now
        self.replaying = False
        r = self._round
        if r is not None:
            r.began_ns = now.ns
            if not r.meeting:
                self._propose_settle()
            elif self.me not in r.announces:
                self._announce()
            else:
                self._advance(r)
        if self._receiving is not None:
            self._receiving.last_ns = now.ns
            if self._receiving.giver is None:
                self._ask(self._receiving)
        elif self.me in self.incomplete and self.component is not None:
            self._send(entries.Complete(self.component))
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
        self._round = self._receiving = self._comparison = None
        self._applier.parting = False
        self._fragments.keep(())
        self._staged.clear()  # the log to come does not tell of it
        self._gifts.end()
        self._drop_deferred()
        if self.view is not None:
            self._departed |= {n: Reason.NODEDOWN for n in self.view.members if n != self.me}
            self.quorum.reduce({self.me})
            self._move(State.MERGING)
        return self._take()

    # Time

    def wait_ns(self, now: Now) -> int | None:
        """Return in how many ns `expire` wants to be called; None: never."""
        self._now = now
        waits = []
        r = self._round
        if r is not None and not self.replaying:
            waits.append(r.began_ns + ANNOUNCE_NS - now.ns)
            if not r.meeting:
                waits.append(SETTLE_AGAIN_NS)
        if self._receiving is not None:
            waits.append(self._receiving.last_ns + STEP_NS - now.ns)
        if self._proposes():
            waits.append(self._pace.due_ns(self.applied) - now.ns)
            due = self.machine.deadline_ns()
            if due is not None:
                again = self._proposed_ns + PROPOSE_AGAIN_NS - now.ns
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
        receiving = self._receiving
        if receiving is not None and now.ns - receiving.last_ns >= STEP_NS:
            self._ask(receiving)
        if self._proposes():
            self._propose_expiry()
            self._propose_comparison()
        return self._take()

    def _proposes(self) -> bool:
        """Tell whether it falls to this member to have done what time demands."""
        if self.state is not State.LIVE or self.replaying or self.view is None or not self.acts:
            return False
        return self.me == min(set(self.view.members) - self.incomplete, default=None)

    def _propose_expiry(self) -> None:
        now = self._now
        due = self.machine.deadline_ns()
        again = now.ns - self._proposed_ns >= PROPOSE_AGAIN_NS
        if due is not None and due <= now.wall_ns and again:
            self._proposed_ns = now.ns
            for operation in self.machine.expired(now.wall_ns):
                self._send(entries.Own(now.wall_ns, self._applier.encoded(operation)))

    # Entries

    def _entry(self, node: int, entry: Any, size: int) -> None:
        match entry:
            case entries.Announce():
                self._announced(node, entry)
            case entries.Settle():
                self._settle_delivered(entry)
            case entries.Catalog():
                self._catalog(node, entry)
            case entries.Need():
                self._needed(node, entry)
            case entries.Piece():
                self._piece(node, entry)
            case entries.Fragment():
                whole = self._fragments.take(node, entry)
                if whole is not None:
                    self._entry(
                        node, entries.decode(whole, self.versions.spoken.replicas), len(whole)
                    )
            case _:
                self._take_turn(node, entry, size)

    def _take_turn(self, node: int, entry: Any, size: int) -> None:
        """Apply an entry, or let it wait."""
        if isinstance(entry, entries.Complete) and self._receiving is not None:
            self._receiving.holders.add(node)
        if isinstance(entry, entries.Complete) and self._holding and self._in_force:
            self._watch(node, entry)  # what ends the waiting does not wait itself
        elif self._must_wait():
            self._defer(node, entry, size)
        else:
            self._apply(node, entry)

    @property
    def _in_force(self) -> bool:
        """True: our state goes on, and nobody is meeting."""
        meets = self._round is not None and self._round.meeting
        return self._receiving is None and not meets and self.view is not None

    def _must_wait(self) -> bool:
        meets = self._round is not None and self._round.meeting
        return self._receiving is not None or meets or self._holding

    def _defer(self, node: int, entry: Any, size: int) -> None:
        self._deferred.append((node, entry, size))
        self._deferred_bytes += size
        if self._deferred_bytes <= DEFERRED_BYTES_MAX:
            return
        receiving = self._receiving
        if receiving is None:
            self._rejoin(f"over {DEFERRED_BYTES_MAX} bytes wait for the replicas to meet")
        elif receiving.giver is not None:
            self._ask(receiving)  # of the state after all this, which need not wait then

    def _drop_deferred(self) -> None:
        """Forget what waited, because it is in the state that comes, or its meeting did not end.

        Members that come together again may have deferred different entries in different rings,
        so all drop them; who sent them does so again when it is live.
        """
        if self._deferred:
            self._deferred.clear()
            self._deferred_bytes = 0
            self._out.append(Dropped())

    def _forget_deferred(self, count: int) -> None:
        """Forget what waited and is in the state that comes."""
        for _ in range(count):
            self._deferred_bytes -= self._deferred.popleft()[2]
        if count:
            self._out.append(Dropped())

    def _apply_deferred(self) -> None:
        while self._deferred and not self._must_wait():
            node, entry, size = self._deferred.popleft()
            self._deferred_bytes -= size
            self._apply(node, entry)

    def _apply(self, node: int, entry: Any) -> None:
        view = self.view
        if view is None:
            return  # of a time before this replica
        if isinstance(entry, entries.Complete | entries.DigestWanted | entries.Digest):
            self._watch(node, entry)  # about the state, not a part of it
        else:
            self.applied += 1
            self.quorum.step()
            self._change(NodeId(node), entry, view)

    def _change(self, sender: NodeId, entry: Any, view: View) -> None:
        if isinstance(entry, entries.Offer):
            self._offered(sender, entry)
            return
        if isinstance(entry, entries.Own) and sender == self.me:
            self._proposed_ns = self._now.ns - PROPOSE_AGAIN_NS
        self._applier.apply(sender, entry, view)

    def _offered(self, node: int, entry: entries.Offer) -> None:
        """Fix anew what the group speaks: another process has taken the seat of a member."""
        before = self.versions.spoken
        spoken = self.versions.offered(node, entry.offer)
        rule = unspeakable(self.offer, spoken)
        if rule is not None:
            self._rejoin(rule)
        elif spoken.service != before.service:
            assert self.view is not None
            self.machine.speak(spoken.service)
            self.view = replace(self.view, version=spoken.service)

    # Meetings

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

    def _go_on_without(self, r: Round) -> None:
        """Somebody keeps the others waiting: the view settles without it."""
        nodes = sorted(set(r.nodes or r.announces) - r.silent())
        if nodes and nodes[0] == self.me:
            r.began_ns = self._now.ns
            self._send(entries.Settle(r.id, self._now.wall_ns, tuple(nodes)))

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
                self._stale,
            )
        )

    def _announced(self, node: int, announce: entries.Announce) -> None:
        r = self._round
        if r is None or not r.meeting or announce.round != r.id or node not in r.members:
            return
        r.announces.setdefault(node, announce)
        if not self.replaying:
            self.clock_skews_ns[node] = announce.now_ns - self._now.wall_ns
        if not r.nodes and len(r.announces) == len(r.members):
            r.nodes = r.members
            self._advance(r)

    def _settle_delivered(self, settle: entries.Settle) -> None:
        r = self._round
        if r is None or settle.round != r.id:
            return
        if not r.meeting:
            self._round = None
            assert self.view is not None, "a first view begins with a meeting"
            members = tuple(n for n in r.members if n in self.view.members)  # not who was left out
            self._install(_Plan(r.id, members, frozenset(members), settle.now_ns, {}))
            return
        nodes = tuple(n for n in settle.nodes if n in (r.nodes or r.announces))
        if self.me not in nodes:
            self._rejoin("left out of the view: too late")
        elif nodes:
            self._gifts.end()
            r.settle(nodes)
            self._advance(r)

    def _catalog(self, node: int, catalog: entries.Catalog) -> None:
        r = self._round
        if r is None or not r.meeting or catalog.round != r.id or node not in r.nodes:
            return
        for side in r.merging():
            if node in side.nodes:
                r.catalogs[side.id] = meeting.unpack_catalog(catalog.content)
                r.sessions[side.id] = catalog.sessions
                self._advance(r)
                return

    def _advance(self, r: Round) -> None:
        """Go on with a meeting as far as what was delivered allows."""
        if not r.nodes or not self._admitted(r):
            return
        r.began_ns = self._now.ns
        merging = r.merging()
        if len(merging) > 1:
            if not self._have_catalogs(r, merging):
                return
            if r.merge is None:
                losers = self.machine.merges_losers
                r.merge = meeting.plan(merging, r.catalogs, losers=losers)
            remaining = r.remaining()
            self._give_to_all(r, remaining.get(self.me, []))
            if remaining:
                return
        self._decide(r, merging)

    def _admitted(self, r: Round) -> bool:
        """Leave those out who do not speak what the winners do; False: this is one of them."""
        offers = {n: r.announces[n].offer for n in r.nodes}
        out = self.versions.left_out(offers, r.sides()[0].nodes)
        if self.me in out:
            self._round = None
            self._out.append(LeftOut(out[self.me]))
            return False
        r.nodes = tuple(n for n in r.nodes if n not in out)
        return True

    def _have_catalogs(self, r: Round, merging: list[Side]) -> bool:
        for side in merging:
            wanted = side.id not in r.catalogs and side.nodes[0] == self.me
            if wanted and not r.catalog_sent and not self.replaying:
                r.catalog_sent = True
                held = {n[1:]: d for n, d in self.memory.digests().items() if n[:1] == MACHINE}
                held.pop(b"", None)  # what belongs to no other object is the winner's
                content = meeting.pack_catalog(self.machine, held)
                self._send(entries.Catalog(r.id, content, self.sessions.pack_all()))
        return all(side.id in r.catalogs for side in merging)

    def _give_to_all(self, r: Round, names: list[bytes]) -> None:
        """Begin to send what the others take from our side."""
        if names and not self._gifts:
            wanted = [MACHINE + name for name in names]
            self._gifts.begin(wanted, r.id, EVERYBODY, r.attempt)

    def _decide(self, r: Round, merging: list[Side]) -> None:
        """The winner is known and has what it takes from others: its state goes on."""
        self._round = None
        winner = merging[0]
        now_ns = max(a.now_ns for node, a in r.announces.items() if node in r.nodes)
        plan = _Plan(
            r.id,
            r.nodes,
            frozenset(winner.nodes),
            now_ns,
            {n: r.announces[n] for n in r.nodes},
            self._foreign(r, merging),
            tuple(r.sessions[side.id] for side in merging if side.id in r.sessions),
        )
        if r.merge is not None and not self.replaying:
            for rank, side in enumerate(merging):
                if side.nodes[0] == self.me:
                    self._discard(r.merge.lost[rank])
        self._gifts.end()
        if self.me in winner.nodes:
            ballots = {n: a.ballot for n, a in plan.announces.items()}
            alone = not self._needs_quorum or self.quorum.reached_by(winner.nodes, ballots)
            self._holding = not alone and winner.nodes != plan.nodes
            self._install(plan)
        else:
            self._stale = self.view is not None
            self._receive(r.id, winner.nodes)

    def _foreign(self, r: Round, merging: list[Side]) -> tuple[Foreign, ...]:
        if r.merge is None:
            return ()
        return tuple(
            replace(f, content=r.content(merging[rank], f.name)) for rank, f in r.merge.versions
        )

    def _discard(self, lost: Iterable[meeting.Lost]) -> None:
        """Hand out what a merge takes from us, before it is gone."""
        for version in lost:
            self.stats.objects_discarded += 1
            parts = tuple(self.machine.dump(version.name))
            self._out.append(Discarded(version.name, parts, version.counter, version.kept))

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
        self.incomplete = set(plan.nodes) - plan.winners
        self.diverged.clear()
        self._departed = {}
        self._stale = False
        self._staged.clear()
        context = Context(plan.now_ns, members[0], None, self.view)
        for session in sorted(self.sessions.open):
            if self.sessions.open[session].node_id not in continuing:
                self._applier.park(session, context)
        if plan.foreign:
            self.machine.merge(plan.foreign, context)
        reporting = members if first else joined
        told = {n: plan.announces[n] for n in reporting if n in plan.announces}
        for node, announce in told.items():
            self.sessions.revive(node, announce.sessions)
        for packed in plan.sessions:
            self.sessions.remember(packed)
        if not self.acts:
            self._applier.end_stale(context)
        self._applier.ask_again()
        reports = {n: Report(n, a.report) for n, a in told.items()}
        effects = self.machine.view_changed(self.view, reports, context)
        self._applier.view_changed(effects, context)
        self._go_on()

    def _go_on(self) -> None:
        """Serve, and apply what waited, unless there is more to wait for."""
        if not self._holding:
            self._move(State.LIVE)
            self._apply_deferred()

    # States on their way

    def _receive(self, component: RoundId, holders: Iterable[int]) -> None:
        """Others have the state that goes on, and we have not."""
        self._receiving = Receiving(component, holders, self._staged)
        self._move(State.MERGING if self.view is not None else State.JOINING)
        self._receiving.last_ns = self._now.ns
        if not self.replaying:
            self._ask(self._receiving)

    def _ask(self, receiving: Receiving) -> None:
        """Ask for the state, again when nobody gives it."""
        if receiving.asked_times >= ATTEMPTS_MAX:
            self._rejoin(f"no state came, asked {ATTEMPTS_MAX} times")
            return
        self.stats.transfers_repeated += receiving.asked_times > 0
        receiving.asked_times += 1
        avoid = receiving.avoid()
        receiving.asked(max(receiving.attempt + 1, self._now.wall_ns), None)
        receiving.last_ns = self._now.ns
        have = receiving.have(self.memory.digests())
        self._send(entries.Need(receiving.component, receiving.attempt, avoid, have))

    def _needed(self, node: int, need: entries.Need) -> None:
        receiving = self._receiving
        if receiving is not None and node == self.me:
            if need.component != receiving.component or need.attempt < receiving.attempt:
                return
            givers = receiving.holders - {node} - set(need.avoid)
            receiving.asked(need.attempt, min(givers, default=None), len(self._deferred))
            receiving.last_ns = self._now.ns
        elif self._in_force and need.component == self.component:
            assert self.view is not None
            holders = set(self.view.members) - self.incomplete - {node} - set(need.avoid)
            self._gifts.end(node)
            if min(holders, default=None) == self.me:
                self._give(node, need)

    def _give(self, receiver: int, need: entries.Need) -> None:
        """Begin to send the state of this position; the pieces leave one by one."""
        held = self.memory.digests()
        self.stats.states_sent += 1
        whole = manifest(self._head(), held, len(self._deferred))
        names = missing(need.have, held)
        self._gifts.begin(names, need.component, receiver, need.attempt, whole)

    @property
    def gives(self) -> bool:
        """True: `give` has something to send."""
        return bool(self._gifts) and not self.replaying

    def give(self) -> list[Effect]:
        """Send one piece of a state; called again and again while there is room for more."""
        if self.gives:
            piece = self._gifts.next()
            self.stats.state_bytes_sent += len(piece.items)
            self._send(piece, bulk=True)
        return self._take()

    def _piece(self, node: int, piece: entries.Piece) -> None:
        if node == self.me and self.replaying:
            self._gifts.skip(piece)  # an earlier life sent it
        r, receiving = self._round, self._receiving
        if piece.receiver == EVERYBODY:
            if r is not None and r.merge is not None and r.take(node, piece):
                self._advance(r)
        elif receiving is not None and piece.receiver == self.me and receiving.take(node, piece):
            receiving.last_ns = self._now.ns
            self.stats.state_bytes_received += len(piece.items)
            self._forget_deferred(receiving.covered())
            if receiving.finished:
                self._received(receiving)

    def _received(self, receiving: Receiving) -> None:
        """Everything has come: it is our state; apply what waited for it."""
        before = self._applier.own_records()
        try:
            self.load_head(receiving.head)
            receiving.load_into(self.memory)
        except DecodeError as error:
            self._rejoin(str(error))
            return
        self.stats.states_received += 1
        self._receiving = None
        self._staged.clear()
        self._applier.tell(before)
        self._applier.ask_again()
        if not self.replaying:
            self._send(entries.Complete(receiving.component))
        if self._holding:
            for node, entry, _ in tuple(self._deferred):
                if isinstance(entry, entries.Complete):
                    self._watch(node, entry)
        else:
            self._go_on()

    # Digests

    def _propose_comparison(self) -> None:
        if self._now.ns >= self._pace.due_ns(self.applied):
            self._pace.compared(self._now.ns, self.applied, 0)
            self._send(entries.DigestWanted(self.index))

    def _watch(
        self, node: int, entry: entries.Complete | entries.DigestWanted | entries.Digest
    ) -> None:
        match entry:
            case entries.Complete(component):
                if component == self.component:
                    self.incomplete.discard(node)
                    self.diverged.discard(node)
                    self._release()
            case entries.DigestWanted(number):
                self._compare(node, number)
            case entries.Digest(asker, number, digest):
                c = self._comparison
                if c is not None and (c.asker, c.number) == (asker, number):
                    self._compared(c, c.take(node, digest))

    def _release(self) -> None:
        """Hold back no longer, once those who have the state are a quorum."""
        assert self.view is not None
        holders = set(self.view.members) - self.incomplete
        if self._holding and self.quorum.reached_by(holders, self.quorum.ballots):
            self._holding = False
            self._go_on()

    def _compare(self, node: int, number: int) -> None:
        assert self.view is not None
        holders = frozenset(self.view.members) - self.incomplete
        self._comparison = Comparison(node, number, holders)
        if self.me in holders and not self.replaying:
            root, cost_ns = digests.measured(self.memory)
            self._pace.compared(self._now.ns, self.applied, cost_ns)
            self._send(entries.Digest(node, number, root))

    def _compared(self, c: Comparison, wrong: tuple[int, ...] | None) -> None:
        if wrong is None:
            return
        self._comparison = None
        self.stats.digests_compared += 1
        if not wrong:
            return
        right = tuple(sorted(c.expected - set(wrong)))
        self.stats.divergences += 1
        self.diverged |= set(wrong)
        self.incomplete |= set(wrong)
        self._out.append(Diverged(wrong, right))
        if self.me in wrong:
            assert self.component is not None
            self._gifts.end()
            self._receive(self.component, set(right) - self.incomplete)

    # Memory

    @property
    def serving(self) -> bool:
        """True: the state is in force and of now."""
        return self.state is State.LIVE and not self.replaying

    @property
    def settled(self) -> bool:
        """True: a snapshot of now tells everything."""
        busy = self._round is not None or self._receiving is not None or bool(self._fragments)
        return self.state is State.LIVE and not busy and not self._applier.parting

    def check(self) -> None:
        """Assert every invariant."""
        self.machine.check()
        self.sessions.check()
        self.quorum.check()
        assert (self.view is None) == (self.component is None)
        assert self.state is not State.LIVE or self.view is not None
        assert self.state is not State.LIVE or self._receiving is None
