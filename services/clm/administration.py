"""Administrative states of nodes, and the operations on them that are under way. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from openais.wire.clm import AdminOperation, AdminRecord, AdminState, ChangeStep
from openais.wire.status import Status
from services.clm.snapshot import CallerState, RunningState, WaitingState
from services.kit.machine import Caller, NodeId, SessionId

NODES_KNOWN_MAX: Final = (
    1024  # nodes remembered; absent ones that nobody locked are forgotten first
)


@dataclass(slots=True)
class Running:
    """An operation that waits for answers."""

    operation: AdminOperation  # LOCK, SHUTDOWN or REMOVE
    node_id: NodeId
    number: int
    callers: list[Caller]  # whom to tell the outcome
    step: ChangeStep = ChangeStep.START
    deadline_ns: int = 0  # wall clock; 0: it waits without limit
    waiting: dict[int, SessionId] = field(default_factory=dict)  # by invocation
    told: dict[SessionId, None] = field(default_factory=dict)  # in order
    failed: bool = False  # somebody could not get ready

    def excuse(self, sessions: frozenset[SessionId]) -> bool:
        """Wait no longer for some sessions; True: it was for the last ones."""
        before = len(self.waiting)
        self.waiting = {n: s for n, s in self.waiting.items() if s not in sessions}
        return bool(before) and not self.waiting


class Records:
    """The administrative state of every node that was ever seen."""

    def __init__(self) -> None:
        self.of: dict[NodeId, AdminRecord] = {}

    def state(self, node_id: NodeId) -> AdminState:
        """Return the state of a node."""
        record = self.of.get(node_id)
        return AdminState.UNLOCKED if record is None else record.state

    def arrived(self, node_id: NodeId, name: str) -> None:
        """Remember a node."""
        record = self.of.get(node_id) or AdminRecord(node_id, name, AdminState.UNLOCKED, 0)
        self.of[node_id] = dataclasses.replace(record, name=name)

    def change(self, node_id: NodeId, state: AdminState) -> None:
        """Change the state of a known node."""
        record = self.of[node_id]
        self.of[node_id] = dataclasses.replace(record, state=state, version=record.version + 1)

    def merge(self, records: Iterable[AdminRecord]) -> None:
        """Take in what others know; the record that was changed more often counts."""
        for record in records:
            node_id = NodeId(record.node_id)
            known = self.of.get(node_id)
            if known is None or _rank(record) > _rank(known):
                self.of[node_id] = record

    def forget(self, present: Iterable[NodeId]) -> None:
        """Keep within NODES_KNOWN_MAX."""
        kept = frozenset(present)
        for node_id in sorted(self.of):
            if len(self.of) <= NODES_KNOWN_MAX:
                return
            if node_id not in kept and self.of[node_id].state is AdminState.UNLOCKED:
                del self.of[node_id]

    def changed(self) -> tuple[AdminRecord, ...]:
        """Return the records that were ever changed, by node: what must outlive the cluster."""
        return tuple(self.of[n] for n in sorted(self.of) if self.of[n].version)


def _rank(record: AdminRecord) -> tuple[int, bool]:
    return record.version, record.state is AdminState.LOCKED


def verdict(operation: AdminOperation, state: AdminState, running: Running | None) -> Status:
    """Tell whether an operation may begin: OK, ERR_NO_OP or ERR_BUSY."""
    if running is not None and running.operation is not AdminOperation.SHUTDOWN:
        return Status.ERR_BUSY
    return _VERDICTS[operation, state]


_VERDICTS: Final = {
    (AdminOperation.UNLOCK, AdminState.UNLOCKED): Status.ERR_NO_OP,
    (AdminOperation.UNLOCK, AdminState.LOCKED): Status.OK,
    (AdminOperation.UNLOCK, AdminState.SHUTTING_DOWN): Status.OK,
    (AdminOperation.LOCK, AdminState.UNLOCKED): Status.OK,
    (AdminOperation.LOCK, AdminState.LOCKED): Status.ERR_NO_OP,
    (AdminOperation.LOCK, AdminState.SHUTTING_DOWN): Status.OK,
    (AdminOperation.SHUTDOWN, AdminState.UNLOCKED): Status.OK,
    (AdminOperation.SHUTDOWN, AdminState.LOCKED): Status.ERR_NO_OP,
    (AdminOperation.SHUTDOWN, AdminState.SHUTTING_DOWN): Status.ERR_NO_OP,
    (AdminOperation.REMOVE, AdminState.UNLOCKED): Status.OK,
    (AdminOperation.REMOVE, AdminState.LOCKED): Status.ERR_NO_OP,
    (AdminOperation.REMOVE, AdminState.SHUTTING_DOWN): Status.ERR_BUSY,
}


def packed_running(running: Running) -> RunningState:
    """Return an operation for a snapshot."""
    return RunningState(
        running.operation,
        running.node_id,
        running.number,
        tuple(CallerState(c.node_id, c.session, c.number) for c in running.callers),
        running.step,
        running.deadline_ns,
        tuple(WaitingState(n, session) for n, session in running.waiting.items()),
        tuple(running.told),
        running.failed,
    )


def unpacked_running(state: RunningState) -> Running:
    """Return the operation of a snapshot."""
    return Running(
        state.operation,
        NodeId(state.node_id),
        state.number,
        [Caller(NodeId(c.node_id), SessionId(c.session), c.number) for c in state.callers],
        state.step,
        state.deadline_ns,
        {one.invocation: SessionId(one.session) for one in state.waiting},
        dict.fromkeys(map(SessionId, state.told)),
        state.failed,
    )
