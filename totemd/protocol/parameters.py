"""The constants of the ring: values, never the configuration file."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from totemd.protocol.messages import PROTOCOL_VERSION

MS: Final = 1_000_000  # nanoseconds
NODES_MAX: Final = 255  # a commit token tells at most so many old rings apart
MANY_NODES: Final = 16  # more than so many delay their joins by themselves
MANY_NODES_SEND_JOIN_NS: Final = 5 * MS
AGREED_ON: Final = struct.Struct(">QQIII")  # what the hash in a join is of


class RequestLimit(Enum):
    """Up to where a node asks for missing messages."""

    PREVIOUS = "previous"  # the token it sent on its last visit; newer ones may be on the way
    CURRENT = "current"  # the token it holds


class Flow(Enum):
    """How the window is shared."""

    FAIR = "share"  # a share is reserved for every member
    BACKLOG = "backlog"  # and none takes more than its part of what waits everywhere


class AccelPriority(Enum):
    """When the token is read before the data that waits with it."""

    CALM = "calm"  # once the predecessor sends what it sends after the token
    EAGER = "eager"  # once the predecessor sends anything of this round


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
        heartbeat_failures_allowed: so many token_retransmit_ns without the token, while it is not
            held, are a loss; 0: only token_ns counts.
        max_network_delay_ns: added to those.
        token_warning_percent: of token_ns; a token that comes later is reported; 0: never.
        hold_ns: how long the token of an idle ring rests; < token_retransmit_ns.
        join_ns: interval between joins while gathering.
        send_join_ns: longest random delay of a join, so that many nodes do not answer at once;
            0: 5 ms with more than 16 nodes, else none.
        consensus_ns: who disagrees this long is failed; >= join_ns, should be 1.2 token_ns.
        silent_fail_ns: who sends no join at all this long is failed; < consensus_ns; 0 off.
        startup_wait_ns: a starting node forms no ring of its own before.
        merge_ns: interval between merge detections of an idle ring.
        fail_recv_count: token visits without progress before a member is failed; visits that are
            paced count for the milliseconds they took ...
        fail_recv_ns: ... if they took at least this long.
        idle_rotations: visits without news before the token is held; >= 2.
        hold_cancel_retry_ns: interval at which a cancel is repeated.
        cancel_token_hold_on_retransmit: the representative does not slow a token down that carries
            nothing but repairs. On: repairs are as fast and as many as the ring can do.
        window_messages: messages per rotation, all nodes; 0: 16 per node, at least 50.
        window_messages_max: bound of the automatic window, from the receive buffers; 0: none.
        max_messages: messages per token visit; <= window_messages.
        flow: how the window is shared.
        accelerated_window_messages: how many of those of one visit are sent after the token;
            0: none.
        accel_min: a visit with no more than this sends all before the token.
        accel_priority: when the token is read before data.
        miss_count: visits a message is missing before it is requested.
        request_limit: up to where messages are requested; PREVIOUS when accelerated.
        retransmission_interval_ns: shortest time between two copies of a message.
        max_gap_messages: how far sequence numbers may run ahead of aru.
        max_unstable_bytes: payload that may wait for everybody's receipt. What is on the way when
            it is reached, two windows at most, comes on top.
        max_nodes: of a ring; a node beyond is not let in.
        flap_max_ns: longest time a flapping node is not merged with; 0 off.
        sync_timeout_ns: a member that does not tell its process groups for so long is failed.
        singleton_ns: interval of token visits of a ring of one that is idle.
        seq_base: first sequence number of a ring, minus one.
    """

    token_ns: int = 1000 * MS
    token_coefficient_ns: int = 25 * MS
    token_retransmit_ns: int = 238 * MS
    token_retransmit_min_ns: int = 5 * MS
    token_retransmit_first_ns: int = 20 * MS
    heartbeat_failures_allowed: int = 0
    max_network_delay_ns: int = 50 * MS
    token_warning_percent: int = 75
    hold_ns: int = 180 * MS
    join_ns: int = 50 * MS
    send_join_ns: int = 0
    consensus_ns: int = 1200 * MS
    silent_fail_ns: int = 300 * MS
    startup_wait_ns: int = 100 * MS
    merge_ns: int = 200 * MS
    fail_recv_count: int = 2500
    fail_recv_ns: int = 1000 * MS
    idle_rotations: int = 3
    hold_cancel_retry_ns: int = 20 * MS
    cancel_token_hold_on_retransmit: bool = False
    window_messages: int = 0
    window_messages_max: int = 0
    max_messages: int = 17
    flow: Flow = Flow.FAIR
    accelerated_window_messages: int = 0
    accel_min: int = 4
    accel_priority: AccelPriority = AccelPriority.CALM
    miss_count: int = 1
    request_limit: RequestLimit = RequestLimit.PREVIOUS
    retransmission_interval_ns: int = 1 * MS
    max_gap_messages: int = 4096
    max_unstable_bytes: int = 64 << 20
    max_nodes: int = 128
    flap_max_ns: int = 30_000 * MS
    sync_timeout_ns: int = 2_000 * MS
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
                self.accelerated_window_messages >= 0,
                "accelerated_window_messages must not be negative",
            ),
            (
                self.heartbeat_failures_allowed == 0 or self.heartbeat_ns < self.token_ns,
                "heartbeat_failures_allowed times token_retransmit_ns plus max_network_delay_ns "
                "must be below token_ns",
            ),
            (0 <= self.token_warning_percent < 100, "token_warning_percent must be in 0..99"),
            (self.max_unstable_bytes >= 1 << 20, "max_unstable_bytes must be at least 1 MiB"),
            (
                self.max_gap_messages >= self.max_messages,
                "max_gap_messages must be at least max_messages",
            ),
            (1 <= self.max_nodes <= NODES_MAX, f"max_nodes must be in 1..{NODES_MAX}"),
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
        if self.window_messages:
            return self.window_messages
        automatic = max(50, 16 * members)
        return min(automatic, self.window_messages_max or automatic)

    def token_loss_ns(self, members: int) -> int:
        """Return the token timeout for a ring of so many members."""
        return self.token_ns + max(0, members - 2) * self.token_coefficient_ns

    @property
    def heartbeat_ns(self) -> int:
        """How long the token of a busy ring may stay away, with the heartbeat on."""
        return (
            self.heartbeat_failures_allowed * self.token_retransmit_ns + self.max_network_delay_ns
        )

    @property
    def accelerated(self) -> bool:
        """True: messages may follow the token that numbers them."""
        return self.accelerated_window_messages > 0

    def send_join_max_ns(self, nodes: int) -> int:
        """Return the longest random delay of a join that concerns so many nodes."""
        if self.send_join_ns or nodes <= MANY_NODES:
            return self.send_join_ns
        return MANY_NODES_SEND_JOIN_NS

    def agreed_on(self) -> int:
        """Return a hash of what all nodes of a ring should agree on; never 0, which is unknown."""
        packed = AGREED_ON.pack(
            self.token_ns,
            self.consensus_ns,
            self.window_messages,
            self.accelerated_window_messages,
            PROTOCOL_VERSION,
        )
        return binascii.crc_hqx(packed, 0) or 1
