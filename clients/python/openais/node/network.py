"""The nodelist and the interfaces: who this node is, and over which links it talks. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from typing import Final

from openais.node import presets
from openais.node.binding import DERIVED, RULES, BoundSection
from openais.node.exits import Exit
from openais.node.machine import HOSTS_FILE, IpInterface, Machine
from openais.node.model import Interface, NodeEntry
from openais.node.rules import RINGS_MAX
from openais.node.tree import Problems

PORT: Final = 5405  # of link 0; that of the next link is higher by 2
_PLACEHOLDER: Final = "0.0.0.0"  # noqa: S104 - never bound: an error ended that configuration
_RING_KEYS: Final = tuple(f"ring{ring}_addr" for ring in range(RINGS_MAX))
_FAMILIES: Final = {"ipv4": (4,), "ipv6": (6,), "ipv4-6": (4, 6), "ipv6-4": (6, 4)}


class Network:
    """Reads the nodelist and the interfaces; what does not fit goes to ``problems``.

    Args:
        root: the bound tree.
        machine: facts of this machine.
        problems: collects.
        testing: ask no name server.
    """

    def __init__(
        self, root: BoundSection, machine: Machine, problems: Problems, *, testing: bool
    ) -> None:
        self._testing = testing
        self._unresolved = False
        self._root = root
        self._totem = root.one("totem")
        self._machine = machine
        self._problems = problems

    # The nodelist

    def nodes(self) -> tuple[NodeEntry, ...]:
        """Return the nodes of the nodelist, checked against each other."""
        entries: list[NodeEntry] = []
        for section in self._node_sections():
            if section.has("ring0_addr") and section.has("nodeid"):
                entry = self._node(section)
                self._check_unique(entry, entries, section)
                entries.append(entry)
        return tuple(entries)

    def _node_sections(self) -> list[BoundSection]:
        return [node for part in self._root.all("nodelist") for node in part.all("nodelist.node")]

    def _node(self, section: BoundSection) -> NodeEntry:
        keys = [key for key in _RING_KEYS if section.has(key)]
        first = self._node_sections()[0]
        for key in _RING_KEYS[1:]:
            if section.has(key) != first.has(key):
                self._problems.error(
                    section.origin_of(key),
                    f"nodelist.node.{key}: all nodes must have one, or none",
                )
        if keys != list(_RING_KEYS[: len(keys)]):
            self._problems.error(
                section.origin, f"nodelist.node: {keys[-1]} without those of the links before"
            )
        name = section.optional_text("name") or section.text("ring0_addr")
        addresses = tuple(self._resolved(section, key) for key in keys)
        return NodeEntry(
            section.integer("nodeid"), name, addresses, section.integer("quorum_votes")
        )

    def _resolved(self, section: BoundSection, key: str) -> str:
        text = section.text(key)
        if _literal(text) is not None:
            return text
        answers = self._machine.listed(text) if self._testing else self._machine.resolve(text)
        for family in _FAMILIES[self._totem.text("ip_version")]:
            for answer in answers:
                if ipaddress.ip_address(answer).version == family:
                    return answer
        self._not_resolved(
            section.origin_of(key), f'nodelist.node.{key}: host name "{text}"', answers
        )
        return _PLACEHOLDER

    def _not_resolved(self, origin: str, what: str, answers: tuple[str, ...]) -> None:
        if answers:
            self._problems.error(origin, f"{what} has no address for totem.ip_version")
        elif self._testing:
            self._unresolved = True
            self._problems.warning(
                origin, f"{what} is not in {HOSTS_FILE}; a test asks no name server"
            )
        else:
            self._problems.error(origin, f"{what} is not known")

    def _check_unique(
        self, entry: NodeEntry, others: list[NodeEntry], section: BoundSection
    ) -> None:
        for other in others:
            if other.node_id == entry.node_id:
                self._problems.error(
                    section.origin_of("nodeid"),
                    f"nodelist.node.nodeid: {entry.node_id} is used twice",
                )
            if other.name == entry.name:
                self._problems.error(
                    section.origin_of("name"), f'nodelist.node.name: "{entry.name}" is used twice'
                )
            for address in sorted(set(other.addresses) & set(entry.addresses) - {_PLACEHOLDER}):
                self._problems.error(
                    section.origin, f"nodelist.node: address {address} is used twice"
                )

    def local_entry(self, nodes: tuple[NodeEntry, ...]) -> NodeEntry | None:
        """Find this machine in the nodelist.

        By ``totem.nodeid``, by the address an interface names, by the addresses of the machine,
        by its names: the first rule that fits exactly one entry.
        """
        if self._totem.has("nodeid"):
            node_id = self._totem.integer("nodeid")
            found = [node for node in nodes if node.node_id == node_id]
            if not found:
                self._problems.error(
                    self._totem.origin_of("nodeid"),
                    f"totem.nodeid: {node_id} is not in the nodelist",
                )
            return found[0] if found else None
        matching = self._matching(nodes)
        if matching is None and self._unresolved:
            self._problems.warning(
                self._root.one("nodelist").origin,
                "which nodelist entry is this machine cannot be told without a name server: "
                "what depends on it was checked for the first",
            )
            return nodes[0]
        if matching is None:
            self._problems.error(
                self._root.one("nodelist").origin, "no nodelist entry matches this machine"
            )
        return matching

    def _matching(self, nodes: tuple[NodeEntry, ...]) -> NodeEntry | None:
        interfaces = self._totem.all("totem.interface")
        named = {section.optional_text("bindnetaddr") for section in interfaces}
        own = {str(address.ip) for address in self._machine.addresses}
        for addresses in (named, own):
            found = [node for node in nodes if node.addresses[0] in addresses]
            if len(found) == 1:
                return found[0]
        host = self._machine.host_name
        for name in (host, host.partition(".")[0]):
            found = [node for node in nodes if node.name == name]
            if found:
                return found[0]
        full_name = host if self._testing else self._machine.full_name()
        return next((node for node in nodes if node.name == full_name), None)

    # Interfaces

    def interfaces(self, local: NodeEntry | None) -> tuple[Interface, ...]:
        """Return the links of this node; those only the nodelist knows have the defaults."""
        sections = self._interface_sections(local)
        interfaces = tuple(self._interface(section, local) for section in sections)
        self._check_number(interfaces, sections)
        if len(interfaces) > 1:
            self._check_links(interfaces, sections)
        elif interfaces:
            self._totem.fill("rrp_mode", "none", DERIVED)
        self._totem.fill("rrp_mode", "passive", DERIVED)
        self._loopback(interfaces)
        return tuple(sorted(interfaces, key=lambda interface: interface.ring_number))

    def _interface_sections(self, local: NodeEntry | None) -> list[BoundSection]:
        written = self._totem.all("totem.interface")
        alone = len(written) == 1
        for section in written:
            if not section.has("ringnumber"):
                if not alone and "ringnumber" not in section.written:
                    self._problems.error(section.origin, "totem.interface.ringnumber is missing")
                section.fill("ringnumber", 0, DERIVED)
        numbers = {section.integer("ringnumber") for section in written}
        rings = range(len(local.addresses)) if local is not None else range(0)
        for ring in rings:
            if ring not in numbers:
                section = BoundSection(RULES["totem.interface"], self._totem.origin)
                section.fill("ringnumber", ring, DERIVED)
                self._totem.sections.append(section)
        presets.apply(self._root, self._totem.text("preset"))
        return self._totem.all("totem.interface")

    def _interface(self, section: BoundSection, local: NodeEntry | None) -> Interface:
        number = section.integer("ringnumber")
        section.fill("mcastport", PORT + 2 * number, DERIVED)
        bind = self._bind_address(section, local, number)
        self._check_ttl(section)
        self._check_mtu(bind)
        self._translate(section)
        return Interface(
            ring_number=number,
            bind_address=bind,
            multicast_address=self._multicast_address(section, bind),
            multicast_port=section.integer("mcastport"),
            ttl=section.integer("ttl"),
            broadcast=section.boolean("broadcast"),
            priority=section.integer("link_priority") or 1,
            member_addresses=self._members(section),
        )

    def _bind_address(self, section: BoundSection, local: NodeEntry | None, number: int) -> str:
        if section.has("bindnetaddr"):
            text = section.text("bindnetaddr")
            found = own_address(text, self._machine.addresses)
            if found is None:
                self._missing(text, number, section.origin_of("bindnetaddr"))
            return found or text
        if local is not None and number < len(local.addresses):
            address = local.addresses[number]
            section.fill("bindnetaddr", address, "nodelist")
            if address != _PLACEHOLDER and own_address(address, self._machine.addresses) is None:
                self._problems.warning(
                    self._root.one("nodelist").origin,
                    f"nodelist.node.{_RING_KEYS[number]}: no interface has {address} now",
                )
            return address
        if "bindnetaddr" not in section.written:
            self._problems.error(section.origin, "totem.interface.bindnetaddr is missing")
        return _PLACEHOLDER

    def _missing(self, text: str, number: int, origin: str) -> None:
        """Say that no interface has an address; whether to wait for one is totemd's to know.

        A network tells no address to wait for, nor does one from which the node id would derive.
        The start fails then with a status after which supervisord tries again.
        """
        reason = f"totem.interface.bindnetaddr: no interface has {text} now"
        if ipaddress.ip_address(text).packed[-1] == 0:
            reason = f"{reason}, and for a network it is not waited"
        elif number == 0 and not (self._totem.has("nodeid") or self._node_sections()):
            reason = f"{reason}, from which the node id would derive"
        else:
            self._problems.warning(origin, reason)
            return
        self._problems.error(origin, reason, status=Exit.NETWORK)

    def _check_ttl(self, section: BoundSection) -> None:
        if section.given("ttl") and self._totem.text("transport") == "udpu":
            self._problems.error(
                section.origin_of("ttl"), "totem.interface.ttl: only with totem.transport udp"
            )

    def _check_mtu(self, bind: str) -> None:
        if not self._testing:
            return  # totemd looks itself, again and again
        mtu, own = self._totem.integer("netmtu"), self._machine.mtu_bytes(bind)
        if own is not None and mtu > own:
            self._problems.warning(
                self._totem.origin_of("netmtu"),
                f"totem.netmtu: {mtu} is over the MTU {own} of the interface that has {bind}",
            )

    def _translate(self, section: BoundSection) -> None:
        """Take up what predecessors say of each link and we say of all."""
        for key, (target, ours) in {
            "knet_link_priority": (section, "link_priority"),
            "knet_ping_interval": (self._totem, "link_probe_interval"),
            "knet_ping_timeout": (self._totem, "link_probe_timeout"),
            "knet_pong_count": (self._totem, "link_probe_count"),
        }.items():
            if section.has(key):
                target.fill(ours, section.integer(key), section.origin_of(key))

    def _members(self, section: BoundSection) -> tuple[str, ...]:
        members = section.all("totem.interface.member")
        if members and self._totem.text("transport") != "udpu":
            self._problems.error(
                members[0].origin, "totem.interface.member: only with totem.transport udpu"
            )
        return tuple(m.text("memberaddr") for m in members if m.has("memberaddr"))

    def _multicast_address(self, section: BoundSection, bind: str) -> str:
        if self._totem.text("transport") == "udpu":
            return ""
        if section.boolean("broadcast"):
            return self._broadcast_address(section, bind)
        if section.has("mcastaddr"):
            text = section.text("mcastaddr")
            self._check_multicast(text, bind, section.origin_of("mcastaddr"))
            return text
        name = self._totem.optional_text("cluster_name")
        if name is None:
            if "mcastaddr" not in section.written:
                self._problems.error(
                    section.origin,
                    "totem.interface.mcastaddr is missing (only a cluster with "
                    "totem.cluster_name has an automatic one)",
                )
            return ""
        version = 6 if ":" in bind else 4
        address = automatic_multicast_address(name, section.integer("ringnumber"), version)
        section.fill("mcastaddr", address, DERIVED)
        return address

    def _broadcast_address(self, section: BoundSection, bind: str) -> str:
        origin = section.origin_of("broadcast")
        if section.has("mcastaddr"):
            self._problems.error(origin, "totem.interface.broadcast: not together with mcastaddr")
        if ":" in bind:
            self._problems.error(origin, "totem.interface.broadcast: only with IPv4")
        for address in self._machine.addresses:
            if str(address.ip) == bind:
                return str(address.network.broadcast_address)
        return "255.255.255.255"

    def _check_multicast(self, text: str, bind: str, origin: str) -> None:
        address = ipaddress.ip_address(text)
        if not address.is_multicast:
            self._problems.error(
                origin, f'totem.interface.mcastaddr: "{text}" is not a multicast address'
            )
        elif address.version != ipaddress.ip_address(bind).version:
            self._problems.error(
                origin, "totem.interface.mcastaddr and bindnetaddr must be of one address family"
            )
        elif text.startswith("224.0.0."):
            self._problems.error(
                origin, f"totem.interface.mcastaddr: {text} is reserved for routing protocols"
            )
        elif text.startswith("224."):
            self._problems.warning(
                origin, f"totem.interface.mcastaddr: {text} is in a range assigned to others"
            )

    def _check_number(
        self, interfaces: tuple[Interface, ...], sections: list[BoundSection]
    ) -> None:
        if len(interfaces) > RINGS_MAX:
            self._problems.error(
                sections[RINGS_MAX].origin, f"totem.interface: more than {RINGS_MAX}"
            )
        numbers = sorted(interface.ring_number for interface in interfaces)
        if numbers != list(range(len(numbers))):
            self._problems.error(
                sections[-1].origin_of("ringnumber"),
                "totem.interface.ringnumber: numbers must be unique and begin at 0",
            )

    def _check_links(self, interfaces: tuple[Interface, ...], sections: list[BoundSection]) -> None:
        origin = sections[-1].origin
        families = {ipaddress.ip_address(i.bind_address).version for i in interfaces}
        if len(families) > 1:
            self._problems.error(origin, "totem.interface: all rings must be of one address family")
        for first, second in itertools.combinations(interfaces, 2):
            same = (
                first.bind_address == second.bind_address
                or first.multicast_address == second.multicast_address != ""
            )
            if same and abs(first.multicast_port - second.multicast_port) < 2:
                self._problems.error(
                    origin,
                    "totem.interface.mcastport: rings with the same address need ports that "
                    f"differ by 2 or more, got {first.multicast_port} and {second.multicast_port}",
                )
        if self._totem.optional_text("rrp_mode") == "none":
            self._problems.error(
                self._totem.origin_of("rrp_mode"),
                f"totem.rrp_mode: none with {len(interfaces)} interfaces",
            )

    def _loopback(self, interfaces: tuple[Interface, ...]) -> None:
        bind = interfaces[0].bind_address if interfaces else _PLACEHOLDER
        address = ipaddress.ip_address(bind)
        shared = sum(
            address.version == own.version and address in own.network
            for own in self._machine.addresses
        )
        self._totem.fill("loopback", address.is_loopback or shared > 1, DERIVED)


def automatic_multicast_address(cluster_name: str, ring: int = 0, version: int = 4) -> str:
    """Return the multicast address of a cluster that names none.

    From a hash of the name: 239.192.x.y, or ff15::x:y. The last byte grows with the link.
    """
    digest = hashlib.sha256(cluster_name.encode()).digest()
    if version == 4:
        return f"239.192.{digest[0]}.{(digest[1] + ring) & 0xFF}"
    low = bytes([*digest[:3], (digest[3] + ring) & 0xFF])
    return str(ipaddress.IPv6Address(b"\xff\x15" + bytes(10) + low))


def own_address(text: str, addresses: tuple[IpInterface, ...]) -> str | None:
    """Return the address of this machine that an address or network stands for.

    The address itself where this machine has it; every host of the loopback network counts, as
    the kernel takes it too. Else that of the first interface whose network it names.
    """
    wanted = ipaddress.ip_address(text.partition("%")[0])
    if any(address.ip == wanted for address in addresses):
        return text
    for address in addresses:
        if wanted.version == address.version and wanted in address.network:
            if wanted.is_loopback and wanted != address.network.network_address:
                return text
            if wanted == address.network.network_address:
                return str(address.ip)
    return None


def _literal(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
