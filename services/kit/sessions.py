"""Replicated sessions: who waits, what was answered, what was notified. Pure.

A request is applied at most once because every replica remembers which numbers it applied and what
the answers were, until the client says that it has them. Requests of one session are applied in
the order of their numbers: none while one before it is missing, none after one behind it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from openais.wire.codec import Buffer, DecodeError, pack_state, unpack_state
from openais.wire.session import REQUESTS_OUTSTANDING_MAX
from openais.wire.status import Status
from services.kit.machine import NodeId, Notifications, Objects, Overflow, SessionId

PARKED_MAX: Final = 4096  # ended sessions of departed nodes whose answers are still remembered
ANSWERS_MAX: Final = 2 * REQUESTS_OUTSTANDING_MAX  # per session

PARKED: Final = b""  # names the object of the parked sessions

Answered = tuple[Status, bytes]


class Place(Enum):
    """Where a request stands among those of its session."""

    NEXT = "next"  # to be applied now
    AGAIN = "again"  # applied, and withdrawn when its node went: to be applied again
    KNOWN = "known"  # applied, or passed over for good
    EARLY = "early"  # one before it is missing


@dataclass(slots=True)
class Record:
    """One session."""

    node_id: NodeId
    newest: int = 0  # request applied last; one with a lower number is not applied any more
    acknowledged: int = 0
    waiting: dict[int, None] = field(default_factory=dict)  # applied, the answer is still to come
    again: dict[int, None] = field(default_factory=dict)
    answers: dict[int, Answered] = field(default_factory=dict)  # oldest first
    serial: int = 0  # of the last notification
    notified: int = 0  # the client has seen so many
    kept: deque[tuple[int, bytes]] = field(default_factory=deque)
    full: bool = False  # notifications are dropped until some have been taken
    outlives_membership: bool = False  # it does not go stale without quorum
    _kept_bytes: int = 0

    @property
    def without_quorum(self) -> Status:
        """Return what a request without quorum is answered."""
        return Status.ERR_TRY_AGAIN if self.outlives_membership else Status.ERR_UNAVAILABLE

    @property
    def parting(self) -> Status:
        """Return the answer to a request that the lost quorum may have applied, or not.

        ERR_UNAVAILABLE leaves that open (COM-42); to try again would be told what was not done.
        """
        return Status.ERR_TIMEOUT if self.outlives_membership else Status.ERR_UNAVAILABLE

    def place(self, number: int, after: int) -> Place:
        """Return whether a request is to be applied."""
        if number in self.again:
            return Place.AGAIN
        if number <= self.newest:
            return Place.KNOWN
        return Place.NEXT if after <= self.newest else Place.EARLY

    def acknowledge(self, number: int) -> None:
        """Forget answers that the client has."""
        if number > self.acknowledged:
            self.acknowledged = number
            for old in [n for n in self.answers if n <= number]:
                del self.answers[old]
            self.again = {n: None for n in self.again if n > number}

    def begin(self, number: int) -> None:
        """Remember that a request is applied now."""
        self.again.pop(number, None)
        self.newest = max(self.newest, number)
        self.waiting[number] = None

    def answer(self, number: int, answered: Answered) -> bool:
        """Remember an answer; False: nobody waits for it.

        Only the oldest are forgotten unasked: a client that has fewer than REQUESTS_OUTSTANDING_MAX
        requests on the way has received them.
        """
        if number not in self.waiting:
            return False
        del self.waiting[number]
        if number > self.acknowledged:
            self.answers[number] = answered
            if len(self.answers) > ANSWERS_MAX:
                del self.answers[next(iter(self.answers))]
        return True

    def remember(self, other: Record) -> None:
        """Add what another side did with requests that this one has not applied."""
        before, self.newest = self.newest, max(self.newest, other.newest)
        for number in (*other.waiting, *other.again):
            if number > before:
                self.again[number] = None
        for number, answered in other.answers.items():
            if number > max(before, self.acknowledged):
                self.answers[number] = answered
                self.again.pop(number, None)
        while len(self.answers) > ANSWERS_MAX:
            del self.answers[next(iter(self.answers))]

    def notify(self, body: bytes, rule: Notifications) -> bool:
        """Number a notification and keep it; False: there is no room for it."""
        self.serial += 1
        room = len(self.kept) < rule.kept_max and self._kept_bytes + len(body) <= rule.bytes_max
        if rule.overflow is not Overflow.OLDEST and (self.full or not room):
            self.full = True
            return False
        self.kept.append((self.serial, body))
        self._kept_bytes += len(body)
        while len(self.kept) > rule.kept_max or (
            self._kept_bytes > rule.bytes_max and len(self.kept) > 1
        ):
            self._kept_bytes -= len(self.kept.popleft()[1])
        return True

    def trim(self, serial: int, rule: Notifications) -> None:
        """Forget notifications that the client has taken."""
        self.notified = max(self.notified, serial)
        while self.kept and self.kept[0][0] <= serial:
            self._kept_bytes -= len(self.kept.popleft()[1])
        half = len(self.kept) <= rule.kept_max // 2 and self._kept_bytes <= rule.bytes_max // 2
        self.full = self.full and not half

    def cancel(self, number: int) -> bool:
        """Give a request up; True: it waits for its answer."""
        self.again.pop(number, None)
        return number in self.waiting

    def values(self) -> list[Any]:
        """Return the record as plain values."""
        return [
            self.node_id,
            self.acknowledged,
            [[number, status, body] for number, (status, body) in self.answers.items()],
            self.serial,
            self.notified,
            [list(item) for item in self.kept],
            self.newest,
            sorted(self.waiting),
            sorted(self.again),
            self.full,
            self.outlives_membership,
        ]


def _record(values: list[Any]) -> Record:
    node_id, acknowledged, answers, serial, notified, kept, *more = values
    newest, waiting, again, full, outlives_membership = more
    return Record(
        node_id=NodeId(node_id),
        newest=newest,
        acknowledged=acknowledged,
        waiting=dict.fromkeys(waiting),
        again=dict.fromkeys(again),
        answers={number: (Status(status), body) for number, status, body in answers},
        serial=serial,
        notified=notified,
        kept=deque((item[0], item[1]) for item in kept),
        full=full,
        outlives_membership=outlives_membership,
        _kept_bytes=sum(len(item[1]) for item in kept),
    )


@dataclass(slots=True)
class _Parked:
    record: Record
    holdings: bytes | None


class Sessions:
    """All sessions of the cluster with one service. Each is an object; the parked ones are one."""

    def __init__(self) -> None:
        self.objects: Final = Objects()
        self.open: dict[SessionId, Record] = {}
        self._parked: OrderedDict[SessionId, _Parked] = OrderedDict()

    def find(self, session: SessionId) -> Record | None:
        """Return the record of an open session, for a change."""
        record = self.open.get(session)
        if record is not None:
            self.objects.touch(session)
        return record

    def of_node(self, node_id: NodeId) -> tuple[SessionId, ...]:
        """Return the open sessions of a node, sorted."""
        return tuple(sorted(s for s, record in self.open.items() if record.node_id == node_id))

    def opened(
        self, session: SessionId, node_id: NodeId, *, outlives_membership: bool = False
    ) -> bool:
        """Open a session; False: it is open, at this node or another, or was open before."""
        if session in self.open or session in self._parked:
            return False
        self.objects.touch(session)
        self.open[session] = Record(node_id, outlives_membership=outlives_membership)
        return True

    def closed(self, session: SessionId) -> None:
        """End a session for good."""
        self.objects.touch(session)
        self.open.pop(session, None)

    def park(self, session: SessionId, holdings: bytes | None) -> None:
        """End a session whose node went away; what it was is kept in case it comes back.

        Args:
            session: which.
            holdings: what it had in the machine; None: it can only come back with its node.
        """
        self.objects.touch(session)
        self.objects.touch(PARKED)
        self._parked[session] = _Parked(self.open.pop(session), holdings)
        while len(self._parked) > PARKED_MAX:
            self._parked.popitem(last=False)

    def revive(self, node_id: NodeId, packed: bytes) -> None:
        """Open the sessions that a returning node tells of; what was parked is remembered too.

        The node may have missed answers that the others gave before it went; they may lack none.
        """
        for session, values in unpack_sessions(packed):
            record = _record(values)
            record.node_id = node_id
            self.objects.touch(session)
            self.objects.touch(PARKED)
            parked = self._parked.pop(session, None)
            if parked is not None:
                _join(record, parked.record)
            self._begin_again(session, record)

    def resumable(self, session: SessionId) -> bool:
        """True: a session that was closed with its node can be taken up."""
        parked = self._parked.get(session)
        return parked is not None and parked.holdings is not None

    def resume(self, session: SessionId, node_id: NodeId, notified: int) -> bytes | None:
        """Open a session that was closed with its node; return what it had, None: it is not known.

        Its client may have seen notifications that only its lost replica knew of.
        """
        if not self.resumable(session):
            return None
        self.objects.touch(session)
        self.objects.touch(PARKED)
        parked = self._parked.pop(session)
        parked.record.node_id = node_id
        parked.record.serial = max(parked.record.serial, notified)
        self._begin_again(session, parked.record)
        return parked.holdings

    def _begin_again(self, session: SessionId, record: Record) -> None:
        record.again |= record.waiting
        record.waiting = {}
        self.open[session] = record

    def remember(self, packed: bytes) -> None:
        """Add what another side remembers: a request that it applied is not applied again."""
        for session, values in unpack_sessions(packed):
            parked = self._parked.get(session)
            mine = self.open.get(session) or (parked.record if parked is not None else None)
            if mine is not None:
                self.objects.touch(session)
                self.objects.touch(PARKED)
                mine.remember(_record(values))

    def pack_all(self) -> bytes:
        """Pack every session, open or parked, for `remember`."""
        parked = {session: p.record for session, p in self._parked.items()}
        everything = {**parked, **self.open}
        return pack_state([[s, everything[s].values()] for s in sorted(everything)])

    def pack(self, sessions: tuple[SessionId, ...]) -> bytes:
        """Pack some sessions for `revive`."""
        return pack_state([[s, self.open[s].values()] for s in sessions])

    def names(self) -> tuple[bytes, ...]:
        """Return the names of all objects."""
        return (*((PARKED,) if self._parked else ()), *self.open)

    def dump(self, name: bytes) -> list[bytes]:
        """Return an object, canonical; []: there is none."""
        if name == PARKED:
            parked = [[s, p.record.values(), p.holdings] for s, p in self._parked.items()]
            return [pack_state(parked)] if parked else []
        record = self.open.get(SessionId(name))
        return [] if record is None else [pack_state(record.values())]

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace objects by what another replica had; None: it is gone.

        Raises:
            DecodeError: damaged.
        """
        try:
            for name, data in changes.items():
                self.objects.touch(name)
                if name == PARKED:
                    values = [] if data is None else unpack_state(data)
                    self._parked = OrderedDict(
                        (SessionId(s), _Parked(_record(record), holdings))
                        for s, record, holdings in values
                    )
                elif data is None:
                    self.open.pop(SessionId(name), None)
                else:
                    self.open[SessionId(name)] = _record(unpack_state(data))
        except (TypeError, ValueError) as error:
            raise DecodeError(f"sessions: {error}") from error

    def check(self) -> None:
        """Assert every invariant."""
        assert not set(self.open) & set(self._parked)
        for record in self.open.values():
            assert all(serial <= record.serial for serial, _ in record.kept)
            assert len(record.answers) <= ANSWERS_MAX
            assert not set(record.waiting) & (set(record.again) | set(record.answers))
            assert all(number <= record.newest for number in (*record.waiting, *record.answers))


def _join(record: Record, parked: Record) -> None:
    """Add to a session's record what others remember of it."""
    record.newest = max(record.newest, parked.newest)
    record.again |= dict.fromkeys((*parked.waiting, *parked.again))
    missed = {n: a for n, a in parked.answers.items() if n > record.acknowledged}
    record.answers = {**record.answers, **missed}
    for number in record.answers:
        record.waiting.pop(number, None)
        record.again.pop(number, None)
    while len(record.answers) > ANSWERS_MAX:
        del record.answers[next(iter(record.answers))]


def unpack_sessions(packed: bytes) -> list[tuple[SessionId, list[Any]]]:
    """Unpack what `Sessions.pack` packed.

    Raises:
        DecodeError: damaged.
    """
    try:
        return [(SessionId(s), values) for s, values in unpack_state(packed)]
    except (TypeError, ValueError) as error:
        raise DecodeError(f"sessions: {error}") from error
