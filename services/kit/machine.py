"""The contract between the kit and a service's replicated state machine. Pure.

A machine is deterministic: the same operations in the same order give the same state and the same
effects on every replica. It reads no clock, socket, file or random number; time enters with the
operation. Every replica computes every effect; the kit performs those addressed to sessions that
are attached at its own node.

A state is a set of named objects, each with canonical bytes. What was not touched is neither
dumped nor hashed again when replicas compare, send or merge their states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NewType, Protocol, TypeAlias, runtime_checkable

from openais.wire.codec import Buffer, Table
from openais.wire.port import Reason, RingId
from openais.wire.status import Status

NodeId = NewType("NodeId", int)
SessionId = NewType("SessionId", bytes)

REST: Final = b""  # names the object that holds what belongs to no other; it is never merged


@dataclass(frozen=True, slots=True)
class Caller:
    """Who waits for the answer of an operation."""

    node_id: NodeId  # where the session lives
    session: SessionId
    number: int  # the session's request number


@dataclass(frozen=True, slots=True)
class View:
    """The replicas that hold this state together, agreed in the total order."""

    ring: RingId
    members: tuple[NodeId, ...]  # sorted
    joined: tuple[NodeId, ...]  # new since the last view, or apart from us meanwhile; sorted
    left: tuple[tuple[NodeId, Reason], ...]  # sorted by node
    quorate: bool = True  # its members may act for the whole cluster, or no quorum is configured
    version: int = 1  # of the service's protocol that its members speak


@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances of one operation, equal on every replica."""

    now_ns: int  # wall clock of the sender when it sent, never going back
    sender: NodeId
    caller: Caller | None  # None: an operation of the machine itself
    view: View


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a request. May be returned by a later operation than the one that asked: `Waits`."""

    caller: Caller
    status: Status
    result: Any = None  # a message of the service's table, or None


@dataclass(frozen=True, slots=True)
class Notify:
    """Send a notification to a session."""

    session: SessionId
    message: Any  # a message of the service's table


Effect: TypeAlias = Answer | Notify


class Overflow(Enum):
    """What happens to the notifications of a session that does not take them."""

    OLDEST = "oldest"  # the oldest are dropped
    NEWEST = "newest"  # what comes is dropped until half of what is kept has been taken
    END = "end"  # the session ends


@dataclass(frozen=True, slots=True)
class Notifications:
    """How many notifications are kept for a session; it is told how many were dropped."""

    kept_max: int = 1024  # >= 64: that they were taken is ordered for several at a time
    bytes_max: int = 16 << 20
    overflow: Overflow = Overflow.OLDEST


KEPT: Final = Notifications()


class Service(Enum):
    """How requests of one type are served."""

    ORDERED = "ordered"  # multicast, applied by every replica, answered once
    READ = "read"  # answered by the caller's replica, after a fence unless asked for local


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of a service's operation table (its ``api.py``)."""

    request: type[Any]
    service: Service
    admin: bool = False  # only for root, the daemons' own user, and identities with ``admin``


@dataclass(frozen=True, slots=True)
class Report:
    """What a member tells of itself when it meets others: see `Machine.report`."""

    node_id: NodeId
    content: bytes


class Objects:
    """Which objects of a state changed, and who wants to see one before it changes."""

    __slots__ = ("changed", "keepers")

    def __init__(self) -> None:
        self.changed: Final[set[bytes]] = set()  # since the kit looked last
        self.keepers: Final[list[Callable[[bytes], None]]] = []

    def touch(self, name: bytes) -> None:
        """Say that an object is about to change, to appear or to go. Call it before."""
        self.changed.add(name)
        for keep in self.keepers:
            keep(name)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the sides of a merge tell each other of an object they may not both hold."""

    counter: int  # of the changes made to it; more win where sides are equal
    in_use: bool  # a session has it: it is kept although the other side deleted it
    info: bytes = b""  # for `Machine.merge`, at most 64 bytes


@dataclass(frozen=True, slots=True)
class Foreign:
    """One version of an object, of a side other than the one this replica's state is of."""

    name: bytes
    summary: Summary
    wins: bool  # it takes the place of ours, if we have one
    equal: bool  # its side ranks as high as ours; where names clash the counters decide
    content: bytes | None  # as dumped; None: it lost, and `merges_losers` is False


