"""What the replicas of one service say to each other: the entries of a bundle, in the total order.

An operation carries the client's bytes undecoded. Versioned apart from the release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openais.wire.codec import Table
from openais.wire.status import Status

VERSION: Final = 1
VERSION_MIN: Final = 1
CHUNK_SIZE_MAX: Final = 256 << 10  # bytes of state in one entry
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
    """What a member remembers when replicas meet."""

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


@dataclass(frozen=True, slots=True)
class Settle:
    """The view comes into force; ``nodes`` take part, others must join again."""

    round: RoundId
    now_ns: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the state, from the donor to those that lack it."""

    round: RoundId
    position: int  # bytes before this part
    total: int  # bytes of the whole
    data: bytes


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
        9: Chunk,
        10: Fragment,
        11: Cancelled,
        12: SessionResumed,
    },
)
