"""The network namespaces that the network tests stand on do what they say."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.integration.cluster import wait_for
from tests.net.namespaces import NAMESPACES, OUT, Host, Laboratory, laboratory, missing

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

GROUP = {4: "239.192.1.2", 6: "ff15::77"}
PORT = 5405
WAIT_S = 0.2  # a datagram on this machine takes less than a thousandth of it
SOL_UDP = 17
SO_RCVBUFFORCE = 33
UDP_SEGMENT = 103
UDP_GRO = 104


@pytest.fixture(scope="module")
def made() -> Iterator[Laboratory]:
    with laboratory(3, 2) as hosts:
        yield hosts


@pytest.fixture
def bed(made: Laboratory) -> Iterator[Laboratory]:
    yield made
    made.heal()


class Station:
    """A socket of a host that gets unicast and the group's multicast."""

    def __init__(self, host: Host, network: int = 0, version: int = 4) -> None:
        self.address = host.address(network, version)
        self._group = GROUP[version]
        with host.inside():
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
            self.socket.settimeout(WAIT_S)
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
            self.socket.bind(("", PORT))
            index = socket.if_nametoindex(f"net{network}")
        group = socket.inet_pton(family, self._group)
        if version == 4:
            own = socket.inet_aton(self.address)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + own)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        else:
            member = group + struct.pack("@I", index)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)

    def send(self, to: Station | None, count: int = 1, size: int = 100) -> None:
        address = self._group if to is None else to.address
        for _ in range(count):
            self.socket.sendto(bytes(size), (address, PORT))

    def received(self, wanted: int = 1) -> int:
        """Count what comes, until there are as many as wanted or nothing comes."""
        count = 0
        while count < wanted:
            try:
                self.socket.recv(65_535)
            except TimeoutError:
                break
            count += 1
        return count


@contextlib.contextmanager
def in_all(bed: Laboratory, network: int = 0, version: int = 4) -> Iterator[list[Station]]:
    made: list[Station] = []
    try:
        made += (Station(host, network, version) for host in bed.hosts)
        yield made
    finally:
        for one in made:
            one.socket.close()


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def stations(bed: Laboratory, request: pytest.FixtureRequest) -> Iterator[list[Station]]:
    with in_all(bed, 0, request.param) as made:
        yield made


def reaches(source: Station, destination: Station) -> bool:
    source.send(destination)
    return destination.received() == 1


def test_unicast_and_multicast_arrive(stations: list[Station]) -> None:
    first, second, third = stations
    assert reaches(first, second)
    first.send(None, 5)
    assert (second.received(5), third.received(5)) == (5, 5)


def test_a_partition_separates_its_sides_and_heals(
    bed: Laboratory, stations: list[Station]
) -> None:
    first, second, third = stations
    bed.partition([1, 2], [3])
    assert reaches(first, second)
    assert not reaches(first, third)
    assert not reaches(third, second)
    bed.heal()
    assert reaches(third, second)


def test_a_cut_is_one_way(bed: Laboratory, stations: list[Station]) -> None:
    first, second, third = stations
    bed.cut(1, 2)
    assert not reaches(first, second)
    assert reaches(second, first)
    first.send(None)
    assert (second.received(), third.received()) == (0, 1)
    bed.join(1, 2)
    assert reaches(first, second)


def test_loss_is_about_as_asked(bed: Laboratory, stations: list[Station]) -> None:
    first, second, third = stations
    bed.loss(2, 0, 30.0)
    first.send(None, 1000)
    assert 600 < second.received(1000) < 800
    assert third.received(1000) == 1000
    bed.loss(2, 0, 0.0)
    bed.loss(1, 0, 30.0, OUT)
    first.send(second, 1000)
    assert 600 < second.received(1000) < 800
    second.send(first, 100)
    assert first.received(100) == 100


def test_a_delay_is_of_its_direction_and_goes_again(bed: Laboratory) -> None:
    with in_all(bed) as (first, second, third):
        assert reaches(second, first), "addresses are resolved"
        bed.delay(2, 0, 60.0, 0.0)
        wait_for(lambda: reaches(third, second), "the cable is in use")
        began = time.monotonic()
        assert reaches(first, second)
        assert time.monotonic() - began >= 0.06
        first.send(None, 20, 1400)
        assert (second.received(20), third.received(20)) == (20, 20)
        bed.loss(2, 0, 100.0, OUT)
        assert not reaches(second, first), "losses apply to a long cable too"
        bed.heal()
        wait_for(lambda: reaches(second, first), "the short cable is back")


def test_a_size_limit_drops_long_packets_without_a_word(
    bed: Laboratory, stations: list[Station]
) -> None:
    first, second, _ = stations
    bed.limit_size(2, 0, 1000)
    first.send(second, 1, 1200)
    assert second.received() == 0
    assert reaches(first, second)


def test_blocked_multicast_lets_unicast_pass(bed: Laboratory, stations: list[Station]) -> None:
    first, second, third = stations
    bed.block_multicast(2, 0, blocked=True)
    first.send(None)
    assert (second.received(), third.received()) == (0, 1)
    assert reaches(first, second)


def test_a_pulled_cable_and_a_missing_interface(bed: Laboratory) -> None:
    with in_all(bed, 1) as (first, second, _):
        bed.unplug(2, 1)
        assert not reaches(first, second)
        bed.plug_in(2, 1)
        wait_for(lambda: reaches(first, second), "the kernel has seen the carrier")
        bed.remove_interface(2, 1)
        bed.add_interface(2, 1)
        wait_for(lambda: reaches(first, second), "the new interface is used")
        second.received(100)  # what waited for the neighbour's address
        first.send(None)
        assert second.received() == 0, "the membership went with the interface"


def test_an_address_goes_and_comes(bed: Laboratory) -> None:
    with in_all(bed) as (first, second, _):
        bed.remove_address(2)
        with pytest.raises(OSError, match="unreachable"):
            second.send(first)
        bed.add_address(2)
        assert reaches(second, first)


@pytest.mark.parametrize("offload", [False, True], ids=["split", "offload"])
def test_a_train_of_datagrams_arrives_by_multicast(*, offload: bool) -> None:
    with laboratory(2, offload=offload) as bed, in_all(bed) as (first, second):
        second.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        size = struct.pack("@H", 1400)
        first.socket.sendmsg(
            [bytes(1400 * 40)], [(SOL_UDP, UDP_SEGMENT, size)], 0, (GROUP[4], PORT)
        )
        lengths: list[int] = []
        while sum(lengths) < 1400 * 40:
            data, _, _, _ = second.socket.recvmsg(65_535, 64)
            lengths.append(len(data))
        assert len(lengths) == (1 if offload else 40)


def test_nothing_is_left_behind() -> None:
    with laboratory(1) as hosts:
        path = NAMESPACES / hosts.host(1).namespace
        assert path.exists()
    assert not path.exists()
