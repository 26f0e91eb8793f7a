"""From bound sections to a `NodeConfig`: derived values and the checks across directives. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openais.node import paths, presets, timing
from openais.node.binding import DERIVED, BoundSection
from openais.node.directives import SERVICES, SUBSYSTEMS
from openais.node.exits import Exit
from openais.node.machine import Machine
from openais.node.model import (
    CkptConfig,
    ClmConfig,
    Identity,
    Interface,
    IpcConfig,
    LoggingConfig,
    NodeConfig,
    NodeEntry,
    QuorumConfig,
    ServiceMemoryConfig,
    ServicesConfig,
    Subsystem,
    SystemConfig,
    TotemConfig,
)
from openais.node.network import Network
from openais.node.rules import NODE_ID_MAX
from openais.node.tree import Problems

VERSION: Final = 2  # of the file's format
AUTHKEY_VARIABLE: Final = "OPENAIS_TOTEM_AUTHKEY_FILE"
AMF_VARIABLE: Final = "OPENAIS_AMF_CONFIG_FILE"
INLINE_KEY_VARIABLE: Final = "OPENAIS_ALLOW_INLINE_KEY"
COMMAND_LINE: Final = "command line"  # origin of a value
_HIGH_BIT: Final = 1 << 31

# field of TotemConfig -> key
_NUMBERS: Final = {
    "config_version": "config_version",
    "max_nodes": "max_nodes",
    "netmtu_bytes": "netmtu",
    "block_datagrams": "block_datagrams",
    "ip_dscp": "ip_dscp",
    "downcheck_ms": "downcheck",
    "link_probe_interval_ms": "link_probe_interval",
    "link_probe_timeout_ms": "link_probe_timeout",
    "link_probe_count": "link_probe_count",
    "rrp_problem_count_timeout_ms": "rrp_problem_count_timeout",
    "rrp_problem_count_threshold": "rrp_problem_count_threshold",
    "rrp_problem_count_mcast_threshold": "rrp_problem_count_mcast_threshold",
    "rrp_token_expired_timeout_ms": "rrp_token_expired_timeout",
    "rrp_autorecovery_check_timeout_ms": "rrp_autorecovery_check_timeout",
    "token_ms": "token",
    "token_coefficient_ms": "token_coefficient",
    "token_warning_percent": "token_warning",
    "token_retransmits_before_loss": "token_retransmits_before_loss_const",
    "token_retransmit_ms": "token_retransmit",
    "token_retransmit_min_ms": "token_retransmit_min",
    "token_retransmit_first_ms": "token_retransmit_first",
    "hold_ms": "hold",
    "hold_cancel_retry_ms": "hold_cancel_retry",
    "seqno_unchanged_const": "seqno_unchanged_const",
    "singleton_interval_ms": "singleton_interval",
    "heartbeat_failures_allowed": "heartbeat_failures_allowed",
    "max_network_delay_ms": "max_network_delay",
    "join_ms": "join",
    "send_join_ms": "send_join",
    "consensus_ms": "consensus",
    "silent_fail_ms": "silent_fail",
    "startup_wait_ms": "startup_wait",
    "merge_ms": "merge",
    "flap_max_ms": "flap_max",
    "sync_timeout_ms": "sync_timeout",
    "fail_recv_const": "fail_recv_const",
    "fail_recv_time_ms": "fail_recv_time",
    "max_messages": "max_messages",
    "accelerated_window_messages": "accelerated_window",
    "accel_min": "accel_min",
    "miss_count_const": "miss_count_const",
    "max_gap_messages": "max_gap",
    "max_unstable_bytes": "max_unstable_bytes",
}

_OF_SUBSYSTEMS: Final = (  # keys of a subsystem that are those of all where it has none
    *("to_stderr", "to_logfile", "to_syslog", "debug"),
    *("logfile_priority", "syslog_priority", "syslog_facility"),
)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line and the environment say beside the sources.

    ``environ`` is already emptied where it is not to be trusted.
    """

    path: Path  # of the main file
    environ: Mapping[str, str]
    key_file: Path | None = None
    amf_file: Path | None = None
    testing: bool = False  # nothing will be started


