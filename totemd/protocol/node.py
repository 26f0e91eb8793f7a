"""One node: the ring, packing, process groups and local connections, stepped as one value.

The shell feeds it datagrams, timers and the requests of local clients, and performs the effects it
returns, in list order. It knows what a connection may do and what it must be told.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from totemd.protocol.core import Order
from totemd.protocol.effects import (
    Cause,
    Configuration,
    ConfigurationKind,
    Deliver,
    KeptOut,
    Moved,
    Multicast,
    Noted,
    Persist,
    Retired,
    State,
    Unicast,
)
from totemd.protocol.effects import Effect as RingEffect
from totemd.protocol.evs import KIND as EVS
from totemd.protocol.evs import Evs, EvsDecodeError, EvsMulticast
from totemd.protocol.evs import encode as encode_evs
from totemd.protocol.groups import (
    MEMBERS_MAX,
    NAME_SIZE_MAX,
    GroupDecodeError,
    GroupJoin,
    GroupLeave,
    GroupMulticast,
    Groups,
    GroupView,
    Key,
    ProcessList,
    decode,
    encode_join,
    encode_leave,
    encode_multicast,
)
from totemd.protocol.local import (
    PAYLOAD_SIZE_MAX,
    Accepted,
    Attached,
    ConnectionId,
    Delivered,
    DeliveredOwn,
    Done,
    Drop,
    Event,
    GroupKey,
    Member,
    Parting,
    Reason,
    Refusal,
    Refused,
    RingChanged,
    Space,
    Tell,
    View,
)
from totemd.protocol.messages import Message
from totemd.protocol.packing import AGREED, Assembler, Packer
from totemd.protocol.parameters import RingParameters
from totemd.protocol.ring import Ring
from totemd.protocol.seats import Seat, SeatLimits

WINDOW_MESSAGES: Final = 1024  # multicasts of one connection that are not on the ring yet
WINDOW_BYTES: Final = 2 << 20
CONNECTIONS_MAX: Final = 1000
HISTORY: Final = struct.Struct(">QII")  # boot epoch, node, counter

Effect: TypeAlias = (
    Multicast | Unicast | Persist | Moved | Noted | KeptOut | Retired | Configuration | Tell | Drop
)


class Membership(Enum):
    """Where a connection is in the life of its group membership."""

    NONE = "none"
    JOINING = "joining"
    JOINED = "joined"
    LEAVING = "leaving"


@dataclass(slots=True)
class _Connection:
    id: ConnectionId
    pid: int
    seat: Seat | None = None
    group: GroupKey | None = None
    membership: Membership = Membership.NONE
    number: int = 0  # of the membership
    index: int = 0  # of the last event of a process; a seat counts its own
    outstanding: dict[int, int] = field(default_factory=dict)  # request -> bytes
    outstanding_bytes: int = 0


@dataclass(slots=True)
class NodeStats:
    """Counters of a node beside those of its ring."""

    messages_delivered: int = 0
    messages_malformed: int = 0
    multicasts_accepted: int = 0
    multicasts_refused: int = 0
    seats_expired: int = 0
    seats_resumed: int = 0
    syncs_timed_out: int = 0


class Node:
    """What the shell steps.

    Args:
        parameters: constants of the ring.
        node_id: unique in the cluster, not 0.
        boot_epoch: strictly larger than at every earlier start of this node.
        stored_ring_seq: highest ring sequence number this node may have used.
        payload_size_max: bytes of one frame.
        limits: bounds of seats.
        payload_sizes: smaller ones, for a network that loses frames; the largest first.
        config_version: of the configuration; 0 has none.
    """

    def __init__(
        self,
        parameters: RingParameters,
        node_id: int,
        boot_epoch: int,
        stored_ring_seq: int,
        payload_size_max: int,
        limits: SeatLimits,
        payload_sizes: tuple[int, ...] = (),
        config_version: int = 0,
    ) -> None:
        self.packer: Final = Packer(payload_size_max, payload_sizes)
        self.ring: Final = Ring(
            parameters, node_id, boot_epoch, stored_ring_seq, boot_epoch, self.packer
        )
        self.groups: Final = Groups(node_id, config_version)
        self.evs: Final = Evs()
        self.assembler: Final = Assembler()
        self.stats: Final = NodeStats()
        self.me: Final = node_id
        self.seats: Final[dict[GroupKey, Seat]] = {}
        self._boot_epoch: Final = boot_epoch
        self._limits: Final = limits
        self._sync_timeout_ns: Final = parameters.sync_timeout_ns
        self._sync_until_ns: int | None = None  # a round runs; when it has to be over
        self._connections: Final[dict[ConnectionId, _Connection]] = {}
        self._receivers: Final[dict[GroupKey, dict[int, Seat | _Connection]]] = {}
        self._cookies: Final[dict[int, tuple[_Connection, int]]] = {}
        self._cookie = 0
        self._number = 0
        self._booted = False
        self._now_ns = 0
        self._queued = False
        self._kept_out = False
        self._out: list[Effect] = []

    # The ring

    def start(self, now_ns: int) -> list[Effect]:
        """Begin to look for others."""
        return self._step(self.ring.start(now_ns), now_ns)

    def receive(self, message: Message, sender: int, order: Order, now_ns: int) -> list[Effect]:
        """Handle one message of the network; see `Ring.receive`."""
        return self._step(self.ring.receive(message, sender, order, now_ns), now_ns)

    def deadline_ns(self) -> int | None:
        """Return when `expire` wants to be called; None: never."""
        deadlines = [s.vacant_until_ns for s in self.seats.values() if s.vacant_until_ns]
        own = (self.ring.deadline_ns(), self._sync_until_ns)
        deadlines += [at_ns for at_ns in own if at_ns is not None]
        return min(deadlines, default=None)

    def expire(self, now_ns: int) -> list[Effect]:
        """Serve what is due."""
        self._now_ns = now_ns
        for seat in list(self.seats.values()):
            if seat.vacant_until_ns is not None and seat.vacant_until_ns <= now_ns:
                if self._alone(seat):
                    seat.vacate(now_ns)  # nobody waits for it, and nobody else has its memory
                    continue
                self.stats.seats_expired += 1
                self._give_up(seat, Reason.PROCDOWN)
        effects = self.ring.expire(now_ns)
        if self._sync_until_ns is not None and self._sync_until_ns <= now_ns:
            self._absorb(effects)
            effects = self._sync_overdue(now_ns)
        return self._step(effects, now_ns)

    def _sync_overdue(self, now_ns: int) -> list[RingEffect]:
        """Fail who did not tell its processes: nothing may keep the gate closed.

        A node that does not even see its own part knows nothing about the others.
        """
        self._sync_until_ns = None
        missing = self.groups.missing()
        if self.ring.state is not State.OPERATIONAL or not missing:
            return []
        self.stats.syncs_timed_out += 1
        self._emit(Noted("sync_timeout", (("missing", ",".join(map(str, missing))),)))
        if self.me in missing:
            return self.ring.force_gather(now_ns)
        return self.ring.fail_members(frozenset(missing), Cause.SYNC_TIMEOUT, now_ns)

    def leave(self, now_ns: int) -> list[Effect]:
        """Leave the ring on purpose; `Retired` comes when the process may exit."""
        return self._step(self.ring.leave(now_ns), now_ns)

    def pause(self, gap_ns: int, now_ns: int) -> list[Effect]:
        """Learn that this process was not scheduled for ``gap_ns``."""
        if self._sync_until_ns is not None:
            self._sync_until_ns += gap_ns
        return self._step(self.ring.pause(gap_ns, now_ns), now_ns)

    def link_up(self, node_id: int, now_ns: int) -> list[Effect]:
        """Learn that the first link to a node came up."""
        return self._step(self.ring.link_up(node_id, now_ns), now_ns)

    def link_down(self, node_id: int, now_ns: int) -> list[Effect]:
        """Learn that the last link to a node went down."""
        return self._step(self.ring.link_down(node_id, now_ns), now_ns)

    def clear_hold_offs(self, now_ns: int) -> list[Effect]:
        """Merge with whoever is there, on an operator's command."""
        return self._step(self.ring.clear_hold_offs(now_ns), now_ns)

    def force_gather(self, now_ns: int) -> list[Effect]:
        """Form the ring anew, on an operator's command."""
        return self._step(self.ring.force_gather(now_ns), now_ns)

    def check(self) -> None:
        """Assert every invariant."""
        self.ring.check()
        self.groups.check()
        self.evs.check()
        for seat in self.seats.values():
            seat.check()
        assert all(c.outstanding_bytes == sum(c.outstanding.values()) for c in self._all())

    def _all(self) -> list[_Connection]:
        return list(self._connections.values())

    # Local clients

    def attach_process(self, connection: ConnectionId, pid: int, now_ns: int) -> list[Effect]:
        """Open a connection of an application."""
        self._connections[connection] = _Connection(connection, pid)
        self._tell(connection, Attached(b"", 0, resumed=False, pid=pid))
        if self.groups.rounds_finished:
            now = RingChanged(self.groups.ring, self.groups.nodes, current=True)
            self._tell(connection, now)
        return self._step([], now_ns)

    def attach_seat(
        self, connection: ConnectionId, name: bytes, history: bytes, index: int, now_ns: int
    ) -> list[Effect]:
        """Open a connection of a service, which remembers everything up to a position."""
        rule = name_rule(name)
        if rule is not None:
            self._tell(connection, Refused(0, *rule))
            return self._step([], now_ns)
        self._now_ns = now_ns
        group = GroupKey(Space.SERVICE, name)
        c = _Connection(connection, 0, group=group)
        self._connections[connection] = c
        seat = self.seats.get(group)
        if seat is not None and seat.connection is not None:
            self._emit(Drop(seat.connection, "another process of this service took the seat"))
            self._connections.pop(seat.connection, None)
            seat.vacate(now_ns)
        if seat is not None and seat.can_resume(history, index):
            self.stats.seats_resumed += 1
            c.seat, c.number, c.membership = seat, seat.number, Membership.JOINED
            for event in seat.take(connection, index):
                self._tell(connection, event)
        else:
            if seat is not None:
                self._give_up(seat, Reason.PROCDOWN)
            self._new_seat(c, group, from_nothing=not history)
        return self._step([], now_ns)

    def _new_seat(self, c: _Connection, group: GroupKey, *, from_nothing: bool) -> None:
        self._number += 1
        history = HISTORY.pack(self._boot_epoch, self.me, self._number)
        seat = Seat(group, self._number, history, self._limits, from_nothing=from_nothing)
        seat.connection = c.id
        self.seats[group] = seat
        c.seat, c.number, c.membership = seat, seat.number, Membership.JOINED
        self._tell(c.id, Attached(history, 0, resumed=False))
        self._queue(encode_join(GroupJoin(group, seat.number, 0)))

    def _alone(self, seat: Seat) -> bool:
        """True: a seat is the only member of its group."""
        return set(self.groups.groups.get(seat.group, ())) == {Key(self.me, seat.number)}

    def _give_up(self, seat: Seat, reason: Reason) -> None:
        """End a membership; the seat's log is dropped at once."""
        del self.seats[seat.group]
        receivers = self._receivers.get(seat.group, {})
        receivers.pop(seat.number, None)
        self._queue(encode_leave(GroupLeave(seat.group, seat.number, reason)))

    def join(
        self, connection: ConnectionId, request: int, name: bytes, now_ns: int
    ) -> list[Effect]:
        """Join a group of processes; membership begins with the view that lists the caller."""
        c = self._connections[connection]
        group = GroupKey(Space.PROCESS, name)
        refused = self._join_rule(c, group)
        if refused is not None:
            self._tell(connection, Refused(request, *refused))
            return self._step([], now_ns)
        self._number += 1
        c.group, c.number, c.membership = group, self._number, Membership.JOINING
        self._tell(connection, Done(request))
        self._queue(encode_join(GroupJoin(group, c.number, c.pid)))
        return self._step([], now_ns)

    def _join_rule(self, c: _Connection, group: GroupKey) -> tuple[Refusal, str] | None:
        rule = name_rule(group.name)
        if rule is not None:
            return rule
        if c.seat is not None or c.id in self.evs:
            return Refusal.INVALID_PARAM, "only a connection of CPG joins a group of processes"
        if c.membership is Membership.LEAVING:
            return Refusal.BUSY, "the leave of this connection is not delivered yet"
        if c.membership is not Membership.NONE:
            return Refusal.EXIST, "this connection has joined a group; it can join one at a time"
        for other in self._all():
            if other.group == group and other.pid == c.pid:
                if other.membership is Membership.LEAVING:
                    return Refusal.TRY_AGAIN, "an earlier leave of this process is not delivered"
                if other.membership is not Membership.NONE:
                    return Refusal.EXIST, "this process has joined the group by another connection"
        joining = [
            o for o in self._all() if o.group == group and o.membership is Membership.JOINING
        ]
        if len(self.groups.members(group)) + len(joining) >= MEMBERS_MAX:
            return Refusal.NO_RESOURCES, f"a group has at most {MEMBERS_MAX} members"
        return None

    def leave_group(
        self, connection: ConnectionId, request: int, name: bytes, now_ns: int
    ) -> list[Effect]:
        """Leave the group; the last event is the view that lists the caller as left."""
        c = self._connections[connection]
        rule = name_rule(name)
        if rule is not None:
            self._tell(connection, Refused(request, *rule))
        elif c.seat is not None or c.membership in (Membership.NONE, Membership.LEAVING):
            self._tell(
                connection, Refused(request, Refusal.NOT_EXIST, "this connection is in no group")
            )
        elif c.membership is Membership.JOINING:
            self._tell(connection, Refused(request, Refusal.BUSY, "the join is not delivered yet"))
        else:
            assert c.group is not None
            c.membership = Membership.LEAVING
            self._tell(connection, Done(request))
            self._queue(encode_leave(GroupLeave(c.group, c.number, Reason.LEAVE)))
        return self._step([], now_ns)

    def multicast(
        self,
        connection: ConnectionId,
        request: int,
        guarantee: int,
        payload: bytes | memoryview,
        now_ns: int,
    ) -> list[Effect]:
        """Multicast to the connection's group; `Accepted` tells when it is on the ring."""
        c = self._connections[connection]
        refused = self._multicast_rule(c, payload)
        if refused is None:
            assert c.group is not None
            message = encode_multicast(GroupMulticast(c.group, c.number, request, payload))
            self._submit(c, request, guarantee, message, len(payload))
        else:
            self._refuse_multicast(c, request, refused)
        return self._step([], now_ns)

    def _submit(
        self, c: _Connection, request: int, guarantee: int, message: bytes, size: int
    ) -> None:
        c.outstanding[request] = size
        c.outstanding_bytes += size
        self._cookie += 1
        self._cookies[self._cookie] = (c, request)
        self.packer.submit(message, guarantee, self._cookie)
        self._queued = True
        self.stats.multicasts_accepted += 1

    def _refuse_multicast(self, c: _Connection, request: int, rule: tuple[Refusal, str]) -> None:
        self.stats.multicasts_refused += 1
        self._tell(c.id, Refused(request, *rule))

    def _multicast_rule(
        self, c: _Connection, payload: bytes | memoryview
    ) -> tuple[Refusal, str] | None:
        if c.group is None or c.membership in (Membership.NONE, Membership.LEAVING):
            return Refusal.NOT_EXIST, "this connection is in no group"
        if len(payload) > PAYLOAD_SIZE_MAX:
            return Refusal.INVALID_PARAM, f"{len(payload)} bytes, limit {PAYLOAD_SIZE_MAX}"
        return self._window_rule(c, payload)

    def _window_rule(
        self, c: _Connection, payload: bytes | memoryview
    ) -> tuple[Refusal, str] | None:
        if self.ring.leave_copies is not None:
            return Refusal.TRY_AGAIN, "this node is leaving the ring"
        if len(c.outstanding) >= WINDOW_MESSAGES:
            return Refusal.TRY_AGAIN, f"{WINDOW_MESSAGES} messages wait for the ring"
        if c.outstanding and c.outstanding_bytes + len(payload) > WINDOW_BYTES:
            return Refusal.TRY_AGAIN, f"{WINDOW_BYTES} bytes wait for the ring"
        if c.seat is None and not self.packer.room(len(payload)):
            return Refusal.TRY_AGAIN, "the send queue of this node is full"
        return None

    # EVS

    def attach_evs(
        self, connection: ConnectionId, pid: int, now_ns: int, *, keeps: bool = False
    ) -> list[Effect]:
        """Open a connection of an EVS client; see `Evs.attach`."""
        self._connections[connection] = _Connection(connection, pid)
        self._tell(connection, Attached(b"", 0, resumed=False, pid=pid))
        self._out += self.evs.attach(connection, keeps=keeps)
        return self._step([], now_ns)

    def evs_join(
        self, connection: ConnectionId, request: int, keys: tuple[bytes, ...], now_ns: int
    ) -> list[Effect]:
        """Add groups to what the client is told, from this point of its stream."""
        self._emit(self.evs.join(connection, request, keys))
        return self._step([], now_ns)

    def evs_leave(
        self, connection: ConnectionId, request: int, keys: tuple[bytes, ...], now_ns: int
    ) -> list[Effect]:
        """Take groups out of what the client is told, from this point of its stream."""
        self._emit(self.evs.leave(connection, request, keys))
        return self._step([], now_ns)

    def evs_multicast(
        self,
        connection: ConnectionId,
        request: int,
        guarantee: int,
        keys: bytes,
        payload: bytes | memoryview,
        now_ns: int,
    ) -> list[Effect]:
        """Multicast to groups, joined or not; `Accepted` tells when it is on the ring."""
        c = self._connections[connection]
        rule = self.evs.multicast_rule(connection, keys, payload) or self._window_rule(c, payload)
        if rule is None:
            serial = self.evs.sent(connection, request)
            message = encode_evs(EvsMulticast(guarantee, keys, payload, serial))
            self._submit(c, request, guarantee, message, len(payload))
        else:
            self._refuse_multicast(c, request, rule)
        return self._step([], now_ns)

    def evs_clients(self) -> tuple[tuple[int, tuple[bytes, ...]], ...]:
        """Return the EVS clients of this node: the pid of each, and the keys it has joined."""
        return tuple((self._connections[c].pid, keys) for c, keys in self.evs.clients())

    # All connections

    def snapshotted(self, connection: ConnectionId, index: int, now_ns: int) -> list[Effect]:
        """Cut a seat's log: everything up to ``index`` is durable with the service."""
        seat = self._connections[connection].seat
        if seat is None:
            rule = "only the process of a service has a log"
            self._tell(connection, Refused(0, Refusal.INVALID_PARAM, rule))
        else:
            for event in seat.snapshotted(index):
                self._tell(connection, event)
        return self._step([], now_ns)

    def detach(self, connection: ConnectionId, now_ns: int) -> list[Effect]:
        """Close a connection and give its membership up, in order."""
        self._close(connection, Reason.LEAVE, now_ns)
        return self._step([], now_ns)

    def disconnected(self, connection: ConnectionId, now_ns: int) -> list[Effect]:
        """Close a connection whose process is gone: a process is down, a seat is kept a while."""
        self._close(connection, Reason.PROCDOWN, now_ns)
        return self._step([], now_ns)

    def _close(self, connection: ConnectionId, reason: Reason, now_ns: int) -> None:
        c = self._connections.pop(connection, None)
        if c is None:
            return
        self.evs.detach(connection)
        if c.seat is not None:
            if reason is Reason.LEAVE:
                self._give_up(c.seat, reason)
            else:
                c.seat.vacate(now_ns)
        elif c.group is not None and c.membership is not Membership.NONE:
            self._receivers.get(c.group, {}).pop(c.number, None)
            if c.membership is not Membership.LEAVING:
                self._queue(encode_leave(GroupLeave(c.group, c.number, reason)))

    def members(self, name: bytes) -> tuple[Member, ...]:
        """Return the members of a group of processes at this point of every stream."""
        return self.groups.members(GroupKey(Space.PROCESS, name))

    def process_groups(self) -> tuple[tuple[bytes, tuple[Member, ...]], ...]:
        """Return all groups of processes and their members, sorted."""
        keys = sorted(k for k in self.groups.groups if k.space is Space.PROCESS)
        return tuple((key.name, self.groups.members(key)) for key in keys)

    # Effects

    def _emit(self, effect: Effect) -> None:
        self._out.append(effect)

    def _tell(self, connection: ConnectionId, event: Event) -> None:
        self._out.append(Tell(connection, event))

    def _queue(self, message: bytes) -> None:
        self.packer.submit(message, AGREED)
        self._queued = True

    def _step(self, effects: list[RingEffect], now_ns: int) -> list[Effect]:
        """Take the ring's effects in order, and let it send what came to be sent."""
        self._now_ns = now_ns
        self._absorb(effects)
        while self._queued:
            self._queued = False
            self._absorb(self.ring.submitted(now_ns))
        if self._kept_out:
            self._absorb(self.ring.leave(now_ns))
        self._report_sent()
        self._out += self.evs.passed()
        out = self._out
        self._out = []
        return out

    def _absorb(self, effects: list[RingEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                for message in self.assembler.open(effect.originator, effect.payload):
                    self._deliver(effect.originator, message)
            elif isinstance(effect, Configuration):
                self._configuration(effect)
                self._out.append(effect)
            else:
                self._out.append(effect)

    def _configuration(self, c: Configuration) -> None:
        self._out += self.evs.configuration(c)
        if c.kind is ConfigurationKind.TRANSITIONAL:
            self.groups.transitional(c.members)
            self._part(c.members)
        elif not self._booted:
            self._booted = True  # the boot configuration has no round; the gate stays closed
        else:
            self.assembler.reset()
            self.packer.gate_open = False
            self.packer.submit_sync(self.groups.regular(c.ring, c.members))
            self._sync_until_ns = self._now_ns + self._sync_timeout_ns
            self._queued = True

    def _part(self, nodes: tuple[int, ...]) -> None:
        """Tell the seats of groups that lose members to whom what follows is delivered."""
        for seat in self.seats.values():
            members = {member.node_id for member in self.groups.members(seat.group)}
            if self.me in members and not members <= set(nodes):
                self._pass(seat, Parting(seat.index + 1, tuple(sorted(nodes))))

    def _deliver(self, originator: int, data: bytes | memoryview) -> None:
        if data and data[0] == EVS:
            self._deliver_evs(originator, data)
            return
        try:
            message = decode(data)
        except GroupDecodeError:
            self.stats.messages_malformed += 1
            return
        if type(message) is GroupMulticast:
            self._deliver_multicast(originator, message)
        elif type(message) is GroupJoin:
            self._joined(originator, message)
        elif type(message) is GroupLeave:
            view = self.groups.leave(originator, message)
            if view is not None:
                self._show(view)
        elif type(message) is ProcessList:
            self._process_list(originator, message)

    def _deliver_evs(self, originator: int, data: bytes | memoryview) -> None:
        try:
            self._out += self.evs.deliver(originator, data, own=originator == self.me)
        except EvsDecodeError:
            self.stats.messages_malformed += 1
        else:
            self.stats.messages_delivered += 1

    def _deliver_multicast(self, originator: int, message: GroupMulticast) -> None:
        sender = self.groups.sender(originator, message)
        if sender is None:
            return
        self.stats.messages_delivered += 1
        own = message.connection if originator == self.me else None
        for number, receiver in self._receivers.get(message.group, {}).items():
            index = receiver.index + 1
            if type(receiver) is _Connection and number == own:
                self._pass(receiver, DeliveredOwn(index, message.request))
            else:
                event = Delivered(index, originator, sender.pid, message.payload)
                self._pass(receiver, event)

    def _pass(
        self, receiver: Seat | _Connection, event: Delivered | DeliveredOwn | View | Parting
    ) -> None:
        if type(receiver) is Seat and not isinstance(event, DeliveredOwn):
            for told in receiver.append(event):
                if receiver.connection is not None:
                    self._tell(receiver.connection, told)
        elif type(receiver) is _Connection:
            receiver.index = event.index
            self._tell(receiver.id, event)

    def _joined(self, originator: int, message: GroupJoin) -> None:
        view = self.groups.join(originator, message)
        if view is None:
            return
        if originator == self.me:
            receiver = self._find(message)
            if receiver is not None:
                self._receivers.setdefault(message.group, {})[message.connection] = receiver
                if type(receiver) is _Connection:
                    receiver.membership = Membership.JOINED
        self._show(view)

    def _find(self, message: GroupJoin) -> Seat | _Connection | None:
        seat = self.seats.get(message.group)
        if seat is not None and seat.number == message.connection:
            return seat
        for c in self._all():
            if c.seat is None and c.number == message.connection and c.group == message.group:
                return c
        return None  # it disconnected meanwhile; its leave is on the way

    def _show(self, view: GroupView) -> None:
        receivers = self._receivers.get(view.group, {})
        for receiver in list(receivers.values()):
            self._pass(
                receiver,
                View(
                    receiver.index + 1,
                    view.group.name,
                    view.ring,
                    view.number,
                    view.members,
                    view.left,
                    view.joined,
                ),
            )
        for key in view.left_keys:
            if key.node_id == self.me:
                self._forget(view.group, key)

    def _forget(self, group: GroupKey, key: Key) -> None:
        receivers = self._receivers.get(group, {})
        receiver = receivers.pop(key.connection, None)
        if not receivers:
            self._receivers.pop(group, None)
        if type(receiver) is _Connection:
            receiver.membership, receiver.group = Membership.NONE, None

    def _process_list(self, originator: int, message: ProcessList) -> None:
        views = self.groups.process_list(originator, message)
        if views is not None:
            for node_id, version, highest in self.groups.outdated:
                fields = {"node": node_id, "config_version": version, "highest": highest}
                noted = tuple((key, str(value)) for key, value in fields.items())
                self._emit(Noted("config_version_outdated", noted))
            self._round_finished(views)
            return
        mine = [o for o in self.groups.outdated if o.node_id == self.me]
        if mine and not self._kept_out:
            self._kept_out = True
            self._sync_until_ns = None
            self._emit(KeptOut(mine[0].config_version, mine[0].highest))

    def _round_finished(self, views: list[GroupView]) -> None:
        self._sync_until_ns = None
        for view in views:
            self._show(view)
        changed = RingChanged(self.groups.ring, self.groups.nodes)
        for c in self._all():
            if c.seat is None and c.id not in self.evs:
                self._tell(c.id, changed)
        self.packer.gate_open = True
        self._queued = True

    def _report_sent(self) -> None:
        last: dict[ConnectionId, int] = {}
        for cookie in self.packer.sent():
            c, request = self._cookies.pop(cookie)
            c.outstanding_bytes -= c.outstanding.pop(request)
            last[c.id] = request
        for connection, request in last.items():
            if connection in self._connections:
                self._tell(connection, Accepted(request))


def name_rule(name: bytes) -> tuple[Refusal, str] | None:
    """Return why a name cannot be a group's; None: it can."""
    if not name:
        return Refusal.INVALID_PARAM, "a group name has at least one byte"
    if len(name) > NAME_SIZE_MAX:
        return Refusal.NAME_TOO_LONG, f"{len(name)} bytes, a group name has at most {NAME_SIZE_MAX}"
    return None
