"""The protocol of the cluster membership service (SAI-AIS-CLM)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from openais.wire.codec import Table, added
from openais.wire.status import ONE_SECOND_NS

VERSION: Final = 2  # 2: administration and its steps
VERSION_MIN: Final = 1

LOCAL_NODE_ID: Final = 0xFFFF_FFFF  # stands for the node of the caller
NAME_SIZE_MAX: Final = 256  # bytes
ADDRESS_SIZE_MAX: Final = 64  # bytes
LOCK_TIMEOUT_DEFAULT_NS: Final = 50 * ONE_SECOND_NS


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
    UNLOCK = 5  # an end of a shutdown was taken back; level B.04
    SHUTDOWN = 6  # it leaves when its users are ready; level B.04


class ChangeStep(IntEnum):
    """SaClmChangeStepT: how far a change is that an administrator asked for."""

    VALIDATE = 1  # may it happen?
    START = 2  # it will happen; get ready
    ABORTED = 3  # it does not happen
    COMPLETED = 4  # it has happened


class Response(IntEnum):
    """SaClmResponseT: how a client answers a step."""

    OK = 1
    REJECTED = 2  # to VALIDATE only
    ERROR = 3  # it could not judge, or not get ready


class AdminOperation(IntEnum):
    """SaClmAdminOperationIdT, and one of ours."""

    UNLOCK = 1
    LOCK = 2
    SHUTDOWN = 3
    RESET = 4
    ACTION = 5  # reserved by the specification
    REMOVE = 100  # ours: a lock that clients may reject


class AdminState(IntEnum):
    """SaClmAdminStateT."""

    UNLOCKED = 1
    LOCKED = 2  # never a member
    SHUTTING_DOWN = 3  # a member until its users are ready


class TrackFlags(IntFlag):
    """What a client wants to be told of the membership."""

    CURRENT = 0x01  # the present membership, now
    CHANGES = 0x02  # at each change all members
    CHANGES_ONLY = 0x04  # at each change the changed nodes
    LOCAL = 0x08  # the node of the caller only; level B.03 and newer
    START_STEP = 0x10  # also before a change, to get ready; level B.04
    VALIDATE_STEP = 0x20  # also before that, to agree; level B.04


TRACKING: Final = TrackFlags.CHANGES | TrackFlags.CHANGES_ONLY
STEPS: Final = TrackFlags.START_STEP | TrackFlags.VALIDATE_STEP
_KNOWN: Final = TrackFlags.CURRENT | TRACKING | TrackFlags.LOCAL | STEPS


def flags_legal(flags: int, level: Level) -> bool:
    """Tell whether a combination of track flags is legal on a handle of a level."""
    if flags & ~int(_KNOWN) or flags & TRACKING == TRACKING:
        return False
    if flags & TrackFlags.LOCAL and level < Level.B_03:
        return False
    if flags & STEPS and (level < Level.B_04 or not flags & TRACKING):
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

    level: Level = added(2, Level.B_01)


@dataclass(frozen=True, slots=True)
class Track:
    """Ordered. Begin to follow changes, or follow them otherwise; answered by `Membership`.

    The answer is what the first notification is relative to.
    """

    flags: int  # TrackFlags, with one of CHANGES and CHANGES_ONLY
    level: Level
    items_max: int = added(2, 0)  # refuse if more nodes would be listed; 0: any number


@dataclass(frozen=True, slots=True)
class TrackStop:
    """Ordered. End the following of changes; no result."""


@dataclass(frozen=True, slots=True)
class Evictions:
    """Ordered. Ask this session before its node is taken out (level B.03); no result."""


@dataclass(frozen=True, slots=True)
class Respond:
    """Ordered. Answer a `Step` or an `Eviction`; no result."""

    invocation: int
    response: Response


@dataclass(frozen=True, slots=True)
class Administer:
    """Ordered. Change the administrative state of a node; answered when it is done; no result."""

    operation: AdminOperation
    node_id: int


@dataclass(frozen=True, slots=True)
class NodesGet:
    """Read. Answered by `Nodes`."""


# To a client


@dataclass(frozen=True, slots=True)
class Membership:
    """One view, complete: an answer, or the notification that it came into force.

    Complete so that a client that lost notifications can tell what changed since the last view it
    told its application. ``outside`` is the client's own node when it is not a member; it then
    sees nothing else. The last two fields tell of the change to this view what comparing views
    cannot.
    """

    view: int
    members: tuple[Node, ...]  # by node id
    outside: Node | None = None
    change: PlannedChange | None = added(2, None)
    root_cause: str = added(
        2, ""
    )  # distinguished name of the one node that crashed or was administered


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """What an administrative operation does to a node."""

    node_id: int
    change: ClusterChange


@dataclass(frozen=True, slots=True)
class Step:
    """Notification: a planned change is at a step before its end."""

    step: ChangeStep
    invocation: int  # for `Respond`; 0: no answer is wanted
    planned: PlannedChange
    time_supervision_ns: int  # SaTimeT
    root_cause: str
    membership: Membership  # the present one


@dataclass(frozen=True, slots=True)
class Eviction:
    """Notification: the node of the session will be taken out (level B.03)."""

    invocation: int
    operation: AdminOperation


@dataclass(frozen=True, slots=True)
class KnownNode:
    """What an administrator sees of one node."""

    node_id: int
    name: str
    state: AdminState
    connected: bool
    operation: AdminOperation | None  # under way
    lock_timeout_ns: int
    resets: bool
    node: Node | None  # None: not connected


@dataclass(frozen=True, slots=True)
class Nodes:
    """Every node that is, was, or is remembered because of its administrative state."""

    view: int
    quorate: bool
    nodes: tuple[KnownNode, ...]  # by node id


def listed(membership: Membership, flags: int) -> int:
    """Return how many nodes a listing of the present membership has."""
    return 1 if flags & TrackFlags.LOCAL else len(membership.members) or 1


# Between replicas


@dataclass(frozen=True, slots=True)
class LockTimeout:
    """Ordered, of the service itself. An operation has waited long enough for answers."""

    node_id: int
    number: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a session has not answered."""

    invocation: int
    step: ChangeStep


@dataclass(frozen=True, slots=True)
class Tracker:
    """What one session follows."""

    session: bytes
    flags: int  # 0: only evictions
    evictions: bool = False
    asked: tuple[Asked, ...] = ()  # oldest first


@dataclass(frozen=True, slots=True)
class AdminRecord:
    """The administrative state of a node; of two, the larger version counts, then LOCKED."""

    node_id: int
    name: str
    state: AdminState
    version: int  # 0: nobody ever changed it


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
    configured: bool = added(2, default=True)
    resets: bool = added(2, default=False)  # it can be rebooted
    lock_timeout_ns: int = added(2, LOCK_TIMEOUT_DEFAULT_NS)
    records: tuple[AdminRecord, ...] = added(2, ())


TABLE: Final = Table(
    "clm",
    {
        1: NodeGet,
        2: MembershipGet,
        3: Track,
        4: TrackStop,
        5: Evictions,
        6: Respond,
        7: Administer,
        8: NodesGet,
        64: Node,
        65: Membership,
        66: Step,
        67: Eviction,
        68: Nodes,
        96: NodeReport,
        97: LockTimeout,
    },
    version=VERSION,
    version_min=VERSION_MIN,
    since=dict.fromkeys(
        (Evictions, Respond, Administer, NodesGet, Step, Eviction, Nodes, LockTimeout), 2
    ),
)
