"""The protocol between the SDK and a service: sessions, requests, replies, notifications.

Spoken over a ZeroMQ DEALER (SDK) to ROUTER (``<service>.sock``). Each ZeroMQ message is one frame,
a bundle (`codec.pack_bundle`) of messages of `TABLE`. A session is replicated: it outlives the
service process. The SDK numbers requests upwards from 1, and after a reconnect sends `Hello` with
the same id and every unanswered request again, in order, on a new socket; a request is applied at
most once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from openais.wire.codec import Table
from openais.wire.status import Status

VERSION: Final = 2  # 2: Cancel, Missed
VERSION_MIN: Final = 1

SESSION_ID_SIZE: Final = 16  # bytes, random
REQUESTS_OUTSTANDING_MAX: Final = 1024  # per session; more are answered ERR_TRY_AGAIN
NOTIFICATIONS_ON_THE_WAY_MAX: Final = 256  # sent and not acknowledged; the rest waits


class RequestFlag(IntFlag):
    """How a request wants to be served."""

    NONE = 0
    LOCAL = 1  # reads: answer from this replica without a fence
    SAFE = 2  # ordered: answer only after safe delivery


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a connection: open a session, or take one up again."""

    version: int
    version_min: int
    session_id: bytes  # SESSION_ID_SIZE bytes
    resume: bool  # True: the session was open before; never answer with a fresh one
    notified: int = 0  # serial of the last notification seen
    outlives_membership: bool = False  # of an API level without ERR_UNAVAILABLE: never goes stale


@dataclass(frozen=True, slots=True)
class Request:
    """One operation. ``body`` is an encoded message of the service's protocol."""

    number: int
    acknowledged: int  # replies to all requests up to this number have arrived
    timeout_ms: int  # the service may hold the request that long; 0 < timeout_ms
    flags: int  # RequestFlag
    body: bytes


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """All notifications up to ``serial`` have arrived."""

    serial: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for the answer of a request any more. Answered by the request's `Reply`."""

    number: int


@dataclass(frozen=True, slots=True)
class Bye:
    """Close the session; everything it had open is released."""


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """Ask for the service's status; needs no session. Answered by `StatusReport`."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session is attached. ``resumed`` as asked for in `Hello`."""

    node_id: int
    resumed: bool
    version: int
    session_grace_ms: int


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such session: ERR_LIBRARY lost, ERR_ACCESS refused, ERR_VERSION.

    ERR_UNAVAILABLE: its node has left the membership of the cluster; a new one may be opened when
    the node is back.
    """

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to one request. ``body``: an encoded result, or b"" where there is none."""

    number: int
    status: Status
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Notify:
    """A callback for the application; ``serial`` counts up by one per session.

    A gap means that the client did not take them in time and so many were dropped.
    """

    serial: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Missed:
    """Notifications up to ``serial`` that did not come were dropped."""

    serial: int


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Answer to `StatusQuery`: a JSON object (keys in docs/operating.md)."""

    json: str


TABLE: Final = Table(
    "session",
    {
        1: Hello,
        2: Request,
        3: Acknowledge,
        4: Bye,
        5: StatusQuery,
        6: Cancel,
        64: Welcome,
        65: Gone,
        66: Reply,
        67: Notify,
        68: StatusReport,
        69: Missed,
    },
)
