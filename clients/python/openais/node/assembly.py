"""From bound sections to a `NodeConfig`: derived values and the checks across directives. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openais.node import paths
from openais.node.binding import BoundSection
from openais.node.directives import (
    HOLD_MIN_MS,
    NODE_ID_MAX,
    SERVICE_NAMES,
    SUBSYSTEMS,
    TIMEOUT_MIN_MS,
)
from openais.node.exits import Exit
from openais.node.machine import IpInterface, Machine
from openais.node.model import (
    ClmConfig,
    Identity,
    Interface,
    IpcConfig,
    LoggingConfig,
    NodeConfig,
    NodeEntry,
    ServicesConfig,
    Subsystem,
    SystemConfig,
    TotemConfig,
)
from openais.node.syntax import Problems

VERSION: Final = 2  # of the file's format
AUTHKEY_VARIABLE: Final = "OPENAIS_TOTEM_AUTHKEY_FILE"
_HIGH_BIT: Final = 1 << 31

_SERVICES: Final = dict(zip(SERVICE_NAMES, ("clm", "ckpt", "cpg"), strict=True))


@dataclass(slots=True)
class _Local:
    """This node, as far as the file tells."""

    entry: NodeEntry | None
    node_id: int
    name: str


class Assembler:
    """Builds the configuration of one node; what does not fit goes to ``problems``.

    Args:
        root: the bound file.
        machine: facts of this machine.
        environ: the environment, already emptied where it is not to be trusted.
        problems: collects; the result of `assemble` counts only while it holds no error.
    """

    def __init__(
        self, root: BoundSection, machine: Machine, environ: Mapping[str, str], problems: Problems
    ) -> None:
        self._root = root
        self._totem = root.one("totem")
        self._machine = machine
        self._environ = environ
        self._problems = problems

    def assemble(self, path: Path, more_identities: tuple[BoundSection, ...]) -> NodeConfig:
        """Check across directives, derive what was left out, build the values.

        Raises:
            TooManyProblemsError: see `Problems.error`.
        """
        self._check_file()
        nodes = self._nodes()
        local_entry = self._local_entry(nodes) if nodes else None
        interfaces = self._interfaces(local_entry)
        local = self._local(local_entry, interfaces)
        uidgid = (*self._root.all("uidgid"), *more_identities)
        return NodeConfig(
            path=path,
            totem=self._totem_config(local, nodes, interfaces),
            interfaces=interfaces,
            nodes=nodes,
            logging=self._logging(),
            system=self._system(),
            ipc=self._ipc(),
            identities=tuple(self._identity(section) for section in uidgid),
            services=self._services(),
            clm=self._clm(),
            warnings=tuple(self._problems.warnings),
        )

    # The file as a whole

    def _check_file(self) -> None:
        totem, nodelist = self._totem, self._root.all("nodelist")
        if not self._root.all("totem"):
            self._problems.error(1, "section totem is missing")
        elif totem.has("version") and totem.integer("version") != VERSION:
            self._problems.error(totem.line_of("version"), f"totem.version must be {VERSION}")
        if not totem.all("totem.interface") and not (nodelist and nodelist[0].sections):
            self._problems.error(totem.line, "no interfaces defined")

    # The nodelist

    def _nodes(self) -> tuple[NodeEntry, ...]:
        sections = self._root.one("nodelist").all("nodelist.node")
        entries: list[NodeEntry] = []
        for section in sections:
            if section.has("ring0_addr") and section.has("nodeid"):
                entry = self._node(section)
                self._check_unique(entry, entries, section)
                entries.append(entry)
        if len({len(entry.addresses) for entry in entries}) > 1:
            self._problems.error(
                sections[0].line, "nodelist.node.ring1_addr: all nodes must have one, or none"
            )
        return tuple(entries)

    def _node(self, section: BoundSection) -> NodeEntry:
        keys = [key for key in ("ring0_addr", "ring1_addr") if section.has(key)]
        addresses = tuple(self._resolved(section, key) for key in keys)
        name = section.optional_text("name") or section.text("ring0_addr")
        return NodeEntry(section.integer("nodeid"), name, addresses)

    def _resolved(self, section: BoundSection, key: str) -> str:
        text = section.text(key)
        if _literal(text) is not None:
            return text
        answers = self._machine.resolve(text)
        fitting = [answer for answer in answers if ":" not in answer] or list(answers)
        if not fitting:
            self._problems.error(
                section.line_of(key), f'nodelist.node.{key}: host name "{text}" is not known'
            )
            return text
        return fitting[0]

    def _check_unique(
        self, entry: NodeEntry, others: list[NodeEntry], section: BoundSection
    ) -> None:
        line = section.line
        for other in others:
            if other.node_id == entry.node_id:
                self._problems.error(
                    section.line_of("nodeid"),
                    f"nodelist.node.nodeid: {entry.node_id} is used twice",
                )
            if other.name == entry.name:
                self._problems.error(
                    section.line_of("name"), f'nodelist.node.name: "{entry.name}" is used twice'
                )
            for address in sorted(set(other.addresses) & set(entry.addresses)):
                self._problems.error(line, f"nodelist.node: address {address} is used twice")

    def _local_entry(self, nodes: tuple[NodeEntry, ...]) -> NodeEntry | None:
        """Find this machine in the nodelist.

        By ``totem.nodeid``, by the address an interface names, by the addresses of the machine,
        by its names: the first rule that fits exactly one entry.
        """
        if self._totem.has("nodeid"):
            node_id = self._totem.integer("nodeid")
            found = [node for node in nodes if node.node_id == node_id]
            if not found:
                self._problems.error(
                    self._totem.line_of("nodeid"),
                    f"totem.nodeid: {node_id} is not in the nodelist",
                )
            return found[0] if found else None
        matching = self._matching(nodes)
        if matching is None:
            self._problems.error(
                self._root.one("nodelist").line, "no nodelist entry matches this machine"
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
        full_name = self._machine.full_name()
        return next((node for node in nodes if node.name == full_name), None)

    # Interfaces

    def _interfaces(self, local: NodeEntry | None) -> tuple[Interface, ...]:
        sections = self._totem.all("totem.interface")
        if not sections:
            sections = [self._totem.one("totem.interface")] if local is not None else []
        interfaces = tuple(
            self._interface(section, local, alone=len(sections) == 1) for section in sections
        )
        numbers = sorted(interface.ring_number for interface in interfaces)
        if numbers != list(range(len(numbers))):
            self._problems.error(
                sections[-1].line_of("ringnumber"),
                "totem.interface.ringnumber: numbers must be unique and begin at 0",
            )
        if len(interfaces) > 1:
            self._check_rings(interfaces, sections)
        return tuple(sorted(interfaces, key=lambda interface: interface.ring_number))

    def _interface(
        self, section: BoundSection, local: NodeEntry | None, *, alone: bool
    ) -> Interface:
        if not section.has("ringnumber") and not alone:
            self._problems.error(section.line, "totem.interface.ringnumber is missing")
        number = section.integer("ringnumber") if section.has("ringnumber") else 0
        bind = self._bind_address(section, local, number)
        return Interface(
            ring_number=number,
            bind_address=bind,
            multicast_address=self._multicast_address(section, bind),
            multicast_port=section.integer("mcastport"),
            ttl=self._ttl(section),
        )

    def _bind_address(self, section: BoundSection, local: NodeEntry | None, number: int) -> str:
        if section.has("bindnetaddr"):
            text = section.text("bindnetaddr")
            found = own_address(text, self._machine.addresses)
            if found is None:
                self._problems.warning(
                    section.line_of("bindnetaddr"),
                    f"totem.interface.bindnetaddr: no interface has {text} now",
                )
            return found or text
        if local is not None and number < len(local.addresses):
            return local.addresses[number]
        self._problems.error(section.line, "totem.interface.bindnetaddr is missing")
        return "0.0.0.0"  # noqa: S104 - never bound: the line above ended this configuration

    def _ttl(self, section: BoundSection) -> int:
        if section.has("ttl") and self._totem.text("transport") == "udpu":
            self._problems.error(
                section.line_of("ttl"), "totem.interface.ttl: only with totem.transport udp"
            )
        return section.integer("ttl")

    def _multicast_address(self, section: BoundSection, bind: str) -> str:
        if self._totem.text("transport") == "udpu":
            return ""
        line = section.line_of("mcastaddr")
        if section.has("mcastaddr"):
            text = section.text("mcastaddr")
            self._check_multicast(text, bind, line)
            return text
        name = self._totem.optional_text("cluster_name")
        if name is None or ":" in bind:
            self._problems.error(
                line,
                "totem.interface.mcastaddr is missing (only an IPv4 network with "
                "totem.cluster_name has an automatic one)",
            )
            return ""
        return automatic_multicast_address(name)

    def _check_multicast(self, text: str, bind: str, line: int) -> None:
        address = ipaddress.ip_address(text)
        if not address.is_multicast:
            self._problems.error(
                line, f'totem.interface.mcastaddr: "{text}" is not a multicast address'
            )
        elif address.version != ipaddress.ip_address(bind).version:
            self._problems.error(
                line, "totem.interface.mcastaddr and bindnetaddr must be of one address family"
            )
        elif text.startswith("224.0.0."):
            self._problems.error(
                line, f"totem.interface.mcastaddr: {text} is reserved for routing protocols"
            )
        elif text.startswith("224."):
            self._problems.warning(
                line, f"totem.interface.mcastaddr: {text} is in a range assigned to others"
            )

    def _check_rings(self, interfaces: tuple[Interface, ...], sections: list[BoundSection]) -> None:
        line = sections[-1].line
        families = {ipaddress.ip_address(i.bind_address).version for i in interfaces}
        if len(families) > 1:
            self._problems.error(line, "totem.interface: all rings must be of one address family")
        for first, second in itertools.pairwise(interfaces):
            same = (
                first.bind_address == second.bind_address
                or first.multicast_address == second.multicast_address != ""
            )
            if same and abs(first.multicast_port - second.multicast_port) < 2:
                self._problems.error(
                    line,
                    "totem.interface.mcastport: rings with the same address need ports that "
                    f"differ by 2 or more, got {first.multicast_port} and {second.multicast_port}",
                )
        if self._totem.optional_text("rrp_mode") == "none":
            self._problems.error(
                self._totem.line_of("rrp_mode"), "totem.rrp_mode: none with two interfaces"
            )
        self._problems.warning(line, "totem.interface: ring 1 is not supported yet and ignored")

    # This node

    def _local(self, entry: NodeEntry | None, interfaces: tuple[Interface, ...]) -> _Local:
        clm_name = self._root.one("clm").optional_text("node_name")
        listed = next(
            (
                section.optional_text("name")
                for section in self._root.one("nodelist").all("nodelist.node")
                if entry is not None and section.values.get("nodeid") == entry.node_id
            ),
            None,
        )
        if clm_name is not None and listed is not None and clm_name != listed:
            self._problems.error(
                self._root.one("clm").line_of("node_name"),
                f'clm.node_name: "{clm_name}" differs from the nodelist\'s name "{listed}"',
            )
        name = listed or clm_name or self._machine.host_name
        return _Local(entry, self._node_id(entry, interfaces), name)

    def _node_id(self, entry: NodeEntry | None, interfaces: tuple[Interface, ...]) -> int:
        if entry is not None:
            return entry.node_id
        if self._totem.has("nodeid"):
            return self._totem.integer("nodeid")
        if not interfaces:
            return 0
        address = ipaddress.ip_address(interfaces[0].bind_address)
        if address.version != 4:
            self._problems.error(self._totem.line, "an IPv6 network needs a node id")
            return 0
        number = int(address)
        if self._totem.boolean("clear_node_high_bit"):
            number &= ~_HIGH_BIT
        if not 1 <= number <= NODE_ID_MAX:
            self._problems.error(self._totem.line, f"{address} gives no node id; set totem.nodeid")
        return number

    # The ring

    def _totem_config(
        self, local: _Local, nodes: tuple[NodeEntry, ...], interfaces: tuple[Interface, ...]
    ) -> TotemConfig:
        totem = self._totem
        self._check_security()
        if totem.text("transport") == "udpu" and not nodes:
            self._problems.error(
                totem.line_of("transport"), "totem.transport: udpu needs a nodelist"
            )
        timing = self._timing(len(nodes))
        window = totem.optional_integer("window_size")
        max_messages = totem.optional_integer("max_messages")
        if window is not None and max_messages is not None and max_messages > window:
            self._problems.error(
                totem.line_of("max_messages"),
                f"totem.max_messages: {max_messages} is over totem.window_size {window}",
            )
        return TotemConfig(
            cluster_name=totem.optional_text("cluster_name") or "",
            transport=totem.text("transport"),
            node_id=local.node_id,
            node_name=local.name,
            secauth=totem.boolean("secauth"),
            crypto_cipher=totem.text("crypto_cipher"),
            key_file=self._key_file(),
            rrp_mode=totem.optional_text("rrp_mode")
            or ("passive" if len(interfaces) > 1 else "none"),
            netmtu_bytes=totem.integer("netmtu"),
            token_ms=totem.integer("token"),
            token_coefficient_ms=totem.integer("token_coefficient"),
            runtime_token_ms=timing.token_ms,
            token_retransmits_before_loss=totem.integer("token_retransmits_before_loss_const"),
            token_retransmit_ms=timing.token_retransmit_ms,
            hold_ms=timing.hold_ms,
            consensus_ms=timing.consensus_ms,
            join_ms=totem.integer("join"),
            send_join_ms=totem.integer("send_join"),
            merge_ms=totem.integer("merge"),
            downcheck_ms=totem.integer("downcheck"),
            window_size_messages=window or 0,
            max_messages=max_messages,
            fail_recv_const=totem.optional_integer("fail_recv_const"),
            seqno_unchanged_const=totem.optional_integer("seqno_unchanged_const"),
            miss_count_const=totem.optional_integer("miss_count_const"),
        )

    def _key_file(self) -> Path:
        given = self._totem.optional_path("keyfile")
        if given is not None:
            return given
        return Path(self._environ.get(AUTHKEY_VARIABLE) or paths.KEY_FILE)

    def _check_security(self) -> None:
        totem = self._totem
        secauth, cipher = totem.boolean("secauth"), totem.text("crypto_cipher")
        if secauth and cipher == "none":
            self._problems.error(
                totem.line_of("crypto_cipher"), "totem.crypto_cipher: none only with secauth off"
            )
        if not secauth:
            self._problems.warning(
                totem.line_of("secauth"),
                "totem.secauth: off, datagrams are neither encrypted nor authenticated",
            )
            if totem.has("keyfile"):
                self._problems.warning(
                    totem.line_of("keyfile"), "totem.keyfile: not used with secauth off"
                )

    def _timing(self, nodes_count: int) -> Timing:
        totem = self._totem
        derived = derive_timing(
            totem.integer("token"),
            totem.integer("token_coefficient"),
            nodes_count,
            totem.integer("token_retransmits_before_loss_const"),
        )
        timing = Timing(
            derived.token_ms,
            totem.optional_integer("token_retransmit") or derived.token_retransmit_ms,
            totem.optional_integer("hold") or derived.hold_ms,
            totem.optional_integer("consensus") or derived.consensus_ms,
        )
        if not totem.has("hold") and totem.has("token_retransmit"):
            timing.hold_ms = derive_hold_ms(timing.token_retransmit_ms)
        self._check_timing(timing)
        return timing

    def _check_timing(self, timing: Timing) -> None:
        totem, problems = self._totem, self._problems
        join = totem.integer("join")
        for key, value, minimum in (
            ("token_retransmit", timing.token_retransmit_ms, TIMEOUT_MIN_MS),
            ("hold", timing.hold_ms, HOLD_MIN_MS),
        ):
            if value < minimum:
                problems.error(
                    totem.line_of("token"),
                    f"totem.{key}: {value} ms, derived from totem.token, is below the minimum of "
                    f"{minimum} ms",
                )
        if timing.consensus_ms < join:
            problems.error(
                totem.line_of("consensus"),
                f"totem.consensus: {timing.consensus_ms} is below totem.join {join}",
            )
        elif timing.consensus_ms < timing.token_ms * 6 // 5:
            problems.warning(
                totem.line_of("consensus"),
                f"totem.consensus: {timing.consensus_ms} is below 1.2 * token {timing.token_ms}",
            )
        if timing.token_retransmit_ms > timing.token_ms:
            problems.error(
                totem.line_of("token_retransmit"),
                f"totem.token_retransmit: {timing.token_retransmit_ms} is over totem.token "
                f"{timing.token_ms}",
            )
        if timing.hold_ms > timing.token_retransmit_ms:
            problems.error(
                totem.line_of("hold"),
                f"totem.hold: {timing.hold_ms} is over totem.token_retransmit "
                f"{timing.token_retransmit_ms}",
            )

    # Everything else

    def _logging(self) -> LoggingConfig:
        section = self._root.one("logging")
        logfile = section.optional_path("logfile")
        if section.boolean("to_logfile") and logfile is None:
            self._problems.error(
                section.line_of("to_logfile"),
                "logfile missing",
                status=Exit.LOGGING_CONFIGURATION,
            )
        return LoggingConfig(
            to_stderr=section.boolean("to_stderr"),
            to_logfile=section.boolean("to_logfile"),
            to_syslog=section.boolean("to_syslog"),
            logfile=logfile,
            logfile_priority=section.text("logfile_priority"),
            syslog_priority=section.text("syslog_priority"),
            syslog_facility=section.text("syslog_facility"),
            debug=section.text("debug"),
            timestamp=section.text("timestamp"),
            format=section.text("format"),
            subsystems=tuple(self._subsystems(section)),
        )

    def _subsystems(self, logging: BoundSection) -> list[Subsystem]:
        found = []
        for section in logging.all("logging.logger_subsys"):
            name = section.optional_text("subsys")
            if name is None:
                continue
            if name.upper() not in SUBSYSTEMS:
                self._problems.warning(
                    section.line_of("subsys"),
                    f'logging.logger_subsys.subsys: "{name}" is no subsystem',
                )
            debug = section.optional_text("debug") or logging.text("debug")
            found.append(Subsystem(name.upper(), debug))
        return found

    def _system(self) -> SystemConfig:
        section = self._root.one("system")
        run = section.optional_path("run_dir") or _first_directory(
            self._environ, "RUNTIME_DIRECTORY", paths.RUN_DIR
        )
        state = section.optional_path("state_dir") or _first_directory(
            self._environ, "STATE_DIRECTORY", paths.STATE_DIR
        )
        try:
            paths.socket_path(run, "x" * paths.SOCKET_NAME_SIZE_MAX)
        except paths.SocketPathError:
            limit = paths.SOCKET_PATH_SIZE_MAX - paths.SOCKET_NAME_SIZE_MAX - 1
            self._problems.error(
                section.line_of("run_dir"),
                f"system.run_dir: {run} is longer than {limit} bytes, so its sockets' paths would "
                "be longer than the kernel takes",
            )
        return SystemConfig(
            run_dir=run,
            state_dir=state,
            sched_rr=section.boolean("sched_rr"),
            priority=section.text("priority"),
            mlock=section.boolean("mlock"),
        )

    def _ipc(self) -> IpcConfig:
        section = self._root.one("ipc")
        return IpcConfig(
            mode=section.integer("mode"),
            clients_max=section.integer("max_clients"),
            message_size_max_bytes=section.integer("max_message"),
        )

    def _identity(self, section: BoundSection) -> Identity:
        ids: dict[str, int | None] = {"uid": None, "gid": None}
        for key, look_up in (("uid", self._machine.user_id), ("gid", self._machine.group_id)):
            name = section.optional_text(key)
            if name is not None:
                ids[key] = look_up(name)
                if ids[key] is None:
                    self._problems.error(
                        section.line_of(key), f'uidgid.{key}: "{name}" is not known here'
                    )
        if not section.lines:
            self._problems.error(section.line, "uidgid: neither uid nor gid is given")
        return Identity(ids["uid"], ids["gid"], section.boolean("admin"))

    def _services(self) -> ServicesConfig:
        sections = self._root.all("service")
        if not sections:
            return ServicesConfig(tuple(_SERVICES.values()))
        chosen = []
        for section in sections:
            name = section.optional_text("name")
            if name is None:
                continue
            if name not in _SERVICES:
                self._problems.warning(
                    section.line_of("name"), f"service {name} is not supported yet and ignored"
                )
            elif section.integer("ver") == 1:
                self._problems.warning(
                    section.line_of("ver"), f"service {name}: ver 1 means that it does not start"
                )
            else:
                chosen.append(_SERVICES[name])
        return ServicesConfig(tuple(dict.fromkeys(chosen)))

    def _clm(self) -> ClmConfig:
        section = self._root.one("clm")
        return ClmConfig(section.text("cluster_name"), section.text("node_name_form"))


@dataclass(slots=True)
class Timing:
    """Timeouts that derive from the token's."""

    token_ms: int
    token_retransmit_ms: int
    hold_ms: int
    consensus_ms: int


