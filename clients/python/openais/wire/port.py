"""The local protocol of totemd: attach, multicast, ordered deliveries and views.

Spoken over a ZeroMQ DEALER (client) to ROUTER (totemd, ``totemd.sock``). Each ZeroMQ message is a
bundle (`codec.pack_frames`) of messages of `TABLE`; one that carries a payload takes two elements.
A connection is either the *seat* of a service (durable: it survives the process), a *process* of
applications (CPG), or a client of *EVS*. What totemd sends on a connection is one ordered stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from openais.wire.codec import Buffer, Table
from openais.wire.status import Status

VERSION: Final = 5  # 3: EVS; 4: RingGather, HoldOffsClear, EvsDeliveredOwn, pids; 5: Parting
VERSION_MIN: Final = 2  # 1 packed payloads into their messages
VERSION_EVS_KEEPS: Final = 4  # from it on a client of EVS keeps what it multicasts

SOCKET_NAME: Final = "totemd.sock"
PID_NOT_TOLD: Final = -1  # by a totemd before version 4
GROUP_NAME_SIZE_MAX: Final = 128  # bytes
MULTICAST_SIZE_MAX: Final = 1 << 20  # bytes of one multicast payload (a bundle)
EVS_KEY_SIZE: Final = 32  # bytes of the key of a group; all are compared
EVS_GROUPS_PER_CALL_MAX: Final = 50  # of one join or leave
EVS_GROUPS_PER_CLIENT_MAX: Final = 256
EVS_GROUPS_PER_MESSAGE_MAX: Final = 32


class Guarantee(IntEnum):
    """Delivery guarantee of a multicast; the lower two are served as AGREED."""

    UNORDERED = 0
    FIFO = 1
    AGREED = 2
    SAFE = 3


class Kind(IntEnum):
    """What a connection is."""

    SEAT = 1
    PROCESS = 2
    OBSERVER = 3  # asks for status only
    EVS = 4


class ConfigurationKind(IntEnum):
    """Kinds of configuration of the ring (extended virtual synchrony)."""

    REGULAR = 1
    TRANSITIONAL = 2


class Reason(IntEnum):
    """Why a member joined or left (cpg_reason_t)."""

    UNDEFINED = 0
    JOIN = 1
    LEAVE = 2
    NODEDOWN = 3
    NODEUP = 4
    PROCDOWN = 5


@dataclass(frozen=True, slots=True, order=True)
class RingId:
    """Identifies one ring; ordered by sequence number, then representative."""

    seq: int
    representative: int


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One member of a group."""

    node_id: int
    pid: int  # 0 for the seat of a service
    age: int  # smaller joined earlier; the same number at every member


@dataclass(frozen=True, slots=True)
class Change:
    """One member that came or went."""

    member: Member
    reason: Reason


# From a client to totemd


@dataclass(frozen=True, slots=True)
class Attach:
    """First message of a connection.

    A SEAT names its service group and the position up to which it remembers everything;
    ``history`` b"" and ``index`` 0 mean "I remember nothing". A PROCESS gives group b"".
    """

    version: int
    version_min: int
    kind: Kind
    group: bytes = b""
    history: bytes = b""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """PROCESS only. Join a group; membership begins with the View that lists the caller."""

    request: int
    group: bytes


@dataclass(frozen=True, slots=True)
class Leave:
    """PROCESS only. Leave the group; the last event is the View that lists the caller as left."""

    request: int
    group: bytes


@dataclass(frozen=True, slots=True)
class Multicast:
    """Multicast a bundle to the connection's group. ``request`` counts up by one from 1.

    Not answered one by one: `Accepted` is cumulative. At most the `Attached` window may be
    outstanding; what exceeds it is refused with ERR_TRY_AGAIN and not queued.
    """

    request: int
    guarantee: Guarantee
    payload: Buffer


@dataclass(frozen=True, slots=True)
class Snapshotted:
    """SEAT only. Everything up to ``index`` is in a durable snapshot; the log may be cut there."""

    index: int


@dataclass(frozen=True, slots=True)
class MembersQuery:
    """Ask for the members of any group of processes; answered by `Members`."""

    request: int
    group: bytes


