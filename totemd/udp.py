"""The sockets of the ring: multicast and unicast datagrams of one network. Nothing of meaning."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from openais.node.config import Interface
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from totemd.seal import Datagram

BUFFER_BYTES: Final = 8 << 20
TRAIN_SIZE_MAX: Final = 65_507  # bytes of equal datagrams in one system call
TRAIN_DATAGRAMS_MAX: Final = 64
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103  # sending: split the buffer into datagrams of this size
UDP_GRO: Final = 104  # receiving: join datagrams of one size and sender
SEGMENT_SIZE: Final = struct.Struct("=i")
SEGMENT_LENGTH: Final = struct.Struct("=H")
SEGMENT_ANCILLARY: Final = socket.CMSG_SPACE(SEGMENT_SIZE.size)
DATAGRAM_SIZE_MAX: Final = 65_535
FAILURES_BEFORE_WARNING: Final = 10  # in a row
IP_MULTICAST_ALL: Final = 49
IPV6_MULTICAST_ALL: Final = 29
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DO: Final = 2
PRIORITY: Final = 6
NO_SEGMENTATION: Final = frozenset((errno.EIO, errno.EINVAL, errno.EOPNOTSUPP))

_LOG = EventLog(__name__)

Address = tuple[str, int]
Train = tuple[bytes, int, Address]  # datagrams of one size, the last may be shorter; that size


@dataclass(slots=True)
class UdpStats:
    """Counters of the ring's sockets."""

    datagrams_sent: int = 0
    trains_sent: int = 0
    trains_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    sends_failed: int = 0
    sends_unknown_node: int = 0


