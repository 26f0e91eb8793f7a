"""Applications with SDK sessions that read and write checkpoints, and note what they saw.

A client does one call after the other; what a call came to is one of four: done, refused for
certain, unknown, or wrong (an answer that a living client must never get).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from openais.errors import AisError
from openais.session import Session
from openais.wire import ckpt as wire
from openais.wire.session import SESSION_ID_SIZE, RequestFlag
from openais.wire.status import ONE_SECOND_NS, TIME_END, Status
from tests.sim.cluster import WALL_S
from tests.sim.floor.stack import Stack, run_dir
from tests.sim.floor.system import Task

MS: Final = 1_000_000
LATE_NS: Final = ONE_SECOND_NS  # the answer of a service that gave up is awaited for so long
REGISTERS: Final = 3  # sections that everybody writes
ATTRIBUTES: Final = wire.Attributes(
    wire.CreationFlags.WR_ALL_REPLICAS, 1 << 20, TIME_END, 4096, 4096, 64
)
LEDGER: Final = b"ledger"
PAIR: Final = (b"left", b"right")
WALL_NS: Final = WALL_S * ONE_SECOND_NS

Then = Callable[[Any], None]


class Outcome(Enum):
    """What became of a call."""

    DONE = "done"
    REFUSED = "refused"  # nothing happened, for certain
    UNKNOWN = "unknown"
    WRONG = "wrong"  # the session or the handle was lost


@dataclass(slots=True)
class Event:
    """One call of a client.

    Attributes:
        node: of the client.
        client: its name; a client's calls do not overlap.
        what: write, delete, read, read_local, pair, pair_read, append, expiring, extend, ...
        name: of the checkpoint.
        section: that it is about.
        value: written or read; None: there is none.
        begun_ns: when, virtual.
        ended_ns: when it returned.
        outcome: see there.
        status: of the answer.
        safe: the answer waited for safe delivery.
    """

    node: int
    client: str
    what: str
    name: bytes
    section: bytes
    value: Any
    begun_ns: int
    ended_ns: int = -1
    outcome: Outcome = Outcome.UNKNOWN
    status: Status = Status.ERR_TIMEOUT
    safe: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A session ended although its client lives."""

    node: int
    client: str
    at_ns: int
    status: Status
    reason: str


class History:
    """Everything that clients saw."""

    def __init__(self) -> None:
        self.events: Final[list[Event]] = []
        self.lost: Final[list[Lost]] = []

    def digest(self) -> str:
        """Return a hash of everything."""
        told = [repr(event) for event in self.events] + [repr(lost) for lost in self.lost]
        return f"{zlib.crc32(''.join(told).encode()):08x}"


