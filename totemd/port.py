"""The local port of totemd: clients' messages in, the core's events out.

Knows the port protocol and which requests a connection may make; decides nothing of the ring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from openais.node.ipc import IpcServer
from openais.node.logs import EventLog
from openais.wire import port as wire
from openais.wire.codec import Buffer, DecodeError
from openais.wire.status import Status
from totemd.protocol import local
from totemd.protocol.effects import Configuration
from totemd.protocol.node import WINDOW_BYTES, WINDOW_MESSAGES, Effect, Node, name_rule
from totemd.security import CONNECTION, Security

REPLAY_OVERHEAD: Final = 1024  # bytes that a replayed event may have beside its payload
RESERVED: Final = b"\0"  # first byte of the names of groups that no client may take

NUMBERED: Final = {  # of the core -> of the port
    local.Done: wire.Done,
    local.Accepted: wire.Accepted,
    local.EvsPassed: wire.EvsPassed,
}

_LOG = EventLog(__name__)

Order: TypeAlias = wire.KeyRotate | wire.KeyRetire | wire.RingGather | wire.HoldOffsClear
StatusSource = Callable[[], dict[str, Any]]  # the JSON document of `openais status`


class Port:
    """Feeds the node with what clients ask.

    Args:
        server: the bound socket.
        node: the core.
        status: makes the status document.
        security: changes keys.
    """

    def __init__(
        self, server: IpcServer, node: Node, status: StatusSource, security: Security
    ) -> None:
        self.server: Final = server
        self._node: Final = node
        self._status: Final = status
        self._security: Final = security
        self._attached: Final[dict[int, wire.Kind]] = {}
        self.messages_malformed = 0

    def receive(self, now_ns: int) -> Iterator[list[Effect]]:
        """Serve what clients sent and the ends of those that are gone.

        Yields effects to be performed before the next message is looked at: a refused client
        must not be served further.
        """
        for client, messages in self.server.receive():
            for message in wire.TABLE.take(messages):
                if self.server.connected(client):
                    yield self._message(client, message, now_ns)
        for client, _ in self.server.closed():
            if self._attached.pop(client, None) is not None:
                yield self._node.disconnected(local.ConnectionId(client), now_ns)

    def _message(self, client: int, message: object, now_ns: int) -> list[Effect]:
        if type(message) is wire.Multicast and client in self._attached:
            return self._request(client, message, now_ns)
        if isinstance(message, DecodeError):
            self.messages_malformed += 1
            if self.messages_malformed & (self.messages_malformed - 1) == 0:
                pid = self.server.peer(client).pid
                _LOG.warning("message_malformed", pid=pid, rule=str(message))
            self._send(client, wire.Refused(0, Status.ERR_INVALID_PARAM, str(message)[:200]))
            return []
        if isinstance(message, wire.StatusQuery):
            report = json.dumps(self._status())
            self._send(client, wire.StatusReport(message.request, report))
            return []
        if isinstance(message, Order):
            return self._order(client, message, now_ns)
        if isinstance(message, wire.Attach):
            return self._attach(client, message, now_ns)
        if client not in self._attached:
            self._refuse(client, Status.ERR_INIT, "the first message must be Attach")
            return []
        return self._request(client, message, now_ns)

    def _order(self, client: int, message: Order, now_ns: int) -> list[Effect]:
        """Carry out what an operator orders."""
        peer = self.server.peer(client)
        if not self.server.access.trusts(peer):
            rule = "this is for root and the daemons' own user"
            self._send(client, wire.Refused(message.request, Status.ERR_ACCESS, rule))
            return []
        effects: list[Effect] = []
        refused: str | None = None
        match message:
            case wire.KeyRotate():
                refused = self._security.rotate()
            case wire.KeyRetire():
                refused = self._security.retire()
            case _ if self._node.ring.gone:
                refused = "this node is leaving the ring"
            case wire.RingGather():
                effects = self._node.force_gather(now_ns)
            case wire.HoldOffsClear():
                effects = self._node.clear_hold_offs(now_ns)
        if refused is None:
            _LOG.info("ordered", order=type(message).__name__, uid=peer.uid, pid=peer.pid)
            self._send(client, wire.Done(message.request))
        else:
            answer = wire.Refused(message.request, Status.ERR_FAILED_OPERATION, refused)
            self._send(client, answer)
        return effects

    def _attach(self, client: int, m: wire.Attach, now_ns: int) -> list[Effect]:
        if m.version_min > wire.VERSION or m.version < wire.VERSION_MIN:
            self._refuse(client, Status.ERR_VERSION, f"this port speaks version {wire.VERSION}")
            return []
        if client in self._attached:
            self._refuse(client, Status.ERR_EXIST, "this connection is attached")
            return []
        connection = local.ConnectionId(client)
        peer = self.server.peer(client)
        if m.kind is wire.Kind.SEAT:
            if m.group.startswith(RESERVED):
                self._refuse(client, Status.ERR_ACCESS, "names that begin so are totemd's own")
                return []
            if not self.server.access.trusts(peer):
                rule = "a seat is for root and the daemons' own user"
                self._refuse(client, Status.ERR_ACCESS, rule)
                return []
            self._attached[client] = m.kind
            effects = self._node.attach_seat(connection, m.group, m.history, m.index, now_ns)
            self._allow_replay(client, effects)
            return effects
        self._attached[client] = m.kind
        if m.kind is wire.Kind.EVS:
            keeps = m.version >= wire.VERSION_EVS_KEEPS
            return self._node.attach_evs(connection, peer.pid, now_ns, keeps=keeps)
        return self._node.attach_process(connection, peer.pid, now_ns)

    def _allow_replay(self, client: int, effects: list[Effect]) -> None:
        """Let the whole log of a seat wait for its process: it is in memory anyway."""
        told = [e.event for e in effects if isinstance(e, local.Tell) and e.connection == client]
        sizes = [len(e.payload) for e in told if isinstance(e, local.Delivered)]
        self.server.allow(client, len(told), sum(sizes) + REPLAY_OVERHEAD * len(told))

    def _request(self, client: int, message: object, now_ns: int) -> list[Effect]:
        node, connection = self._node, local.ConnectionId(client)
        match message:
            case wire.Multicast(request, guarantee, payload):
                return node.multicast(connection, request, guarantee, payload, now_ns)
            case wire.EvsMulticast() | wire.EvsJoin() | wire.EvsLeave():
                return self._evs_request(connection, message, now_ns)
            case wire.Join(request, group):
                return node.join(connection, request, group, now_ns)
            case wire.Leave(request, group):
                return node.leave_group(connection, request, group, now_ns)
            case wire.Snapshotted(index):
                return node.snapshotted(connection, index, now_ns)
            case wire.MembersQuery() | wire.GroupsQuery():
                self._query(client, message)
            case wire.Detach():
                del self._attached[client]
                effects = node.detach(connection, now_ns)
                self.server.drop(client)
                return effects
            case _:
                rule = f"{type(message).__name__} is what totemd sends"
                self._send(client, wire.Refused(0, Status.ERR_INVALID_PARAM, rule))
        return []

    def _evs_request(
        self,
        connection: local.ConnectionId,
        message: wire.EvsMulticast | wire.EvsJoin | wire.EvsLeave,
        now_ns: int,
    ) -> list[Effect]:
        match message:
            case wire.EvsMulticast(request, guarantee, keys, payload):
                return self._node.evs_multicast(
                    connection, request, guarantee, keys, payload, now_ns
                )
            case wire.EvsJoin(request, joined):
                return self._node.evs_join(connection, request, joined, now_ns)
            case wire.EvsLeave(request, left):
                return self._node.evs_leave(connection, request, left, now_ns)

    def _query(self, client: int, message: wire.MembersQuery | wire.GroupsQuery) -> None:
        match message:
            case wire.MembersQuery(request, group):
                rule = name_rule(group)
                if rule is not None:
                    self._send(client, wire.Refused(request, Status(rule[0]), rule[1]))
                    return
                members = _members(self._node.members(group))
                self._send(client, wire.Members(request, group, members))
            case wire.GroupsQuery(request):
                groups = tuple(
                    wire.GroupMembers(name, _members(members))
                    for name, members in self._node.process_groups()
                )
                self._send(client, wire.Groups(request, groups))

    def _refuse(self, client: int, status: Status, rule: str) -> None:
        """Answer an attach, or what stands in its place; the connection is useless then."""
        self._send(client, wire.Refused(0, status, rule))
        self.server.drop(client)

    def _send(self, client: int, message: object) -> None:
        self.server.send(client, wire.TABLE.encode(message))

    def tell(self, effect: local.Tell) -> None:
        """Send one event of the core to its connection."""
        event = effect.event
        if effect.connection == CONNECTION:
            self._security.told(event, self._node.groups.nodes)
            return
        elements: list[Buffer] = []
        if isinstance(event, local.Delivered):
            wire.TABLE.put(
                wire.Delivered(event.index, event.node_id, event.pid, event.payload), elements
            )
        elif isinstance(event, local.DeliveredOwn):
            wire.TABLE.put(wire.DeliveredOwn(event.index, event.request), elements)
        elif isinstance(event, local.EvsDelivered):
            wire.TABLE.put(wire.EvsDelivered(event.node_id, event.payload), elements)
        elif isinstance(event, local.EvsDeliveredOwn):
            wire.TABLE.put(wire.EvsDeliveredOwn(event.request), elements)
        else:
            wire.TABLE.put(self._event(event), elements)
        self.server.send(effect.connection, *elements)
        if isinstance(event, local.Refused) and event.request == 0:
            self._attached.pop(effect.connection, None)
            self.server.drop(effect.connection)

    def _event(self, event: local.RareEvent) -> object:
        match event:
            case local.Attached(history, index, resumed, pid):
                return wire.Attached(
                    self._node.me,
                    history,
                    index,
                    resumed,
                    WINDOW_MESSAGES,
                    WINDOW_BYTES,
                    wire.VERSION,
                    pid,
                )
            case local.Refused(request, refusal, rule):
                return wire.Refused(request, Status(refusal), rule)
            case local.Done() | local.Accepted() | local.EvsPassed():
                return NUMBERED[type(event)](event.request)
            case local.View():
                return _view(event)
            case local.Parting(index, nodes):
                return wire.Parting(index, nodes)
            case local.RingChanged(ring, nodes, current):
                return wire.RingChanged(wire.RingId(*ring), nodes, current)
            case Configuration():
                return _configuration(event)
            case local.CaughtUp(index):
                return wire.CaughtUp(index)
            case local.SnapshotWanted(log_bytes):
                return wire.SnapshotWanted(log_bytes)

    def drop(self, effect: local.Drop) -> None:
        """Close a connection whose place somebody else has taken."""
        self._attached.pop(effect.connection, None)
        self._refuse(effect.connection, Status.ERR_BUSY, effect.rule)


def refusal(status: Status, rule: str) -> bytes:
    """Encode the last words for a client that is not served."""
    return wire.TABLE.encode(wire.Refused(0, status, rule))


def _members(members: tuple[local.Member, ...]) -> tuple[wire.Member, ...]:
    return tuple(wire.Member(*m) for m in members)


def _changes(changes: tuple[local.Change, ...]) -> tuple[wire.Change, ...]:
    return tuple(wire.Change(wire.Member(*c.member), wire.Reason(c.reason)) for c in changes)


def _configuration(c: Configuration) -> wire.Configuration:
    kind = wire.ConfigurationKind[c.kind.name]
    return wire.Configuration(kind, wire.RingId(*c.ring), c.members, c.left, c.joined)


def _view(event: local.View) -> wire.View:
    return wire.View(
        event.index,
        event.group,
        wire.RingId(*event.ring),
        event.number,
        _members(event.members),
        _changes(event.left),
        _changes(event.joined),
    )
