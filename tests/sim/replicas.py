"""Replicas of one service on a simulated ordered stream: real cores, no sockets.

What the ring guarantees is built in: members that are together see one order of messages and
views. Everything else - crashes with replay, restarts of the ring process, partitions, lost
connections - is done to the replicas on demand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openais.wire.codec import pack_bundle
from openais.wire.port import Change, Delivered, Guarantee, Member, Reason, RingId, View
from services.kit import entries, stream
from services.kit.effects import (
    Discarded,
    Diverged,
    Dropped,
    Ended,
    FencePassed,
    LeftOut,
    Moved,
    Now,
    Opened,
    Rejoin,
    Replied,
    Send,
    Stale,
    State,
    Told,
)
from services.kit.machine import Machine, SessionId
from services.kit.quorum import NO_QUORUM, Ballot
from services.kit.replica import Replica
from services.kit.requests import Requests

SECOND = 1_000_000_000


@dataclass(slots=True)
class Outgoing:
    """An entry that waits for the ring."""

    entry: Any
    sent: bool = False
    cancelled: bool = False


class Client:
    """A client that has many requests on the way, and its service's side of them."""

    def __init__(self, host: Host, session: SessionId) -> None:
        self._host = host
        self.session = session
        self.number = 0
        self.pending: dict[int, entries.Operation] = {}
        self.answered: dict[int, Replied] = {}
        self._acknowledged = 0
        self.requests = Requests(self._send)

    def _send(self, entry: entries.Operation, _guarantee: Guarantee) -> Outgoing:
        outgoing = Outgoing(entry)
        self._host.outbox.append(outgoing)
        return outgoing

    def ask(self, now_ns: int, body: bytes) -> int:
        """Send one more request."""
        self.number += 1
        entry = entries.Operation(now_ns, self.session, self.number, self._acknowledged, body)
        self.pending[self.number] = entry
        self._request(entry)
        return self.number

    def _request(self, entry: entries.Operation) -> None:
        record = self._host.replica.sessions.open.get(self.session)
        answer = record.answers.get(entry.number) if record is not None else None
        if answer is not None:
            self.replied(Replied(self.session, entry.number, *answer))
        elif (self.session, entry.number) not in self.requests:
            self.requests.add(self.session, entry, Guarantee.AGREED, record)
            self._order()

    def _order(self) -> None:
        record = self._host.replica.sessions.open.get(self.session)
        if record is not None and self.requests.unsent():
            self.requests.send_again(self.session, record)

    def give_up(self, number: int) -> None:
        """Wait no longer for a request."""
        if self.pending.pop(number, None) is not None:
            self.requests.give_up((self.session, number))
            self._order()

    def replied(self, reply: Replied) -> None:
        """Take an answer."""
        self.requests.answered((self.session, reply.number))
        if self.pending.pop(reply.number, None) is None:
            return
        self.answered[reply.number] = reply
        while self._acknowledged + 1 in self.answered:
            self._acknowledged += 1

    def moved(self, host: Host) -> None:
        """Be a client of a node that begins anew."""
        self._host = host
        self.service_died()

    def service_died(self) -> None:
        """The service forgets what it held; `connected` follows."""
        self.requests = Requests(self._send)

    def connected(self) -> None:
        """The client has a new connection: it asks again what has no answer."""
        for entry in list(self.pending.values()):
            self._request(entry)

    def serve(self, *, again: bool) -> None:
        """The service serves."""
        record = self._host.replica.sessions.open.get(self.session)
        assert record is not None, "the session was lost"
        if again:
            self.requests.send_again(self.session, record)
        self._order()


@dataclass(slots=True)
class Host:
    """One node: its replica, the log of its seat, what its clients were told."""

    node_id: int
    replica: Replica
    log: list[Delivered | View] = field(default_factory=list)
    snapshot: tuple[bytes, int] | None = None
    outbox: deque[Any] = field(default_factory=deque)
    replies: list[Replied] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    ended: list[SessionId] = field(default_factory=list)
    rejoins: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    discarded: list[Discarded] = field(default_factory=list)
    divergences: list[Diverged] = field(default_factory=list)
    stale: list[SessionId] = field(default_factory=list)
    down: bool = False
    client: Client | None = None
    again: bool = False  # when live, what has no answer must be sent again


