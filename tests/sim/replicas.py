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
from openais.wire.port import Change, Delivered, Member, Reason, RingId, View
from services.kit import entries
from services.kit.effects import (
    Discarded,
    Diverged,
    Dropped,
    FencePassed,
    Moved,
    Now,
    Opened,
    Rejoin,
    Replied,
    Send,
    State,
    Told,
)
from services.kit.machine import Machine
from services.kit.replica import Replica

SECOND = 1_000_000_000


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
    opened: list[Opened] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    rejoins: list[str] = field(default_factory=list)
    discarded: list[Discarded] = field(default_factory=list)
    divergences: list[Diverged] = field(default_factory=list)
    requests: dict[tuple[bytes, int], entries.Operation] = field(default_factory=dict)  # unanswered
    again: bool = False  # when live, send what is unanswered again
    down: bool = False


class Stage:
    """Replicas in one or more rings.

    Args:
        machine: makes a fresh machine for a node.
    """

    def __init__(self, machine: Callable[[int], Machine]) -> None:
        self._machine = machine
        self.hosts: dict[int, Host] = {}
        self.rings: list[list[int]] = []
        self.now_ns = SECOND
        self._ring_seq = 4
        self._number = 3

    def now(self) -> Now:
        """Return the two clocks."""
        return Now(self.now_ns, 1_700_000_000 * SECOND + self.now_ns)

    # The ring

    def join(self, node_id: int, with_nodes: list[int] | None = None) -> Host:
        """A new process attaches; its ring may be that of others."""
        host = Host(node_id, Replica(node_id, self._machine(node_id)))
        self.hosts[node_id] = host
        ring = self._ring_of(with_nodes[0]) if with_nodes else []
        if not ring:
            self.rings.append(ring)
        ring.append(node_id)
        self._view(ring, joined=[(node_id, Reason.JOIN)], left=[])
        return host

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
                case Replied():
                    host.replies.append(effect)
                    host.requests.pop((effect.session, effect.number), None)
                case FencePassed(number):
                    host.fences.append(number)
                case Rejoin(rule):
                    host.rejoins.append(rule)
                case Dropped():
                    host.again = True
                case _:
                    self._note(host, effect)
        if host.again and host.replica.serving:
            host.again = False
            host.outbox.extend(host.requests.values())

    def _note(self, host: Host, effect: Any) -> None:
        match effect:
            case Told():
                host.told.append(effect)
            case Opened():
                host.opened.append(effect)
            case Discarded():
                host.discarded.append(effect)
            case Diverged():
                host.divergences.append(effect)
            case _:
                assert isinstance(effect, Moved)

    def request(self, node_id: int, entry: entries.Operation) -> None:
        """Let a client of a node ask; asked again until it is answered."""
        host = self.hosts[node_id]
        host.requests[entry.session, entry.number] = entry
        host.outbox.append(entry)

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
        payload = pack_bundle([entries.TABLE.encode(host.outbox.popleft())])
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

    def restart(self, node_id: int) -> None:
        """Start the service again within its grace: snapshot, then replay."""
        host = self.hosts[node_id]
        host.replica = Replica(node_id, self._machine(node_id))
        host.down = False
        index = 0
        if host.snapshot is not None:
            data, index = host.snapshot
            host.replica.restore(data, index)
        host.replica.replaying = host.again = True
        for event in host.log:
            if event.index > index:
                self._feed(host, event)
        self.perform(host, host.replica.caught_up(self.now()))

    def renew(self, node_id: int) -> None:
        """Do what a replica asked for that cannot go on: attach anew, without memory."""
        host = self.hosts[node_id]
        ring = self._ring_of(node_id)
        others = [n for n in ring if n != node_id]
        if others:
            self._view(ring, [], [(node_id, Reason.LEAVE)], only=others, members=others)
        host.replica = Replica(node_id, self._machine(node_id))
        host.log.clear()
        host.outbox.clear()
        host.rejoins.clear()
        host.snapshot = None
        self._view(ring, joined=[(node_id, Reason.JOIN)], left=[])

    def take_snapshot(self, node_id: int) -> bool:
        """Make a snapshot if the replica is settled."""
        host = self.hosts[node_id]
        if host.down or not host.replica.settled:
            return False
        host.snapshot = (host.replica.dump(), host.replica.index)
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
        host.snapshot = (host.replica.dump(), 0) if host.replica.view is not None else None
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
