"""What a simulated node did, as records: the only thing the axioms are judged on.

The records are those of the protocol's specification: configurations, originations with what the
sender had delivered, deliveries with the part of the configuration. They say nothing about how.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from totemd.protocol.effects import ConfigurationKind
from totemd.protocol.local import ConnectionId, Event
from totemd.protocol.messages import RingId

SAFE = 3
REGULAR = ConfigurationKind.REGULAR
UNKNOWN = -1  # what a sender had delivered when it numbered a frame that it never sent
TRANSITIONAL = ConfigurationKind.TRANSITIONAL


class Installed(NamedTuple):
    """A configuration was delivered."""

    at_ns: int
    kind: ConfigurationKind
    ring: RingId
    members: tuple[int, ...]
    old_ring: RingId | None
    left: tuple[int, ...]
    joined: tuple[int, ...]


class Originated(NamedTuple):
    """A frame got its place in the order of a ring."""

    at_ns: int
    ring: RingId
    seq: int
    guarantee: int
    payload: bytes
    delivered: int  # the sender had delivered up to here in this ring


class Got(NamedTuple):
    """A frame was delivered."""

    at_ns: int
    ring: RingId
    seq: int
    originator: int
    guarantee: int
    payload: bytes
    transitional: bool


Record: TypeAlias = Installed | Originated | Got


class Ended(Enum):
    """How an incarnation ended."""

    RUNNING = "running"
    CRASHED = "crashed"
    RETIRED = "retired"


@dataclass(slots=True)
class Submitted:
    """A multicast that a process asked for."""

    connection: ConnectionId
    request: int
    payload: bytes
    guarantee: int


@dataclass(slots=True)
class Life:
    """One incarnation of a node, from its start to its end."""

    node_id: int
    epoch: int
    records: list[Record] = field(default_factory=list)
    streams: dict[ConnectionId, list[Event]] = field(default_factory=dict)
    # per stream: (number of events before it, configuration)
    marks: dict[ConnectionId, list[tuple[int, Installed]]] = field(default_factory=dict)
    pids: dict[ConnectionId, int] = field(default_factory=dict)
    submissions: list[Submitted] = field(default_factory=list)
    closed: set[ConnectionId] = field(default_factory=set)
    ended: Ended = Ended.RUNNING
    stranger: bool = False  # of another cluster on the same wire

    @property
    def crashed(self) -> bool:
        """True: it was killed."""
        return self.ended is Ended.CRASHED

    @property
    def retired(self) -> bool:
        """True: it left on purpose, to the end."""
        return self.ended is Ended.RETIRED

    @property
    def submitted(self) -> list[bytes]:
        """Return the payloads its processes multicast, in order."""
        return [s.payload for s in self.submissions]


@dataclass(slots=True)
class Stay:
    """One regular configuration of one incarnation, up to the next one."""

    life: Life
    installed: Installed
    previous: Installed | None = None
    regular: list[Got] = field(default_factory=list)
    transitional: list[Got] = field(default_factory=list)
    change: Installed | None = None  # the transitional configuration that ends it
    following: Installed | None = None
    originated: list[Originated] = field(default_factory=list)

    @property
    def ring(self) -> RingId:
        """The ring."""
        return self.installed.ring

    @property
    def got(self) -> list[Got]:
        """Everything delivered of it, in order."""
        return self.regular + self.transitional


def stays(life: Life) -> list[Stay]:
    """Cut an incarnation's records at its regular configurations."""
    found: list[Stay] = []
    for record in life.records:
        if isinstance(record, Installed):
            if record.kind is REGULAR:
                before = found[-1] if found else None
                if before is not None:
                    before.following = record
                found.append(Stay(life, record, before.installed if before else None))
            elif found:
                found[-1].change = record
        elif not found:
            continue
        elif isinstance(record, Originated):
            found[-1].originated.append(record)
        elif found[-1].change is not None:
            found[-1].transitional.append(record)
        else:
            found[-1].regular.append(record)
    return found


def digest(lives: Iterable[Life], extra: int = 0) -> str:
    """Return a hash of everything that happened: the same for the same seed and code."""
    state = hashlib.blake2b(b"%d" % extra, digest_size=16)
    for life in lives:
        state.update(b"%d %d %s" % (life.node_id, life.epoch, life.ended.value.encode()))
        for record in life.records:
            state.update(repr(record).encode())
        for connection, stream in life.streams.items():
            state.update(b"%d" % connection)
            for event in stream:
                state.update(repr(event).encode())
    return state.hexdigest()
