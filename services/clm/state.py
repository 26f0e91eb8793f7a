"""The replicated state of the membership service: nodes, the view, who follows its changes.

Knows the views of the service's group and what their members report. A node is a member of the
cluster while its replica is a member of the group; of two nodes with one name, the later is kept
out. A view has a number that every node computes alike: ``(ring sequence << 16) + k``, where k
counts the views within a ring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from openais.wire import clm as wire
from openais.wire.codec import Buffer, DecodeError, Table
from openais.wire.status import Status
from services.kit.machine import (
    REST,
    Answer,
    Context,
    Effect,
    Foreign,
    NodeId,
    Notify,
    Objects,
    Report,
    SessionId,
    Summary,
    View,
)

VIEWS_PER_RING_BITS: Final = 16


@dataclass(frozen=True, slots=True)
class OwnNode:
    """What only the node itself knows; given by the shell when the process starts."""

    node_id: NodeId
    name: str
    distinguished_name: str
    family: wire.AddressFamily
    address: str
    boot_timestamp_ns: int
    incarnation: int  # random; a life that a snapshot brings back keeps the one it has


@dataclass(frozen=True, slots=True)
class _Node:
    node: wire.Node
    arrived: int  # number of the view in which its replica joined the group


@dataclass(frozen=True, slots=True)
class _Tracker:
    node_id: NodeId
    flags: int


class Membership:
    """The state machine of the membership service. Its state is one object.

    Args:
        own: the data of the node this replica runs on; not part of the replicated state.
    """

    table: Final = wire.TABLE
    merges_losers: Final = False

    def __init__(self, own: OwnNode) -> None:
        self.objects: Final = Objects()
        self.objects.touch(REST)
        self._own = own
        self._view = 0
        self._nodes: dict[NodeId, _Node] = {}
        self._trackers: dict[SessionId, _Tracker] = {}

    # Operations

    def speak(self, version: int) -> None:
        """Do nothing: there is one version."""

    def apply(self, operation: wire.Track | wire.TrackStop, context: Context) -> list[Effect]:
        """Apply one ordered operation."""
        caller = context.caller
        assert caller is not None, "this service proposes no operations of its own"
        match operation:
            case wire.Track():
                if not operation.flags & wire.TRACKING or not wire.flags_legal(
                    operation.flags, operation.level
                ):
                    return [Answer(caller, Status.ERR_BAD_FLAGS)]
                self.objects.touch(REST)
                self._trackers[caller.session] = _Tracker(caller.node_id, operation.flags)
                return [Answer(caller, Status.OK, self._membership(caller.node_id))]
            case wire.TrackStop():
                self.objects.touch(REST)
                tracked = self._trackers.pop(caller.session, None)
                return [Answer(caller, Status.OK if tracked else Status.ERR_NOT_EXIST)]
            case _:
                assert_never(operation)

    def read(self, operation: wire.NodeGet | wire.MembershipGet, context: Context) -> Answer:
        """Answer from the present view."""
        caller = context.caller
        assert caller is not None, "a read has a caller"
        match operation:
            case wire.NodeGet():
                status, node = self._node_get(operation, caller.node_id)
                return Answer(caller, status, node)
            case wire.MembershipGet():
                return Answer(caller, Status.OK, self._membership(caller.node_id))
            case _:
                assert_never(operation)

    def _node_get(
        self, operation: wire.NodeGet, caller_node: NodeId
    ) -> tuple[Status, wire.Node | None]:
        """Find a node as the handle's level says (SAI-AIS-CLM-B.04.01, section 3.5.5)."""
        local = self._nodes.get(caller_node)
        asks_local = operation.node_id in (wire.LOCAL_NODE_ID, caller_node)
        if operation.node_id == 0:
            return Status.ERR_INVALID_PARAM, None
        if local is None:
            return Status.ERR_TRY_AGAIN, None  # no view has been agreed with this node yet
        if not local.node.member and operation.level >= wire.Level.B_03:
            return Status.ERR_UNAVAILABLE, None
        found = local if asks_local else self._nodes.get(NodeId(operation.node_id))
        if asks_local or (local.node.member and found is not None and found.node.member):
            assert found is not None
            return Status.OK, found.node
        if operation.level >= wire.Level.B_04:
            return Status.ERR_NOT_EXIST, None
        return Status.ERR_INVALID_PARAM, None

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        """Stop telling a session of changes."""
        self.objects.touch(REST)
        self._trackers.pop(session, None)
        return []

    def holdings(self, session: SessionId) -> bytes:
        """Tell what a session follows; b"": nothing."""
        tracker = self._trackers.get(session)
        return b"" if tracker is None else bytes((tracker.flags,))

    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        """Let a session follow changes again, and tell it what there is now."""
        if not holdings:
            return []
        self.objects.touch(REST)
        self._trackers[session] = _Tracker(context.sender, holdings[0])
        return [Notify(session, self._membership(context.sender))]

    # Views

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        """Tell the others of this node and of what its sessions follow."""
        own = self._own
        known = self._nodes.get(own.node_id)
        return wire.TABLE.encode(
            wire.NodeReport(
                name=own.name,
                distinguished_name=own.distinguished_name,
                family=own.family,
                address=own.address,
                boot_timestamp_ns=own.boot_timestamp_ns,
                incarnation=own.incarnation if known is None else known.node.incarnation,
                trackers=tuple(
                    wire.Tracker(session, self._trackers[session].flags)
                    for session in sorted(sessions)
                    if session in self._trackers
                ),
            )
        )

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        """Install a view; tell those who follow changes.

        A node that was apart from the others meanwhile first leaves, in a view of its own.
        """
        self.objects.touch(REST)
        arriving = self._arriving(view, reports)
        apart = tuple(n for n in view.joined if n in self._nodes and n in view.members)
        base = view.ring.seq << VIEWS_PER_RING_BITS
        number = max(base, self._view + (2 if apart else 1))
        self._reopen(arriving)
        effects = self._leave(apart, number - 1) if apart else []
        before = self._nodes
        self._nodes = self._installed(view, arriving, number)
        self._view = number
        return effects + self._told(before, frozenset(arriving))

    def _arriving(
        self, view: View, reports: Mapping[NodeId, Report]
    ) -> dict[NodeId, wire.NodeReport]:
        """Decode the reports of nodes that are new; who sends what we cannot read stays out."""
        arriving: dict[NodeId, wire.NodeReport] = {}
        for node_id in view.members:
            report = reports.get(node_id)
            if report is None or (node_id in self._nodes and node_id not in view.joined):
                continue
            try:
                message = wire.TABLE.decode(report.content)
            except DecodeError:
                continue
            if isinstance(message, wire.NodeReport):
                arriving[node_id] = message
        return arriving

    def _reopen(self, arriving: dict[NodeId, wire.NodeReport]) -> None:
        """Replace what is known of the sessions of nodes that arrive by what they report."""
        self._trackers = {
            session: tracker
            for session, tracker in self._trackers.items()
            if tracker.node_id not in arriving
        }
        for node_id, report in arriving.items():
            for tracker in report.trackers:
                self._trackers[SessionId(tracker.session)] = _Tracker(node_id, tracker.flags)

    def _leave(self, apart: tuple[NodeId, ...], number: int) -> list[Effect]:
        """Tell that nodes were apart: the others see them leave, they see the others leave."""
        before = self._nodes
        self._view = number
        self._nodes = {n: entry for n, entry in before.items() if n not in apart}
        rest = self._membership_of(self._nodes)
        others = self._membership_of({n: before[n] for n in apart})
        gone = frozenset(apart)
        return [
            Notify(session, others if tracker.node_id in gone else rest)
            for session, tracker in sorted(self._trackers.items())
            if not tracker.flags & wire.TrackFlags.LOCAL or tracker.node_id in gone
        ]

    def _installed(
        self, view: View, arriving: dict[NodeId, wire.NodeReport], number: int
    ) -> dict[NodeId, _Node]:
        """Return the nodes of a view; who is new, or waited for a name, becomes a member."""
        nodes: dict[NodeId, _Node] = {}
        for node_id in view.members:
            if node_id in arriving:
                nodes[node_id] = _Node(_outsider(node_id, arriving[node_id]), number)
            elif node_id in self._nodes:
                nodes[node_id] = self._nodes[node_id]
        names = {entry.node.name for entry in nodes.values() if entry.node.member}
        waiting = [n for n, entry in nodes.items() if not entry.node.member]
        for node_id in sorted(waiting, key=lambda n: (nodes[n].arrived, n)):
            entry = nodes[node_id]
            if entry.node.name not in names:
                names.add(entry.node.name)
                member = dataclasses.replace(entry.node, initial_view=number, member=True)
                nodes[node_id] = _Node(member, entry.arrived)
        return nodes

    def _told(self, before: Mapping[NodeId, _Node], returned: frozenset[NodeId]) -> list[Effect]:
        """Return the notifications of the present view.

        Those who follow their own node only are told when something happened to it, or when it
        returned: then they may have been told otherwise.
        """
        views: dict[NodeId, wire.Membership] = {}
        effects: list[Effect] = []
        for session, tracker in sorted(self._trackers.items()):
            node_id = tracker.node_id
            quiet = node_id not in returned and before.get(node_id) == self._nodes.get(node_id)
            if quiet and tracker.flags & wire.TrackFlags.LOCAL:
                continue
            if node_id not in views:
                views[node_id] = self._membership(node_id)
            effects.append(Notify(session, views[node_id]))
        return effects

    def _membership(self, node_id: NodeId) -> wire.Membership:
        """Return the view as clients of a node see it: of a node outside, only itself."""
        local = self._nodes.get(node_id)
        if local is None or not local.node.member:
            return wire.Membership(self._view, (), None if local is None else local.node)
        return self._membership_of(self._nodes)

    def _membership_of(self, nodes: Mapping[NodeId, _Node]) -> wire.Membership:
        ordered = (nodes[n].node for n in sorted(nodes))
        return wire.Membership(self._view, tuple(node for node in ordered if node.member))

    # The rest of the contract

    def deadline_ns(self) -> int | None:
        """Return None: nothing expires here."""
        return None

    def expired(self, now_ns: int) -> list[Any]:
        """Return nothing: nothing expires here."""
        return []

    def names(self) -> Iterable[bytes]:
        """Return the name of the one object."""
        return (REST,)

    def dump(self, name: bytes) -> list[bytes]:
        """Return the whole state."""
        if name != REST:
            return []
        state = _State(
            self._view,
            tuple(
                _NodeState(self._nodes[n].arrived, self._nodes[n].node) for n in sorted(self._nodes)
            ),
            tuple(
                _TrackerState(session, tracker.node_id, tracker.flags)
                for session, tracker in sorted(self._trackers.items())
            ),
        )
        return [_STATE.encode(state)]

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace the whole state by a dumped one.

        Raises:
            DecodeError: damaged.
        """
        data = changes.get(REST)
        if data is None:
            return
        state: _State = _STATE.decode(data)
        self.objects.touch(REST)
        self._view = state.view
        self._nodes = {
            NodeId(entry.node.node_id): _Node(entry.node, entry.arrived) for entry in state.nodes
        }
        self._trackers = {
            SessionId(entry.session): _Tracker(NodeId(entry.node_id), entry.flags)
            for entry in state.trackers
        }

    def summary(self, name: bytes) -> Summary:
        """Refuse: there is no object that could be merged."""
        raise AssertionError(f"no object {name!r}")

    def tombstones(self) -> Sequence[bytes]:
        """Return nothing: the winning side's state is taken as a whole."""
        return ()

    def merge(self, foreign: Sequence[Foreign], context: Context) -> None:
        """Refuse: there is no object that could be merged."""
        raise AssertionError("nothing to merge")

    def check(self) -> None:
        """Assert every invariant."""
        names: set[str] = set()
        for node_id, entry in self._nodes.items():
            node = entry.node
            assert node.node_id == node_id, f"node {node_id} is filed under another id"
            assert node.member == (node.initial_view > 0), f"node {node_id}: member without view"
            assert node.initial_view <= self._view, f"node {node_id} joined in the future"
            assert not (node.member and node.name in names), f"two members named {node.name}"
            if node.member:
                names.add(node.name)
        for tracker in self._trackers.values():
            assert tracker.flags & wire.TRACKING, "a session that follows nothing is no tracker"

    def describe(self) -> dict[str, int]:
        """Return counts for the status."""
        members = sum(1 for entry in self._nodes.values() if entry.node.member)
        return {
            "view": self._view,
            "members": members,
            "nodes_kept_out": len(self._nodes) - members,
            "sessions_tracking": len(self._trackers),
        }

    def nodes(self) -> tuple[wire.Node, ...]:
        """Return all nodes of the view by id, also those kept out; for the log."""
        return tuple(self._nodes[n].node for n in sorted(self._nodes))


def _outsider(node_id: NodeId, report: wire.NodeReport) -> wire.Node:
    return wire.Node(
        node_id=node_id,
        name=report.name,
        distinguished_name=report.distinguished_name,
        family=report.family,
        address=report.address,
        boot_timestamp_ns=report.boot_timestamp_ns,
        incarnation=report.incarnation,
        initial_view=0,
        member=False,
    )


@dataclass(frozen=True, slots=True)
class _NodeState:
    arrived: int
    node: wire.Node


@dataclass(frozen=True, slots=True)
class _TrackerState:
    session: bytes
    node_id: int
    flags: int


@dataclass(frozen=True, slots=True)
class _State:
    view: int
    nodes: tuple[_NodeState, ...]
    trackers: tuple[_TrackerState, ...]


_STATE: Final = Table("clm state", {1: _State})
