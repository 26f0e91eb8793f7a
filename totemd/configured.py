"""What the configuration says, as the ring's own values."""

from __future__ import annotations

import dataclasses
from typing import Final

from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from totemd import keyfile
from totemd.protocol import messages
from totemd.protocol.links import LinkParameters, Mode
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
from totemd.udp import BUFFER_BYTES, LinkSettings

WINDOW_MIN: Final = 50  # messages; what a rotation carries must fit the receive buffer twice


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
        window_messages_max=max(WINDOW_MIN, BUFFER_BYTES // (2 * payload_size_max(config))),
        max_messages=t.max_messages,
        miss_count=t.miss_count_const,
        heartbeat_failures_allowed=t.heartbeat_failures_allowed,
        max_network_delay_ns=t.max_network_delay_ms * MS,
        token_warning_percent=t.token_warning_percent % 100,  # 100: never, it is lost then
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
    return _payload_size(config, config.totem.block_datagrams)


def payload_sizes(config: NodeConfig) -> tuple[int, ...]:
    """Return the sizes of smaller frames: half the datagrams each, down to one."""
    sizes = []
    datagrams = config.totem.block_datagrams // 2
    while datagrams:
        sizes.append(_payload_size(config, datagrams))
        datagrams //= 2
    return tuple(sizes)


def _payload_size(config: NodeConfig, datagrams: int) -> int:
    header = messages.DATA_HEADER.size
    size = block_size_max(datagram_size(config), datagrams) - header
    return size if datagrams > 1 else size - header


def link_settings(config: NodeConfig) -> list[LinkSettings]:
    """Return the sockets of each link."""
    t = config.totem
    settings = []
    for interface in config.interfaces:
        number, own = interface.ring_number, interface.bind_address
        listed = [(n.node_id, n.addresses) for n in config.nodes if n.node_id != t.node_id]
        settings.append(
            LinkSettings(
                number=number,
                address=own,
                port=interface.multicast_port,
                group=interface.multicast_address,
                broadcast=interface.broadcast,
                loop=t.loopback,
                ttl=interface.ttl,
                dscp=t.ip_dscp,
                netmtu_bytes=t.netmtu_bytes,
                wait=t.wait_for_interface,
                peers=tuple((n, a[number]) for n, a in listed if number < len(a)),
                strangers=tuple(a for a in interface.member_addresses if a != own),
            )
        )
    return settings


def link_parameters(config: NodeConfig) -> LinkParameters:
    """Return the constants of the links."""
    t = config.totem
    return LinkParameters(
        mode=Mode(t.rrp_mode) if len(config.interfaces) > 1 else Mode.NONE,
        priorities=tuple(interface.priority for interface in config.interfaces),
        multicast=t.transport != "udpu",
        interval_ns=t.link_probe_interval_ms * MS,
        timeout_ns=t.link_probe_timeout_ms * MS,
        count=t.link_probe_count,
        probe_size_max=block_size_max(datagram_size(config), 1),
        node_id=t.node_id,
    )


def seat_limits(config: NodeConfig) -> SeatLimits:
    """Return what is kept for a service that was killed."""
    memory = config.service_memory
    return SeatLimits(memory.log_bytes_max, memory.service_grace_ms * MS)


def check_parameters(config: NodeConfig) -> None:
    """Check the constants of the ring.

    Raises:
        ExitError: status 8.
    """
    parameters(config)


def check_keys(config: NodeConfig) -> None:
    """Check the key files.

    Raises:
        ExitError: status 10.
    """
    totem = config.totem
    if totem.secauth:
        own = () if totem.key_text else (totem.key_file,)
        for path in (*own, *totem.key_accept):
            keyfile.read(path)


CHECKS: Final = (check_parameters, check_keys)  # of a start, for those who only test it