class RingSockets:
    """The two sockets of one network: data (group address) and token (own address).

    Everything is sent from the token socket, so that a node's address is where its datagrams
    come from.

    Args:
        interface: the network.
        peers: addresses of the configured nodes without this one; used instead of multicast
            when ``unicast`` is set.
        unicast: transport udpu.

    Raises:
        ExitError: status 22, a socket cannot be had.
    """

    def __init__(self, interface: Interface, peers: dict[int, str], *, unicast: bool) -> None:
        self.stats: Final = UdpStats()
        self._port: Final = interface.multicast_port
        self._family: Final = (
            socket.AF_INET6
            if ipaddress.ip_address(interface.bind_address).version == 6
            else socket.AF_INET
        )
        self._group: Final = (interface.multicast_address, self._port)
        self._unicast: Final = unicast
        self._addresses: Final[dict[int, Address]] = {
            node: (address, self._port - 1) for node, address in peers.items()
        }
        self._destinations: Final = [(address, self._port) for address in peers.values()]
        self._failures = 0
        self._segmentation = True
        bind = interface.bind_address
        try:
            self.token: Final = self._open((bind, self._port - 1))
            self._send_through(self.token, bind, interface.ttl)
            self.data: Final = self._open((bind, self._port) if unicast else self._group)
            if not unicast:
                self._join(self.data, bind)
        except OSError as error:
            raise ExitError(
                Exit.NETWORK,
                f"network {interface.ring_number}: {bind} ports {self._port - 1} and "
                f"{self._port}: {error.strerror or error}",
            ) from error

    def _open(self, address: Address) -> socket.socket:
        s = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            s.settimeout(0)
            if address == self._group:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for force, plain in ((33, socket.SO_RCVBUF), (32, socket.SO_SNDBUF)):
                _set_buffer(s, force, plain)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)
            with contextlib.suppress(OSError):  # an old kernel: one datagram a call
                s.setsockopt(SOL_UDP, UDP_GRO, 1)
            s.bind(address)
        except OSError:
            s.close()
            raise
        return s

    def _send_through(self, s: socket.socket, bind: str, ttl: int) -> None:
        loop = ipaddress.ip_address(bind.split("%")[0]).is_loopback  # other nodes are here
        if self._family == socket.AF_INET:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(bind))
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, loop)
            s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _index_of(bind))
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, loop)

    def _join(self, s: socket.socket, bind: str) -> None:
        if self._family == socket.AF_INET:
            s.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            membership = socket.inet_aton(self._group[0]) + socket.inet_aton(bind)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
            group = socket.inet_pton(socket.AF_INET6, self._group[0])
            membership = group + struct.pack("@I", _index_of(bind))
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)

    def learn(self, node_id: int, source: Address) -> None:
        """Remember where an authenticated datagram of a node came from."""
        self._addresses[node_id] = source

    def multicast(self, datagrams: list[Datagram]) -> None:
        """Send to all nodes; failures are loss."""
        for address in self._destinations if self._unicast else (self._group,):
            self._send(datagrams, address)

    def unicast(self, node_id: int, datagrams: list[Datagram]) -> None:
        """Send to one node; a node that was never heard of is loss."""
        address = self._addresses.get(node_id)
        if address is None:
            self.stats.sends_unknown_node += 1
        else:
            self._send(datagrams, address)

    def _send(self, datagrams: list[Datagram], address: Address) -> None:
        sizes = [len(header) + len(body) for header, body in datagrams]
        for begin, end in trains(sizes):
            size = sizes[begin]
            if self._segmentation or end == begin + 1:
                self._transmit(datagrams[begin:end], size, address)
            else:
                for datagram, one in zip(datagrams[begin:end], sizes[begin:end], strict=True):
                    self._transmit([datagram], one, address)

    def _transmit(self, train: list[Datagram], size: int, address: Address) -> None:
        pieces = [piece for datagram in train for piece in datagram]
        control = [(SOL_UDP, UDP_SEGMENT, SEGMENT_LENGTH.pack(size))] if len(train) > 1 else []
        try:
            sent = self.token.sendmsg(pieces, control, 0, address)
        except OSError as error:
            if len(train) > 1 and error.errno in NO_SEGMENTATION:
                self._segmentation = False
                _LOG.info("no_segmentation", reason=error.strerror or str(error))
                for datagram in train:
                    self._transmit([datagram], 0, address)
            else:
                self._failed(address, error)
            return
        self._failures = 0
        self.stats.trains_sent += 1
        self.stats.datagrams_sent += len(train)
        self.stats.bytes_sent += sent

    def _failed(self, address: Address, error: OSError) -> None:
        self.stats.sends_failed += 1
        self._failures += 1
        if self._failures == FAILURES_BEFORE_WARNING:
            _LOG.warning(
                "sends_fail",
                address=address[0],
                reason=error.strerror or str(error),
                rule="check the interface, its MTU and the firewall",
            )

    def receive(self, s: socket.socket) -> Train | None:
        """Return what one system call gives: one datagram or a train; None: nothing waits."""
        try:
            data, ancillary, _, source = s.recvmsg(DATAGRAM_SIZE_MAX, SEGMENT_ANCILLARY)
        except BlockingIOError:
            return None
        except OSError:
            self.stats.sends_failed += 1  # an ICMP error of an earlier send
            return b"", 0, ("", 0)
        self.stats.trains_received += 1
        self.stats.bytes_received += len(data)
        size = SEGMENT_SIZE.unpack(ancillary[0][2])[0] if ancillary else len(data)
        return data, size, (source[0], source[1])

    def close(self) -> None:
        """Close both sockets."""
        self.token.close()
        self.data.close()


def trains(sizes: list[int]) -> list[tuple[int, int]]:
    """Cut a list of datagrams into runs that one system call can send: (begin, end) each.

    In a run all sizes are equal, except that the last may be smaller.
    """
    runs = []
    begin = total = 0
    for k, size in enumerate(sizes):
        full = total + size > TRAIN_SIZE_MAX or k - begin == TRAIN_DATAGRAMS_MAX
        if k > begin and (full or size > sizes[begin] or sizes[k - 1] != sizes[begin]):
            runs.append((begin, k))
            begin, total = k, 0
        total += size
    if sizes:
        runs.append((begin, len(sizes)))
    return runs


def _set_buffer(s: socket.socket, force: int, plain: int) -> None:
    try:
        s.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
    except PermissionError:
        s.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)


def _index_of(address: str) -> int:
    """Return the index of the interface that has an IPv6 address; 0: the system chooses."""
    if "%" in address:
        return socket.if_nametoindex(address.split("%")[1])
    return 0
