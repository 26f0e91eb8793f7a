"""A toy service: counters by name, owned by sessions. Small, but it has every kind of effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openais.wire.codec import Buffer, Table, pack_state, unpack_state
from openais.wire.status import Status
from services.kit.machine import (
    REST,
    Answer,
    Caller,
    Context,
    Effect,
    Foreign,
    NodeId,
    Notify,
    Objects,
    Report,
    SessionId,
    Summary,
    View,
)


@dataclass(frozen=True, slots=True)
class Add:
    """Ordered: add one to a counter; answered by `Value`."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Ordered: answered when the counter is next added to."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """Ordered: a bug in apply."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Own: forget a counter."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Value:
    """Result and notification."""

    value: int


TABLE = Table("toy", {1: Add, 2: Wait, 3: Break, 4: Expire, 64: Value})


class Toy:
    """The machine."""

    table = TABLE
    merges_losers = False

    def __init__(self) -> None:
        self.objects = Objects()
        self.objects.touch(REST)
        self.deleted: dict[bytes, None] = {}
        self.counters: dict[bytes, int] = {}
        self.owners: dict[SessionId, int] = {}  # how often each session added
        self.waiting: list[tuple[int, bytes, int, bytes]] = []
        self.deadlines: dict[bytes, int] = {}
        self.views: list[tuple[int, ...]] = []
        self.order: dict[SessionId, list[int]] = {}  # numbers of the requests that added

    def speak(self, version: int) -> None:
        """Do nothing: there is one version."""

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        self.objects.touch(REST)
        if isinstance(operation, Expire):
            self.objects.touch(operation.name)
            if operation.name in self.counters:
                self.deleted[operation.name] = None
            self.counters.pop(operation.name, None)
            self.deadlines.pop(operation.name, None)
            return []
        caller = context.caller
        assert caller is not None
        if isinstance(operation, Break):
            return [Answer(caller, Status.OK, Value(1 // 0))]
        if isinstance(operation, Wait):
            self.waiting.append((caller.node_id, caller.session, caller.number, operation.name))
            return []
        self.objects.touch(operation.name)
        self.deleted.pop(operation.name, None)
        value = self.counters[operation.name] = self.counters.get(operation.name, 0) + 1
        self.owners[caller.session] = self.owners.get(caller.session, 0) + 1
        self.order.setdefault(caller.session, []).append(caller.number)
        if operation.name.startswith(b"short"):
            self.deadlines[operation.name] = context.now_ns + 1_000_000_000
        effects: list[Effect] = [Answer(caller, Status.OK, Value(value))]
        for node, session, number, name in self.waiting:
            if name == operation.name:
                waiter = Caller(NodeId(node), SessionId(session), number)
                effects.append(Answer(waiter, Status.OK, Value(value)))
        self.waiting = [w for w in self.waiting if w[3] != operation.name]
        effects += [Notify(s, Value(value)) for s in sorted(self.owners) if s != caller.session]
        return effects

    def cancelled(self, caller: Caller, context: Context) -> list[Effect]:
        self.objects.touch(REST)
        self.waiting = [w for w in self.waiting if w[1:3] != (caller.session, caller.number)]
        return []

    def holdings(self, session: SessionId) -> bytes:
        return pack_state(self.owners.get(session, 0))

    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        self.objects.touch(REST)
        count = unpack_state(holdings)
        if count:
            self.owners[session] = count
        return []

    def read(self, operation: Any, context: Context) -> Answer:
        assert context.caller is not None
        return Answer(context.caller, Status.OK, Value(self.counters.get(operation.name, 0)))

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        self.objects.touch(REST)
        self.owners.pop(session, None)
        self.order.pop(session, None)
        self.waiting = [w for w in self.waiting if w[1] != session]
        return []

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        return pack_state([[s, self.owners.get(s, 0)] for s in sessions])

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        self.objects.touch(REST)
        for node in sorted(reports):
            for session, count in unpack_state(reports[node].content):
                if count:
                    self.owners[SessionId(session)] = count
        self.views.append(tuple(view.members))
        del self.views[:-5]
        return []

    def deadline_ns(self) -> int | None:
        return min(self.deadlines.values(), default=None)

    def expired(self, now_ns: int) -> list[Any]:
        return [Expire(n) for n, at in sorted(self.deadlines.items()) if at <= now_ns]

    def names(self) -> Iterable[bytes]:
        return (REST, *self.counters)

    def dump(self, name: bytes) -> list[bytes]:
        if name != REST:
            value = self.counters.get(name)
            return [] if value is None else [pack_state([value, self.deadlines.get(name)])]
        return [
            pack_state(
                [
                    sorted([s, v] for s, v in self.owners.items()),
                    [list(w) for w in self.waiting],
                    [list(v) for v in self.views],
                    list(self.deleted),
                    sorted([s, v] for s, v in self.order.items()),
                ]
            )
        ]

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        for name, data in changes.items():
            self.objects.touch(name)
            if name == REST:
                owners, waiting, views, deleted, order = unpack_state(data or b"")
                self.order = {SessionId(s): v for s, v in order}
                self.owners = {SessionId(s): v for s, v in owners}
                self.waiting = [(w[0], w[1], w[2], w[3]) for w in waiting]
                self.views = [tuple(v) for v in views]
                self.deleted = dict.fromkeys(deleted)
                continue
            self.counters.pop(name, None)
            self.deadlines.pop(name, None)
            if data is not None:
                self.counters[name], deadline_ns = unpack_state(data)
                if deadline_ns is not None:
                    self.deadlines[name] = deadline_ns

    def summary(self, name: bytes) -> Summary:
        return Summary(self.counters[name], in_use=False)

    def tombstones(self) -> Sequence[bytes]:
        return tuple(self.deleted)

    def merge(self, foreign: Sequence[Foreign], context: Context) -> None:
        self.load({f.name: f.content for f in foreign if f.wins})

    def check(self) -> None:
        assert all(v > 0 for v in self.counters.values())
        for numbers in self.order.values():
            assert numbers == sorted(set(numbers)), (
                f"a session's requests were reordered: {numbers}"
            )

    def describe(self) -> dict[str, int]:
        return {"counters": len(self.counters)}
