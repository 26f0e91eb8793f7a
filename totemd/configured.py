"""What the configuration says, as the ring's own values."""

from __future__ import annotations

import dataclasses

from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from totemd.protocol import messages
from totemd.protocol.parameters import (
    MS,
    AccelPriority,
    Flow,
    ParameterError,
    RequestLimit,
    RingParameters,
)
from totemd.protocol.seats import SeatLimits
from totemd.seal import block_size_max


def parameters(config: NodeConfig) -> RingParameters:
    """Return the constants of the ring as configured.

    Raises:
        ExitError: status 8, the values contradict each other.
    """
    t = config.totem
    result = dataclasses.replace(
        RingParameters(),
        token_ns=t.token_ms * MS,
        token_coefficient_ns=t.token_coefficient_ms * MS,
        token_retransmit_ns=t.token_retransmit_ms * MS,
        token_retransmit_min_ns=t.token_retransmit_min_ms * MS,
        token_retransmit_first_ns=t.token_retransmit_first_ms * MS,
        hold_ns=t.hold_ms * MS,
        hold_cancel_retry_ns=t.hold_cancel_retry_ms * MS,
        idle_rotations=t.seqno_unchanged_const,
        singleton_ns=t.singleton_interval_ms * MS,
        join_ns=t.join_ms * MS,
        consensus_ns=t.consensus_ms * MS,
        silent_fail_ns=t.silent_fail_ms * MS,
        startup_wait_ns=t.startup_wait_ms * MS,
        merge_ns=t.merge_ms * MS,
        flap_max_ns=t.flap_max_ms * MS,
        fail_recv_count=t.fail_recv_const,
        fail_recv_ns=t.fail_recv_time_ms * MS,
        window_messages=t.window_size_messages,
        max_messages=t.max_messages,
        miss_count=t.miss_count_const,
        heartbeat_failures_allowed=t.heartbeat_failures_allowed,
        max_network_delay_ns=t.max_network_delay_ms * MS,
        token_warning_percent=t.token_warning_percent,
        send_join_ns=t.send_join_ms * MS,
        cancel_token_hold_on_retransmit=t.cancel_token_hold_on_retransmit,
        flow=Flow(t.flow),
        accelerated_window_messages=t.accelerated_window_messages,
        accel_min=t.accel_min,
        accel_priority=AccelPriority(t.accel_priority),
        request_limit=RequestLimit(t.request_limit),
        max_nodes=t.max_nodes,
        sync_timeout_ns=t.sync_timeout_ms * MS,
        max_gap_messages=t.max_gap_messages,
        max_unstable_bytes=t.max_unstable_bytes,
    )
    try:
        result.validate()
    except ParameterError as error:
        raise ExitError(Exit.MAIN_CONFIGURATION, f"{config.path}: totem: {error}") from error
    return result


def datagram_size(config: NodeConfig) -> int:
    """Return the bytes of the largest datagram, without the headers of IP and UDP."""
    ipv6 = any(":" in interface.bind_address for interface in config.interfaces)
    overhead = messages.UDP_OVERHEAD_IPV6 if ipv6 else messages.UDP_OVERHEAD_IPV4
    return config.totem.netmtu_bytes - overhead


def payload_size_max(config: NodeConfig) -> int:
    """Return the bytes of one frame: with its header it fills a sealed block exactly.

    A recovery puts a second header before it: one datagram more. Where every datagram is sealed
    on its own, room for that header is kept free instead.
    """
    datagrams = config.totem.block_datagrams
    header = messages.DATA_HEADER.size
    size = block_size_max(datagram_size(config), datagrams) - header
    return size if datagrams > 1 else size - header


def seat_limits(config: NodeConfig) -> SeatLimits:
    """Return what is kept for a service that was killed."""
    memory = config.service_memory
    return SeatLimits(memory.log_bytes_max, memory.service_grace_ms * MS)
