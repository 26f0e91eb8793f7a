"""The state of the ring protocol that its parts share, and what every part does with it.

The parts are `repair`, `idle`, `visits` (the token and ordering), `recovery`, `membership`;
`ring.Ring` puts them together. The names are those of the Totem papers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from totemd.protocol.damping import HoldOffs
from totemd.protocol.effects import (
    Cause,
    Effect,
    Moved,
    Multicast,
    Noted,
    State,
    Unicast,
)
from totemd.protocol.messages import POST, Commit, Data, Message, RingId, Token
from totemd.protocol.ordering import Store
from totemd.protocol.parameters import AccelPriority, RingParameters
from totemd.protocol.timers import NEVER, TOKEN_RETRANSMIT, Jitter, Timers

HISTORY_MAX: Final = 16  # rings whose late traffic is recognised
TOKEN_TIMES_MAX: Final = 100  # arrivals of the token that are remembered
RING_SEQ_STEP: Final = 4  # leaves room for the step of 1 at a restart
PEER_NOTE_NS: Final = 3_600_000_000_000  # the same fact about a node is reported once in so long
PEER_NOTES_MAX: Final = 1024
SAFE: Final = 3
NOBODY: Final = 0  # instead of a node id
SEVERAL: Final = -1

# In Python 3.11 the look-up of an enumeration's member costs as much as a call.
OPERATIONAL: Final = State.OPERATIONAL
GATHER: Final = State.GATHER
COMMIT: Final = State.COMMIT
RECOVERY: Final = State.RECOVERY

Order = tuple[int, int]  # (session start, packet counter) of a transmitter


class FrameSource(Protocol):
    """Where the frames come from that are multicast while the token is here."""

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return (guarantee, payload), or None: nothing may be sent now."""

    def backlog_frames(self) -> int:
        """Return about how many frames wait."""

    def ring_ended(self) -> None:
        """Learn that a new ring begins: frames of the old one must not continue in it."""

    def frames_lost(self, count: int) -> None:
        """Learn that frames of this node were sent again."""


@dataclass(slots=True)
class Stats:
    """Counters of the ring."""

    tokens_received: int = 0
    tokens_duplicate: int = 0
    tokens_astray: int = 0
    tokens_sent_again: int = 0
    tokens_lost: int = 0
    tokens_late: int = 0
    tokens_held: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    messages_duplicate: int = 0
    messages_sent_again: int = 0
    messages_requested: int = 0
    hold_cancels_sent: int = 0
    hold_cancels_received: int = 0
    merges_sent: int = 0
    merges_received: int = 0
    joins_sent: int = 0
    joins_received: int = 0
    joins_stale: int = 0
    foreign_stale: int = 0
    gathers: int = 0
    gathers_in_a_row: int = 0
    gathers_timed_out: int = 0
    consensus_timeouts: int = 0
    commits: int = 0
    recoveries: int = 0
    rings_installed: int = 0
    members_silent: int = 0
    members_damped: int = 0
    failed_to_receive: int = 0
    protocol_errors: int = 0
    pauses: int = 0
    verdicts_put_off: int = 0
    rotation_us: int = 0