class Assembler:
    """Builds the configuration of one node; what does not fit goes to ``problems``.

    What nobody wrote is filled into ``root`` with its origin, so that it tells every effective
    value afterwards.

    Args:
        root: the bound tree.
        machine: facts of this machine.
        given: from the command line and the environment.
        problems: collects; the result of `assemble` counts only while it holds no error.
    """

    def __init__(
        self, root: BoundSection, machine: Machine, given: Given, problems: Problems
    ) -> None:
        self._root = root
        self._written = bool(root.all("totem"))
        self._totem = root.one("totem")
        self._machine = machine
        self._given = given
        self._problems = problems

    def assemble(self) -> NodeConfig:
        """Check across directives, derive what was left out, build the values.

        Raises:
            TooManyProblemsError: see `Problems.error`.
        """
        presets.apply(self._root, self._totem.text("preset"))
        network = Network(self._root, self._machine, self._problems, testing=self._given.testing)
        self._check_file()
        self._totem.fill("ip_version", timing.ip_version(self._totem), DERIVED)
        nodes = network.nodes()
        local_entry = network.local_entry(nodes) if nodes else None
        interfaces = network.interfaces(local_entry)
        node_id, node_name = self._identify(local_entry, interfaces)
        timing.complete(self._totem, len(nodes), self._problems)
        if self._given.testing:
            self._check_buffer()  # else totemd looks itself
        return NodeConfig(
            path=self._given.path,
            amf_file=self._amf_file(),
            totem=self._totem_config(node_id, node_name, nodes, interfaces),
            interfaces=interfaces,
            nodes=nodes,
            logging=self._logging(),
            system=self._system(),
            ipc=self._ipc(),
            identities=tuple(self._identity(section) for section in self._root.all("uidgid")),
            service_memory=self._service_memory(),
            quorum=self._quorum(nodes),
            services=self._services(),
            clm=self._clm(),
            ckpt=self._ckpt(),
            warnings=tuple(self._problems.warnings),
        )

    # The file as a whole

    def _check_file(self) -> None:
        totem, nodelist = self._totem, self._root.all("nodelist")
        if not self._written:
            self._problems.error(self._root.origin, "section totem is missing")
        elif totem.has("version") and totem.integer("version") != VERSION:
            self._problems.error(totem.origin_of("version"), f"totem.version must be {VERSION}")
        if not totem.all("totem.interface") and not any(part.sections for part in nodelist):
            self._problems.error(totem.origin, "no interfaces defined")

    def _amf_file(self) -> Path:
        if self._given.amf_file is not None:
            return self._given.amf_file
        return Path(self._given.environ.get(AMF_VARIABLE) or paths.AMF_CONFIG_FILE)

    # This node

    def _identify(
        self, entry: NodeEntry | None, interfaces: tuple[Interface, ...]
    ) -> tuple[int, str]:
        clm = self._root.one("clm")
        clm_name = clm.optional_text("node_name")
        listed = next(
            (
                section.optional_text("name")
                for part in self._root.all("nodelist")
                for section in part.all("nodelist.node")
                if entry is not None and section.values.get("nodeid") == entry.node_id
            ),
            None,
        )
        if clm_name is not None and listed is not None and clm_name != listed:
            self._problems.error(
                clm.origin_of("node_name"),
                f'clm.node_name: "{clm_name}" differs from the nodelist\'s name "{listed}"',
            )
        if listed is not None:
            clm.fill("node_name", listed, "nodelist")
        clm.fill("node_name", self._machine.host_name, "host name")
        node_id = self._node_id(entry, interfaces)
        self._totem.fill("nodeid", node_id, "nodelist" if entry is not None else DERIVED)
        return node_id, listed or clm_name or self._machine.host_name

    def _node_id(self, entry: NodeEntry | None, interfaces: tuple[Interface, ...]) -> int:
        if entry is not None:
            return entry.node_id
        if self._totem.has("nodeid"):
            return self._totem.integer("nodeid")
        if not interfaces:
            return 0
        address = ipaddress.ip_address(interfaces[0].bind_address)
        if address.version != 4:
            self._problems.error(self._totem.origin, "an IPv6 network needs a node id")
            return 0
        number = int(address)
        if self._totem.boolean("clear_node_high_bit"):
            number &= ~_HIGH_BIT
        if not 1 <= number <= NODE_ID_MAX:
            self._problems.error(
                self._totem.origin, f"{address} gives no node id; set totem.nodeid"
            )
        return number

    # The ring

    def _totem_config(
        self,
        node_id: int,
        node_name: str,
        nodes: tuple[NodeEntry, ...],
        interfaces: tuple[Interface, ...],
    ) -> TotemConfig:
        totem = self._totem
        self._check_security()
        members = any(interface.member_addresses for interface in interfaces)
        if totem.text("transport") == "udpu" and not nodes and not members:
            self._problems.error(
                totem.origin_of("transport"),
                "totem.transport: udpu needs a nodelist, or members of an interface",
            )
        if totem.boolean("block_unlisted_ips") and not nodes:
            self._problems.error(
                totem.origin_of("block_unlisted_ips"),
                "totem.block_unlisted_ips: without a nodelist it would block every node",
            )
        window = totem.optional_integer("window_size") or 0
        return TotemConfig(
            preset=totem.text("preset"),
            cluster_name=totem.optional_text("cluster_name") or "",
            node_id=node_id,
            node_name=node_name,
            secauth=totem.boolean("secauth"),
            crypto_cipher=totem.text("crypto_cipher"),
            key_file=self._key_file(),
            key_text=self._key_text(),
            key_accept=totem.paths("key_accept"),
            replay_protection=totem.text("replay_protection"),
            block_unlisted_ips=totem.boolean("block_unlisted_ips"),
            transport=totem.text("transport"),
            rrp_mode=totem.text("rrp_mode"),
            ip_version=totem.text("ip_version"),
            loopback=totem.boolean("loopback"),
            wait_for_interface=totem.boolean("wait_for_interface"),
            runtime_token_ms=timing.runtime_token_ms(totem, len(nodes)),
            cancel_token_hold_on_retransmit=totem.boolean("cancel_token_hold_on_retransmit"),
            window_size_messages=window,
            flow=totem.text("flow"),
            accel_priority=totem.text("accel_priority"),
            request_limit=totem.text("request_limit"),
            **{field: totem.integer(key) for field, key in _NUMBERS.items()},
        )

    def _check_buffer(self) -> None:
        totem, granted = self._totem, self._machine.receive_buffer_max_bytes
        window = totem.optional_integer("window_size") or 0  # the ring's own choice fits
        wanted = window * totem.integer("netmtu")
        if granted is not None and wanted > granted:
            self._problems.warning(
                totem.origin_of("window_size"),
                f"totem.window_size: {window} messages of totem.netmtu {totem.integer('netmtu')} "
                f"are over the {granted} bytes that the kernel lets wait at a socket; set "
                f"net.core.rmem_max to {wanted} or more",
            )

    def _key_file(self) -> Path:
        totem, given = self._totem, self._given
        if given.key_file is not None:
            totem.values.pop("keyfile", None)
            totem.written.pop("keyfile", None)
            totem.fill("keyfile", given.key_file, COMMAND_LINE)
        variable = given.environ.get(AUTHKEY_VARIABLE)
        if variable:
            totem.fill("keyfile", Path(variable), f"environment {AUTHKEY_VARIABLE}")
        totem.fill("keyfile", paths.KEY_FILE, "default")
        return totem.path("keyfile")

    def _key_text(self) -> str:
        return "" if self._given.key_file is not None else self._totem.optional_text("key") or ""

    def _check_security(self) -> None:
        totem = self._totem
        secauth, cipher = totem.boolean("secauth"), totem.text("crypto_cipher")
        if secauth and cipher == "none":
            self._problems.error(
                totem.origin_of("crypto_cipher"), "totem.crypto_cipher: none only with secauth off"
            )
        if totem.has("key"):
            self._check_inline_key()
        if not secauth:
            self._problems.warning(
                totem.origin_of("secauth"),
                "totem.secauth: off, datagrams are neither encrypted nor authenticated",
            )
            for key in ("keyfile", "key", "key_accept"):
                if totem.given(key):
                    self._problems.warning(
                        totem.origin_of(key), f"totem.{key}: not used with secauth off"
                    )

    def _check_inline_key(self) -> None:
        origin = self._totem.origin_of("key")
        if self._totem.given("keyfile"):
            self._problems.error(origin, "totem.key and totem.keyfile: only one of them")
        if not self._given.testing and self._given.environ.get(INLINE_KEY_VARIABLE) != "1":
            self._problems.error(
                origin,
                "totem.key: a key in the configuration is readable by too many; use totem.keyfile, "
                f"or for tests {INLINE_KEY_VARIABLE}=1",
            )

    def _quorum(self, nodes: tuple[NodeEntry, ...]) -> QuorumConfig:
        section = self._root.one("quorum")
        provider = section.text("provider")
        if nodes:
            section.fill("expected_votes", sum(node.quorum_votes for node in nodes), DERIVED)
        expected = section.optional_integer("expected_votes") or 0
        section.fill("wait_for_all", section.boolean("two_node"), DERIVED)
        if provider != "none":
            self._check_quorum(section, expected)
        return QuorumConfig(
            provider=provider,
            expected_votes=expected,
            votes=section.integer("votes"),
            two_node=section.boolean("two_node"),
            wait_for_all=section.boolean("wait_for_all"),
            last_man_standing=section.boolean("last_man_standing"),
            last_man_standing_window_ms=section.integer("last_man_standing_window"),
            auto_tie_breaker=section.boolean("auto_tie_breaker"),
            auto_tie_breaker_node=section.node_ids("auto_tie_breaker_node"),
            allow_downscale=section.boolean("allow_downscale"),
            expected_votes_tracking=section.boolean("expected_votes_tracking"),
            no_quorum_policy=section.text("no_quorum_policy"),
        )

    def _check_quorum(self, section: BoundSection, expected: int) -> None:
        for key in ("last_man_standing", "allow_downscale", "expected_votes_tracking"):
            if section.boolean(key):
                rule = f"quorum.{key}: read and checked; this release does not act on it"
                self._problems.warning(section.origin_of(key), rule)
        two_node = section.boolean("two_node")
        if not expected:
            self._problems.error(
                section.origin_of("expected_votes"),
                "quorum.expected_votes is missing (only a nodelist gives it)",
            )
        elif two_node and expected != 2:
            self._problems.error(
                section.origin_of("two_node"),
                f"quorum.two_node: needs exactly 2 expected votes, got {expected}",
            )
        if two_node and section.boolean("auto_tie_breaker"):
            self._problems.error(
                section.origin_of("auto_tie_breaker"),
                "quorum.auto_tie_breaker: not together with quorum.two_node",
            )

    # Everything else

    def _logging(self) -> LoggingConfig:
        section = self._root.one("logging")
        general = LoggingConfig(
            to_stderr=section.boolean("to_stderr"),
            to_logfile=section.boolean("to_logfile"),
            to_syslog=section.boolean("to_syslog"),
            logfile=section.optional_path("logfile"),
            logfile_priority=section.text("logfile_priority"),
            syslog_priority=section.text("syslog_priority"),
            syslog_facility=section.text("syslog_facility"),
            debug=section.text("debug"),
            timestamp=section.text("timestamp"),
            fileline=section.boolean("fileline"),
            function_name=section.boolean("function_name"),
            format=section.text("format"),
            blackbox=section.boolean("blackbox"),
        )
        self._check_logfile(general, section)
        return dataclasses.replace(general, subsystems=self._subsystems(section, general))

    def _check_logfile(self, logging: LoggingConfig, section: BoundSection) -> None:
        if logging.to_logfile and logging.logfile is None:
            self._problems.error(
                section.origin_of("to_logfile"),
                "logfile missing",
                status=Exit.LOGGING_CONFIGURATION,
            )

    def _subsystems(self, section: BoundSection, general: LoggingConfig) -> tuple[Subsystem, ...]:
        found: dict[str, Subsystem] = {}
        for own in section.all("logging.logger_subsys"):
            name = (own.optional_text("subsys") or "").upper()
            if name in found:
                self._problems.error(
                    own.origin, f"logging.logger_subsys: {name} has a section already"
                )
            elif name:
                found[name] = self._subsystem(name, own, general)
        return tuple(found.values())

    def _subsystem(self, name: str, own: BoundSection, general: LoggingConfig) -> Subsystem:
        if name not in SUBSYSTEMS:
            self._problems.warning(
                own.origin_of("subsys"),
                f'logging.logger_subsys.subsys: "{own.text("subsys")}" is no subsystem',
            )
        if own.has("tags"):
            own.fill("debug", "trace", own.origin_of("tags"))
        for key in _OF_SUBSYSTEMS:
            own.fill(key, getattr(general, key), DERIVED)
        if general.logfile is not None:
            own.fill("logfile", general.logfile, DERIVED)
        logging = dataclasses.replace(
            general,
            to_stderr=own.boolean("to_stderr"),
            to_logfile=own.boolean("to_logfile"),
            to_syslog=own.boolean("to_syslog"),
            logfile=own.optional_path("logfile"),
            logfile_priority=own.text("logfile_priority"),
            syslog_priority=own.text("syslog_priority"),
            syslog_facility=own.text("syslog_facility"),
            debug=own.text("debug"),
        )
        self._check_logfile(logging, own)
        return Subsystem(name, logging)

    def _system(self) -> SystemConfig:
        section = self._root.one("system")
        run = self._directory(section, "run_dir", "RUNTIME_DIRECTORY", paths.RUN_DIR)
        state = self._directory(section, "state_dir", "STATE_DIRECTORY", paths.STATE_DIR)
        try:
            paths.socket_path(run, "x" * paths.SOCKET_NAME_SIZE_MAX)
        except ValueError:  # too long, or without a form in the file system's encoding
            limit = paths.SOCKET_PATH_SIZE_MAX - paths.SOCKET_NAME_SIZE_MAX - 1
            self._problems.error(
                section.origin_of("run_dir"),
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

    def _directory(self, section: BoundSection, key: str, variable: str, default: Path) -> Path:
        # The init system gives several directories in one variable, separated by colons.
        first = self._given.environ.get(variable, "").partition(":")[0]
        if first:
            section.fill(key, Path(first), f"environment {variable}")
        section.fill(key, default, "default")
        return section.path(key)

    def _service_memory(self) -> ServiceMemoryConfig:
        section = self._root.one("service_memory")
        return ServiceMemoryConfig(
            service_grace_ms=section.integer("service_grace"),
            log_bytes_max=section.integer("log_bytes_max"),
            snapshot_log_bytes=section.integer("snapshot_log_bytes"),
            snapshot_log_entries=section.integer("snapshot_log_entries"),
            snapshot_fork_bytes=section.integer("snapshot_fork_bytes"),
            snapshot_timeout_ms=section.integer("snapshot_timeout"),
            snapshot_exit_ms=section.integer("snapshot_exit"),
        )

    def _ipc(self) -> IpcConfig:
        section = self._root.one("ipc")
        return IpcConfig(
            mode=section.integer("mode"),
            clients_max=section.integer("max_clients"),
            process_sessions_max=section.integer("max_process_sessions"),
            user_sessions_max=section.integer("max_user_sessions"),
            session_requests_max=section.integer("max_session_requests"),
            session_bytes_max=section.integer("max_session_bytes"),
            session_grace_ms=section.integer("session_grace"),
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
                        section.origin_of(key), f'uidgid.{key}: "{name}" is not known here'
                    )
        if not section.written:
            self._problems.error(section.origin, "uidgid: neither uid nor gid is given")
        return Identity(ids["uid"], ids["gid"], section.boolean("admin"))

    def _services(self) -> ServicesConfig:
        sections = self._root.all("service")
        if not sections:
            return ServicesConfig(tuple(SERVICES.values()))
        chosen = []
        for section in sections:
            name = section.optional_text("name")
            if name is None:
                continue
            if name not in SERVICES:
                self._problems.warning(
                    section.origin_of("name"), f"service {name} is not supported yet and ignored"
                )
            elif section.integer("ver") == 1:
                self._problems.warning(
                    section.origin_of("ver"), f"service {name}: ver 1 means that it does not start"
                )
            else:
                chosen.append(SERVICES[name])
        return ServicesConfig(tuple(dict.fromkeys(chosen)))

    def _clm(self) -> ClmConfig:
        section = self._root.one("clm")
        return ClmConfig(
            section.text("cluster_name"),
            section.text("node_name_form"),
            tuple((section.optional_text("nodes") or "").split()),
            section.integer("lock_callback_timeout"),
            section.optional_text("reset_command") or "",
        )

    def _ckpt(self) -> CkptConfig:
        section = self._root.one("ckpt")
        return CkptConfig(
            section.text("merge_policy"),
            section.text("merge_conflict"),
            section.optional_path("conflict_dir"),
        )
