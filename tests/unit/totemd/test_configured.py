"""From the configuration to the ring's own constants."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.unit.openais.node.configs import MINIMAL, in_totem, loaded, nodelist
from totemd.configured import parameters, payload_size_max, seat_limits
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
