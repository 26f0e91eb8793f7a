"""Replicated sessions: who waits, what was answered, what was notified. Pure.

A request is applied at most once because every replica remembers which numbers it applied and what
the answers were, until the client says that it has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openais.wire.codec import DecodeError, pack_state, unpack_state
from openais.wire.session import NOTIFICATIONS_KEPT_MAX, REQUESTS_OUTSTANDING_MAX
from openais.wire.status import Status
from services.kit.machine import NodeId, Objects, SessionId

PARKED_MAX: Final = 4096  # ended sessions of departed nodes whose answers are still remembered
ANSWERS_MAX: Final = 2 * REQUESTS_OUTSTANDING_MAX  # per session

PARKED: Final = b""  # names the object of the parked sessions

Answered = tuple[Status, bytes]


@dataclass(slots=True)
class Record:
    """One session. ``answers``: number -> answer; None while the answer is still to come."""

    node_id: NodeId
    acknowledged: int = 0
    answers: dict[int, Answered | None] = field(default_factory=dict)
    serial: int = 0  # of the last notification
    notified: int = 0  # the client has seen so many
    kept: list[tuple[int, bytes]] = field(default_factory=list)

    def seen(self, number: int) -> bool:
        """True: the request was applied."""
        return number <= self.acknowledged or number in self.answers

    def acknowledge(self, number: int) -> None:
        """Forget answers that the client has."""
        if number > self.acknowledged:
            self.acknowledged = number
            for old in [n for n in self.answers if n <= number and self.answers[n] is not None]:
                del self.answers[old]

    def begin(self, number: int) -> None:
        """Remember that a request is applied now."""
        self.answers[number] = None
        self.limit()

    def limit(self) -> None:
        """Forget the oldest answers that are too many."""
        while len(self.answers) > ANSWERS_MAX:
            del self.answers[min(self.answers)]

    def notify(self, body: bytes) -> int:
        """Keep a notification; return its serial."""
        self.serial += 1
        self.kept.append((self.serial, body))
        if len(self.kept) > NOTIFICATIONS_KEPT_MAX:
            del self.kept[0]
        return self.serial

    def trim(self, serial: int) -> None:
        """Forget notifications that the client has seen."""
        self.notified = max(self.notified, serial)
        self.kept = [item for item in self.kept if item[0] > serial]

    def values(self) -> list[Any]:
        """Return the record as plain values."""
        answers = [
            [number, *(answer if answer is not None else ())]
            for number, answer in sorted(self.answers.items())
        ]
        kept = [list(item) for item in self.kept]
        return [self.node_id, self.acknowledged, answers, self.serial, self.notified, kept]


def _record(values: list[Any]) -> Record:
    node_id, acknowledged, answers, serial, notified, kept = values
    return Record(
        NodeId(node_id),
        acknowledged,
        {a[0]: (Status(a[1]), a[2]) if len(a) > 1 else None for a in answers},
        serial,
        notified,
        [(item[0], item[1]) for item in kept],
    )


class Sessions:
    """All sessions of the cluster with one service. Each is an object; the parked ones are one."""

    def __init__(self) -> None:
        self.objects: Final = Objects()
        self.open: dict[SessionId, Record] = {}
        self._parked: OrderedDict[SessionId, Record] = OrderedDict()

    def find(self, session: SessionId) -> Record | None:
        """Return the record of an open session, for a change."""
        record = self.open.get(session)
        if record is not None:
            self.objects.touch(session)
        return record

    def of_node(self, node_id: NodeId) -> tuple[SessionId, ...]:
        """Return the open sessions of a node, sorted."""
        return tuple(sorted(s for s, record in self.open.items() if record.node_id == node_id))

    def opened(self, session: SessionId, node_id: NodeId) -> bool:
        """Open a session; False: it is open, at this node or another."""
        if session in self.open:
            return False
        self.objects.touch(session)
        self.open[session] = Record(node_id)
        return True

    def closed(self, session: SessionId) -> None:
        """End a session for good."""
        self.objects.touch(session)
        self.open.pop(session, None)

    def park(self, session: SessionId) -> None:
        """End a session whose node went away; its answers are kept in case it comes back."""
        self.objects.touch(session)
        self.objects.touch(PARKED)
        record = self.open.pop(session)
        self._parked[session] = record
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
                record.answers = {
                    **record.answers,
                    **{n: a for n, a in parked.answers.items() if n > record.acknowledged},
                }
            self.open[session] = record

    def remember(self, packed: bytes) -> None:
        """Add the answers that another side gave: what it applied is not applied again.

        An answer that is still to come is not: what waits for it may not be in this state.
        """
        for session, values in unpack_sessions(packed):
            mine = self.open.get(session) or self._parked.get(session)
            if mine is None:
                continue
            self.objects.touch(session)
            self.objects.touch(PARKED)
            for number, answer in _record(values).answers.items():
                if answer is not None and not mine.seen(number):
                    mine.answers[number] = answer
            mine.limit()

    def pack_all(self) -> bytes:
        """Pack every session, open or parked, for `remember`."""
        everything = {**self._parked, **self.open}
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
            parked = [[s, record.values()] for s, record in self._parked.items()]
            return [pack_state(parked)] if parked else []
        record = self.open.get(SessionId(name))
        return [] if record is None else [pack_state(record.values())]

    def load(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Replace objects by what another replica had; None: it is gone.

        Raises:
            DecodeError: damaged.
        """
        try:
            for name, data in changes.items():
                self.objects.touch(name)
                if name == PARKED:
                    values = [] if data is None else unpack_state(data)
                    self._parked = OrderedDict((SessionId(s), _record(v)) for s, v in values)
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


def unpack_sessions(packed: bytes) -> list[tuple[SessionId, list[Any]]]:
    """Unpack what `Sessions.pack` packed.

    Raises:
        DecodeError: damaged.
    """
    try:
        return [(SessionId(s), values) for s, values in unpack_state(packed)]
    except (TypeError, ValueError) as error:
        raise DecodeError(f"sessions: {error}") from error
