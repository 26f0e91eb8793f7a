"""The state of the ring protocol that its parts share, and what every part does with it.

The parts are `visits` (the token and ordering), `recovery`, `membership`; `ring.Ring` puts them
together. The names are those of the Totem papers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from totemd.protocol.effects import (
    Cause,
    Configuration,
    ConfigurationKind,
    Effect,
    Moved,
    Multicast,
    Noted,
    State,
    Unicast,
)
from totemd.protocol.messages import Commit, Data, Message, RingId, Token
from totemd.protocol.ordering import Store
from totemd.protocol.parameters import RingParameters
from totemd.protocol.timers import Timer, Timers

HISTORY_MAX: Final = 16  # rings whose late traffic is recognised
RING_SEQ_STEP: Final = 4  # leaves room for the step of 1 at a restart
SAFE: Final = 3

Order = tuple[int, int]  # (session start, packet counter) of a transmitter


class FrameSource(Protocol):
    """Where the frames come from that are multicast while the token is here."""

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return (guarantee, payload), or None: nothing may be sent now."""

    def backlog_frames(self) -> int:
        """Return about how many frames wait."""

    def ring_ended(self) -> None:
        """Learn that a new ring begins: frames of the old one must not continue in it."""


@dataclass(slots=True)
class Stats:
    """Counters of the ring."""

    tokens_received: int = 0
    tokens_duplicate: int = 0
    tokens_sent_again: int = 0
    tokens_lost: int = 0
    tokens_held: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    messages_duplicate: int = 0
    messages_sent_again: int = 0
    messages_requested: int = 0
    joins_received: int = 0
    joins_stale: int = 0
    foreign_stale: int = 0
    gathers: int = 0
    gathers_in_a_row: int = 0
    commits: int = 0
    recoveries: int = 0
    rings_installed: int = 0
    members_silent: int = 0
    members_damped: int = 0
    failed_to_receive: int = 0
    protocol_errors: int = 0
    pauses: int = 0


