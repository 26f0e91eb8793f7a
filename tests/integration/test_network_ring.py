"""The ring over real multicast between network namespaces, and the faults of networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import layout
from openais import ckpt, status
from tests.integration.cluster import short_directory, wait_for
from tests.integration.load import ATTRIBUTES
from tests.net.namespaces import IN, Laboratory, laboratory, missing
from tests.net.nodes import Members, Shape, members
from tests.net.traffic import traffic

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture(scope="module")
def five() -> Iterator[tuple[Laboratory, Members]]:
    with laboratory(5) as bed, short_directory() as path, members(bed, path) as ring:
        ring.start()
        yield bed, ring


@pytest.fixture
def ring(five: tuple[Laboratory, Members]) -> Iterator[tuple[Laboratory, Members]]:
    """The shared ring of five, whole again."""
    bed, ring = five
    ring.wait_ring(1, 2, 3, 4, 5)
    yield bed, ring
    bed.heal()


def test_a_partition_makes_a_ring_of_each_side_and_healing_one_of_all(
    ring: tuple[Laboratory, Members],
) -> None:
    bed, nodes = ring
    bed.partition([1, 2, 3], [4, 5])
    nodes.wait_ring(1, 2, 3)
    nodes.wait_ring(4, 5)
    bed.heal()
    nodes.wait_ring(1, 2, 3, 4, 5)


def test_a_pulled_cable_and_its_return(ring: tuple[Laboratory, Members]) -> None:
    bed, nodes = ring
    bed.unplug(2)
    nodes.wait_ring(1, 3, 4, 5)
    nodes.wait_ring(2)
    bed.plug_in(2)
    nodes.wait_ring(1, 2, 3, 4, 5)


def test_an_address_that_is_removed_takes_the_node_off_and_brings_it_back(
    ring: tuple[Laboratory, Members],
) -> None:
    bed, nodes = ring
    bed.remove_address(3)
    wait_for(lambda: "network_lost" in nodes[3].log(), "the node notices")
    nodes.wait_ring(3)
    nodes.wait_ring(1, 2, 4, 5)
    bed.add_address(3)
    nodes.wait_ring(1, 2, 3, 4, 5)


def test_an_interface_that_is_pulled_out_comes_back_as_another(
    ring: tuple[Laboratory, Members],
) -> None:
    bed, nodes = ring
    bed.remove_interface(4)
    nodes.wait_ring(4)
    nodes.wait_ring(1, 2, 3, 5)
    bed.add_interface(4)
    nodes.wait_ring(1, 2, 3, 4, 5)


def test_kill_9_is_survived_and_the_node_comes_back(ring: tuple[Laboratory, Members]) -> None:
    _, nodes = ring
    nodes[1].kill()
    nodes.wait_ring(2, 3, 4, 5)
    nodes[1].start()
    nodes.wait_ring(1, 2, 3, 4, 5)


def test_an_orderly_leave_is_seen_before_any_timeout(ring: tuple[Laboratory, Members]) -> None:
    _, nodes = ring
    losses = nodes[1].log().count("token lost")
    assert nodes[5].stop() == 0
    nodes.wait_ring(1, 2, 3, 4)
    assert nodes[1].log().count("token lost") == losses, "announced, not missed"
    nodes[5].start()
    nodes.wait_ring(1, 2, 3, 4, 5)


def test_loss_and_delay_neither_break_the_ring_nor_lose_a_message(directory: Path) -> None:
    # A token timeout that a loaded test machine does not reach: only loss may break the ring.
    shape = Shape(totem={"token": 5000})
    with laboratory(3) as bed, members(bed, directory, shape) as nodes:
        nodes.start()
        before = nodes[1].ring()
        with traffic(nodes.all) as messages:
            for host in bed.hosts:
                bed.loss(host.number, 0, 5.0, IN)
            messages.exchange(300)
            bed.delay(2, 0, 5.0, 10.0)
            messages.exchange(100)
        sent_again = sum(node.counter("messages_sent_again") for node in nodes.all)
        assert sent_again > 0, "something was lost"
        assert nodes[1].ring() == before, nodes[1].log()


def test_a_node_that_loses_every_long_packet_does_not_stop_the_others(directory: Path) -> None:
    # Tokens and joins pass, so that only what is not delivered shows that something is wrong.
    shape = Shape(totem={"fail_recv_const": 50})
    with laboratory(3) as bed, members(bed, directory, shape) as nodes:
        nodes.start()
        with traffic(nodes.all[:2]) as messages:
            bed.limit_size(3, 0, 1000)
            messages.exchange(50, 5000)


def test_a_path_that_loses_long_packets_is_named_once_and_when_it_is_mended(
    directory: Path,
) -> None:
    with laboratory(3) as bed, members(bed, directory) as nodes:
        bed.limit_size(3, 0, 1000)
        nodes.start()
        address = bed.host(3).address()
        named = f"link link=0 node=3 state=mtu_bad address={address} expected=1500 seen="
        wait_for(lambda: named in nodes[1].log(), "node 1 names it")
        wait_for(lambda: named in nodes[2].log(), "node 2 names it")
        assert "node=2 state=mtu_bad" not in nodes[1].log()
        bed.heal()
        wait_for(lambda: "link link=0 node=3 state=up" in nodes[1].log(), "it is mended")
        assert nodes[1].log().count(named) == 1


def test_a_node_waits_for_its_network(directory: Path) -> None:
    with laboratory(2) as bed, members(bed, directory) as nodes:
        bed.remove_address(2)
        nodes[1].start()
        nodes[2].start()
        nodes.wait_ring(1)
        wait_for(lambda: "network_missing" in nodes[2].log(), "node 2 says what it waits for")
        bed.add_address(2)
        nodes.wait_ring(1, 2)


def test_a_netmtu_over_the_mtu_is_named(directory: Path) -> None:
    shape = Shape(totem={"netmtu": 9000})
    with laboratory(2) as bed, members(bed, directory, shape) as nodes:
        nodes.start()
        with traffic(nodes.all) as messages:
            messages.exchange(1, 10)
            log = nodes[1].log()
            named = f"netmtu_too_large link=0 address={bed.host(1).address()} interface=net0"
            assert f"{named} netmtu=9000 mtu=1500" in log
            messages.send(1, 20_000)
            wait_for(lambda: "datagram_too_long" in nodes[1].log(), "the datagram is named")
            for host in (1, 2):
                bed.set_mtu(host, 0, 9000)
            messages.wait_all()


def test_a_ring_of_unicast(directory: Path) -> None:
    with laboratory(3) as bed, members(bed, directory, Shape(transport="udpu")) as nodes:
        nodes.start()
        bed.partition([1, 2], [3])
        nodes.wait_ring(1, 2)
        nodes.wait_ring(3)
        bed.heal()
        nodes.wait_ring(1, 2, 3)


def test_whole_nodes_with_their_services_serve_over_multicast(directory: Path) -> None:
    with laboratory(2) as bed, members(bed, directory) as nodes:
        for node in nodes.all:
            node.start_whole(layout.SERVICES)
        nodes.wait_ring(1, 2)
        wait_for(lambda: all(status.ready(n.status("ckpt")) for n in nodes.all), "ckpt is live")
        with (
            ckpt.Client(run_dir=nodes[1].run_dir) as here,
            here.open("seen", ATTRIBUTES) as written,
            ckpt.Client(run_dir=nodes[2].run_dir) as there,
        ):
            written["a"] = b"from node 1"
            with there.open("seen", ATTRIBUTES) as read:
                assert read["a"] == b"from node 1"
        for node in nodes.all:
            node.stop_whole()
            assert node.host.pids() == []
