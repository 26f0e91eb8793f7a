"""The protocol of the cluster membership service (SAI-AIS-CLM)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from openais.wire.codec import Table

VERSION: Final = 1
VERSION_MIN: Final = 1

LOCAL_NODE_ID: Final = 0xFFFF_FFFF  # stands for the node of the caller
NAME_SIZE_MAX: Final = 256  # bytes
ADDRESS_SIZE_MAX: Final = 64  # bytes


class Level(IntEnum):
    """Edition of the specification a handle was opened with."""

    B_01 = 1
    B_02 = 2
    B_03 = 3
    B_04 = 4


class AddressFamily(IntEnum):
    """SaClmNodeAddressFamilyT."""

    INET = 1
    INET6 = 2


class ClusterChange(IntEnum):
    """SaClmClusterChangesT: what happened to a node."""

    NO_CHANGE = 1
    JOINED = 2
    LEFT = 3
    RECONFIGURED = 4


class TrackFlags(IntFlag):
    """What a client wants to be told of the membership."""

    CURRENT = 0x01  # the present membership, now
    CHANGES = 0x02  # at each change all members
    CHANGES_ONLY = 0x04  # at each change the changed nodes
    LOCAL = 0x08  # the node of the caller only; level B.03 and newer


TRACKING: Final = TrackFlags.CHANGES | TrackFlags.CHANGES_ONLY
_KNOWN: Final = TrackFlags.CURRENT | TRACKING | TrackFlags.LOCAL


def flags_legal(flags: int, level: Level) -> bool:
    """Tell whether a combination of track flags is legal on a handle of a level."""
    if flags & ~int(_KNOWN) or flags & TRACKING == TRACKING:
        return False
    if flags & TrackFlags.LOCAL and level < Level.B_03:
        return False
    return bool(flags & (TrackFlags.CURRENT | TRACKING))


@dataclass(frozen=True, slots=True)
class Node:
    """What the cluster knows of one node (SaClmClusterNodeT)."""

    node_id: int
    name: str  # plain form, for handles of level B.01
    distinguished_name: str  # for newer handles
    family: AddressFamily
    address: str  # text, of ring 0
    boot_timestamp_ns: int  # wall clock
    incarnation: int  # differs between two lives of a node
    initial_view: int  # view in which the node became a member; 0: it is none
    member: bool


# From a client


@dataclass(frozen=True, slots=True)
class NodeGet:
    """Read. Answered by `Node`."""

    node_id: int  # LOCAL_NODE_ID: the caller's node
    level: Level


@dataclass(frozen=True, slots=True)
class MembershipGet:
    """Read. Answered by `Membership`."""


@dataclass(frozen=True, slots=True)
class Track:
    """Ordered. Begin to follow changes, or follow them otherwise; answered by `Membership`.

    The answer is what the first notification is relative to.
    """

    flags: int  # TrackFlags, with one of CHANGES and CHANGES_ONLY
    level: Level


@dataclass(frozen=True, slots=True)
class TrackStop:
    """Ordered. End the following of changes; no result."""


# To a client


@dataclass(frozen=True, slots=True)
class Membership:
    """One view, complete: an answer, or the notification that it came into force.

    Complete so that a client that lost notifications can tell what changed since the last view it
    told its application. ``outside`` is the client's own node when it is not a member; it then
    sees nothing else.
    """

    view: int
    members: tuple[Node, ...]  # by node id
    outside: Node | None = None


# Between replicas


@dataclass(frozen=True, slots=True)
class Tracker:
    """What one session follows."""

    session: bytes
    flags: int


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node tells of itself and its sessions when it meets others."""

    name: str
    distinguished_name: str
    family: AddressFamily
    address: str
    boot_timestamp_ns: int
    incarnation: int
    trackers: tuple[Tracker, ...]


TABLE: Final = Table(
    "clm",
    {
        1: NodeGet,
        2: MembershipGet,
        3: Track,
        4: TrackStop,
        64: Node,
        65: Membership,
        96: NodeReport,
    },
)
