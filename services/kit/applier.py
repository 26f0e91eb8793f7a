"""What one applied entry does to the machine, the sessions, and the clients of this node. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from openais.wire.codec import DecodeError
from openais.wire.status import Status
from services.kit import entries
from services.kit.effects import (
    Dropped,
    Effect,
    Ended,
    FencePassed,
    Opened,
    ReplicaStats,
    Replied,
    Stale,
    Told,
)
from services.kit.machine import (
    Answer,
    Caller,
    Context,
    Machine,
    NodeId,
    Notifications,
    Notify,
    Overflow,
    Paced,
    Resumes,
    SessionId,
    View,
    Waits,
)
from services.kit.machine import Effect as MachineEffect
from services.kit.quorum import Quorum
from services.kit.sessions import Place, Record, Sessions
from services.kit.versions import Versions

NO_QUORUM_RULE: Final = b"this side of the cluster has no quorum"
PARTING_RULE: Final = b"this side of the cluster lost the quorum; the other may have done it"
UNKNOWN_RULE: Final = b"not an operation of the version that the group speaks"


class Applier:
    """Applies entries; performs what the machine wants, as far as it is for this node.

    Args:
        me: this node.
        machine: of the service.
        sessions: of the service.
        quorum: of the view in force.
        versions: that the group speaks.
        stats: counters.
        out: where effects go.
        needs_quorum: without it requests are refused, and sessions go stale.
        notifications: how many are kept for a session, and what happens to more.
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
        notifications: Notifications,
    ) -> None:
        self._waits: Final = machine if isinstance(machine, Waits) else None
        self._resumes: Final = machine if isinstance(machine, Resumes) else None
        self._paced: Final = machine if isinstance(machine, Paced) else None
        self._me: Final = me
        self._machine: Final = machine
        self._sessions: Final = sessions
        self._quorum: Final = quorum
        self._versions: Final = versions
        self._stats: Final = stats
        self._out: Final = out
        self._needs_quorum: Final = needs_quorum
        self._notifications: Final = notifications
        self._overflowed: Final[dict[SessionId, None]] = {}  # to be closed with this entry
        self.parting = False  # members are gone, the view that says so is to come

    @property
    def acts(self) -> bool:
        """True: requests are served here, as far as the quorum is concerned."""
        return self._quorum.acts or not self._needs_quorum

    @property
    def waits(self) -> bool:
        """True: an answer of the machine may come with a later operation."""
        return self._waits is not None

    def apply(self, node: NodeId, entry: Any, view: View) -> None:
        """Apply one entry of a node."""
        if isinstance(entry, entries.Operation):
            self._operation(entry, node, view)
        else:
            self._apply(entry, Context(getattr(entry, "now_ns", 0), node, None, view))
        if self._overflowed:
            self._end_overflowed(Context(getattr(entry, "now_ns", 0), node, None, view))

    def _apply(self, entry: Any, context: Context) -> None:
        match entry:
            case entries.Own():
                self._own(entry, context)
            case entries.SessionOpened():
                self._session_opened(entry, context)
            case entries.SessionResumed():
                self._session_resumed(SessionId(entry.session), entry.notified, context)
            case entries.SessionClosed():
                self._session_closed(SessionId(entry.session), context)
            case entries.Cancelled():
                self._cancelled(entry, context)
            case entries.Notified():
                self._notified(entry, context)
            case entries.Fence(number):
                if context.sender == self._me:
                    self._out.append(FencePassed(number))
            case _:
                raise AssertionError(f"no way to apply {type(entry).__name__}")

    def view_changed(self, effects: list[MachineEffect], context: Context) -> None:
        """Do what the machine wants when a view comes into force."""
        self.perform(effects)
        if self._overflowed:
            self._end_overflowed(context)

    def park(self, session: SessionId, context: Context) -> None:
        """Close a session whose node went away, and keep what it was."""
        holdings = self._resumes.holdings(session) if self._resumes is not None else None
        self.perform(self._machine.session_closed(session, context))
        self._sessions.park(session, holdings)

    # Requests

    def _operation(self, entry: entries.Operation, node: NodeId, view: View) -> None:
        session = SessionId(entry.session)
        record = self._sessions.open.get(session)
        if record is None or record.node_id != node:
            self._stats.operations_without_session += 1
            return
        place = record.place(entry.number, entry.after)
        if place is Place.EARLY:
            self._stats.operations_early += 1
        elif place is Place.KNOWN:
            self._repeat(session, record, entry.number)
        else:
            self._sessions.objects.touch(session)
            record.acknowledge(entry.acknowledged)
            record.begin(entry.number)
            caller = Caller(node, session, entry.number)
            self._request(entry, record, Context(entry.now_ns, node, caller, view), caller)

    def _request(
        self, entry: entries.Operation, record: Record, context: Context, caller: Caller
    ) -> None:
        if not self.acts:
            self._stats.operations_without_quorum += 1
            if self.parting:  # those who are gone may have it, and act
                self._answered(record, caller, record.parting, PARTING_RULE)
            else:
                self._answered(record, caller, record.without_quorum, NO_QUORUM_RULE)
            return
        try:
            operation = self._machine.table.decode(entry.body, self._versions.spoken.service)
        except DecodeError:
            self._answered(record, caller, Status.ERR_INVALID_PARAM, UNKNOWN_RULE)
            return
        try:
            effects = self._machine.apply(operation, context)
        except Exception:
            # The same bug fires on every replica: all answer alike and go on if the state holds.
            self._stats.operations_failed += 1
            self._machine.check()
            self._answered(record, caller, Status.ERR_LIBRARY, b"a bug in the service; see its log")
            return
        self._stats.operations_applied += 1
        self.perform(effects)
        if self._waits is None and entry.number in record.waiting:
            self._answered(record, caller, Status.ERR_LIBRARY, b"a bug in the service: no answer")

    def _repeat(self, session: SessionId, record: Record, number: int) -> None:
        """Answer a request that was sent again as before."""
        self._stats.operations_repeated += 1
        if number not in record.waiting and number > record.acknowledged:
            self._reply(session, record, number)

    def _reply(self, session: SessionId, record: Record, number: int) -> None:
        passed_over = (Status.ERR_TIMEOUT, b"given up before; a later request was served")
        if record.node_id == self._me:
            self._out.append(Replied(session, number, *record.answers.get(number, passed_over)))

    def _cancelled(self, entry: entries.Cancelled, context: Context) -> None:
        """Withdraw a request that waits; one that has its answer keeps it."""
        session = SessionId(entry.session)
        record = self._sessions.find(session)
        if record is None or record.node_id != context.sender:
            return
        if not record.cancel(entry.number):
            self._reply(session, record, entry.number)
            return
        self._stats.requests_cancelled += 1
        caller = Caller(context.sender, session, entry.number)
        if self._waits is not None:
            self.perform(self._waits.cancelled(caller, replace(context, caller=caller)))
        reason = b"given up" if entry.status is Status.ERR_INTERRUPT else b"it waited in vain"
        self._answered(record, caller, entry.status, reason)

    def _own(self, entry: entries.Own, context: Context) -> None:
        if not self.acts:
            return
        try:
            operation = self._machine.table.decode(entry.body, self._versions.spoken.service)
        except DecodeError:
            self._stats.entries_malformed += 1
            return
        self.perform(self._machine.apply(operation, context))

    # Sessions

    def _session_opened(self, entry: entries.SessionOpened, context: Context) -> None:
        session, lasts = SessionId(entry.session), entry.outlives_membership
        if self.acts or lasts:
            self._sessions.opened(session, context.sender, outlives_membership=lasts)
            self._tell_opened(context.sender, session)
        elif context.sender == self._me:
            self._out.append(Stale(session))

    def end_stale(self, context: Context) -> None:
        """End the sessions that do not outlive the membership of their node."""
        for session in sorted(self._sessions.open):
            record = self._sessions.open[session]
            if record.outlives_membership:
                continue
            self._stats.sessions_stale += 1
            self._close(session, context)
            if record.node_id == self._me:
                self._out.append(Stale(session))

    def ask_again(self) -> None:
        """Have requests of this node's sessions sent again that are to be applied once more."""
        own = self._sessions.of_node(self._me)
        if any(self._sessions.open[session].again for session in own):
            self._out.append(Dropped())

    def own_records(self) -> dict[SessionId, Record]:
        """Return the sessions of this node as they are, before a state is loaded."""
        return {s: self._sessions.open[s] for s in self._sessions.of_node(self._me)}

    def tell(self, before: dict[SessionId, Record]) -> None:
        """Tell this node's sessions what a loaded state holds for them: notifications, their end.

        The state of a side without quorum has ended sessions as `end_stale` does.
        """
        for session, record in before.items():
            now = self._sessions.open.get(session)
            if now is not None and now.serial > record.serial:
                self._out.append(Told(session, now.serial))
            elif now is None and not self.acts and not record.outlives_membership:
                self._out.append(Stale(session))

    def _tell_opened(self, node: NodeId, session: SessionId) -> None:
        record = self._sessions.open.get(session)
        if node == self._me:
            mine = record is not None and record.node_id == node
            self._out.append(Opened(session) if mine else Ended(session))

    def _session_resumed(self, session: SessionId, notified: int, context: Context) -> None:
        holdings = self._sessions.resume(session, context.sender, notified)
        if holdings is not None and self._resumes is not None:
            self.perform(self._resumes.resumed(session, holdings, context))
        self._tell_opened(context.sender, session)

    def _session_closed(self, session: SessionId, context: Context) -> None:
        record = self._sessions.open.get(session)
        if record is not None and record.node_id == context.sender:
            self._close(session, context)

    def _close(self, session: SessionId, context: Context) -> None:
        effects = self._machine.session_closed(session, context)
        self._sessions.closed(session)
        self.perform(effects)

    def _notified(self, entry: entries.Notified, context: Context) -> None:
        """Forget notifications that were taken."""
        session = SessionId(entry.session)
        record = self._sessions.find(session)
        if record is None or record.node_id != context.sender:
            return
        record.trim(entry.serial, self._notifications)
        if self._paced is not None:
            self.perform(self._paced.taken(session, len(record.kept), context))
        if record.node_id == self._me:
            self._out.append(Told(session, record.serial))

    def _end_overflowed(self, context: Context) -> None:
        """Close the sessions that do not take their notifications, where that is the rule."""
        while self._overflowed:
            session = next(iter(self._overflowed))
            del self._overflowed[session]
            record = self._sessions.open.get(session)
            if record is None:
                continue
            self._stats.sessions_overflowed += 1
            if record.node_id == self._me:
                self._out.append(Ended(session))
            self._close(session, replace(context, sender=record.node_id))

    # Effects

    def perform(self, effects: list[MachineEffect]) -> None:
        """Do what the machine wants: remember answers and notifications, tell ours."""
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
        """Encode a message of the machine as the version that the group speaks."""
        return self._machine.table.encode(message, self._versions.spoken.service)

    def _answered(self, record: Record, caller: Caller, status: Status, body: bytes) -> None:
        if record.answer(caller.number, (status, body)) and record.node_id == self._me:
            self._out.append(Replied(caller.session, caller.number, status, body))

    def _notify(self, session: SessionId, record: Record, body: bytes) -> None:
        kept = record.notify(body, self._notifications)
        if not kept and self._notifications.overflow is Overflow.END:
            self._overflowed[session] = None
        elif record.node_id == self._me:
            self._out.append(Told(session, record.serial))
