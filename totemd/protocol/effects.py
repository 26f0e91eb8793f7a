"""What the ring asks of the world. Performed by the shell in list order; compared in tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from totemd.protocol.messages import Buffer, Data, Message, RingId


class State(Enum):
    """Where a node is in the life of a ring."""

    OPERATIONAL = "operational"
    GATHER = "gather"
    COMMIT = "commit"
    RECOVERY = "recovery"


class Cause(Enum):
    """Why a node changed its state."""

    BOOT = "boot"
    TOKEN_LOST = "token lost"  # noqa: S105 - the ring's token, not a password
    HEARTBEAT_LOST = "heartbeat lost"
    FOREIGN_MESSAGE = "foreign message"
    MERGE_DETECTED = "merge detected"
    JOIN = "join"
    LEAVE = "leave"
    CONSENSUS_TIMEOUT = "consensus timeout"
    SILENT = "silent member"
    COMMIT_TIMEOUT = "no commit token"
    FAILED_TO_RECEIVE = "failed to receive"
    PAUSE = "this process was not scheduled"
    PROTOCOL_ERROR = "protocol error"
    SYNC_TIMEOUT = "synchronisation not finished"
    FORCED = "forced"
    CONSENSUS = "consensus"
    COMMIT_FILLED = "commit token filled"
    RECOVERED = "recovered"


class ConfigurationKind(Enum):
    """Kinds of configuration (extended virtual synchrony)."""

    REGULAR = "regular"
    TRANSITIONAL = "transitional"


class Multicast(NamedTuple):
    """Send to all nodes."""

    message: Message
    again: bool = False  # somebody misses it: where there are several links, use all


class Unicast(NamedTuple):
    """Send to one node, never to this one."""

    node_id: int
    message: Message
    again: bool = False  # as in `Multicast`


@dataclass(frozen=True, slots=True)
class Persist:
    """A barrier: ``ring_seq`` is durable before any later effect is performed."""

    ring_seq: int


class Deliver(NamedTuple):
    """One message in the total order.

    A tuple, like `Multicast`: each message makes one of both, in 0.1 us instead of 0.4.
    """

    ring: RingId
    seq: int
    originator: int
    guarantee: int
    payload: Buffer
    transitional: bool


def deliver(m: Data, *, transitional: bool) -> Deliver:
    """Return the delivery of a message."""
    return _new(Deliver, (m.ring, m.seq, m.originator, m.guarantee, m.payload, transitional))


_new: Final = tuple.__new__


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration is delivered, in order with the messages."""

    kind: ConfigurationKind
    ring: RingId
    members: tuple[int, ...]
    old_ring: RingId | None
    left: tuple[int, ...]
    joined: tuple[int, ...]
    failed: tuple[int, ...] = ()  # of those that left, in a regular one: without saying so
    cause: Cause | None = None  # of a regular one: why the ring before it ended
    took_ns: int = 0  # of a regular one: since then


@dataclass(frozen=True, slots=True)
class Moved:
    """The state changed."""

    old: State
    new: State
    cause: Cause


@dataclass(frozen=True, slots=True)
class Noted:
    """A rare fact that an operator wants to know."""

    event: str
    fields: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class KeptOut:
    """This node leaves: its configuration is older than that of the ring it came to."""

    config_version: int
    highest: int


@dataclass(frozen=True, slots=True)
class Retired:
    """The announced leave is finished; the process may exit."""


Effect: TypeAlias = (
    Multicast | Unicast | Persist | Deliver | Configuration | Moved | Noted | Retired
)
