"""What must hold inside a cluster at every moment, besides the axioms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from totemd.protocol.effects import State
from totemd.protocol.messages import Message, RingId, Token
from totemd.protocol.parameters import RingParameters

if TYPE_CHECKING:
    from tests.sim.host import Host

RINGS_MAX: Final = 64  # whose tokens are watched


class InvariantError(AssertionError):
    """The inside of a cluster contradicts itself."""


class Invariants:
    """Watches the tokens of a cluster."""

    def __init__(self, parameters: RingParameters) -> None:
        self._parameters: Final = parameters
        self._accepted: dict[RingId, dict[int, int]] = {}  # ring -> token_seq -> node

    def sent(self, message: Message) -> None:
        """Look at what leaves a node."""
        if type(message) is Token:
            # Twice: a node that lowers aru does so after the others gave out up to its old value.
            gap = message.seq - message.aru
            if gap > 2 * self._parameters.max_gap_messages:
                raise InvariantError(f"token of {message.ring}: {gap} messages are not stable")

    def accepted(self, host: Host, message: Message) -> None:
        """Look at what a node is about to take: one token of a ring is at one node."""
        if type(message) is not Token:
            return
        ring = host.node.ring
        usable = ring.state in (State.OPERATIONAL, State.RECOVERY) and message.ring == ring.ring_id
        if not usable or message.token_seq <= ring.my_token_seq:
            return
        seen = self._accepted.setdefault(message.ring, {})
        node = seen.setdefault(message.token_seq, host.life.epoch)
        if node != host.life.epoch:
            raise InvariantError(f"token {message.token_seq} of {message.ring} is at two nodes")
        if len(seen) > 1024:
            del seen[next(iter(seen))]
        if len(self._accepted) > RINGS_MAX:
            del self._accepted[next(iter(self._accepted))]
