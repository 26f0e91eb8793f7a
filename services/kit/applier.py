"""What one applied entry does to the machine, the sessions, and the clients of this node. Pure."""

from __future__ import annotations

from typing import Any, Final

from openais.wire.codec import DecodeError
from openais.wire.status import Status
from services.kit import entries
from services.kit.effects import Dropped, Effect, Opened, ReplicaStats, Replied, Stale, Told
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
from services.kit.quorum import Quorum
from services.kit.sessions import Place, Record, Sessions
from services.kit.versions import Versions

NO_QUORUM_RULE: Final = b"this side of the cluster has no quorum"
UNKNOWN_RULE: Final = b"not an operation of the version that the group speaks"


class Applier:
    """Applies operations; performs what the machine wants, as far as it is for this node.

    Args:
        me: this node.
        machine: of the service.
        sessions: of the service.
        quorum: of the view in force.
        versions: that the group speaks.
        stats: counters.
        out: where effects go.
        needs_quorum: without it requests are refused, and sessions go stale.
    """

    def __init__(
        self,
        me: NodeId,
        machine: Machine,
        sessions: Sessions,
        quorum: Quorum,
        versions: Versions,
        stats: ReplicaStats,
        out: list[Effect],
        *,
        needs_quorum: bool,
    ) -> None:
        self._me: Final = me
        self._machine: Final = machine
        self._sessions: Final = sessions
        self._quorum: Final = quorum
        self._versions: Final = versions
        self._stats: Final = stats
        self._out: Final = out
        self._needs_quorum: Final = needs_quorum

    @property
    def acts(self) -> bool:
        """True: requests are served here, as far as the quorum is concerned."""
        return self._quorum.acts or not self._needs_quorum

    def operation(self, node: NodeId, entry: entries.Operation, view: View) -> None:
        """Apply a request of a client, once and in its place; answer it."""
        session = SessionId(entry.session)
        record = self._sessions.open.get(session)
        if record is None or record.node_id != node:
            self._stats.operations_without_session += 1
            return
        place = record.place(entry.number, entry.after)
        if place is Place.EARLY:
            self._stats.operations_early += 1
            return
        if place is Place.KNOWN:
            self._repeat(node, record, session, entry.number)
            return
        self._sessions.objects.touch(session)
        record.acknowledge(entry.acknowledged)
        record.begin(entry.number)
        caller = Caller(node, session, entry.number)
        if not self.acts:
            self._stats.operations_without_quorum += 1
            self._answered(record, caller, record.without_quorum, NO_QUORUM_RULE)
            return
        try:
            operation = self._machine.table.decode(entry.body, self._versions.spoken.service)
        except DecodeError:
            self._answered(record, caller, Status.ERR_INVALID_PARAM, UNKNOWN_RULE)
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

    def _repeat(self, node: NodeId, record: Record, session: SessionId, number: int) -> None:
        """Answer a request that was sent again as before."""
        self._stats.operations_repeated += 1
        if node != self._me or number in record.waiting or number <= record.acknowledged:
            return
        passed_over = (Status.ERR_TIMEOUT, b"given up before; a later request was served")
        answer = record.answers.get(number, passed_over)
        self._out.append(Replied(session, number, *answer))

    def own(self, node: NodeId, entry: entries.Own, view: View) -> None:
        """Apply an operation of the machine itself."""
        if not self.acts:
            return
        try:
            operation = self._machine.table.decode(entry.body, self._versions.spoken.service)
        except DecodeError:
            self._stats.entries_malformed += 1
            return
        self.perform(self._machine.apply(operation, Context(entry.now_ns, node, None, view)))

    def session_opened(self, node: NodeId, entry: entries.SessionOpened) -> None:
        """Open a session."""
        session, lasts = SessionId(entry.session), entry.outlives_membership
        if not self.acts and not lasts:
            if node == self._me:
                self._out.append(Stale(session))
            return
        self._sessions.opened(session, node, outlives_membership=lasts)
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

    def end_stale(self, context: Context) -> None:
        """End the sessions that do not outlive the membership of their node."""
        for session in sorted(self._sessions.open):
            record = self._sessions.open[session]
            if record.outlives_membership:
                continue
            self._stats.sessions_stale += 1
            self.perform(self._machine.session_closed(session, context))
            self._sessions.closed(session)
            if record.node_id == self._me:
                self._out.append(Stale(session))

    def ask_again(self) -> None:
        """Have requests of this node's sessions sent again that are to be applied once more."""
        own = self._sessions.of_node(self._me)
        if any(self._sessions.open[session].again for session in own):
            self._out.append(Dropped())

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
                    body = b"" if result is None else self.encoded(result)
                    if record is not None:
                        self._answered(record, caller, status, body)
                case Notify(session, message):
                    record = self._sessions.find(session)
                    if record is not None:
                        self._notify(session, record, self.encoded(message))

    def encoded(self, message: Any) -> bytes:
        """Encode a message of the service as the group speaks."""
        return self._machine.table.encode(message, self._versions.spoken.service)

    def _answered(self, record: Record, caller: Caller, status: Status, body: bytes) -> None:
        if record.answer(caller.number, (status, body)) and record.node_id == self._me:
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