class Machine(Protocol):
    """A service's state. Methods check everything first and change afterwards."""

    @property
    def objects(self) -> Objects:
        """What the machine touched. Every object that exists was touched once."""

    @property
    def merges_losers(self) -> bool:
        """True: `merge` wants the content of versions that lost, too."""

    @property
    def table(self) -> Table:
        """The service's protocol: operations, results, notifications."""

    def speak(self, version: int) -> None:
        """Go on in this version of the protocol: `dump` and effects as that version has them.

        Told before anything else and whenever the group's version changes, up or down. The kit
        encodes and decodes messages by it (`codec.added`); what else differs is the machine's.
        Touches the objects that are dumped otherwise then.
        """

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        """Apply one ordered operation. Also those that `expired` proposed (caller None)."""

    def read(self, operation: Any, context: Context) -> Answer:
        """Answer a READ request from the present state; changes nothing."""

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        """Release everything the session had."""

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        """Tell the others what they cannot know of this node.

        That is the node's own data and what the given sessions (those of this node) have open.
        Reaches `view_changed` of every replica.
        """

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        """Install a view, after the replicas hold the same state.

        ``reports`` holds an entry for every member that joined (a node that was apart, or whose
        service lost its memory), and for every member when the view is the machine's first.
        Sessions of nodes that left are closed by the kit before this call; those of members
        that return with a report are opened again by the machine from the report.
        """

    def deadline_ns(self) -> int | None:
        """Wall clock time at which `expired` has something to propose; None: never."""

    def expired(self, now_ns: int) -> list[Any]:
        """Operations that are due at ``now_ns``; the group's oldest member has them ordered."""

    def names(self) -> Iterable[bytes]:
        """Return the names of all objects that exist, in any order."""

    def dump(self, name: bytes) -> list[bytes]:
        """Return an object in parts, canonical: equal objects give equal parts; []: none.

        Large parts are best the values that the state holds, uncopied: they are kept while a
        state is sent, and hashed once.
        """

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace objects by what another replica dumped, its parts joined; None: it is gone.

        Touches each. Afterwards the whole is a state that the other replica had.

        Raises:
            DecodeError: damaged; this replica is given up.
        """

    def summary(self, name: bytes) -> Summary:
        """Sum an object up (not `REST`) for the other sides of a merge."""

    def tombstones(self) -> Sequence[bytes]:
        """Return the names of objects deleted lately: another side's versions die too."""

    def merge(self, foreign: Sequence[Foreign], context: Context) -> None:
        """Take up versions of other sides, in order of rank; never a mix within one object.

        Called on every replica of the winning side with the same arguments, before
        `view_changed` tells what the sessions of the other sides have.
        """

    def check(self) -> None:
        """Assert every invariant."""

    def describe(self) -> dict[str, int]:
        """Counts for ``openais status``, named with unit."""


@runtime_checkable
class Waits(Protocol):
    """A machine of which some answers come with a later operation; all others answer at once."""

    def cancelled(self, caller: Caller, context: Context) -> list[Effect]:
        """Withdraw a request that waits: its client gave it up, or its time is over.

        It is then answered ERR_INTERRUPT or ERR_TIMEOUT, unless the effects answer it otherwise.
        Not called for what `session_closed` withdrew: when a node was away and its sessions come
        back, the requests that waited are applied once more.
        """


@runtime_checkable
class Resumes(Protocol):
    """A machine whose sessions can be taken up after their node was away, or its memory lost."""

    def holdings(self, session: SessionId) -> bytes:
        """Tell what a session has, equal on every replica; `session_closed` follows."""

    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        """Give a session that begins again what it had, as far as that is still there."""


@runtime_checkable
class Paced(Protocol):
    """A machine that keeps queues of its own and notifies only as fast as a session takes."""

    def taken(self, session: SessionId, untaken: int, context: Context) -> list[Effect]:
        """Learn that a session has taken notifications; ``untaken`` are still on the way."""
