"""The sockets of one link of the ring: multicast and unicast datagrams. Nothing of meaning.

A link is bound to one address. When the address goes, so do its sockets, and they come back with
it, on whatever interface has it then: never on another address.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeAlias

from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from totemd import interfaces
from totemd.interfaces import Device
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
PRIORITY: Final = 6
NO_SEGMENTATION: Final = frozenset((errno.EIO, errno.EINVAL, errno.EOPNOTSUPP))

# Numbers of Linux that the module socket does not have.
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
MEMINFO: Final = struct.Struct("=9I")
MEMINFO_DROPS: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DO: Final = 2
IP_MULTICAST_ALL: Final = 49
IPV6_MTU_DISCOVER: Final = 23
IPV6_MULTICAST_ALL: Final = 29
IPV6_DONTFRAG: Final = 62

_LOG = EventLog(__name__)

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
Train = tuple[bytes, int, Address]  # datagrams of one size, the last may be shorter; that size


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """One link as configured."""

    number: int
    address: str  # of this node; with %interface where it is link-local
    port: int  # of data; tokens use the port below
    group: str = ""  # multicast group or broadcast address; "": unicast to each peer
    broadcast: bool = False
    loop: bool = False  # other nodes are on this machine
    ttl: int = 1
    dscp: int = 0
    netmtu_bytes: int = 1500
    wait: bool = True  # False: an interface that is missing at the start is an error
    peers: tuple[tuple[int, str], ...] = ()  # node id, address; of the nodelist, without this node
    strangers: tuple[str, ...] = ()  # addresses of peers whose node id is not known

    @property
    def family(self) -> socket.AddressFamily:
        """Family of its addresses."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


@dataclass(slots=True)
class UdpStats:
    """Counters of the sockets of one link."""

    datagrams_sent: int = 0
    trains_sent: int = 0
    trains_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    sends_failed: int = 0
    sends_too_long: int = 0
    sends_unknown_node: int = 0
    datagrams_dropped_kernel: int = 0  # the receive buffers were full
    interface_changes: int = 0


