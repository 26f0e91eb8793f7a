"""Every way a ring can be carried, and what the sockets ask of the system."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from openais.node.exits import Exit, ExitError
from tests.integration.cluster import short_directory, wait_for
from tests.net.namespaces import Host, Laboratory, laboratory, missing
from tests.net.nodes import Shape, members
from tests.net.traffic import traffic
from totemd import interfaces, udp
from totemd.udp import LinkSettings, LinkSockets

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

SHAPES = {
    "multicast over IPv4": Shape(),
    "multicast over IPv6": Shape(version=6),
    "multicast on link-local addresses": Shape(version=6, link_local=True),
    "broadcast": Shape(broadcast=True),
    "unicast over IPv4": Shape(transport="udpu"),
    "unicast over IPv6": Shape(transport="udpu", version=6),
}


@pytest.fixture(scope="module")
def bed() -> Iterator[Laboratory]:
    with laboratory(2) as made:
        yield made


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.mark.parametrize("name", SHAPES)
def test_a_ring_carries_messages_by(name: str, bed: Laboratory, directory: Path) -> None:
    with members(bed, directory, SHAPES[name]) as nodes:
        nodes.start()
        with traffic(nodes.all) as messages:
            messages.exchange(20, 5000)


def settings(host: Host, **changes: object) -> LinkSettings:
    values = {"number": 0, "address": host.address(), "port": 5405, "group": "239.192.9.9"}
    return LinkSettings(**(values | changes))  # type: ignore[arg-type]  # a test's own values


@pytest.fixture
def opened(bed: Laboratory) -> Iterator[list[LinkSockets]]:
    made: list[LinkSockets] = []
    yield made
    for one in made:
        one.close()


def test_the_sockets_ask_for_what_the_ring_needs(
    bed: Laboratory, opened: list[LinkSockets]
) -> None:
    host = bed.host(1)
    with host.inside():
        opened.append(LinkSockets(settings(host, dscp=46, ttl=3)))
    (link,) = opened
    assert link.token is not None
    assert link.data is not None
    token, data = link.token, link.data
    for s in (token, data):
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * udp.BUFFER_BYTES
        assert s.getsockopt(udp.SOL_UDP, udp.UDP_GRO) == 1
    assert token.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == udp.PRIORITY
    assert token.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 46 << 2
    assert token.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 3
    assert token.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == 0
    assert token.getsockopt(socket.IPPROTO_IP, udp.IP_MTU_DISCOVER) == udp.IP_PMTUDISC_DO
    assert data.getsockopt(socket.IPPROTO_IP, udp.IP_MULTICAST_ALL) == 0
    assert data.getsockname() == ("239.192.9.9", 5405), "so that no other group reaches it"


def test_a_datagram_longer_than_the_mtu_is_counted_and_the_next_one_sent(
    bed: Laboratory, opened: list[LinkSockets]
) -> None:
    host = bed.host(1)
    with host.inside():
        opened.append(LinkSockets(settings(host)))
    (link,) = opened
    link.multicast([(b"", bytes(1600))] * 2, None)  # older kernels refuse the train otherwise
    assert link.stats.sends_too_long >= 1
    link.multicast([(b"", bytes(1400))] * 3, None)
    assert (link.stats.trains_sent, link.stats.datagrams_sent) == (1, 3), "still one system call"


def test_a_missing_network_is_an_error_only_where_the_node_shall_not_wait(
    bed: Laboratory, opened: list[LinkSockets]
) -> None:
    nowhere = settings(bed.host(1), address="10.77.0.99")
    with bed.host(1).inside():
        opened.append(LinkSockets(nowhere))
        assert opened[0].token is None
        opened[0].multicast([(b"", b"lost")], None)
        with pytest.raises(ExitError, match=r"no interface has 10\.77\.0\.99") as caught:
            LinkSockets(settings(bed.host(1), address="10.77.0.99", wait=False))
    assert caught.value.status is Exit.NETWORK


def test_a_port_in_use_is_an_error_that_names_it(
    bed: Laboratory, opened: list[LinkSockets]
) -> None:
    host = bed.host(1)
    with host.inside():
        opened.append(LinkSockets(settings(host)))
        with pytest.raises(ExitError, match=r"10\.77\.0\.1 ports 5404 and 5405: .*in use"):
            LinkSockets(settings(host))


def test_sockets_follow_their_address_and_never_take_another(
    bed: Laboratory, opened: list[LinkSockets]
) -> None:
    host = bed.host(1)
    with host.inside():
        opened.append(LinkSockets(settings(host)))
        (link,) = opened
        assert link.check() is False
        bed.remove_address(1)
        try:
            assert link.check() is True
            assert (link.token, link.data, link.device) == (None, None, None)
            assert link.check() is False
        finally:
            bed.add_address(1)
        assert link.check() is True
        assert link.token is not None
        assert link.token.getsockname() == (host.address(), 5404)


def test_a_full_receive_buffer_is_counted(bed: Laboratory, opened: list[LinkSockets]) -> None:
    host = bed.host(1)
    with host.inside():
        opened.append(LinkSockets(settings(host)))
        (link,) = opened
        assert link.data is not None
        link.data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with bed.host(2).inside():
        opened.append(LinkSockets(settings(bed.host(2))))
    for _ in range(100):
        opened[1].multicast([(b"", bytes(1000))], None)
    with host.inside():

        def dropped() -> int:
            link.check()
            return link.stats.datagrams_dropped_kernel

        wait_for(dropped, "the kernel's count is seen")


def test_the_interface_of_an_address_is_found_with_its_mtu(bed: Laboratory) -> None:
    host = bed.host(1)
    with host.inside():
        for address in (
            host.address(),
            host.address(version=6),
            f"{host.link_local()}%net0",
        ):
            device = interfaces.holder(address)
            assert device is not None, address
            assert (device.name, device.mtu_bytes, device.running) == ("net0", 1500, True)
        loopback = interfaces.holder("127.0.0.77")
        assert loopback is not None
        assert loopback.name == "lo"
        assert interfaces.holder(f"{host.link_local()}%lo") is None
        assert interfaces.holder("10.77.0.250") is None
        bed.unplug(1)
        try:

            def running() -> bool:
                device = interfaces.holder(host.address())
                return device is None or device.running

            wait_for(lambda: not running(), "the carrier is gone")
        finally:
            bed.plug_in(1)


def test_a_refused_send_is_loss_and_never_fatal(bed: Laboratory, opened: list[LinkSockets]) -> None:
    host = bed.host(1)
    with host.inside():
        opened.append(LinkSockets(settings(host, group="", peers=((9, "192.0.2.1"),))))
    (link,) = opened
    for _ in range(udp.FAILURES_BEFORE_WARNING + 1):
        link.unicast(9, [(b"", b"no route")])
    assert link.stats.sends_failed == udp.FAILURES_BEFORE_WARNING + 1
    link.unicast(7, [(b"", b"never heard of")])
    assert link.stats.sends_unknown_node == 1
