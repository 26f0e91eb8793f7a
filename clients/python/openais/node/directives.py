"""Every section and directive of openais.conf: the one table. Pure.

The parser accepts what stands here, the reference in ``docs/configuration.md`` is generated from
it, and the suggestion for a misspelling is taken from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from openais.node.values import (
    ABSOLUTE_PATH,
    ADDRESS,
    ADDRESS_OR_HOST,
    BOOLEAN,
    PRIORITY,
    Kind,
    choice,
    integer,
    milliseconds,
    octal,
    size,
    text_of,
)

U32_MAX: Final = 0xFFFF_FFFF
NODE_ID_MAX: Final = U32_MAX - 1  # the largest value stands for "the local node" in the CLM API
DAY_MS: Final = 86_400_000
TIMEOUT_MIN_MS: Final = 30
HOLD_MIN_MS: Final = 14
RINGS_MAX: Final = 2


class Treatment(Enum):
    """What happens to a directive or section that is written in the file."""

    SERVED = "served"
    LATER = "is not supported yet and ignored"  # ours, in a later release
    FOREIGN = "is not supported and ignored"  # means something to a predecessor only
    REFUSED = "refused"  # ignoring it would be dangerous


@dataclass(frozen=True, slots=True)
class Directive:
    """One key of a section.

    ``default`` is written as in the file and goes through ``kind``; "" means that there is none
    and ``otherwise`` says what happens then. ``meaning`` holds the reason where it is refused.
    """

    key: str
    kind: Kind | None
    default: str = ""
    meaning: str = ""
    otherwise: str = ""
    aliases: tuple[str, ...] = ()
    mandatory: bool = False
    treatment: Treatment = Treatment.SERVED


@dataclass(frozen=True, slots=True)
class SectionRule:
    """One section; ``path`` is its name with those around it, joined by dots."""

    path: str
    meaning: str
    directives: tuple[Directive, ...] = ()
    aliases: tuple[str, ...] = ()
    multiple: bool = False
    treatment: Treatment = Treatment.SERVED


def _later(*keys: str) -> tuple[Directive, ...]:
    return tuple(Directive(key, None, treatment=Treatment.LATER) for key in keys)


def _foreign(*keys: str) -> tuple[Directive, ...]:
    return tuple(Directive(key, None, treatment=Treatment.FOREIGN) for key in keys)


_timeout = milliseconds(TIMEOUT_MIN_MS, DAY_MS)
_SYSLOG_PRIORITIES: Final = (
    "emerg",
    "alert",
    "crit",
    "err",
    "warning",
    "notice",
    "info",
    "debug",
)
_FACILITIES: Final = ("daemon", *(f"local{number}" for number in range(8)))
SUBSYSTEMS: Final = ("TOTEM", "CLM", "CKPT", "CPG", "IPC")

_TOTEM: Final = SectionRule(
    "totem",
    "The ring: who belongs to the cluster, how it is protected, its timeouts.",
    aliases=("network",),
    directives=(
        Directive("version", integer(0, U32_MAX), mandatory=True, meaning="must be 2"),
        Directive(
            "cluster_name",
            text_of(1, 15),
            meaning="separates clusters: part of the key derivation and, when `mcastaddr` is "
            "absent, of the multicast address",
            otherwise="no name",
        ),
        Directive(
            "transport",
            choice("udp", "udpu"),
            "udp",
            "`udp` multicast, `udpu` unicast to each node of the nodelist",
        ),
        Directive(
            "nodeid",
            integer(1, NODE_ID_MAX),
            meaning="this node's id, unique in the cluster; with a nodelist it names the entry of "
            "this machine. Mandatory with IPv6 unless the nodelist has it",
            otherwise="the nodelist's, else the IPv4 address of ring 0 as a number",
        ),
        Directive(
            "clear_node_high_bit",
            BOOLEAN,
            "no",
            "clear bit 31 of a node id that comes from an address",
        ),
        Directive(
            "secauth",
            BOOLEAN,
            "on",
            "encrypt and authenticate every datagram; `off` protects nothing",
        ),
        Directive(
            "crypto_cipher",
            choice(
                "aes256gcm",
                "chacha20poly1305",
                "none",
                synonyms=(
                    ("aes256", "aes256gcm"),
                    ("aes192", "aes256gcm"),
                    ("aes128", "aes256gcm"),
                ),
            ),
            "aes256gcm",
            "`none` only with `secauth: off`; `aes128`, `aes192` and `aes256` mean `aes256gcm`",
        ),
        Directive(
            "keyfile",
            ABSOLUTE_PATH,
            meaning="the key all nodes share",
            otherwise="`OPENAIS_TOTEM_AUTHKEY_FILE`, else `/etc/ais/authkey`",
        ),
        Directive(
            "key",
            None,
            treatment=Treatment.REFUSED,
            meaning="a key in the configuration file is readable by too many; use totem.keyfile",
        ),
        Directive(
            "rrp_mode",
            choice("none", "active", "passive", synonyms=(("rr", "active"),)),
            aliases=("link_mode",),
            meaning="how two rings are used; a second ring is not used yet",
            otherwise="`none` with one interface, `passive` with two",
        ),
        Directive(
            "netmtu",
            integer(576, 65507),
            "1500",
            "bytes of the largest datagram with IP and UDP headers; too high: fragments, "
            "too low: overhead",
        ),
        Directive(
            "token",
            milliseconds(TIMEOUT_MIN_MS, 600_000),
            "1000",
            "without a token for that long the ring is formed anew; too low: false alarms under "
            "load, too high: slow fail-over",
        ),
        Directive(
            "token_coefficient",
            milliseconds(0, 60_000),
            "25",
            "added to `token` for each nodelist entry above two",
        ),
        Directive(
            "token_retransmits_before_loss_const",
            integer(1, 100),
            "4",
            "tokens sent again before the ring is given up",
            aliases=("retransmits_before_loss",),
        ),
        Directive(
            "token_retransmit",
            _timeout,
            meaning="a token that was not seen to move on is sent again",
            otherwise="token / (token_retransmits_before_loss_const + 0.2)",
        ),
        Directive(
            "hold",
            milliseconds(HOLD_MIN_MS, DAY_MS),
            meaning="an idle ring's representative keeps the token that long; at most "
            "`token_retransmit`",
            otherwise="0.8 * token_retransmit - 10",
        ),
        Directive(
            "join",
            _timeout,
            "50",
            "between two join messages while a ring forms; at most `consensus`",
        ),
        Directive("send_join", milliseconds(0, DAY_MS), "0", "random delay before a join message"),
        Directive(
            "consensus",
            _timeout,
            meaning="a membership not agreed upon within this time goes on without the silent; at "
            "least `join`, better 1.2 * `token`",
            otherwise="1.2 * token",
        ),
        Directive("merge", _timeout, "200", "between two looks for other rings of this cluster"),
        Directive("downcheck", _timeout, "1000", "between two checks of the interface"),
        Directive(
            "fail_recv_const",
            integer(1, U32_MAX),
            aliases=("fail_to_recv_const",),
            meaning="token visits without anything received that was due before this node says "
            "that it cannot receive",
            otherwise="2500",
        ),
        Directive(
            "seqno_unchanged_const",
            integer(2, U32_MAX),
            meaning="rotations without a message before the token is held",
            otherwise="3",
        ),
        Directive(
            "window_size",
            integer(1, 512),
            meaning="messages per token rotation of all nodes together",
            otherwise="16 per node, at least 50",
        ),
        Directive(
            "max_messages",
            integer(1, 512),
            meaning="messages per token visit of one node; at most `window_size`",
            otherwise="17",
        ),
        Directive(
            "miss_count_const",
            integer(1, U32_MAX),
            meaning="token visits before a missing message is asked for",
            otherwise="1",
        ),
        Directive(
            "crypto_type",
            choice("nss", "aes256", "aes192", "aes128", "3des"),
            treatment=Treatment.FOREIGN,
            meaning="predecessors' cipher; `sober` is an error",
        ),
        *_later(
            "config_version",
            "key_accept",
            "replay_protection",
            "token_warning",
            "heartbeat_failures_allowed",
            "max_network_delay",
            "cancel_token_hold_on_retransmit",
            "wait_for_interface",
            "ip_version",
            "ip_dscp",
            "block_unlisted_ips",
            "loopback_fast",
            "rrp_problem_count_timeout",
            "rrp_problem_count_threshold",
            "rrp_problem_count_mcast_threshold",
            "rrp_token_expired_timeout",
            "rrp_autorecovery_check_timeout",
            "token_retransmit_min",
            "token_retransmit_first",
            "silent_fail",
            "startup_wait",
            "join_coalesce",
            "fail_recv_time",
            "hold_cancel_retry",
            "request_limit",
            "accelerated_window",
            "accel_min",
            "accel_priority",
            "max_gap",
            "max_unstable_bytes",
            "max_nodes",
            "flap_max",
            "sync_timeout",
            "singleton_interval",
        ),
        *_foreign("crypto_hash", "crypto_model", "crypto_accept", "threads", "vsftype"),
    ),
)

_INTERFACE: Final = SectionRule(
    "totem.interface",
    "One network the ring runs on.",
    multiple=True,
    directives=(
        Directive(
            "ringnumber",
            integer(0, RINGS_MAX - 1),
            aliases=("linknumber",),
            meaning="number of the ring, from 0 without a gap; mandatory with two interfaces",
            otherwise="0",
        ),
        Directive(
            "bindnetaddr",
            ADDRESS,
            meaning="an address of this machine, or the network of one. Mandatory without nodelist",
            otherwise="this machine's `ring0_addr` of the nodelist",
        ),
        Directive(
            "mcastaddr",
            ADDRESS,
            meaning="multicast group of the ring, not 224.0.0.x",
            otherwise="239.192.x.y, from `cluster_name`; mandatory for `udp` without one",
        ),
        Directive(
            "mcastport",
            integer(1024, 65535),
            "5405",
            "UDP port; the port below it is used too",
        ),
        Directive("ttl", integer(0, 255), "1", "hops of a multicast; `udp` only"),
        *_later("broadcast"),
        *_foreign(
            "bindport",
            "knet_transport",
            "knet_link_priority",
            "knet_ping_interval",
            "knet_ping_timeout",
            "knet_ping_precision",
            "knet_pong_count",
        ),
    ),
)

_NODE: Final = SectionRule(
    "nodelist.node",
    "One node of the cluster.",
    multiple=True,
    directives=(
        Directive("ring0_addr", ADDRESS_OR_HOST, mandatory=True, meaning="address on ring 0"),
        Directive("ring1_addr", ADDRESS_OR_HOST, meaning="address on ring 1; all nodes or none"),
        Directive(
            "nodeid", integer(1, NODE_ID_MAX), mandatory=True, meaning="unique in the cluster"
        ),
        Directive(
            "name",
            text_of(1, 64),
            meaning="node name, unique in the cluster",
            otherwise="`clm.node_name`, else for this machine its host name",
        ),
        *_later("quorum_votes"),
    ),
)

_DEBUG: Final = choice("on", "off", "trace")

_LOGGING: Final = SectionRule(
    "logging",
    "Where log records go, and how many.",
    directives=(
        Directive("to_stderr", BOOLEAN, "yes", "write to standard error"),
        Directive("to_logfile", BOOLEAN, "no", "write to `logfile`", aliases=("to_file",)),
        Directive("to_syslog", BOOLEAN, "yes", "write to `/dev/log`, when it is there"),
        Directive("logfile", ABSOLUTE_PATH, meaning="appended to; made with mode 0640"),
        Directive(
            "logfile_priority",
            choice(*_SYSLOG_PRIORITIES),
            "info",
            "least urgent level in the file",
        ),
        Directive(
            "syslog_priority",
            choice(*_SYSLOG_PRIORITIES),
            "info",
            "least urgent level in syslog",
        ),
        Directive("syslog_facility", choice(*_FACILITIES), "daemon", "facility in syslog"),
        Directive("debug", _DEBUG, "off", "`on`: messages, `trace`: everything"),
        Directive(
            "timestamp",
            choice("off", "on", "hires"),
            "on",
            "before each line; `hires` with microseconds",
        ),
        Directive(
            "format", choice("text", "json"), "text", "`event key=value` or one object a line"
        ),
        *_later("fileline", "function_name", "blackbox"),
    ),
)

_LOGGER: Final = SectionRule(
    "logging.logger_subsys",
    "What differs for one subsystem.",
    aliases=("logger",),
    multiple=True,
    directives=(
        Directive(
            "subsys",
            text_of(1, 32),
            aliases=("ident",),
            mandatory=True,
            meaning=f"one of {', '.join(SUBSYSTEMS)}; another one is a warning",
        ),
        Directive("debug", _DEBUG, meaning="as in `logging`", otherwise="as in `logging`"),
        *_later(
            "syslog_level",
            "syslog_priority",
            "tags",
            "to_stderr",
            "to_logfile",
            "to_file",
            "to_syslog",
            "logfile",
            "logfile_priority",
            "syslog_facility",
        ),
    ),
)

_SYSTEM: Final = SectionRule(
    "system",
    "Directories and privileges of the daemons.",
    directives=(
        Directive(
            "run_dir",
            ABSOLUTE_PATH,
            meaning="sockets, locks, pid files",
            otherwise="`$RUNTIME_DIRECTORY`, else `/run/ais`",
        ),
        Directive(
            "state_dir",
            ABSOLUTE_PATH,
            meaning="what survives a restart",
            otherwise="`$STATE_DIRECTORY`, else `/var/lib/ais`",
        ),
        Directive("sched_rr", BOOLEAN, "yes", "totemd tries real-time scheduling"),
        Directive(
            "priority",
            PRIORITY,
            "max",
            "priority of totemd, a nice value where real-time scheduling is not had",
        ),
        Directive("mlock", BOOLEAN, "yes", "totemd tries to stay in memory"),
        *_foreign("move_to_root_cgroup"),
    ),
)

_IPC: Final = SectionRule(
    "ipc",
    "The local sockets.",
    directives=(
        Directive("mode", octal(0o777), "0660", "mode of the sockets"),
        Directive("max_clients", integer(1, 65535), "1024", "sessions per service and node"),
        Directive(
            "max_message",
            size(4096, 64 << 20),
            "64M",
            "largest data of one call of a client",
        ),
    ),
)

_UIDGID: Final = SectionRule(
    "uidgid",
    "One more identity that may use the services.",
    multiple=True,
    directives=(
        Directive("uid", text_of(1, 64), meaning="user, by name or number"),
        Directive("gid", text_of(1, 64), meaning="group, by name or number"),
        Directive("admin", BOOLEAN, "no", "may also administer the node"),
    ),
)

SERVICE_NAMES: Final = ("openais_clm", "openais_ckpt", "corosync_cpg")
SERVICE_NAMES_LATER: Final = (
    "openais_evt",
    "openais_amf",
    "openais_msg",
    "openais_lck",
    "openais_tmr",
    "corosync_evs",
    "corosync_cfg",
    "corosync_quorum",
)

_SERVICE: Final = SectionRule(
    "service",
    "Selects a service; without any such section all run, else those that are named.",
    multiple=True,
    directives=(
        Directive(
            "name",
            choice(*SERVICE_NAMES, *SERVICE_NAMES_LATER),
            mandatory=True,
            meaning="the names of the predecessors",
        ),
        Directive("ver", integer(0, 1), "0", "1 means that it does not start"),
    ),
)

_CLM: Final = SectionRule(
    "clm",
    "The cluster membership service.",
    directives=(
        Directive(
            "node_name",
            text_of(1, 64),
            meaning="name of this node, unique in the cluster",
            otherwise="the nodelist's `name`, else the host name",
        ),
        Directive(
            "cluster_name",
            text_of(1, 64),
            "myClmCluster",
            "second part of a node's distinguished name",
        ),
        Directive(
            "node_name_form",
            choice("auto", "plain", "dn"),
            "auto",
            "`auto`: plain names for clients of level B.01, "
            "`safNode=NAME,safCluster=CLUSTER` for others; or one form for all",
        ),
        *_later(
            "nodes",
            "execution_environment",
            "lock_callback_timeout",
            "info_timeout",
            "startup_wait",
            "state_dir",
            "reset_command",
            "quorum",
        ),
    ),
)

_TOP: Final = SectionRule("", "Outside of all sections.", directives=_foreign("compatibility"))


def _section_later(path: str) -> SectionRule:
    return SectionRule(path, "", multiple=True, treatment=Treatment.LATER)


def _section_foreign(path: str) -> SectionRule:
    return SectionRule(path, "", multiple=True, treatment=Treatment.FOREIGN)


SECTIONS: Final[tuple[SectionRule, ...]] = (
    _TOP,
    _TOTEM,
    _INTERFACE,
    _section_later("totem.interface.member"),
    SectionRule("nodelist", "The nodes of the cluster."),
    _NODE,
    _LOGGING,
    _LOGGER,
    _SYSTEM,
    _IPC,
    _UIDGID,
    _SERVICE,
    _CLM,
    _section_later("quorum"),
    _section_later("amf"),
    _section_later("event"),
    _section_later("aisexec"),
    _section_later("resources"),
    _section_foreign("nozzle"),
    _section_foreign("qb"),
)
