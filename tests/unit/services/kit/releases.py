"""A toy service in two releases: the second adds a field, an operation, and a part of the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openais.wire.codec import Table, added
from openais.wire.status import Status
from services.kit.machine import Answer, Context, Effect, SessionId
from services.kit.small import SmallMachine


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


class Old(SmallMachine):
    """The first release: nothing in it knows of the second."""

    table = OLD

    def __init__(self) -> None:
        super().__init__()
        self.counters: dict[bytes, int] = {}

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        assert context.caller is not None
        self.touch()
        value = self.counters.get(operation.name, 0) + 1
        self.counters[operation.name] = value
        return [Answer(context.caller, Status.OK, OldSum(value))]

    def read(self, operation: Any, context: Context) -> Answer:
        raise NotImplementedError

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        return []

    def holdings(self, session: SessionId) -> bytes:
        return b""

    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        return []

    def values(self) -> Any:
        return sorted([n, v] for n, v in self.counters.items())

    def restore(self, values: Any) -> None:
        self.counters = dict(values)

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
        self.touch()
        if version < 2:
            self.changes = 0
        self.version = version

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        assert context.caller is not None
        self.touch()
        if self.version >= 2:
            self.changes += 1
        if isinstance(operation, Clear):
            self.counters[operation.name] = 0
            return [Answer(context.caller, Status.OK, Sum(0, self.changes))]
        value = self.counters.get(operation.name, 0) + operation.amount
        self.counters[operation.name] = value
        return [Answer(context.caller, Status.OK, Sum(value, self.changes))]

    def values(self) -> Any:
        state = super().values()
        return [state, self.changes] if self.version >= 2 else state

    def restore(self, values: Any) -> None:
        if self.version >= 2:
            values, self.changes = values
        super().restore(values)


class Next(New):
    """A third release, which forgot the first."""

    table = NEXT