class Stage:
    """Replicas in one or more rings.

    Args:
        machine: makes a fresh machine for a node.
        ballot: of every node.
    """

    def __init__(self, machine: Callable[[int], Machine], ballot: Ballot = NO_QUORUM) -> None:
        self._machine = machine
        self._ballot = ballot
        self.hosts: dict[int, Host] = {}
        self.rings: list[list[int]] = []
        self.now_ns = SECOND
        self._ring_seq = 4
        self._number = 3

    def now(self) -> Now:
        """Return the two clocks."""
        return Now(self.now_ns, 1_700_000_000 * SECOND + self.now_ns)

    def fresh(self, node_id: int) -> Replica:
        """Return a replica without memory."""
        return Replica(node_id, self._machine(node_id), self._ballot)

    # The ring

    def join(self, node_id: int, with_nodes: list[int] | None = None) -> Host:
        """A new process attaches; its ring may be that of others."""
        host = Host(node_id, self.fresh(node_id))
        self.hosts[node_id] = host
        ring = self._ring_of(with_nodes[0]) if with_nodes else []
        if not ring:
            self.rings.append(ring)
        ring.append(node_id)
        self._view(ring, joined=[(node_id, Reason.JOIN)], left=[])
        return host

    def rejoin(self, node_id: int) -> None:
        """A process detaches and joins its ring as a new member, without memory."""
        host = self.hosts[node_id]
        ring = self._ring_of(node_id)
        others = [n for n in ring if n != node_id]
        self._view(ring, [], [(node_id, Reason.LEAVE)], only=others, members=others)
        host.log.clear()
        host.outbox.clear()
        host.snapshot = None
        host.down = False
        host.replica = self.fresh(node_id)
        self._view(ring, joined=[(node_id, Reason.JOIN)], left=[])

    def _ring_of(self, node_id: int) -> list[int]:
        return next(ring for ring in self.rings if node_id in ring)

    def _view(
        self,
        ring: list[int],
        joined: list[tuple[int, Reason]],
        left: list[tuple[int, Reason]],
        only: list[int] | None = None,
        members: list[int] | None = None,
    ) -> None:
        self._number += 1
        present = sorted(ring if members is None else members)
        view = View(
            0,
            b"toy",
            RingId(self._ring_seq, min(ring, default=1)),
            self._number,
            tuple(Member(n, 0, n) for n in present),
            tuple(Change(Member(n, 0, n), r) for n, r in sorted(left)),
            tuple(Change(Member(n, 0, n), r) for n, r in sorted(joined)),
        )
        for node_id in sorted(ring if only is None else only):
            self._push(self.hosts[node_id], view)

    def _push(self, host: Host, event: Delivered | View) -> None:
        index = host.log[-1].index + 1 if host.log else 1
        if isinstance(event, View):
            own: Delivered | View = View(
                index,
                event.group,
                event.ring,
                event.number,
                event.members,
                event.left,
                event.joined,
            )
        else:
            own = Delivered(index, event.node_id, event.pid, event.payload)
        host.log.append(own)
        if not host.down:
            self._feed(host, own)

    def _feed(self, host: Host, event: Delivered | View) -> None:
        if isinstance(event, View):
            self.perform(host, host.replica.viewed(event, self.now()))
        else:
            self.perform(host, host.replica.delivered(event, self.now()))
        host.replica.check()

    def perform(self, host: Host, effects: list[Any]) -> None:
        """Do what a replica asks for."""
        for effect in effects:
            match effect:
                case Send(entry):
                    host.outbox.append(entry)
                case Rejoin() | LeftOut() | Stale() | Discarded() | Diverged():
                    self._note(host, effect)
                case Dropped():
                    host.again = True
                case Moved(_, State.LIVE):
                    self._serve(host)
                case Moved():
                    pass
                case _:
                    self._tell(host, effect)

    def _tell(self, host: Host, effect: Any) -> None:
        match effect:
            case Replied():
                host.replies.append(effect)
                if host.client is not None:
                    host.client.replied(effect)
            case Told():
                host.told.append(effect)
            case Ended(session):
                host.ended.append(session)
            case FencePassed(number):
                host.fences.append(number)
            case _:
                assert isinstance(effect, Opened)

    def _note(self, host: Host, effect: Rejoin | LeftOut | Stale | Discarded | Diverged) -> None:
        match effect:
            case Discarded():
                host.discarded.append(effect)
            case Diverged():
                host.divergences.append(effect)
            case Rejoin(rule):
                host.rejoins.append(rule)
            case LeftOut(rule):
                host.left_out.append(rule)
            case Stale(session):
                host.stale.append(session)

    def _serve(self, host: Host) -> None:
        if host.client is not None and host.replica.serving:
            host.client.serve(again=host.again)
            host.again = False

    def open(self, node_id: int, session: SessionId) -> None:
        """Open the session of a node's client."""
        host = self.hosts[node_id]
        host.client = Client(host, session)
        self.send(node_id, entries.SessionOpened(session))
        self.run()

    def request(self, node_id: int, body: bytes) -> int:
        """Let a node's client ask, until it is answered."""
        client = self.hosts[node_id].client
        assert client is not None
        return client.ask(self.now().wall_ns, body)

    def send(self, node_id: int, entry: Any) -> None:
        """Let a node's service multicast an entry."""
        self.hosts[node_id].outbox.append(entry)

    def step(self, node_id: int) -> bool:
        """Order and deliver one entry of a node; False: it has none."""
        host = self.hosts[node_id]
        if not host.outbox and not host.down:
            self.perform(host, host.replica.give())
        if not host.outbox:
            return False
        entry = host.outbox.popleft()
        if isinstance(entry, Outgoing):
            if entry.cancelled:
                return True
            entry.sent = True
            entry = entry.entry
        payload = pack_bundle([entries.TABLE.encode(entry)])
        for member in self._ring_of(node_id):
            self._push(self.hosts[member], Delivered(0, node_id, 0, payload))
        return True

    def run(self) -> None:
        """Deliver everything that is sent, and what that leads to."""
        for _ in range(10_000):
            stepped = [self.step(n) for ring in self.rings for n in list(ring)]
            if not any(stepped):
                return
        raise AssertionError("the replicas do not come to rest")

    def wait(self, duration_ns: int) -> None:
        """Let time pass."""
        self.now_ns += duration_ns
        for host in self.hosts.values():
            if not host.down:
                self.perform(host, host.replica.expire(self.now()))
        self.run()

    # Faults

    def kill(self, node_id: int) -> None:
        """Kill -9 the service; its seat goes on logging. What it had not sent is lost."""
        host = self.hosts[node_id]
        host.down = True
        host.outbox.clear()
        if host.client is not None:
            host.client.service_died()

    def restart(self, node_id: int) -> None:
        """Start the service again within its grace: snapshot, then replay."""
        host = self.hosts[node_id]
        host.replica = self.fresh(node_id)
        host.down = False
        if host.client is not None:
            host.client.connected()
        index = 0
        if host.snapshot is not None:
            data, index = host.snapshot
            stream.restore(host.replica, memoryview(data), index)
        host.replica.replaying = True
        for event in host.log:
            if event.index > index:
                self._feed(host, event)
        host.again = True
        self.perform(host, host.replica.caught_up(self.now()))
        self._serve(host)

    def take_snapshot(self, node_id: int) -> bool:
        """Make a snapshot if the replica is settled."""
        host = self.hosts[node_id]
        if host.down or not host.replica.settled:
            return False
        host.snapshot = (b"".join(stream.parts(host.replica)), host.replica.index)
        return True

    def leave(self, node_id: int, reason: Reason = Reason.NODEDOWN) -> None:
        """A node dies."""
        ring = self._ring_of(node_id)
        ring.remove(node_id)
        self.hosts[node_id].down = True
        if not ring:
            self.rings.remove(ring)
        else:
            self._ring_seq += 4
            self._view(ring, joined=[], left=[(node_id, reason)])

    def split(self, *sides: list[int]) -> None:
        """Partition one ring."""
        ring = self._ring_of(sides[0][0])
        self.rings.remove(ring)
        for side in sides:
            self._ring_seq += 4
            self.rings.append(list(side))
            gone = [(n, Reason.NODEDOWN) for n in ring if n not in side]
            self._view(list(side), joined=[], left=gone)

    def merge(self) -> None:
        """Heal: all rings become one."""
        self._ring_seq += 4
        everybody = sorted(n for ring in self.rings for n in ring)
        sides = self.rings
        self.rings = [everybody]
        self._number += 1
        for side in sides:
            self._number -= 1  # one event of one round, with its own list on each side
            come = [(n, Reason.NODEUP) for n in everybody if n not in side]
            self._view(everybody, joined=come, left=[], only=side)

    def restart_ring_process(self, node_id: int) -> None:
        """totemd of a node dies and comes back; its service lives on."""
        host = self.hosts[node_id]
        ring = self._ring_of(node_id)
        if len(ring) > 1:
            others = [n for n in ring if n != node_id]
            self._ring_seq += 4
            self._view(ring, [], [(node_id, Reason.NODEDOWN)], only=others, members=others)
        host.log.clear()
        host.outbox.clear()
        host.again = True
        self.perform(host, host.replica.reattached(self.now()))
        host.snapshot = (
            (b"".join(stream.parts(host.replica)), 0) if host.replica.view is not None else None
        )
        self._ring_seq += 4
        self._view(ring, joined=[(node_id, Reason.JOIN)], left=[])

    # Judgement

    def live(self) -> bool:
        """True: every running replica is live."""
        return all(h.replica.state is State.LIVE for h in self.hosts.values() if not h.down)

    def digests(self, *node_ids: int) -> set[bytes]:
        """Return the digests of running replicas."""
        ids = node_ids or tuple(n for n, h in self.hosts.items() if not h.down)
        return {self.hosts[n].replica.digest() for n in ids}
