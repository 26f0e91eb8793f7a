"""The contract between the kit and a service's replicated state machine. Pure.

A machine is deterministic: the same operations in the same order give the same state and the same
effects on every replica. It reads no clock, socket, file or random number; time enters with the
operation. Every replica computes every effect; the kit performs those addressed to sessions that
are attached at its own node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NewType, Protocol, TypeAlias

from openais.wire.codec import Table
from openais.wire.port import Reason, RingId
from openais.wire.status import Status

NodeId = NewType("NodeId", int)
SessionId = NewType("SessionId", bytes)


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
    """Answer a request. May be returned by a later operation than the one that asked."""

    caller: Caller
    status: Status
    result: Any = None  # a message of the service's table, or None


@dataclass(frozen=True, slots=True)
class Notify:
    """Send a notification to a session."""

    session: SessionId
    message: Any  # a message of the service's table


Effect: TypeAlias = Answer | Notify


class Service(Enum):
    """How requests of one type are served."""

    ORDERED = "ordered"  # multicast, applied by every replica, answered once
    READ = "read"  # answered by the caller's replica, after a fence unless asked for local


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of a service's operation table (its ``api.py``)."""

    request: type[Any]
    service: Service


@dataclass(frozen=True, slots=True)
class Report:
    """What a member tells of itself when it meets others: see `Machine.report`."""

    node_id: NodeId
    content: bytes


class Machine(Protocol):
    """A service's state. Methods check everything first and change afterwards."""

    @property
    def table(self) -> Table:
        """The service's protocol: operations, results, notifications."""

    def speak(self, version: int) -> None:
        """Go on in this version of the protocol: `dump` and effects as that version has them.

        Told before anything else and whenever the group's version changes, up or down. The kit
        encodes and decodes messages by it (`codec.added`); what else differs is the machine's.
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

    def dump(self) -> bytes:
        """The whole state, canonical: equal states give equal bytes (`codec.pack_state`)."""

    def load(self, data: bytes) -> None:
        """Replace the whole state by what another replica dumped.

        Raises:
            DecodeError: damaged.
        """

    def check(self) -> None:
        """Assert every invariant."""

    def describe(self) -> dict[str, int]:
        """Counts for ``openais status``, named with unit."""