class Core:
    """Shared state; see the module."""

    def __init__(
        self,
        parameters: RingParameters,
        node_id: int,
        boot_epoch: int,
        stored_ring_seq: int,
        source: FrameSource,
    ) -> None:
        parameters.validate()
        assert node_id > 0, "node id 0 means nobody"
        self.parameters: Final = parameters
        self.me: Final = node_id
        self.boot_epoch: Final = boot_epoch
        self.source: Final = source
        self.stats: Final = Stats()
        self.timers: Final = Timers()
        self.state = State.GATHER
        self.booted_ns = 0
        self.now_ns = 0

        self.installed_ring = RingId(stored_ring_seq + 1, node_id)
        self.installed_members: tuple[int, ...] = (node_id,)
        self.ring_id = self.installed_ring  # the ring whose token is acceptable
        self.max_seq = self.installed_ring.seq
        self.history: Final[deque[RingId]] = deque([self.installed_ring], HISTORY_MAX)
        self.old = self._new_store(self.installed_ring)  # messages of the installed ring
        self.new: Store | None = None  # messages of the ring being recovered

        self.proc: set[int] = {node_id}
        self.fail: set[int] = set()
        self.consensus: set[int] = {node_id}
        self.heard: set[int] = {node_id}
        self.since: dict[int, int] = {}
        self.last_join: Final[dict[int, Order]] = {}
        self.boots: Final[dict[int, int]] = {}
        self.boots_installed: dict[int, int] = {}
        self.left_cleanly: Final[set[int]] = set()

        self.commit: Commit | None = None
        self.agreed_sets: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        self.obligations: frozenset[int] = frozenset()
        self.received = False
        self.high_delivered_floor = 0
        self.leave_copies: int | None = None  # None: not leaving
        self.leave_deadline_ns = 0

        self._out: list[Effect] = []
        self._loopback: Final[deque[Message]] = deque()
        self.reset_ring()

    def _new_store(self, ring: RingId) -> Store:
        return Store(ring, self.parameters.seq_base, self.parameters.max_gap_messages)

    def reset_ring(self) -> None:
        """Forget what belongs to one ring's rotation."""
        self.my_token_seq = -1
        self.last_sent: Token | Commit | None = None
        self.last_sent_to = 0
        self.retransmit_ns = self.parameters.token_retransmit_first_ns
        self.prev_sent_seq = self.parameters.seq_base
        self.prev_sent_aru: int | None = None
        self.safe_to = self.parameters.seq_base
        self.sent_last_visit = 0
        self.backlog_last_visit = 0
        self.aru_count = 0
        self.aru_since_ns = self.now_ns
        self.idle = 0
        self.stalled = 0
        self.held: Token | None = None
        self.cancels_left = 0
        self.visits = 0
        self.rotation_ns = 0
        self.last_visit_ns = 0
        self.misses: dict[int, int] = {}
        self.sent_again_at: dict[int, int] = {}
        # recovery
        self.recovery_queue: dict[int, Data] = {}
        self.transitional: tuple[int, ...] = ()
        self.deliver_set: frozenset[int] = frozenset()
        self.high_recovered = 0
        self.started = False
        self.pass_two_seq = 0
        self.set_retransmit = False
        self.flag_count = 0
        self.install_seq: int | None = None
        self.good = 0
        self.promised = False

    @property
    def members(self) -> tuple[int, ...]:
        """The members of the installed ring."""
        return self.installed_members

    def emit(self, effect: Effect) -> None:
        """Ask the world for something."""
        self._out.append(effect)

    def take(self) -> list[Effect]:
        """Hand the effects over."""
        out = self._out
        self._out = []
        return out

    def note(self, event: str, **fields: object) -> None:
        """Report a rare fact."""
        self.emit(Noted(event, tuple((key, str(value)) for key, value in fields.items())))

    def move(self, new: State, cause: Cause) -> None:
        """Change the state; the only place where it changes."""
        self.emit(Moved(self.state, new, cause))
        self.state = new

    def multicast(self, message: Message) -> None:
        """Send to all nodes."""
        self.emit(Multicast(message))

    def unicast(self, node_id: int, message: Message) -> None:
        """Send to one node; to this one without the network."""
        if node_id == self.me:
            self._loopback.append(message)
        else:
            self.emit(Unicast(node_id, message))

    def successor(self, members: tuple[int, ...]) -> int:
        """Return the next member in ring order."""
        return members[(members.index(self.me) + 1) % len(members)]

    def token_loss_ns(self) -> int:
        """Return the token timeout of the present or forming ring."""
        count = len(self.commit.entries) if self.commit is not None else len(self.installed_members)
        return self.parameters.token_loss_ns(count)

    def remember_sent(self, to: int, message: Token | Commit) -> None:
        """Keep what was sent last, and arm its retransmission."""
        self.last_sent = message
        self.last_sent_to = to
        if to == self.me:
            return
        self.retransmit_ns = self._first_retransmit_ns(message)
        self.timers.set(Timer.TOKEN_RETRANSMIT, self.now_ns + self.retransmit_ns)

    def _first_retransmit_ns(self, message: Token | Commit) -> int:
        p = self.parameters
        if isinstance(message, Commit) or not self.rotation_ns:
            return p.token_retransmit_first_ns
        if self.idle >= p.idle_rotations:
            return p.token_retransmit_ns
        return min(p.token_retransmit_ns, max(p.token_retransmit_min_ns, 8 * self.rotation_ns))

    def configuration(
        self,
        kind: ConfigurationKind,
        ring: RingId,
        members: tuple[int, ...],
        *,
        old_ring: RingId | None,
        left: tuple[int, ...] = (),
        joined: tuple[int, ...] = (),
    ) -> None:
        """Deliver a configuration."""
        self.emit(Configuration(kind, ring, members, old_ring, left, joined))
