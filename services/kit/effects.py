"""What a replica asks its process to do, how far it is, what it counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from openais.wire.status import Status
from services.kit.machine import SessionId


class Now(NamedTuple):
    """The two clocks."""

    ns: int  # monotonic
    wall_ns: int  # since 1970, never going back


class State(Enum):
    """How far a replica is."""

    JOINING = "joining"  # no state yet, or not in force
    MERGING = "merging"  # has a state; replicas meet
    LIVE = "live"


@dataclass(slots=True)
class ReplicaStats:
    """Counters of a replica."""

    operations_applied: int = 0
    operations_repeated: int = 0
    operations_early: int = 0  # one before it in its session was missing
    operations_without_session: int = 0
    operations_failed: int = 0
    operations_without_quorum: int = 0
    requests_cancelled: int = 0
    sessions_stale: int = 0
    sessions_overflowed: int = 0
    entries_malformed: int = 0
    meetings: int = 0
    states_received: int = 0
    states_sent: int = 0
    state_bytes_received: int = 0
    state_bytes_sent: int = 0
    transfers_repeated: int = 0
    objects_discarded: int = 0
    digests_compared: int = 0
    divergences: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Multicast an entry to the group."""

    entry: Any
    bulk: bool = False  # may be overtaken by others


@dataclass(frozen=True, slots=True)
class Replied:
    """A request of this node's session has its answer."""

    session: SessionId
    number: int
    status: Status
    body: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A session of this node has a notification more, or has taken some."""

    session: SessionId
    serial: int  # of its newest notification


@dataclass(frozen=True, slots=True)
class Opened:
    """A session of this node is open."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class Ended:
    """A session of this node is over: what it did not take overflowed, or it is not known."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class Stale:
    """A session of this node ended because its side of the cluster lost the quorum."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class FencePassed:
    """Everything before this node's fence is applied."""

    number: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Entries were dropped, or are to be applied again; when live, send what has no answer."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The replica's state changed."""

    old: State
    new: State


@dataclass(frozen=True, slots=True)
class Rejoin:
    """This replica cannot go on; attach anew, without memory."""

    rule: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The group speaks versions that this process does not: it must end."""

    rule: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """A merge took another side's version of an object of ours, or its deletion."""

    name: bytes  # as the machine names it
    parts: tuple[bytes, ...]  # of our version
    counter: int  # of its changes
    kept: int | None  # counter of the version that won; None: it was deleted


@dataclass(frozen=True, slots=True)
class Diverged:
    """Replicas hold other states than the majority, at one position: a bug, being healed."""

    nodes: tuple[int, ...]
    majority: tuple[int, ...]


Effect: TypeAlias = (
    Send
    | Replied
    | Told
    | Opened
    | Ended
    | Stale
    | FencePassed
    | Dropped
    | Moved
    | Rejoin
    | LeftOut
    | Discarded
    | Diverged
)
