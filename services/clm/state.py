"""The replicated state of the membership service: nodes, the view, who follows its changes.

Knows the views of the service's group and what their members report. A node is a member of the
cluster while its replica is a member of the group, the group has a quorum, no administrator locked
it and, where a list of nodes is configured, it is on it; of two nodes with one name, the later is
kept out. A view has a number that every node computes alike: ``(ring sequence << 16) + k``, where
k counts the views within a ring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

from openais.wire import clm as wire
from openais.wire.clm import (
    AdminOperation,
    AdminRecord,
    AdminState,
    ChangeStep,
    ClusterChange,
    Response,
    TrackFlags,
)
from openais.wire.codec import Buffer, DecodeError
from openais.wire.status import TIME_UNKNOWN, Status
from services.clm import snapshot
from services.clm.administration import (
    Records,
    Running,
    packed_running,
    unpacked_running,
    verdict,
)
from services.clm.trackers import Tracker, Trackers
from services.kit.machine import (
    REST,
    Answer,
    Caller,
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
ADMINISTRATION_SINCE: Final = 2  # version of the protocol

Ordered: TypeAlias = (
    wire.Track | wire.TrackStop | wire.Evictions | wire.Respond | wire.Administer | wire.LockTimeout
)
Read: TypeAlias = wire.NodeGet | wire.MembershipGet | wire.NodesGet


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
    configured: bool = True  # it may become a member
    resets: bool = False  # it has a command that reboots it
    lock_timeout_ns: int = wire.LOCK_TIMEOUT_DEFAULT_NS
    records: tuple[AdminRecord, ...] = ()  # of an earlier life of the cluster


@dataclass(frozen=True, slots=True)
class _Node:
    node: wire.Node
    arrived: int  # number of the view in which its replica joined the group
    settings: snapshot.Settings


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
        self._version = wire.VERSION
        self._view = 0
        self._quorate = True
        self._nodes: dict[NodeId, _Node] = {}
        self._trackers: Final = Trackers()
        self._records: Final = Records()
        self._running: dict[NodeId, Running] = {}
        self._operations = 0  # begun so far; numbers them

    @property
    def own_node_id(self) -> NodeId:
        """Id of the node this replica runs on."""
        return self._own.node_id

    def excluded(self) -> str:
        """Return why the node this replica runs on may not be a member of any view; "": it may."""
        if not self._own.configured:
            return "the node is not listed in clm.nodes"
        if self._records.state(self._own.node_id) is AdminState.LOCKED:
            return "the node is locked; see: openais clm list"
        return ""

    def speak(self, version: int) -> None:
        """Go on in a version; without administration nodes have no administrative state."""
        self._version = version
        if version < ADMINISTRATION_SINCE:
            self.objects.touch(REST)
            self._records.of.clear()
            self._running.clear()
            self._quorate = True

    # Operations

    def apply(self, operation: Ordered, context: Context) -> list[Effect]:
        """Apply one ordered operation."""
        caller = context.caller
        self.objects.touch(REST)
        if isinstance(operation, wire.LockTimeout):
            return self._timed_out(operation, context)
        assert caller is not None, "what has no caller is an operation of the service itself"
        match operation:
            case wire.Track():
                return [self._track(operation, caller)]
            case wire.TrackStop():
                return self._track_stop(caller, context)
            case wire.Evictions():
                self._trackers.ask_evictions(caller.session, caller.node_id)
                return [Answer(caller, Status.OK)]
            case wire.Respond():
                return self._respond(operation, caller, context)
            case wire.Administer():
                return self._administer(operation, caller, context)
            case _:
                assert_never(operation)

    def read(self, operation: Read, context: Context) -> Answer:
        """Answer from the present view."""
        caller = context.caller
        assert caller is not None, "a read has a caller"
        match operation:
            case wire.NodeGet():
                status, node = self._node_get(operation, caller.node_id)
                return Answer(caller, status, node)
            case wire.MembershipGet():
                if not self._configured(caller.node_id, operation.level):
                    return Answer(caller, Status.ERR_UNAVAILABLE)
                return Answer(caller, Status.OK, self._membership(caller.node_id))
            case wire.NodesGet():
                return Answer(caller, Status.OK, self._known_nodes())
            case _:
                assert_never(operation)

    def _configured(self, node_id: NodeId, level: wire.Level) -> bool:
        entry = self._nodes.get(node_id)
        return entry is None or entry.settings.configured or level < wire.Level.B_03

    def _track(self, operation: wire.Track, caller: Caller) -> Answer:
        flags = operation.flags
        if not flags & wire.TRACKING or not wire.flags_legal(flags, operation.level):
            return Answer(caller, Status.ERR_BAD_FLAGS)
        if not self._configured(caller.node_id, operation.level):
            return Answer(caller, Status.ERR_UNAVAILABLE)
        membership = self._membership(caller.node_id)
        listed = wire.listed(membership, flags)
        if flags & TrackFlags.CURRENT and 0 < operation.items_max < listed:
            return Answer(caller, Status.ERR_NO_SPACE, membership)
        self._trackers.follow(caller.session, caller.node_id, flags)
        return Answer(caller, Status.OK, membership)

    def _track_stop(self, caller: Caller, context: Context) -> list[Effect]:
        if not self._trackers.stop(caller.session):
            return [Answer(caller, Status.ERR_NOT_EXIST)]
        return [Answer(caller, Status.OK), *self._excused([caller.session], context)]

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
        """Stop telling a session of changes; what it did not answer counts as OK."""
        self.objects.touch(REST)
        self._trackers.close(session)
        return self._excused([session], context)

    # Administration

    def _administer(
        self, operation: wire.Administer, caller: Caller, context: Context
    ) -> list[Effect]:
        asked = operation.node_id
        node_id = caller.node_id if asked == wire.LOCAL_NODE_ID else NodeId(asked)
        if not self._quorate:
            return [Answer(caller, Status.ERR_UNAVAILABLE)]
        if node_id not in self._records.of:
            return [Answer(caller, Status.ERR_NOT_EXIST)]
        kind = operation.operation
        if kind in (AdminOperation.RESET, AdminOperation.ACTION):
            entry = self._nodes.get(node_id)
            possible = kind is AdminOperation.RESET and entry is not None and entry.settings.resets
            return [Answer(caller, Status.OK if possible else Status.ERR_NOT_SUPPORTED)]
        status = verdict(kind, self._records.state(node_id), self._running.get(node_id))
        if status is not Status.OK:
            return [Answer(caller, status)]
        if kind is AdminOperation.UNLOCK:
            return self._unlock(node_id, caller)
        return self._take_out(kind, node_id, caller, context.now_ns)

    def _unlock(self, node_id: NodeId, caller: Caller) -> list[Effect]:
        ended = self._running.pop(node_id, None)
        was_locked = self._records.state(node_id) is AdminState.LOCKED
        self._records.change(node_id, AdminState.UNLOCKED)
        planned = None if was_locked else wire.PlannedChange(node_id, ClusterChange.UNLOCK)
        effects = self._reviewed(node_id, planned) if node_id in self._nodes else []
        stopped = [Answer(c, Status.ERR_FAILED_OPERATION) for c in ended.callers] if ended else []
        return [*effects, *stopped, Answer(caller, Status.OK)]

    def _take_out(
        self, kind: AdminOperation, node_id: NodeId, caller: Caller, now_ns: int
    ) -> list[Effect]:
        """Begin to lock, shut down or remove; a lock ends a shutdown."""
        ended = self._running.pop(node_id, None)
        callers = [*(ended.callers if ended else ()), caller]
        if not self._is_member(node_id):
            self._records.change(node_id, AdminState.LOCKED)
            return [Answer(c, Status.OK) for c in callers]
        if kind is AdminOperation.SHUTDOWN:
            self._records.change(node_id, AdminState.SHUTTING_DOWN)
        self._operations += 1
        running = Running(kind, node_id, self._operations, callers)
        self._running[node_id] = running
        validates = kind is AdminOperation.REMOVE
        return self._ask(running, ChangeStep.VALIDATE if validates else ChangeStep.START, now_ns)

    def _ask(self, running: Running, step: ChangeStep, now_ns: int) -> list[Effect]:
        """Ask everybody who wants to be; go on when nobody does."""
        running.step = step
        timeout_ns = self._nodes[running.node_id].settings.lock_timeout_ns
        limited = running.operation is not AdminOperation.SHUTDOWN
        running.deadline_ns = now_ns + timeout_ns if limited else 0
        validates = step is ChangeStep.VALIDATE
        flag = TrackFlags.VALIDATE_STEP if validates else TrackFlags.START_STEP
        told_ns = timeout_ns if limited and not validates else TIME_UNKNOWN
        effects: list[Effect] = []
        for session, tracker in self._trackers:
            if tracker.flags & flag and self._concerns(running.node_id, tracker):
                invocation = self._trackers.ask(session, step)
                running.waiting[invocation] = session
                running.told[session] = None
                message: wire.Step | wire.Eviction = self._step(
                    running, tracker, step, invocation, told_ns
                )
            elif tracker.evictions and not validates and tracker.node_id == running.node_id:
                invocation = self._trackers.ask(session, step)
                running.waiting[invocation] = session
                message = wire.Eviction(invocation, running.operation)
            else:
                continue
            effects.append(Notify(session, message))
        return effects if running.waiting else [*effects, *self._advanced(running, now_ns)]

    def _concerns(self, node_id: NodeId, tracker: Tracker) -> bool:
        if tracker.local and tracker.node_id != node_id:
            return False
        return self._is_member(tracker.node_id)

    def _step(
        self,
        running: Running,
        tracker: Tracker,
        step: ChangeStep,
        invocation: int,
        time_supervision_ns: int,
    ) -> wire.Step:
        shutdown = running.operation is AdminOperation.SHUTDOWN
        change = ClusterChange.SHUTDOWN if shutdown else ClusterChange.LEFT
        return wire.Step(
            step,
            invocation,
            wire.PlannedChange(running.node_id, change),
            time_supervision_ns,
            self._nodes[running.node_id].node.distinguished_name,
            self._membership(tracker.node_id),
        )

    def _respond(self, operation: wire.Respond, caller: Caller, context: Context) -> list[Effect]:
        if not self._is_member(caller.node_id):
            return [Answer(caller, Status.ERR_UNAVAILABLE)]
        invocation, session = operation.invocation, caller.session
        step = self._trackers.asked(session, invocation)
        rejected = operation.response is Response.REJECTED
        if step is None or (rejected and step is not ChangeStep.VALIDATE):
            return [Answer(caller, Status.ERR_INVALID_PARAM)]
        self._trackers.answered(session, invocation)
        answer = Answer(caller, Status.OK)
        running = next((r for r in self._running.values() if invocation in r.waiting), None)
        if running is None:  # the operation has ended meanwhile
            return [answer]
        del running.waiting[invocation]
        if operation.response is not Response.OK:
            if running.step is ChangeStep.VALIDATE:
                return [answer, *self._aborted(running)]
            running.failed = True
        if running.waiting:
            return [answer]
        return [answer, *self._advanced(running, context.now_ns)]

    def _timed_out(self, operation: wire.LockTimeout, context: Context) -> list[Effect]:
        running = self._running.get(NodeId(operation.node_id))
        if running is None or running.number != operation.number:
            return []
        if not 0 < running.deadline_ns <= context.now_ns:
            return []
        if running.step is ChangeStep.VALIDATE:
            return self._aborted(running)
        running.failed = True
        return self._completed(running)

    def _excused(self, sessions: Sequence[SessionId], context: Context) -> list[Effect]:
        """Count the open questions of sessions as answered OK."""
        gone = frozenset(sessions)
        effects: list[Effect] = []
        for node_id in sorted(self._running):
            running = self._running[node_id]
            if running.excuse(gone):
                effects += self._advanced(running, context.now_ns)
        return effects

    def _advanced(self, running: Running, now_ns: int) -> list[Effect]:
        """Go on with an operation for whose step all have answered."""
        if running.step is ChangeStep.VALIDATE:
            return self._ask(running, ChangeStep.START, now_ns)
        return self._completed(running)

    def _completed(self, running: Running) -> list[Effect]:
        del self._running[running.node_id]
        self._records.change(running.node_id, AdminState.LOCKED)
        shutdown = running.operation is AdminOperation.SHUTDOWN
        change = wire.PlannedChange(running.node_id, ClusterChange.SHUTDOWN) if shutdown else None
        effects = self._reviewed(running.node_id, change)
        status = Status.ERR_REPAIR_PENDING if running.failed else Status.OK
        return [*effects, *(Answer(caller, status) for caller in running.callers)]

    def _aborted(self, running: Running) -> list[Effect]:
        del self._running[running.node_id]
        open_trackers = dict(self._trackers)
        told = [
            Notify(session, self._step(running, open_trackers[session], ChangeStep.ABORTED, 0, 0))
            for session in running.told
            if session in open_trackers
        ]
        failed = [Answer(caller, Status.ERR_FAILED_OPERATION) for caller in running.callers]
        return [*told, *failed]

    def _is_member(self, node_id: NodeId) -> bool:
        entry = self._nodes.get(node_id)
        return entry is not None and entry.node.member

    def _known_nodes(self) -> wire.Nodes:
        return wire.Nodes(
            self._view, self._quorate, tuple(self._known(n) for n in sorted(self._records.of))
        )

    def _known(self, node_id: NodeId) -> wire.KnownNode:
        record, entry = self._records.of[node_id], self._nodes.get(node_id)
        running = self._running.get(node_id)
        settings = snapshot.Settings(node_id) if entry is None else entry.settings
        return wire.KnownNode(
            node_id,
            record.name,
            record.state,
            entry is not None,
            None if running is None else running.operation,
            settings.lock_timeout_ns,
            settings.resets,
            None if entry is None else entry.node,
        )

    def holdings(self, session: SessionId) -> bytes:
        """Tell what a session follows; b"": nothing."""
        tracker = self._trackers.find(session)
        return b"" if tracker is None else bytes((tracker.flags, tracker.evictions))

    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        """Let a session follow changes again, and tell it what there is now."""
        if not holdings:
            return []
        self.objects.touch(REST)
        flags, evictions = holdings
        if evictions:
            self._trackers.ask_evictions(session, context.sender)
        if not flags:
            return []
        self._trackers.follow(session, context.sender, flags)
        return [Notify(session, self._membership(context.sender))]

    # Views

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        """Tell the others of this node and of what its sessions follow."""
        own = self._own
        known = self._nodes.get(own.node_id)
        administers = self._version >= ADMINISTRATION_SINCE
        return wire.TABLE.encode(
            wire.NodeReport(
                name=own.name,
                distinguished_name=own.distinguished_name,
                family=own.family,
                address=own.address,
                boot_timestamp_ns=own.boot_timestamp_ns,
                incarnation=own.incarnation if known is None else known.node.incarnation,
                trackers=self._trackers.report(sessions),
                configured=own.configured,
                resets=own.resets,
                lock_timeout_ns=own.lock_timeout_ns,
                records=(self._records.changed() or own.records) if administers else (),
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
        apart = tuple(n for n in view.joined if n in view.members and self._is_member(n))
        base = view.ring.seq << VIEWS_PER_RING_BITS
        number = max(base, self._view + (2 if apart else 1))
        excused = [s for s, tracker in self._trackers if tracker.node_id in arriving]
        for node_id in sorted(arriving):
            self._trackers.reopen(node_id, arriving[node_id].trackers)
        effects = self._leave(apart, number - 1) if apart else []
        before = self._nodes
        self._nodes = self._present(view, arriving, number)
        effects += self._administered(arriving)
        self._install(number)
        left = [n for n, _ in view.left if n in before and before[n].node.member]
        cause = before[left[0]].node.distinguished_name if len(left) == 1 else ""
        effects += self._told(before, frozenset(arriving), None, cause)
        return [*effects, *self._excused(excused, context)]

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
                message = wire.TABLE.decode(report.content, self._version)
            except DecodeError:
                continue
            if isinstance(message, wire.NodeReport):
                arriving[node_id] = message
        return arriving

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
            for session, tracker in self._trackers.following()
            if not tracker.local or tracker.node_id in gone
        ]

    def _present(
        self, view: View, arriving: dict[NodeId, wire.NodeReport], number: int
    ) -> dict[NodeId, _Node]:
        """Return the nodes of a view's replicas; those that are new are no members yet."""
        nodes: dict[NodeId, _Node] = {}
        for node_id in view.members:
            report = arriving.get(node_id)
            if report is not None:
                nodes[node_id] = _arrived(node_id, report, number)
            elif node_id in self._nodes:
                nodes[node_id] = self._nodes[node_id]
        self._quorate = view.quorate or self._version < ADMINISTRATION_SINCE
        return nodes

    def _administered(self, arriving: dict[NodeId, wire.NodeReport]) -> list[Effect]:
        """Bring the administrative states together; end operations on nodes that went.

        A node that leaves while somebody waits to take it out is out; so is one whose shutdown
        was under way on a side whose memory is lost.
        """
        if self._version < ADMINISTRATION_SINCE:
            return []
        records = self._records
        for node_id in sorted(arriving):
            records.merge(arriving[node_id].records)
        for node_id in sorted(arriving):
            records.arrived(node_id, arriving[node_id].name)
        effects: list[Effect] = []
        for node_id in sorted(self._running):
            locked = records.state(node_id) is AdminState.LOCKED
            if node_id in self._nodes and node_id not in arriving and not locked:
                continue
            running = self._running.pop(node_id)
            if not locked:
                records.change(node_id, AdminState.LOCKED)
            effects += [Answer(caller, Status.OK) for caller in running.callers]
        for node_id, record in sorted(records.of.items()):
            if record.state is AdminState.SHUTTING_DOWN and node_id not in self._running:
                records.change(node_id, AdminState.LOCKED)
        records.forget(self._nodes)
        return effects

    def _reviewed(self, node_id: NodeId, change: wire.PlannedChange | None) -> list[Effect]:
        """Make a view because the administrative state of a node changed."""
        before = dict(self._nodes)
        self._install(self._view + 1)
        cause = self._nodes[node_id].node.distinguished_name
        return self._told(before, frozenset(), change, cause)

    def _install(self, number: int) -> None:
        """Begin a view: who may not be a member ceases to be one, who waited becomes one."""
        self._view = number
        for node_id, entry in self._nodes.items():
            if entry.node.member and not self._eligible(node_id, entry):
                outsider = dataclasses.replace(entry.node, member=False, initial_view=0)
                self._nodes[node_id] = dataclasses.replace(entry, node=outsider)
        names = {entry.node.name for entry in self._nodes.values() if entry.node.member}
        waiting = [n for n, entry in self._nodes.items() if not entry.node.member]
        for node_id in sorted(waiting, key=lambda n: (self._nodes[n].arrived, n)):
            entry = self._nodes[node_id]
            if entry.node.name not in names and self._eligible(node_id, entry):
                names.add(entry.node.name)
                member = dataclasses.replace(entry.node, initial_view=number, member=True)
                self._nodes[node_id] = dataclasses.replace(entry, node=member)

    def _eligible(self, node_id: NodeId, entry: _Node) -> bool:
        unlocked = self._records.state(node_id) is not AdminState.LOCKED
        return self._quorate and unlocked and entry.settings.configured

    def _told(
        self,
        before: Mapping[NodeId, _Node],
        returned: frozenset[NodeId],
        change: wire.PlannedChange | None,
        root_cause: str,
    ) -> list[Effect]:
        """Return the notifications of the present view.

        Those who follow their own node only are told when something happened to it, or when it
        returned: then they may have been told otherwise.
        """
        views: dict[NodeId, wire.Membership] = {}
        effects: list[Effect] = []
        for session, tracker in self._trackers.following():
            node_id = tracker.node_id
            same = before.get(node_id) == self._nodes.get(node_id)
            changed = change is not None and change.node_id == node_id
            if tracker.local and same and not changed and node_id not in returned:
                continue
            if node_id not in views:
                views[node_id] = dataclasses.replace(
                    self._membership(node_id), change=change, root_cause=root_cause
                )
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
        """Return when the first operation has waited long enough."""
        deadlines = [r.deadline_ns for r in self._running.values() if r.deadline_ns]
        return min(deadlines, default=None)

    def expired(self, now_ns: int) -> list[Any]:
        """Return the operations that have waited long enough."""
        return [
            wire.LockTimeout(node_id, running.number)
            for node_id, running in sorted(self._running.items())
            if 0 < running.deadline_ns <= now_ns
        ]

    def names(self) -> Iterable[bytes]:
        """Return the name of the one object."""
        return (REST,)

    def dump(self, name: bytes) -> list[bytes]:
        """Return the whole state."""
        if name != REST:
            return []
        followed, questions = self._trackers.dump()
        entries = [self._nodes[n] for n in sorted(self._nodes)]
        settings = tuple(e.settings for e in entries)
        state = snapshot.State(
            self._view,
            tuple(snapshot.NodeState(e.arrived, e.node) for e in entries),
            followed,
            self._quorate,
            tuple(s for s in settings if s != snapshot.Settings(s.node_id)),
            questions,
            self._trackers.issued,
            tuple(self._records.of[n] for n in sorted(self._records.of)),
            tuple(packed_running(self._running[n]) for n in sorted(self._running)),
            self._operations,
        )
        return [snapshot.TABLE.encode(state, self._version)]

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace the whole state by a dumped one.

        Raises:
            DecodeError: damaged.
        """
        data = changes.get(REST)
        if data is None:
            return
        state: snapshot.State = snapshot.TABLE.decode(data)
        self.objects.touch(REST)
        settings = {s.node_id: s for s in state.settings}
        self._view = state.view
        self._quorate = state.quorate
        self._nodes = {
            NodeId(e.node.node_id): _Node(
                e.node, e.arrived, settings.get(e.node.node_id, snapshot.Settings(e.node.node_id))
            )
            for e in state.nodes
        }
        self._trackers.load(state.trackers, state.questions, state.issued)
        self._records.of = {NodeId(record.node_id): record for record in state.records}
        self._running = {NodeId(r.node_id): unpacked_running(r) for r in state.running}
        self._operations = state.operations

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
            assert not node.member or self._eligible(node_id, entry), f"{node_id} may not be one"
            if node.member:
                names.add(node.name)
        self._trackers.check()
        for node_id, running in self._running.items():
            assert running.node_id == node_id, f"an operation on {node_id} is filed elsewhere"
            assert running.waiting, f"an operation on {node_id} waits for nobody"
            assert self._is_member(node_id), f"{node_id} is being taken out but is not in"
        for node_id, record in self._records.of.items():
            waits = record.state is AdminState.SHUTTING_DOWN
            assert not waits or node_id in self._running, f"nothing shuts {node_id} down"

    def describe(self) -> dict[str, int]:
        """Return counts for the status."""
        members = sum(1 for entry in self._nodes.values() if entry.node.member)
        locked = sum(1 for n in self._nodes if self._records.state(n) is AdminState.LOCKED)
        return {
            "view": self._view,
            "members": members,
            "nodes_kept_out": len(self._nodes) - members,
            "nodes_locked": locked,
            "operations_running": len(self._running),
            "sessions_tracking": len(self._trackers),
        }

    def nodes(self) -> tuple[wire.Node, ...]:
        """Return all nodes of the view by id, also those kept out; for the log."""
        return tuple(self._nodes[n].node for n in sorted(self._nodes))

    def records(self) -> tuple[AdminRecord, ...]:
        """Return the administrative states that were ever changed; for the disk."""
        return self._records.changed()


def _arrived(node_id: NodeId, report: wire.NodeReport, number: int) -> _Node:
    node = wire.Node(
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
    settings = snapshot.Settings(node_id, report.configured, report.resets, report.lock_timeout_ns)
    return _Node(node, number, settings)
