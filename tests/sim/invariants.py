"""What must hold inside a cluster at every moment, besides the axioms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from totemd.protocol.messages import Message, RingId, Token
from totemd.protocol.parameters import RingParameters

if TYPE_CHECKING:
    from tests.sim.host import Host

RINGS_MAX: Final = 64  # whose tokens are watched
TOKENS_MAX: Final = 1024  # of each of them


class InvariantError(AssertionError):
    """The inside of a cluster contradicts itself."""


class Invariants:
    """Watches the tokens of a cluster."""

    def __init__(self, parameters: RingParameters) -> None:
        self._parameters: Final = parameters
        self._accepted: dict[RingId, dict[int, int]] = {}  # ring -> token_seq -> epoch of a node

    def sent(self, message: Message) -> None:
        """Look at what leaves a node."""
        if type(message) is Token:
            # Twice: a node that lowers aru does so after the others gave out up to its old value.
            gap = message.seq - message.aru
            if gap > 2 * self._parameters.max_gap_messages:
                raise InvariantError(f"token of {message.ring}: {gap} messages are not stable")

    def accepted(self, host: Host, ring: RingId, token_seq: int) -> None:
        """Look at what a node has taken: one token of a ring is at one node."""
        seen = self._accepted.setdefault(ring, {})
        epoch = seen.setdefault(token_seq, host.life.epoch)
        if epoch != host.life.epoch:
            raise InvariantError(f"token {token_seq} of {ring} was taken by two nodes")
        if len(seen) > TOKENS_MAX:
            del seen[next(iter(seen))]
        if len(self._accepted) > RINGS_MAX:
            del self._accepted[next(iter(self._accepted))]
