"""What the replicas of one service share, and how it becomes bytes. Pure."""

from __future__ import annotations

from typing import Any, Final

from openais.wire.codec import Buffer, DecodeError, pack_state, unpack_state
from openais.wire.port import Reason, RingId
from services.kit import entries
from services.kit.applier import Applier
from services.kit.effects import Effect, Moved, Rejoin, ReplicaStats, Send, State
from services.kit.entries import RoundId
from services.kit.machine import Machine, NodeId, Notifications, View
from services.kit.memory import Memory
from services.kit.quorum import Quorum
from services.kit.sessions import Sessions
from services.kit.versions import Offer, Span, Versions, unspeakable


class Shared:
    """The state of a replica: equal on all members that have applied as much.

    Args:
        node_id: this node.
        machine: a fresh state machine of the service.
        needs_quorum: without it requests are refused, and sessions go stale.
        notifications: how many are kept for a session, and what happens to more.
    """

    def __init__(
        self, node_id: int, machine: Machine, *, needs_quorum: bool, notifications: Notifications
    ) -> None:
        self.me: Final = NodeId(node_id)
        self.machine: Final = machine
        self.sessions: Final = Sessions()
        self.quorum: Final = Quorum()
        self.versions: Final = Versions()
        self.offer: Final = Offer(
            Span(entries.VERSION, entries.VERSION_MIN),
            Span(machine.table.version, machine.table.version_min),
        )
        self.memory: Final = Memory(machine, self.sessions, self._head)
        self.stats: Final = ReplicaStats()
        self.state = State.JOINING
        self.applied = 0
        self.view: View | None = None  # in force
        self.component: RoundId | None = None  # its round
        self.incomplete: set[int] = set()  # members of the view that lack the state
        self._stale = False  # our state lost a merge
        self._holding = False  # those who have the state are no quorum without the incomplete
        self._departed: dict[int, Reason] = {}  # since the view in force
        self._needs_quorum: Final = needs_quorum
        self._out: Final[list[Effect]] = []
        self._applier: Final = Applier(
            self.me,
            machine,
            self.sessions,
            self.quorum,
            self.versions,
            self.stats,
            self._out,
            needs_quorum=needs_quorum,
            notifications=notifications,
        )

    @property
    def acts(self) -> bool:
        """True: requests are served here, as far as the quorum is concerned."""
        return self._applier.acts

    @property
    def waits(self) -> bool:
        """True: an answer of the machine may come with a later operation."""
        return self._applier.waits

    # Bytes

    def _head(self) -> bytes:
        view, c = self.view, self.component
        assert view is not None
        assert c is not None
        return pack_state(
            [
                [c.ring_seq, c.representative, c.number],
                list(view.members),
                sorted([node, int(reason)] for node, reason in self._departed.items()),
                self.applied,
                sorted(self.incomplete),
                self._stale,
                self._holding,
                self.quorum.values(),
                self.versions.values(),
            ]
        )

    def load_head(self, data: Buffer) -> None:
        """Take up what belongs to no object.

        Raises:
            DecodeError: damaged, or of a version that this process does not speak.
        """
        try:
            component, members, departed, applied, *flags, quorum, versions = unpack_state(data)
            incomplete, stale, holding = flags
            self.versions.load(versions)
            self.quorum.load(quorum)
            self.component = RoundId(*component)
            self._departed = {node: Reason(reason) for node, reason in departed}
        except (TypeError, ValueError) as error:
            raise DecodeError(f"state: {error}") from error
        rule = unspeakable(self.offer, self.versions.spoken)
        if rule is not None:
            raise DecodeError(f"state: {rule}")
        self.machine.speak(self.versions.spoken.service)
        self.quorum.reduce(set(members) - set(self._departed))
        self.applied = applied
        self.incomplete = set(incomplete)
        self._stale, self._holding = stale, holding
        ring = RingId(self.component.ring_seq, self.component.representative)
        nodes = tuple(NodeId(n) for n in members)
        quorate, version = self.quorum.quorate, self.versions.spoken.service
        self.view = View(ring, nodes, (), (), quorate, version)

    def digest(self) -> bytes:
        """Return a digest of what replicas share."""
        return self.memory.root()

    # Effects

    def _send(self, entry: Any, *, bulk: bool = False) -> None:
        self._out.append(Send(entry, bulk))

    def _move(self, new: State) -> None:
        if new is not self.state:
            self._out.append(Moved(self.state, new))
            self.state = new

    def _rejoin(self, rule: str) -> None:
        self._out.append(Rejoin(rule))

    def _take(self) -> list[Effect]:
        out = self._out[:]
        self._out.clear()
        return out
