"""A ring over two networks outlives the loss of either, and nobody above it notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster import short_directory, wait_for
from tests.net.namespaces import Laboratory, laboratory, missing
from tests.net.nodes import Members, Shape, members
from tests.net.traffic import Traffic, traffic

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

# A token timeout that a loaded test machine does not reach: only the networks may break the ring.
TIMES = {"token": 3000, "link_probe_interval": 100, "link_probe_timeout": 500}


@pytest.fixture(scope="module", params=["passive", "active"])
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Laboratory, Members]]:
    shape = Shape(networks=(0, 1), totem={**TIMES, "rrp_mode": request.param})
    with laboratory(3, 2) as bed, short_directory() as path, members(bed, path, shape) as nodes:
        nodes.start()
        yield bed, nodes


@pytest.fixture
def two_networks(
    made: tuple[Laboratory, Members],
) -> Iterator[tuple[Laboratory, Members, Traffic]]:
    """The shared ring over two networks, with every link up."""
    bed, nodes = made
    nodes.wait_ring(1, 2, 3)
    for link in (0, 1):
        wait_states(nodes, link, {"up"})
    with traffic(nodes.all) as messages:
        yield bed, nodes, messages
    bed.heal()


def states(nodes: Members, link: int) -> dict[tuple[int, int], str]:
    """Return what each node says of one link to each other."""
    found = {}
    for node in nodes.all:
        document = node.status()
        assert document is not None
        for other in document["links"][link]["nodes"]:
            found[node.host.number, other["node_id"]] = other["state"]
    return found


def wait_states(nodes: Members, link: int, wanted: set[str]) -> None:
    def reached() -> bool:
        found = states(nodes, link)
        return len(found) == 6 and set(found.values()) == wanted

    wait_for(reached, f"link {link} is {wanted} everywhere")


@pytest.mark.parametrize("network", [0, 1])
def test_the_loss_of_a_network_changes_no_membership_and_loses_no_message(
    two_networks: tuple[Laboratory, Members, Traffic], network: int
) -> None:
    bed, nodes, messages = two_networks
    ring = nodes[1].ring()
    messages.exchange(20)
    bed.partition([1], [2], [3], networks=[network])
    messages.exchange(20)
    wait_states(nodes, network, {"down"})
    messages.exchange(20)
    bed.heal()
    wait_states(nodes, network, {"up"})
    messages.exchange(20)
    assert {node.ring() for node in nodes.all} == {ring}


def test_networks_of_very_different_speed_lose_and_double_nothing(
    two_networks: tuple[Laboratory, Members, Traffic],
) -> None:
    bed, nodes, messages = two_networks
    ring = nodes[1].ring()
    for host in (1, 2, 3):
        bed.delay(host, 1, 20.0, 20.0)
    wait_states(nodes, 1, {"up"})
    messages.exchange(100)
    bed.partition([1], [2], [3], networks=[0])
    messages.exchange(20)
    assert nodes[1].ring() == ring


def test_a_network_that_loses_long_packets_is_named_and_left(
    two_networks: tuple[Laboratory, Members, Traffic],
) -> None:
    bed, nodes, messages = two_networks
    ring = nodes[1].ring()
    bed.limit_size(2, 0, 1000)
    wait_for(lambda: states(nodes, 0)[1, 2] == "mtu_bad", "node 1 sees it")
    wait_for(lambda: states(nodes, 0)[3, 2] == "mtu_bad", "node 3 sees it")
    assert states(nodes, 0)[1, 3] == "up"
    assert "totem.netmtu" in nodes[1].log()
    messages.exchange(20)
    assert nodes[1].ring() == ring


def test_when_both_networks_die_the_node_is_alone_and_comes_back_with_one(
    two_networks: tuple[Laboratory, Members, Traffic],
) -> None:
    bed, nodes, _ = two_networks
    bed.partition([1, 2], [3])
    nodes.wait_ring(1, 2)
    nodes.wait_ring(3)
    bed.partition([1, 2, 3], networks=[1])
    nodes.wait_ring(1, 2, 3)
    wait_for(lambda: states(nodes, 1)[1, 3] == "up", "link 1 is back")
    assert states(nodes, 0)[1, 3] == "down"