@dataclass(frozen=True, slots=True)
class GroupsQuery:
    """Ask for all groups of processes and their members; answered by `Groups`."""

    request: int


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """Ask for totemd's status; answered by `StatusReport`."""

    request: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Give the membership up in order: LEAVE at once, for a seat too (its log is dropped)."""


@dataclass(frozen=True, slots=True)
class EvsJoin:
    """EVS only. From the answer on, deliver what is sent to these groups too; keys of 32 bytes."""

    request: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EvsLeave:
    """EVS only. From the answer on, no longer deliver for these groups; all or none."""

    request: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EvsMulticast:
    """EVS only. Multicast a bundle to groups, joined or not; else as `Multicast`."""

    request: int
    guarantee: Guarantee
    keys: bytes  # of all groups, 32 bytes each
    payload: Buffer


@dataclass(frozen=True, slots=True)
class KeyRotate:
    """Change the key of the cluster, or go on with a change; answered by `Done` or `Refused`."""

    request: int


@dataclass(frozen=True, slots=True)
class KeyRetire:
    """Accept old keys no longer, on all nodes; answered by `Done` or `Refused`."""

    request: int


@dataclass(frozen=True, slots=True)
class RingGather:
    """Form the ring anew; answered by `Done` when that has begun, or `Refused`."""

    request: int


@dataclass(frozen=True, slots=True)
class HoldOffsClear:
    """Merge at once with nodes that are held off for flapping; answered by `Done` or `Refused`."""

    request: int


# From totemd to a client


@dataclass(frozen=True, slots=True)
class Attached:
    """The connection is open.

    ``index`` is the position after which the stream goes on. ``resumed`` True: ``history`` and
    ``index`` are the ones asked for, what was missed is replayed, then comes `CaughtUp`.
    False: this is a new membership with an empty memory, whatever the client remembers.
    """

    node_id: int
    history: bytes  # 16 bytes; new with each life of totemd and each new seat
    index: int
    resumed: bool
    window_messages: int  # multicasts that may be outstanding
    window_bytes: int
    version: int
    pid: int = PID_NOT_TOLD  # of the client as all members are told it; of a seat 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was not served. ``request`` 0: the Attach; the connection is then useless."""

    request: int
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A Join or Leave was taken; what it changes comes as a View."""

    request: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """All multicasts of this connection up to ``request`` left its queue for the ring."""

    request: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """One multicast of a member, in the total order. ``index`` counts per connection, by one."""

    index: int
    node_id: int
    pid: int
    payload: Buffer


@dataclass(frozen=True, slots=True)
class DeliveredOwn:
    """PROCESS only. In the place of a `Delivered`: the caller's own multicast ``request``.

    Its payload does not travel back; the caller kept it.
    """

    index: int
    request: int


@dataclass(frozen=True, slots=True)
class View:
    """The group's membership changed, in the total order (one event per cause).

    (``ring``, ``number``) names the view; it is the same at every member, and ``number`` strictly
    increases within a ring. ``members`` after the change, sorted by (node_id, pid). A member may
    be in ``left`` and in ``joined``: it was apart from us meanwhile.
    """

    index: int
    group: bytes
    ring: RingId
    number: int
    members: tuple[Member, ...]
    left: tuple[Change, ...]
    joined: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class RingChanged:
    """PROCESS and OBSERVER. A new ring is installed (cpg_totem_confchg)."""

    ring: RingId
    nodes: tuple[int, ...]
    current: bool = False  # told because the connection is new, not because the ring is


@dataclass(frozen=True, slots=True)
class EvsDelivered:
    """EVS. One multicast to at least one group of the client, in the total order."""

    node_id: int
    payload: Buffer


@dataclass(frozen=True, slots=True)
class EvsDeliveredOwn:
    """EVS. In the place of an `EvsDelivered`: the caller's own multicast ``request``.

    Its payload does not travel back; the caller kept it.
    """

    request: int


@dataclass(frozen=True, slots=True)
class EvsPassed:
    """EVS. The caller's multicasts up to ``request`` are ordered, and need not be kept longer."""

    request: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """EVS. A configuration of the ring, in the total order with the messages.

    The first one after `Attached` is the regular one of now. Each change is a transitional one,
    with the members that come along from the old ring, and then a regular one, with all members;
    ``ring`` is in both the new ring.
    """

    kind: ConfigurationKind
    ring: RingId
    members: tuple[int, ...]
    left: tuple[int, ...]
    joined: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """SEAT only. The replay is over; what follows happens now."""

    index: int


@dataclass(frozen=True, slots=True)
class Parting:
    """SEAT only. What follows, up to the next view, only these nodes are sure to deliver.

    Told in the total order when the ring of a group's members breaks (the transitional
    configuration): what is delivered from here on may never reach the others.
    """

    index: int
    nodes: tuple[int, ...]  # sorted


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """SEAT only. The log since the last snapshot passed its bound; make a snapshot soon."""

    log_bytes: int


@dataclass(frozen=True, slots=True)
class Members:
    """Answer to `MembersQuery`."""

    request: int
    group: bytes
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """One group and its members."""

    group: bytes
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """Answer to `GroupsQuery`."""

    request: int
    groups: tuple[GroupMembers, ...]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Answer to `StatusQuery`: a JSON object (keys in docs/operating.md)."""

    request: int
    json: str


TABLE: Final = Table(
    "totemd port",
    {
        1: Attach,
        2: Join,
        3: Leave,
        4: Multicast,
        5: Snapshotted,
        6: MembersQuery,
        7: GroupsQuery,
        8: StatusQuery,
        9: Detach,
        10: EvsJoin,
        11: EvsLeave,
        12: EvsMulticast,
        13: KeyRotate,
        14: KeyRetire,
        15: RingGather,
        16: HoldOffsClear,
        64: Attached,
        65: Refused,
        66: Done,
        67: Accepted,
        68: Delivered,
        69: View,
        70: RingChanged,
        71: CaughtUp,
        72: SnapshotWanted,
        73: Members,
        74: Groups,
        75: StatusReport,
        76: DeliveredOwn,
        77: EvsDelivered,
        78: Configuration,
        79: EvsDeliveredOwn,
        80: EvsPassed,
        81: Parting,
    },
    carriers=(Multicast, Delivered, EvsMulticast, EvsDelivered),
)
