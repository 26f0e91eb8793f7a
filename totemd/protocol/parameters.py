"""The constants of the ring: values, never the configuration file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MS: Final = 1_000_000  # nanoseconds


class ParameterError(ValueError):
    """A parameter breaks a rule; names both."""


@dataclass(frozen=True, slots=True)
class RingParameters:
    """All times in nanoseconds. All nodes of a ring should agree on them.

    Attributes:
        token_ns: no token for this long is a loss. Too low: pauses break the ring. Default 1 s.
        token_coefficient_ns: added to token_ns for each member above two.
        token_retransmit_ns: longest wait before the token is sent again; default token/4.2.
        token_retransmit_min_ns: shortest such wait, used when rotations are fast.
        token_retransmit_first_ns: the wait while the rotation time is unknown.
        hold_ns: how long an idle representative keeps the token; < token_retransmit_ns.
        join_ns: interval between joins while gathering.
        consensus_ns: who disagrees this long is failed; >= join_ns, should be 1.2 token_ns.
        silent_fail_ns: who sends no join at all this long is failed; < consensus_ns; 0 off.
        startup_wait_ns: a starting node forms no ring of its own before.
        merge_ns: interval between merge detections of an idle ring.
        fail_recv_count: token visits without progress before a member is failed...
        fail_recv_ns: ... if they took at least this long.
        idle_rotations: visits without news before the token is held; >= 2.
        hold_cancel_retry_ns: interval at which a cancel is repeated.
        window_messages: messages per rotation, all nodes; 0: 16 per node, at least 50.
        max_messages: messages per token visit; <= window_messages.
        miss_count: visits a message is missing before it is requested.
        max_gap_messages: how far sequence numbers may run ahead of aru.
        max_unstable_bytes: payload that may wait for everybody's receipt.
        flap_max_ns: longest time a flapping node is not merged with; 0 off.
        singleton_ns: interval of token visits of a ring of one that is idle.
        seq_base: first sequence number of a ring, minus one.
    """

    token_ns: int = 1000 * MS
    token_coefficient_ns: int = 25 * MS
    token_retransmit_ns: int = 238 * MS
    token_retransmit_min_ns: int = 5 * MS
    token_retransmit_first_ns: int = 20 * MS
    retransmission_interval_ns: int = 1 * MS
    hold_ns: int = 180 * MS
    join_ns: int = 50 * MS
    consensus_ns: int = 1200 * MS
    silent_fail_ns: int = 300 * MS
    startup_wait_ns: int = 100 * MS
    merge_ns: int = 200 * MS
    fail_recv_count: int = 2500
    fail_recv_ns: int = 1000 * MS
    idle_rotations: int = 3
    hold_cancel_retry_ns: int = 20 * MS
    window_messages: int = 0
    max_messages: int = 17
    miss_count: int = 1
    max_gap_messages: int = 4096
    max_unstable_bytes: int = 64 << 20
    flap_max_ns: int = 30_000 * MS
    singleton_ns: int = 1 * MS
    seq_base: int = 0

    def validate(self) -> None:
        """Check every rule between the values.

        Raises:
            ParameterError: names the field and the rule.
        """
        rules = (
            (self.token_ns >= 30 * MS, "token_ns must be at least 30 ms"),
            (self.join_ns >= 30 * MS, "join_ns must be at least 30 ms"),
            (self.consensus_ns >= self.join_ns, "consensus_ns must be at least join_ns"),
            (self.hold_ns < self.token_retransmit_ns, "hold_ns must be below token_retransmit_ns"),
            (
                self.token_retransmit_ns < self.token_ns,
                "token_retransmit_ns must be below token_ns",
            ),
            (self.silent_fail_ns < self.consensus_ns, "silent_fail_ns must be below consensus_ns"),
            (self.idle_rotations >= 2, "idle_rotations must be at least 2"),
            (self.max_messages >= 1, "max_messages must be at least 1"),
            (
                self.window_messages == 0 or self.max_messages <= self.window_messages,
                "max_messages must not exceed window_messages",
            ),
            (0 <= self.seq_base < 1 << 63, "seq_base must be in 0..2^63"),
        )
        for holds, rule in rules:
            if not holds:
                raise ParameterError(rule)

    def window(self, members: int) -> int:
        """Return the messages per rotation for a ring of so many members."""
        return self.window_messages or max(50, 16 * members)

    def token_loss_ns(self, members: int) -> int:
        """Return the token timeout for a ring of so many members."""
        return self.token_ns + max(0, members - 2) * self.token_coefficient_ns


def from_token(token_ns: int, *, retransmits: int = 4) -> RingParameters:
    """Derive a consistent set from the token timeout, by the rules of the configuration file."""
    retransmit_ns = int(token_ns / (retransmits + 0.2))
    return RingParameters(
        token_ns=token_ns,
        token_retransmit_ns=retransmit_ns,
        hold_ns=max(14 * MS, int(retransmit_ns * 0.8) - 10 * MS),
        consensus_ns=token_ns * 12 // 10,
        silent_fail_ns=max(300 * MS, token_ns * 3 // 10),
        fail_recv_ns=token_ns,
    )
