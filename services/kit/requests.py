"""The ordered requests of this node's sessions that have no answer yet, in order. Pure.

Requests of one session are applied in the order of their numbers. Each entry says which request
of its session comes before it, so a replica that lacks that one - it waited for a meeting that
was cut short, or was lost with a connection - does not apply this one either; whoever sent them
sends them all again, from the first that was not applied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from openais.wire.port import Guarantee
from services.kit import entries
from services.kit.machine import SessionId
from services.kit.sessions import Record

Key = tuple[SessionId, int]


class Way(Protocol):
    """An entry on its way to the group."""

    sent: bool
    cancelled: bool


Send = Callable[[entries.Operation, Guarantee], Way]


@dataclass(slots=True)
class Held:
    """A request without an answer yet."""

    entry: entries.Operation
    guarantee: Guarantee
    way: Way | None = None  # None: not sent yet, or applied
    left_before: bool = False  # it was on its way before, or is applied

    @property
    def left(self) -> bool:
        """True: it may have been ordered."""
        return self.left_before or (self.way is not None and self.way.sent)

    def stop(self) -> None:
        """Do not send it where it has not left yet."""
        if self.way is not None:
            self.left_before |= self.way.sent
            self.way.cancelled = True
            self.way = None


class Requests:
    """See the module.

    Args:
        send: queues an entry for the group; what is queued is sent in that order.
    """

    def __init__(self, send: Send) -> None:
        self._send: Final = send
        self._held: Final[dict[SessionId, dict[int, Held]]] = {}
        self._unsent: Final[dict[SessionId, None]] = {}
        self._last: Final[dict[SessionId, int]] = {}  # the newest request sent

    def __contains__(self, key: Key) -> bool:
        return key[1] in self._held.get(key[0], ())

    def add(
        self,
        session: SessionId,
        entry: entries.Operation,
        guarantee: Guarantee,
        record: Record | None,
    ) -> None:
        """Send a request of a session, of which the replica holds ``record``.

        Where the replica has no state yet, and where a request comes that was given up before, it
        goes out with the next `send_again`.
        """
        held = self._held.setdefault(session, {})
        one = held[entry.number] = Held(entry, guarantee)
        if record is not None and entry.number in record.waiting:
            one.left_before = True  # the answer will come
        elif (
            record is None
            or session in self._unsent
            or entry.number < self._last.get(session, record.newest)
        ):
            self._unsent[session] = None
        else:
            one.entry = dataclasses.replace(entry, after=self._last.get(session, record.newest))
            one.way = self._send(one.entry, guarantee)
            self._last[session] = entry.number

    def send_again(self, session: SessionId, record: Record) -> None:
        """Send all requests of a session that the replica has not applied."""
        self._unsent.pop(session, None)
        held = self._held.get(session, {})
        after = record.newest
        for number in sorted(held):
            one = held[number]
            one.stop()
            if number in record.waiting:
                one.left_before = True
                continue
            one.entry = dataclasses.replace(one.entry, after=min(after, number - 1))
            one.way = self._send(one.entry, one.guarantee)
            after = max(after, number)
        self._last[session] = after

    def unsent(self) -> tuple[SessionId, ...]:
        """Return the sessions with requests that wait for `send_again`."""
        return tuple(self._unsent)

    def answered(self, key: Key) -> Held | None:
        """Forget a request: it has its answer."""
        return self._held.get(key[0], {}).pop(key[1], None)

    def give_up(self, key: Key) -> Held | None:
        """Forget a request whose time is over; None: it has its answer."""
        one = self.answered(key)
        if one is not None and one.way is not None and not one.way.sent:
            one.stop()
            self._unsent[key[0]] = None  # those after it must not wait for it
        return one

    def ended(self, session: SessionId) -> tuple[int, ...]:
        """Forget a session; return the numbers of its requests."""
        self._last.pop(session, None)
        self._unsent.pop(session, None)
        held = self._held.pop(session, {})
        for one in held.values():
            one.stop()
        return tuple(held)

    def sessions(self) -> tuple[SessionId, ...]:
        """Return the sessions with requests, sorted."""
        return tuple(sorted(session for session, held in self._held.items() if held))

    def unapplied_before(self, key: Key, record: Record) -> bool:
        """True: a request of the session with a lower number is not applied yet."""
        held = self._held.get(key[0], {})
        return any(record.newest < number < key[1] for number in held)