def derive_timing(token_ms: int, coefficient_ms: int, nodes_count: int, retransmits: int) -> Timing:
    """Derive the timeouts that the file leaves out.

    The token timeout grows with the nodelist: by the coefficient for each node above two.
    """
    token = token_ms + max(0, nodes_count - 2) * coefficient_ms
    retransmit = token * 10 // (retransmits * 10 + 2)
    return Timing(token, retransmit, derive_hold_ms(retransmit), token * 6 // 5)


def derive_hold_ms(token_retransmit_ms: int) -> int:
    """Derive how long an idle token is held."""
    return (token_retransmit_ms * 8 - 100) // 10


def automatic_multicast_address(cluster_name: str) -> str:
    """Return the multicast address of a cluster that names none: 239.192.x.y from a hash."""
    digest = hashlib.sha256(cluster_name.encode()).digest()
    return f"239.192.{digest[0]}.{digest[1]}"


def own_address(text: str, addresses: tuple[IpInterface, ...]) -> str | None:
    """Return the address of this machine that an address or network stands for.

    The address itself where this machine has it; every host of the loopback network counts, as
    the kernel takes it too. Else that of the first interface whose network it names.
    """
    wanted = ipaddress.ip_address(text)
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


def _first_directory(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    # The init system gives several directories in one variable, separated by colons.
    first = environ.get(variable, "").partition(":")[0]
    return Path(first) if first else default
