"""From the configuration to the ring's own constants."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.unit.openais.node.configs import MINIMAL, in_totem, loaded, nodelist
from totemd.configured import (
    link_parameters,
    link_settings,
    parameters,
    payload_size_max,
    seat_limits,
)
from totemd.protocol.links import LinkParameters, Mode
from totemd.protocol.parameters import MS, RingParameters
from totemd.protocol.seats import SeatLimits
from totemd.udp import BUFFER_BYTES


def test_a_file_that_says_nothing_gives_the_rings_own_defaults(tmp_path: Path) -> None:
    # Two tables of defaults must not drift apart: the simulator uses the ring's, a node the file's.
    config = loaded(tmp_path, MINIMAL)
    wired = dataclasses.replace(parameters(config), window_messages_max=0)
    assert wired == RingParameters()
    assert seat_limits(config) == SeatLimits()


def test_what_the_file_says_reaches_the_ring(tmp_path: Path) -> None:
    ring = parameters(loaded(tmp_path, in_totem("token: 500\nseqno_unchanged_const: 7")))
    assert (ring.token_ns, ring.consensus_ns, ring.idle_rotations) == (500 * MS, 600 * MS, 7)


def test_every_value_of_a_choice_is_one_of_the_rings(tmp_path: Path) -> None:
    for lines in (
        "flow: backlog\naccel_priority: eager\nrequest_limit: current",
        "token_warning: 100\nmax_nodes: 255",
        "preset: fast",
        "preset: loopback",
    ):
        parameters(loaded(tmp_path, in_totem(lines)))


def test_a_long_nodelist_with_a_short_token_fits_the_ring(tmp_path: Path) -> None:
    parameters(loaded(tmp_path, in_totem("token: 200") + nodelist(64)))


@pytest.mark.parametrize("netmtu", [1500, 9000])
def test_the_window_of_a_large_ring_fits_the_receive_buffer_twice(
    tmp_path: Path, netmtu: int
) -> None:
    config = loaded(tmp_path, in_totem(f"netmtu: {netmtu}"))
    window = parameters(config).window(64)
    assert window == 50 or 2 * window * payload_size_max(config) <= BUFFER_BYTES


TWO_LINKS = """
totem {
    version: 2
    cluster_name: pair
    netmtu: 1400
    link_probe_interval: 100
    interface {
        ringnumber: 0
        link_priority: 0
    }
    interface {
        ringnumber: 1
        link_priority: 9
    }
}
nodelist {
    node {
        nodeid: 1
        ring0_addr: 192.168.1.7
        ring1_addr: 10.0.0.7
    }
    node {
        nodeid: 2
        ring0_addr: 192.168.1.8
        ring1_addr: 10.0.0.8
    }
}
"""


def test_two_interfaces_are_two_links_with_ports_groups_and_peers_of_their_own(
    tmp_path: Path,
) -> None:
    config = loaded(tmp_path, TWO_LINKS)
    first, second = link_settings(config)
    assert (first.number, first.address, first.port) == (0, "192.168.1.7", 5405)
    assert (second.number, second.address, second.port) == (1, "10.0.0.7", 5407)
    assert first.group != second.group
    assert (first.peers, second.peers) == (((2, "192.168.1.8"),), ((2, "10.0.0.8"),))
    links = link_parameters(config)
    assert (links.mode, links.priorities) == (Mode.PASSIVE, (1, 9)), "0 counts as 1"
    assert (links.interval_ns, links.timeout_ns) == (100 * MS, 500 * MS)
    assert links.probe_size_max == 1400 - 28 - 44, "sealed, it is a datagram of the full size"


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_one_interface_is_not_probed_all_the_time_whatever_the_mode(
    tmp_path: Path, mode: str
) -> None:
    links = link_parameters(loaded(tmp_path, in_totem(f"rrp_mode: {mode}")))
    assert links.mode is Mode.NONE


def test_a_file_that_says_nothing_gives_the_links_own_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL)
    assert link_parameters(config) == LinkParameters(node_id=config.totem.node_id)