class LinkSockets:
    """The two sockets of one link: data (group address) and token (own address).

    Everything is sent from the token socket, so that a node's address is where its datagrams
    come from.

    Args:
        settings: the link.

    Raises:
        ExitError: status 22, a socket cannot be had.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self.settings: Final = settings
        self.stats: Final = UdpStats()
        self.device: Device | None = None
        self.data: socket.socket | None = None
        self.token: socket.socket | None = None
        self._addresses: Final[dict[int, Address]] = {}  # where tokens go
        self._destinations: dict[int, Address] = {}  # where data go, without a group
        self._strangers: list[Address] = []
        self._group: Address | None = None
        self._failures = 0
        self._too_long_told = False
        self._segmentation = True
        self._drops = [0, 0]  # of the sockets that are open now
        self._start()

    # Coming and going of the interface

    def _start(self) -> None:
        s = self.settings
        device = interfaces.holder(s.address)
        if device is None:
            if not s.wait:
                raise ExitError(Exit.NETWORK, f"link {s.number}: no interface has {s.address}")
            rule = "no interface has this address; waiting for it"
            _LOG.warning("network_missing", link=s.number, address=s.address, rule=rule)
            return
        try:
            self._open(device)
        except OSError as error:
            raise ExitError(
                Exit.NETWORK,
                f"link {s.number}: {s.address} ports {s.port - 1} and {s.port}: "
                f"{error.strerror or error}",
            ) from error

    def check(self) -> bool:
        """See whether the interface is still there; follow it.

        Returns:
            True: the sockets are others now, or gone.
        """
        device, before = interfaces.holder(self.settings.address), self.device
        if device is not None and before is not None and device.index == before.index:
            if device != before:
                self._changed(before, device)
            self._count_drops()
            return False
        if before is not None:
            self._count_drops()
            self.close()
            self._tell("network_lost", before)
        if device is None:
            return before is not None
        try:
            self._open(device)
        except OSError as error:
            self._tell("network_refused", device, reason=error.strerror or str(error))
        return True

    def _changed(self, before: Device, device: Device) -> None:
        self.device = device
        if device.running != before.running:
            self.stats.interface_changes += 1
            if device.running:
                self._tell_up(device)
            else:
                self._tell("network_down", device, rule="interface down or without carrier")
        if device.mtu_bytes != before.mtu_bytes:
            self._check_mtu(device)

    def _tell(self, event: str, device: Device, **fields: str) -> None:
        s = self.settings
        _LOG.warning(event, link=s.number, address=s.address, interface=device.name, **fields)

    def _tell_up(self, device: Device) -> None:
        s = self.settings
        _LOG.info(
            "network_up",
            link=s.number,
            address=s.address,
            interface=device.name,
            mtu=device.mtu_bytes,
        )

    def _check_mtu(self, device: Device) -> None:
        self._too_long_told = False
        if self.settings.netmtu_bytes > device.mtu_bytes:
            _LOG.warning(
                "netmtu_too_large",
                link=self.settings.number,
                address=self.settings.address,
                interface=device.name,
                netmtu=self.settings.netmtu_bytes,
                mtu=device.mtu_bytes,
                rule="long datagrams cannot be sent: lower totem.netmtu or raise the MTU",
            )

    # Making the sockets

    def _open(self, device: Device) -> None:
        """Open both sockets on the interface that has the address.

        Raises:
            OSError: not possible; nothing is open.
        """
        s = self.settings
        self.device = device
        try:
            self.token = self._socket(self._at(s.address, s.port - 1))
            self._send_through(self.token, device)
            self.data = self._socket(self._at(s.group or s.address, s.port), shared=bool(s.group))
            if s.group and not s.broadcast:
                self._join(self.data, device)
        except OSError:
            self.close()
            raise
        # What was learned may name an interface that is gone.
        self._addresses.clear()
        self._addresses.update((node, self._at(a, s.port - 1)) for node, a in s.peers)
        self._destinations = {node: self._at(a, s.port) for node, a in s.peers}
        self._strangers = [self._at(a, s.port) for a in s.strangers]
        self._group = self._at(s.group, s.port) if s.group else None
        self._drops = [0, 0]
        self.stats.interface_changes += 1
        self._tell_up(device)
        self._check_mtu(device)
        self._check_buffers(self.data, self.token)

    def _at(self, address: str, port: int) -> Address:
        """Return an address as the system takes it; a link-local one is on our interface."""
        if self.settings.family == socket.AF_INET:
            return address, port
        text = address.partition("%")[0]
        assert self.device is not None
        return text, port, 0, self.device.index if _is_link_local(text) else 0

    def _socket(self, address: Address, *, shared: bool = False) -> socket.socket:
        s = socket.socket(self.settings.family, socket.SOCK_DGRAM)
        try:
            s.settimeout(0)
            if shared:  # several nodes of one machine get one group
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _set_buffer(s, SO_RCVBUFFORCE, socket.SO_RCVBUF)
            _set_buffer(s, SO_SNDBUFFORCE, socket.SO_SNDBUF)
            with contextlib.suppress(OSError):  # an old kernel: one datagram a call
                s.setsockopt(SOL_UDP, UDP_GRO, 1)
            if self.settings.family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind(address)
        except OSError:
            s.close()
            raise
        return s

    def _send_through(self, s: socket.socket, device: Device) -> None:
        mark = self.settings.dscp << 2
        if self.settings.family == socket.AF_INET:
            through = _membership("0.0.0.0", self.settings.address, device)  # noqa: S104 - no group
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, through)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, self.settings.ttl)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, self.settings.loop)
            s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, mark)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, self.settings.broadcast)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, device.index)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, self.settings.ttl)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, self.settings.loop)
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, mark)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)  # IP_TOS changes it too

    def _join(self, s: socket.socket, device: Device) -> None:
        group = self.settings.group
        if self.settings.family == socket.AF_INET:
            s.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            membership = _membership(group, self.settings.address, device)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
            member = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", device.index)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)

    def _check_buffers(self, *sockets: socket.socket) -> None:
        for buffer, option, sysctl in (
            ("receive", socket.SO_RCVBUF, "net.core.rmem_max"),
            ("send", socket.SO_SNDBUF, "net.core.wmem_max"),
        ):
            # The kernel doubles what was asked for, for its own bookkeeping.
            granted = min(s.getsockopt(socket.SOL_SOCKET, option) for s in sockets) // 2
            if granted < BUFFER_BYTES:
                _LOG.warning(
                    "buffer_small",
                    link=self.settings.number,
                    buffer=buffer,
                    granted=granted,
                    wanted=BUFFER_BYTES,
                    rule=f"raise the sysctl {sysctl}",
                )

    def close(self) -> None:
        """Close the sockets that are open."""
        self.device = None
        for s in (self.data, self.token):
            if s is not None:
                s.close()
        self.data = self.token = None

    # Sending

    def learn(self, node_id: int, source: Address) -> None:
        """Remember where an authenticated datagram of a node came from."""
        self._addresses[node_id] = source

    def address(self, node_id: int) -> str:
        """Return the address of a node, for the log; "": it was never heard of."""
        return self._addresses[node_id][0] if node_id in self._addresses else ""

    def multicast(self, datagrams: list[Datagram], members: Collection[int] | None) -> None:
        """Send to all nodes; failures are loss.

        Args:
            datagrams: as sealed.
            members: the nodes that need it, where each gets a copy of its own; None: all.
        """
        if self._group is not None:
            self._send(datagrams, self._group)
            return
        for node, address in self._destinations.items():
            if members is None or node in members:
                self._send(datagrams, address)
        for address in self._strangers:
            self._send(datagrams, address)

    def unicast(self, node_id: int, datagrams: list[Datagram]) -> None:
        """Send to one node; a node that was never heard of is loss."""
        address = self._addresses.get(node_id)
        if address is None:
            self.stats.sends_unknown_node += 1
        else:
            self._send(datagrams, address)

    def _send(self, datagrams: list[Datagram], address: Address) -> None:
        if self.token is None:
            self.stats.sends_failed += 1
            return
        sizes = [len(header) + len(body) for header, body in datagrams]
        for begin, end in trains(sizes):
            size = sizes[begin]
            if self._segmentation or end == begin + 1:
                self._transmit(self.token, datagrams[begin:end], size, address)
            else:
                for datagram, one in zip(datagrams[begin:end], sizes[begin:end], strict=True):
                    self._transmit(self.token, [datagram], one, address)

    def _transmit(
        self, s: socket.socket, train: list[Datagram], size: int, address: Address
    ) -> None:
        pieces = [piece for datagram in train for piece in datagram]
        control = [(SOL_UDP, UDP_SEGMENT, SEGMENT_LENGTH.pack(size))] if len(train) > 1 else []
        try:
            sent = s.sendmsg(pieces, control, 0, address)
        except OSError as error:
            if len(train) > 1 and error.errno in NO_SEGMENTATION:
                self._singly(s, train, error, address)
            else:
                self._failed(address, size, error)
            return
        self._failures = 0
        self.stats.trains_sent += 1
        self.stats.datagrams_sent += len(train)
        self.stats.bytes_sent += sent

    def _singly(
        self, s: socket.socket, train: list[Datagram], error: OSError, address: Address
    ) -> None:
        """Send one by one what could not be sent at once; if that works, go on so."""
        failed = self.stats.sends_failed
        for datagram in train:
            self._transmit(s, [datagram], len(datagram[0]) + len(datagram[1]), address)
        if self.stats.sends_failed == failed:
            self._segmentation = False
            _LOG.info("no_segmentation", reason=error.strerror or str(error))

    def _failed(self, address: Address, size: int, error: OSError) -> None:
        self.stats.sends_failed += 1
        self._failures += 1
        if error.errno == errno.EMSGSIZE:
            self._too_long(address, size)
        elif self._failures == FAILURES_BEFORE_WARNING:
            _LOG.warning(
                "sends_fail",
                link=self.settings.number,
                address=address[0],
                reason=error.strerror or str(error),
                rule="check the interface and the firewall",
            )

    def _too_long(self, address: Address, size: int) -> None:
        self.stats.sends_too_long += 1
        if not self._too_long_told:
            self._too_long_told = True
            _LOG.warning(
                "datagram_too_long",
                link=self.settings.number,
                address=address[0],
                size=size,
                netmtu=self.settings.netmtu_bytes,
                mtu=self.device.mtu_bytes if self.device else 0,
                rule="longer than the network takes: lower totem.netmtu",
            )

    # Receiving

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
        return data, size, source

    def _count_drops(self) -> None:
        """Count what the kernel has dropped because the buffers were full."""
        for position, s in enumerate((self.data, self.token)):
            if s is None:
                continue
            try:
                memory = s.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size)
            except OSError:
                continue  # an old kernel
            dropped = MEMINFO.unpack(memory)[MEMINFO_DROPS]
            self.stats.datagrams_dropped_kernel += dropped - self._drops[position]
            self._drops[position] = dropped


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


def _is_link_local(address: str) -> bool:
    """Tell whether an IPv6 address means nothing without an interface."""
    parsed = ipaddress.IPv6Address(address)
    return parsed.is_link_local or (parsed.is_multicast and parsed.packed[1] & 0x0F == 2)


def _membership(group: str, address: str, device: Device) -> bytes:
    """Return a struct ip_mreqn."""
    return socket.inet_aton(group) + socket.inet_aton(address) + struct.pack("@i", device.index)


def _set_buffer(s: socket.socket, force: int, plain: int) -> None:
    try:
        s.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
    except PermissionError:
        s.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
