"""The form of the replicated state in snapshots. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openais.wire import clm as wire
from openais.wire.codec import Table, added


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration of a node says of how it takes part."""

    node_id: int
    configured: bool = True
    resets: bool = False
    lock_timeout_ns: int = wire.LOCK_TIMEOUT_DEFAULT_NS


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node of the group."""

    arrived: int
    node: wire.Node


@dataclass(frozen=True, slots=True)
class TrackerState:
    """A session that follows something."""

    session: bytes
    node_id: int
    flags: int


@dataclass(frozen=True, slots=True)
class QuestionsState:
    """What a session is asked, apart from what it follows."""

    session: bytes
    node_id: int
    evictions: bool
    asked: tuple[wire.Asked, ...]


@dataclass(frozen=True, slots=True)
class CallerState:
    """Who waits for the end of an operation."""

    node_id: int
    session: bytes
    number: int


@dataclass(frozen=True, slots=True)
class WaitingState:
    """An answer that an operation waits for."""

    invocation: int
    session: bytes


@dataclass(frozen=True, slots=True)
class RunningState:
    """An operation that waits for answers."""

    operation: wire.AdminOperation
    node_id: int
    number: int
    callers: tuple[CallerState, ...]
    step: wire.ChangeStep
    deadline_ns: int
    waiting: tuple[WaitingState, ...]
    told: tuple[bytes, ...]
    failed: bool


@dataclass(frozen=True, slots=True)
class State:
    """The whole state; what came with version 2 is absent from a dump of version 1."""

    view: int
    nodes: tuple[NodeState, ...]
    trackers: tuple[TrackerState, ...]
    quorate: bool = added(2, default=True)
    settings: tuple[Settings, ...] = added(2, ())  # that differ from the default
    questions: tuple[QuestionsState, ...] = added(2, ())
    issued: int = added(2, 0)
    records: tuple[wire.AdminRecord, ...] = added(2, ())
    running: tuple[RunningState, ...] = added(2, ())
    operations: int = added(2, 0)


TABLE: Final = Table("clm state", {1: State}, version=wire.VERSION, version_min=wire.VERSION_MIN)


@dataclass(frozen=True, slots=True)
class AdminRecords:
    """What is kept on disk when the whole cluster ends."""

    records: tuple[wire.AdminRecord, ...]


RECORDS: Final = Table("clm administration", {1: AdminRecords})
