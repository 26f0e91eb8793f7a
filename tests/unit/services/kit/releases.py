"""A toy service in two releases: the second adds a field, an operation, and a part of the state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openais.wire.codec import Buffer, Table, added, pack_state, unpack_state
from openais.wire.status import Status
from services.kit.machine import (
    REST,
    Answer,
    Context,
    Effect,
    Foreign,
    NodeId,
    Objects,
    Report,
    SessionId,
    Summary,
    View,
)


@dataclass(frozen=True, slots=True)
class OldAdd:
    """Add one."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Add:
    """Add an amount."""

    name: bytes
    amount: int = added(2, 1)


@dataclass(frozen=True, slots=True)
class Clear:
    """Set a counter to nothing."""

    name: bytes


@dataclass(frozen=True, slots=True)
class OldSum:
    """Result."""

    value: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Result."""

    value: int
    changes: int = added(2, 0)


OLD: Final = Table("counters", {1: OldAdd, 64: OldSum})
NEW: Final = Table("counters", {1: Add, 2: Clear, 64: Sum}, version=2, since={Clear: 2})
NEXT: Final = Table("counters", {1: Add, 2: Clear, 64: Sum}, version=2, version_min=2)


class Old:
    """The first release: nothing in it knows of the second."""

    table = OLD
    merges_losers = False

    def __init__(self) -> None:
        self.objects = Objects()
        self.objects.touch(REST)
        self.counters: dict[bytes, int] = {}

    def speak(self, version: int) -> None:
        """Do nothing: there is one version."""

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        assert context.caller is not None
        self.objects.touch(REST)
        value = self.counters.get(operation.name, 0) + 1
        self.counters[operation.name] = value
        return [Answer(context.caller, Status.OK, OldSum(value))]

    def read(self, operation: Any, context: Context) -> Answer:
        raise NotImplementedError

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        return []

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        return b""

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        return []

    def deadline_ns(self) -> int | None:
        return None

    def expired(self, now_ns: int) -> list[Any]:
        return []

    def names(self) -> Iterable[bytes]:
        return [REST]

    def dump(self, name: bytes) -> list[bytes]:
        return [pack_state(sorted([n, v] for n, v in self.counters.items()))]

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        self.objects.touch(REST)
        content = changes[REST]
        if content is not None:
            self.counters = dict(unpack_state(content))

    def summary(self, name: bytes) -> Summary:
        raise NotImplementedError

    def tombstones(self) -> Sequence[bytes]:
        return ()

    def merge(self, foreign: Sequence[Foreign], context: Context) -> None:
        assert not foreign

    def check(self) -> None:
        assert all(value >= 0 for value in self.counters.values())

    def describe(self) -> dict[str, int]:
        return {"counters": len(self.counters)}


class New(Old):
    """The second release: it counts changes too, where everybody does."""

    table = NEW

    def __init__(self) -> None:
        super().__init__()
        self.version = NEW.version
        self.changes = 0

    def speak(self, version: int) -> None:
        self.objects.touch(REST)
        if version < 2:
            self.changes = 0
        self.version = version

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        assert context.caller is not None
        self.objects.touch(REST)
        if self.version >= 2:
            self.changes += 1
        if isinstance(operation, Clear):
            self.counters[operation.name] = 0
            return [Answer(context.caller, Status.OK, Sum(0, self.changes))]
        value = self.counters.get(operation.name, 0) + operation.amount
        self.counters[operation.name] = value
        return [Answer(context.caller, Status.OK, Sum(value, self.changes))]

    def dump(self, name: bytes) -> list[bytes]:
        state = sorted([n, v] for n, v in self.counters.items())
        return [pack_state([state, self.changes] if self.version >= 2 else state)]

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        self.objects.touch(REST)
        values = unpack_state(changes[REST] or b"")
        if self.version >= 2:
            values, self.changes = values
        self.counters = dict(values)


class Next(New):
    """A third release, which forgot the first."""

    table = NEXT
