"""What the replicas of one service say to each other: the entries of a bundle, in the total order.

An operation carries the client's bytes undecoded. Versioned apart from the release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openais.wire.codec import Buffer, Table, tag_of
from openais.wire.status import Status
from services.kit import versions
from services.kit.quorum import NO_QUORUM, Ballot
from services.kit.versions import Span

VERSION: Final = 3  # since 2: ballots, versions of the service, Offer; 3: states by object
VERSION_MIN: Final = 3  # 1 did not count votes, 2 sent the whole state to everybody
PIECE_SIZE_MAX: Final = 256 << 10  # bytes of state in one entry
ENTRY_SIZE_MAX: Final = 65 << 20  # bytes of one entry, before it is cut into fragments


@dataclass(frozen=True, slots=True)
class Operation:
    """A request of a client; ``body`` is a message of the service's protocol."""

    now_ns: int  # wall clock of the sender, never going back
    session: bytes
    number: int
    acknowledged: int  # answers up to this number need not be remembered
    body: bytes
    after: int = 0  # the session's request before this one; without it this one is not applied


@dataclass(frozen=True, slots=True)
class Own:
    """An operation of the machine itself: something expired."""

    now_ns: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A client opened a session at the sender's node."""

    session: bytes
    outlives_membership: bool = False  # it does not go stale when its side loses the quorum


@dataclass(frozen=True, slots=True)
class SessionResumed:
    """A client of the sender's node takes a session up that was closed when the node left."""

    now_ns: int
    session: bytes
    notified: int  # serial of the last notification the client saw


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session of the sender's node ended: closed, or its process died."""

    now_ns: int
    session: bytes


@dataclass(frozen=True, slots=True)
class Notified:
    """The client has seen its notifications up to ``serial``."""

    session: bytes
    serial: int
    now_ns: int = 0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client waits no longer for the answer of a request, or its time is over."""

    now_ns: int
    session: bytes
    number: int
    status: Status  # of the answer, unless the machine has another


@dataclass(frozen=True, slots=True)
class Fence:
    """Nothing. That it was delivered tells the sender that all before it was."""

    number: int


@dataclass(frozen=True, slots=True, order=True)
class RoundId:
    """Names a synchronisation: the view it belongs to."""

    ring_seq: int
    representative: int
    number: int


@dataclass(frozen=True, slots=True)
class Announce:
    """What a member remembers when replicas meet.

    Every version must be able to read it: new fields go last, with a default.
    """

    round: RoundId
    now_ns: int
    version: int
    version_min: int
    has_state: bool
    component: RoundId | None  # the last view it settled; None: none yet
    digest: bytes
    applied: int  # entries that made the state
    sessions: bytes  # those of its node, packed
    report: bytes  # of the machine
    service_version: int = 0
    service_version_min: int = 0
    ballot: Ballot = NO_QUORUM
    quorate_steps: int = 0  # of its state, made with a quorum; 0 where none is configured
    stale: bool = False  # its state lost a merge, and the winner's has not come yet

    @property
    def offer(self) -> versions.Offer:
        """Return what the member can speak."""
        own = Span(self.service_version, self.service_version_min)
        return versions.Offer(Span(self.version, self.version_min), own)


@dataclass(frozen=True, slots=True)
class Settle:
    """The view comes into force; ``nodes`` take part, others must join again."""

    round: RoundId
    now_ns: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A process took a seat over, and speaks these versions."""

    version: int
    version_min: int
    service_version: int
    service_version_min: int

    @property
    def offer(self) -> versions.Offer:
        """Return what the process can speak."""
        own = Span(self.service_version, self.service_version_min)
        return versions.Offer(Span(self.version, self.version_min), own)


@dataclass(frozen=True, slots=True)
class Catalog:
    """What one side of a merge holds: see `meeting.pack_catalog`."""

    round: RoundId
    content: bytes
    sessions: bytes  # all that it remembers, packed


@dataclass(frozen=True, slots=True)
class Need:
    """The sender lacks the state; whoever is to give it gives that of this position."""

    component: RoundId  # in force
    attempt: int
    avoid: tuple[int, ...]  # gave nothing in time
    have: bytes  # names and digests of the objects it holds, packed


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a state, from its giver to who needs it. The serials of one attempt count up."""

    component: RoundId  # or the round of a merge
    receiver: int  # 0: all that merge
    attempt: int
    serial: int
    last: bool
    items: bytes  # name, bytes before, bytes of the whole, data; packed


@dataclass(frozen=True, slots=True)
class Complete:
    """The sender has the state of the others."""

    component: RoundId


@dataclass(frozen=True, slots=True)
class DigestWanted:
    """All that hold the state compute its digest at this position."""

    number: int


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of the sender's state where node ``asker`` asked for it."""

    asker: int
    number: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of an entry that is too big for one bundle; entries of one sender do not mix."""

    position: int  # bytes before this part
    total: int  # bytes of the whole entry
    data: bytes


TABLE: Final = Table(
    "replicas",
    {
        1: Operation,
        2: Own,
        3: SessionOpened,
        4: SessionClosed,
        5: Notified,
        6: Fence,
        7: Announce,
        8: Settle,
        # 9 is reserved: a part of the state before version 3
        10: Fragment,
        11: Offer,
        12: Catalog,
        13: Need,
        14: Piece,
        15: Complete,
        16: DigestWanted,
        17: Digest,
        18: Cancelled,
        19: SessionResumed,
    },
    version=VERSION,
    version_min=VERSION_MIN,
)

_ANNOUNCE: Final = TABLE.tag(Announce)


def decode(data: Buffer, version: int) -> Any:
    """Decode an entry as the version that the group speaks; 0: none is agreed yet.

    An announcement is read whole: it is what a version is agreed by.

    Raises:
        DecodeError: not an entry of that version.
    """
    if version == VERSION or not version or tag_of(data) == _ANNOUNCE:
        return TABLE.decode(data)
    return TABLE.decode(data, version)
