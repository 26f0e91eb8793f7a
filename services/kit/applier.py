"""What one applied entry does to the machine, the sessions, and the clients of this node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openais.wire.codec import DecodeError
from openais.wire.status import Status
from services.kit import entries
from services.kit.effects import Effect, Opened, Replied, Told
from services.kit.machine import (
    Answer,
    Caller,
    Context,
    Machine,
    NodeId,
    Notify,
    SessionId,
    View,
)
from services.kit.machine import Effect as MachineEffect
from services.kit.sessions import Record, Sessions


@dataclass(slots=True)
class ReplicaStats:
    """Counters of a replica."""

    operations_applied: int = 0
    operations_repeated: int = 0
    operations_without_session: int = 0
    operations_failed: int = 0
    entries_malformed: int = 0
    meetings: int = 0
    states_received: int = 0
    states_sent: int = 0
    state_bytes_received: int = 0
    state_bytes_sent: int = 0
    transfers_repeated: int = 0
    objects_discarded: int = 0
    digests_compared: int = 0
    divergences: int = 0


class Applier:
    """Applies operations; performs what the machine wants, as far as it is for this node.

    Args:
        me: this node.
        machine: of the service.
        sessions: of the service.
        stats: counters.
        out: where effects go.
    """

    def __init__(
        self,
        me: NodeId,
        machine: Machine,
        sessions: Sessions,
        stats: ReplicaStats,
        out: list[Effect],
    ) -> None:
        self._me: Final = me
        self._machine: Final = machine
        self._sessions: Final = sessions
        self._stats: Final = stats
        self._out: Final = out

    def operation(self, node: NodeId, entry: entries.Operation, view: View) -> None:
        """Apply a request of a client, once; answer it."""
        session = SessionId(entry.session)
        record = self._sessions.open.get(session)
        if record is None or record.node_id != node:
            self._stats.operations_without_session += 1
            return
        if record.seen(entry.number):
            self._stats.operations_repeated += 1
            answer = record.answers.get(entry.number)
            if answer is not None and node == self._me:
                self._out.append(Replied(session, entry.number, *answer))
            return
        self._sessions.objects.touch(session)
        record.acknowledge(entry.acknowledged)
        record.begin(entry.number)
        caller = Caller(node, session, entry.number)
        try:
            operation = self._machine.table.decode(entry.body)
        except DecodeError as error:
            self._answered(record, caller, Status.ERR_INVALID_PARAM, str(error).encode())
            return
        try:
            effects = self._machine.apply(operation, Context(entry.now_ns, node, caller, view))
        except Exception:
            # The same bug fires on every replica: all answer alike and go on if the state holds.
            self._stats.operations_failed += 1
            self._machine.check()
            self._answered(record, caller, Status.ERR_LIBRARY, b"a bug in the service; see its log")
            return
        self._stats.operations_applied += 1
        self.perform(effects)

    def own(self, node: NodeId, entry: entries.Own, view: View) -> None:
        """Apply an operation of the machine itself."""
        try:
            operation = self._machine.table.decode(entry.body)
        except DecodeError:
            self._stats.entries_malformed += 1
            return
        self.perform(self._machine.apply(operation, Context(entry.now_ns, node, None, view)))

    def session_opened(self, node: NodeId, session: SessionId) -> None:
        """Open a session."""
        self._sessions.opened(session, node)
        if node == self._me and self._sessions.open[session].node_id == node:
            self._out.append(Opened(session))

    def session_closed(self, node: NodeId, session: SessionId, now_ns: int, view: View) -> None:
        """End a session of a node."""
        record = self._sessions.open.get(session)
        if record is None or record.node_id != node:
            return
        effects = self._machine.session_closed(session, Context(now_ns, node, None, view))
        self._sessions.closed(session)
        self.perform(effects)

    def notified(self, session: SessionId, serial: int) -> None:
        """Forget notifications that the client has seen."""
        record = self._sessions.find(session)
        if record is not None:
            record.trim(serial)

    def perform(self, effects: list[MachineEffect]) -> None:
        """Remember answers and notifications; tell those of this node."""
        for effect in effects:
            match effect:
                case Answer(caller, status, result):
                    record = self._sessions.find(caller.session)
                    body = b"" if result is None else self._machine.table.encode(result)
                    if record is not None:
                        self._answered(record, caller, status, body)
                case Notify(session, message):
                    record = self._sessions.find(session)
                    if record is not None:
                        self._notify(session, record, self._machine.table.encode(message))

    def _answered(self, record: Record, caller: Caller, status: Status, body: bytes) -> None:
        if caller.number > record.acknowledged:
            record.answers[caller.number] = (status, body)
        if record.node_id == self._me:
            self._out.append(Replied(caller.session, caller.number, status, body))

    def _notify(self, session: SessionId, record: Record, body: bytes) -> None:
        serial = record.notify(body)
        if record.node_id == self._me:
            self._out.append(Told(session, serial, body))

    def serials(self) -> dict[SessionId, int]:
        """Return up to where the sessions of this node were notified, before a state is loaded."""
        own = self._sessions.of_node(self._me)
        return {s: self._sessions.open[s].serial for s in own}

    def tell(self, before: dict[SessionId, int]) -> None:
        """Notify this node's sessions of what a loaded state notified them of."""
        for session in self._sessions.of_node(self._me):
            record = self._sessions.open[session]
            for serial, body in record.kept:
                if serial > before.get(session, record.serial):
                    self._out.append(Told(session, serial, body))