class Core:
    """Shared state; see the module.

    Args:
        parameters: constants; all nodes should agree.
        node_id: unique in the cluster, not 0.
        boot_epoch: strictly larger than at every earlier start of this node.
        stored_ring_seq: highest ring sequence number this node may have used.
        seed: of random delays.
        source: pulled while the token is here.
    """

    def __init__(
        self,
        parameters: RingParameters,
        node_id: int,
        boot_epoch: int,
        stored_ring_seq: int,
        seed: int,
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
        self.jitter: Final = Jitter(seed << 32 ^ node_id)
        self.state = State.GATHER
        self.booted_ns = 0
        self.now_ns = 0
        self.sender = node_id  # of the message being handled
        self.order: Order = (0, 0)

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
        self.gather_cause = Cause.BOOT  # why the installed ring ended
        self.gather_began_ns = 0
        self.leave_copies: int | None = None  # None: not leaving
        self.leave_deadline_ns = 0

        self._out: list[Effect] = []
        self._loopback: Final[deque[Message]] = deque()
        self._peer_notes: Final[dict[tuple[str, int], int]] = {}  # -> reported at
        self.token_times_ns: Final[deque[int]] = deque(maxlen=TOKEN_TIMES_MAX)
        self.adopt_members((node_id,))
        self.reset_ring()
        self._begin_membership()

    def _begin_membership(self) -> None:
        """Know nothing yet of other nodes."""
        p = self.parameters
        self.hold_offs = HoldOffs(p.token_ns + p.consensus_ns, p.flap_max_ns)
        self.agreed_on = p.agreed_on()
        self.reaching: set[int] = set()  # of whom anything came since gathering began
        self.hears_me: set[int] = set()  # who listed this node in its newest join
        self.timed_out_ns = 0
        self.timed_out_in_a_row = 0
        # Nodes that fail each other begin no ring at once: while the joins that led to it are on
        # the way, each new ring would break again, and the joins never end.
        self.accused_until_ns = 0
        # What waited for a node that overslept is of a membership that is gone: what others
        # proposed then, taken for what they propose now, would set everybody against everybody.
        self.deaf_until_ns = 0

    def _new_store(self, ring: RingId, senders: int = 1) -> Store:
        p = self.parameters
        return Store(ring, p.seq_base, senders * p.max_gap_messages)

    def adopt_members(self, members: tuple[int, ...]) -> None:
        """Take over the members of the ring `ring_id`, and what follows from them."""
        p = self.parameters
        position = members.index(self.me)
        self.ring_members = members
        self.successor = members[(position + 1) % len(members)]
        self.predecessor = members[position - 1]
        self.is_representative = position == 0
        self.alone = len(members) == 1
        self.window = p.window(len(members))
        self.token_loss_ns = p.token_loss_ns(len(members))
        self.priority_flags = 0 if p.accel_priority is AccelPriority.EAGER else POST

    def reset_ring(self) -> None:
        """Forget what belongs to one ring's rotation."""
        base = self.parameters.seq_base
        self.my_token_seq = -1
        self.last_sent: Token | Commit | None = None
        self.last_sent_to = 0
        self.last_sent_ns = 0
        self.sent_on_duplicate_ns = -NEVER
        self.evidence_above = NEVER  # a message above shows that the token arrived
        self.retransmit_ns = self.parameters.token_retransmit_first_ns
        self.prev_sent_seq = base
        self.prev_sent_aru: int | None = None
        self.safe_to = base
        self.sent_last_visit = 0
        self.backlog_last_visit = 0
        self.aru_count = 0
        self.aru_since_ns = self.now_ns
        self.idle = 0
        self.stalled = 0
        self.held: Token | None = None
        self.grace_given = False  # the loss of the token was put off
        self.lingers_until_ns = 0  # how long the lone sender keeps the token at the most
        self.lingered = 0  # messages it has sent meanwhile
        self.originated_ns = 0
        self.originated_after_ns = 0  # time between the last two times this node sent
        self.newest_of = NOBODY  # originator of the newest message
        self.lone_sender = NOBODY  # who sent all since the last visit, or SEVERAL
        self.lone_before = NOBODY  # the same before that visit
        self.cancels_left = 0
        self.visits = 0
        self.token_first = False  # the shell should read the token before data
        self.priority_above = NEVER  # visits of the predecessor that raise `token_first`
        self.after_token: list[Data] = []  # numbered in this visit, to be sent after the token
        self.rotation_ns = 0
        self.last_visit_ns = 0
        self.token_times_ns.clear()
        self.misses: dict[int, int] = {}
        self.sent_again_at: dict[int, int] = {}
        self.asked: dict[int, tuple[int, int]] = {}  # seq -> requester, consecutive visits
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

    def note(self, event: str, **fields: object) -> None:
        """Report a rare fact."""
        self.emit(Noted(event, tuple((key, str(value)) for key, value in fields.items())))

    def note_peer(self, event: str, node: int, **fields: object) -> None:
        """Report a fact about a node that may come with each of its messages."""
        noted_ns = self._peer_notes.get((event, node))
        if noted_ns is not None and self.now_ns - noted_ns < PEER_NOTE_NS:
            return
        if len(self._peer_notes) >= PEER_NOTES_MAX:
            self._peer_notes.clear()
        self._peer_notes[event, node] = self.now_ns
        self.note(event, node=node, **fields)

    def move(self, new: State, cause: Cause) -> None:
        """Change the state; the only place where it changes."""
        self.emit(Moved(self.state, new, cause))
        self.state = new

    def multicast(self, message: Message) -> None:
        """Send to all nodes."""
        self._out.append(Multicast(message))

    def unicast(self, node_id: int, message: Message) -> None:
        """Send to one node; to this one without the network."""
        if node_id == self.me:
            self._loopback.append(message)
        else:
            self._out.append(Unicast(node_id, message))

    def send_on(self, message: Token | Commit) -> None:
        """Send the token or commit token to the next member; it is sent again until it arrived."""
        to = self.successor
        self.last_sent = message
        self.last_sent_to = to
        self.last_sent_ns = self.now_ns
        if to == self.me:
            self._loopback.append(message)
            return
        self._out.append(Unicast(to, message))
        self.retransmit_ns = self._first_retransmit_ns(message)
        self.timers.set(TOKEN_RETRANSMIT, self.now_ns + self.retransmit_ns)
        self.evidence_above = message.seq if type(message) is Token else -1

    def _first_retransmit_ns(self, message: Token | Commit) -> int:
        p = self.parameters
        if not self.rotation_ns or type(message) is Commit:
            return p.token_retransmit_first_ns
        if self.idle >= p.idle_rotations:
            return p.token_retransmit_ns  # the token may be held
        return min(p.token_retransmit_ns, max(p.token_retransmit_min_ns, 8 * self.rotation_ns))

    def token_arrived(self) -> None:
        """Stop sending the token again: there is evidence that the next member has it."""
        self.timers.cancel(TOKEN_RETRANSMIT)
        self.evidence_above = NEVER

    # What the parts use of each other

    def foreign(self, ring: RingId, cause: Cause) -> None:
        """Overridden by membership: traffic of another ring."""
        raise NotImplementedError

    def gather(self, cause: Cause, failing: frozenset[int] = frozenset()) -> None:
        """Overridden by membership: leave the ring and propose another."""
        raise NotImplementedError

    def recovery_step(self, token: Token) -> bool:
        """Overridden by recovery: a token visit of a ring that is not installed."""
        raise NotImplementedError

    def install(self) -> None:
        """Overridden by recovery: deliver the new ring."""
        raise NotImplementedError
