"""What local clients of the ring are told: the events of one connection, in its order.

Field for field these are the messages of the local port, which the shell encodes; the core knows
neither sockets nor that encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, NewType, TypeAlias

from totemd.protocol.effects import Configuration
from totemd.protocol.messages import RingId

ConnectionId = NewType("ConnectionId", int)

PAYLOAD_SIZE_MAX: Final = 1 << 20  # bytes of one multicast


class Refusal(IntEnum):
    """Why a request was not served; the numbers of SaAisErrorT and cs_error_t."""

    LIBRARY = 2
    TRY_AGAIN = 6
    INVALID_PARAM = 7
    BUSY = 10
    NOT_EXIST = 12
    NAME_TOO_LONG = 13
    EXIST = 14
    NO_RESOURCES = 18
    TOO_BIG = 26
    TOO_MANY_GROUPS = 30


class Reason(IntEnum):
    """Why a member joined or left (cpg_reason_t)."""

    UNDEFINED = 0
    JOIN = 1
    LEAVE = 2
    NODEDOWN = 3
    NODEUP = 4
    PROCDOWN = 5


class Space(IntEnum):
    """Groups of services and groups of applications never meet."""

    SERVICE = 0
    PROCESS = 1


class GroupKey(NamedTuple):
    """Names a group."""

    space: Space
    name: bytes


class Member(NamedTuple):
    """One member of a group; ``pid`` 0 is the seat of a service."""

    node_id: int
    pid: int
    age: int  # smaller joined earlier; the same at every member


class Change(NamedTuple):
    """One member that came or went."""

    member: Member
    reason: Reason


@dataclass(frozen=True, slots=True)
class Attached:
    """The connection is open."""

    history: bytes
    index: int
    resumed: bool
    pid: int = 0  # of the process, as other members are told it; 0: a seat


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was not served; ``request`` 0 is the attach itself."""

    request: int
    refusal: Refusal
    rule: str


@dataclass(frozen=True, slots=True)
class Done:
    """A join or leave was taken."""

    request: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """All multicasts up to ``request`` are on the ring."""

    request: int


@dataclass(slots=True)
class Delivered:
    """One multicast in the total order."""

    index: int
    node_id: int
    pid: int
    payload: bytes | memoryview


@dataclass(slots=True)
class DeliveredOwn:
    """The multicast ``request`` of this very connection, in the total order; it has the payload."""

    index: int
    request: int


@dataclass(frozen=True, slots=True)
class View:
    """The membership of a group changed, in the total order."""

    index: int
    group: bytes
    ring: RingId
    number: int
    members: tuple[Member, ...]
    left: tuple[Change, ...]
    joined: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Parting:
    """What follows, up to the next view, only these nodes are sure to deliver.

    The transitional configuration, told to the seats of groups that lose a member with it.
    """

    index: int
    nodes: tuple[int, ...]  # sorted


@dataclass(slots=True)
class EvsDelivered:
    """One multicast to a group that this EVS client has joined, in the total order."""

    node_id: int
    payload: bytes | memoryview


@dataclass(slots=True)
class EvsDeliveredOwn:
    """In the place of an `EvsDelivered`: the client's own multicast ``request``, which it kept."""

    request: int


@dataclass(frozen=True, slots=True)
class EvsPassed:
    """All multicasts of the client up to ``request`` have had their turn in the total order."""

    request: int


@dataclass(frozen=True, slots=True)
class RingChanged:
    """A new ring is installed and its groups are known."""

    ring: RingId
    nodes: tuple[int, ...]
    current: bool = False  # told because the connection is new, not because the ring is


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The replay of a seat's log is over."""

    index: int


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """The log of a seat passed its bound."""

    log_bytes: int


RareEvent: TypeAlias = (
    Attached
    | Refused
    | Done
    | Accepted
    | View
    | Parting
    | EvsPassed
    | RingChanged
    | Configuration
    | CaughtUp
    | SnapshotWanted
)
Event: TypeAlias = Delivered | DeliveredOwn | EvsDelivered | EvsDeliveredOwn | RareEvent


@dataclass(slots=True)
class Tell:
    """Effect: send one event to a connection. Not frozen: made once per delivery."""

    connection: ConnectionId
    event: Event


@dataclass(frozen=True, slots=True)
class Drop:
    """Effect: close a connection; somebody else has taken its place."""

    connection: ConnectionId
    rule: str