class Client:
    """One session with the checkpoint service, and what it does.

    Args:
        stack: of all nodes.
        task: the application.
        name: unique.
        history: is written.
        choose: returns what to do next, for a random number in 0..1.
        timeout_ms: of its calls.
        safe: its changes wait for safe delivery.
    """

    def __init__(
        self,
        stack: Stack,
        task: Task,
        name: str,
        history: History,
        choose: Callable[[float], str],
        think_ns: int,
        timeout_ms: int,
        *,
        safe: bool,
    ) -> None:
        self.name: Final = name
        self.task: Final = task
        self.handles: dict[bytes, int] = {}
        self.stopped = False
        self._stack: Final = stack
        self._history: Final = history
        self._choose: Final = choose
        self._think_ns: Final = think_ns
        self._timeout_ns: Final = timeout_ms * MS
        self._safe: Final = safe
        self._random: Final = random.Random(f"client {name}")
        self._count = 0
        self._incarnation = 0
        self._dues: list[tuple[bytes, int]] = []  # sections that expire, and when
        self._session: Session | None = None
        self._own = f"own.{name}".encode()
        self._busy = False
        task.run(self._begin)

    # The session

    def _begin(self) -> None:
        """Open a session; also anew, where the last one was refused for good reason."""
        self._incarnation += 1
        self.handles = {}
        session = Session("ckpt", wire.TABLE, run_dir=run_dir(self.task.node_id), gone=self._gone)
        seed = random.Random(f"session {self.name} {self._incarnation}")
        any_session: Any = session
        any_session._id = seed.randbytes(SESSION_ID_SIZE)
        self._session = session
        session.begin(self._opened)

    def _opened(self) -> None:
        self._after(0, self._next)

    def _gone(self, _error: AisError) -> None:
        session = self._session
        assert session is not None
        self._history.lost.append(
            Lost(
                self.task.node_id,
                f"{self.name}.{self._incarnation}",
                self._stack.now_ns,
                session._gone_status,
                session._reason,
            )
        )
        self._after(100 * MS, self._begin)

    def _after(self, delay_ns: int, act: Callable[[], None]) -> None:
        def later() -> None:
            if self.task.alive:
                self.task.run(act)

        self._stack.at(delay_ns + 1, later)

    # Calls

    def call(
        self,
        event: Event,
        message: Any,
        then: Then,
        flags: int = 0,
    ) -> None:
        """Do one call, note its outcome in ``event``, then go on."""
        session = self._session
        assert session is not None
        self._history.events.append(event)
        self._busy = True
        finished = False

        def done(status: Status, body: bytes) -> None:
            nonlocal finished
            if finished:
                return
            finished = True
            result = wire.TABLE.decode(body) if body and status is Status.OK else None
            self._finish(event, status, outcome_of(status), result, then)

        def late() -> None:
            nonlocal finished
            if finished:
                return
            finished = True
            error = session.late(event.what, number)
            status = Status.ERR_TRY_AGAIN if error.definite else Status.ERR_TIMEOUT
            outcome = Outcome.REFUSED if error.definite else Outcome.UNKNOWN
            self._finish(event, status, outcome, None, then)

        try:
            number = session.submit(event.what, message, flags, self._timeout_ns, done)
        except AisError as error:
            self._finish(event, error.status, Outcome.REFUSED, None, then)
            return
        self._after(self._timeout_ns + LATE_NS, late)

    def _finish(
        self, event: Event, status: Status, outcome: Outcome, result: Any, then: Then
    ) -> None:
        event.ended_ns = self._stack.now_ns
        event.status, event.outcome = status, outcome
        self._busy = False
        then(result)
        self._after(self._random.randint(1, 2 * self._think_ns), self._next)

    def _event(
        self, what: str, name: bytes = b"", section: bytes = b"", value: Any = None
    ) -> Event:
        return Event(
            self.task.node_id,
            f"{self.name}.{self._incarnation}",
            what,
            name,
            section,
            value,
            self._stack.now_ns,
            safe=self._safe,
        )

    # What it does

    def _next(self) -> None:
        session = self._session
        if self._busy or self.stopped or session is None or session._state.value != "open":
            return
        for name in (b"registers", LEDGER, b"pair"):
            if name not in self.handles:
                self._open(name)
                return
        what = self._choose(self._random.random())
        getattr(self, f"_{what}")()

    def _open(self, name: bytes) -> None:
        handle = self._incarnation * 1000 + len(self.handles) + self._count
        self._count += 1
        event = self._event("open", name)
        flags = wire.OpenFlags.READ | wire.OpenFlags.WRITE | wire.OpenFlags.CREATE

        def then(_result: Any) -> None:
            if event.outcome is Outcome.DONE:
                self.handles[name] = handle

        self.call(event, wire.Open(handle, name, flags, ATTRIBUTES, wire.Level.B_02), then)

    def _flags(self) -> int:
        return RequestFlag.SAFE if self._safe else 0

    def _value(self) -> bytes:
        self._count += 1
        return f"{self.name}.{self._count:06d}".encode()

    def _register(self) -> bytes:
        return f"r{self._random.randrange(REGISTERS)}".encode()

    def _write(self) -> None:
        section, value = self._register(), self._value()
        self._overwrite("write", section, value)

    def _write_own(self) -> None:
        """Write the section that nobody else writes: its values only go up."""
        self._overwrite("write_own", self._own, self._value())

    def _overwrite(self, what: str, section: bytes, value: bytes) -> None:
        handle = self.handles[b"registers"]
        message = wire.SectionOverwrite(handle, section, value, create=True)
        self.call(self._event(what, b"registers", section, value), message, ignore, self._flags())

    def _delete(self) -> None:
        section = self._register()
        message = wire.SectionDelete(self.handles[b"registers"], section)
        self.call(self._event("delete", b"registers", section), message, ignore, self._flags())

    def _read(self) -> None:
        self._look("read", self._register(), 0)

    def _read_local(self) -> None:
        own = [c for c in self._others() if c != self._own] or [self._own]
        self._look("read_local", self._random.choice(own), RequestFlag.LOCAL)

    def _others(self) -> list[bytes]:
        return [f"own.c{number}".encode() for number in range(4)]

    def _look(self, what: str, section: bytes, flags: int) -> None:
        event = self._event(what, b"registers", section)

        def then(result: Any) -> None:
            event.value = result.parts[0] if result is not None else None

        element = wire.ReadElement(section, 0, None)
        self.call(event, wire.Read(self.handles[b"registers"], (element,)), then, flags)

    def _pair(self) -> None:
        """Write two sections in one call: they must never be seen to differ."""
        value = self._value()
        parts = tuple(wire.WriteElement(section, 0, value) for section in PAIR)
        event = self._event("pair", b"pair", b"", value)

        def then(_result: Any) -> None:
            if event.status is Status.ERR_NOT_EXIST:
                self._after(MS, self._make_pair)

        self.call(event, wire.Write(self.handles[b"pair"], parts), then, self._flags())

    def _make_pair(self) -> None:
        if self._busy or b"pair" not in self.handles:
            return
        section = self._random.choice(PAIR)
        message = wire.SectionCreate(self.handles[b"pair"], section, TIME_END, b"")
        self.call(self._event("make_pair", b"pair", section), message, ignore, self._flags())

    def _pair_read(self) -> None:
        event = self._event("pair_read", b"pair")

        def then(result: Any) -> None:
            event.value = result.parts if result is not None else None

        elements = tuple(wire.ReadElement(section, 0, None) for section in PAIR)
        self.call(event, wire.Read(self.handles[b"pair"], elements), then)

    def _append(self) -> None:
        """Add a section whose id the service makes: each time it is applied there is one more."""
        value = self._value()
        message = wire.SectionCreate(self.handles[LEDGER], None, TIME_END, value)
        self.call(self._event("append", LEDGER, b"", value), message, ignore, self._flags())

    def _expire(self) -> None:
        """Create a section that is going to expire, or look at one that did or will."""
        if not self._dues or self._random.random() < 0.4:
            self._count += 1
            section = f"x.{self.name}.{self._count}".encode()
            at_ns = self._stack.now_ns + self._random.randint(200, 2500) * MS
            event = self._event("expiring", b"registers", section, at_ns)
            message = wire.SectionCreate(
                self.handles[b"registers"], section, WALL_NS + at_ns, b"soon over"
            )

            def then(_result: Any) -> None:
                if event.outcome is Outcome.DONE and event.status is Status.OK:
                    self._dues.append((section, at_ns))

            self.call(event, message, then, self._flags())
            return
        section, at_ns = self._random.choice(self._dues)
        if self._random.random() < 0.3 and self._stack.now_ns < at_ns - 100 * MS:
            self._extend(section)
            return
        look = self._event("expiring_read", b"registers", section, at_ns)
        self.call(look, wire.SectionGet(self.handles[b"registers"], section), ignore)

    def _extend(self, section: bytes) -> None:
        """Move an expiration: the old one must do nothing any more."""
        at_ns = self._stack.now_ns + self._random.randint(500, 3000) * MS
        event = self._event("extend", b"registers", section, at_ns)
        message = wire.SectionExpirationTimeSet(
            self.handles[b"registers"], section, WALL_NS + at_ns
        )
        self._dues[:] = [due for due in self._dues if due[0] != section]

        def then(_result: Any) -> None:
            if event.outcome is Outcome.DONE and event.status is Status.OK:
                self._dues.append((section, at_ns))

        self.call(event, message, then, self._flags())


def ignore(_result: Any) -> None:
    """Do nothing with a result."""


def outcome_of(status: Status) -> Outcome:
    """Return what an answer says of its call."""
    match status:
        case Status.OK | Status.ERR_NOT_EXIST | Status.ERR_EXIST:
            return Outcome.DONE
        case Status.ERR_TRY_AGAIN | Status.ERR_NO_RESOURCES:
            return Outcome.REFUSED
        case Status.ERR_TIMEOUT | Status.ERR_LIBRARY | Status.ERR_UNAVAILABLE:
            return Outcome.UNKNOWN
        case _:
            return Outcome.WRONG
