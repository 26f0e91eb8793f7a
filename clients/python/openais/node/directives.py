"""Every section and directive of openais.conf: the one table. Pure.

The parser accepts what stands here, the reference in ``docs/configuration.md`` is generated from
it, and the suggestion for a misspelling is taken from it.
"""

from __future__ import annotations

from typing import Final

from openais.node.ring_directives import INTERFACE, MEMBER, NODE, NODELIST, TOTEM
from openais.node.rules import (
    DAY_MS,
    NODE_ID_MAX,
    Directive,
    SectionRule,
    Treatment,
    foreign,
    later,
)
from openais.node.values import (
    ABSOLUTE_PATH,
    BOOLEAN,
    PRIORITY,
    choice,
    integer,
    milliseconds,
    node_ids,
    octal,
    size,
    text_of,
    words_of,
)

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
SUBSYSTEMS: Final = (
    *("TOTEM", "CLM", "CKPT", "EVT", "LCK", "MSG", "AMF"),
    *("EVS", "CPG", "IPC", "CFG", "QUORUM"),
)

_DEBUG: Final = choice("on", "off", "trace")
_PRIORITY: Final = choice(*_SYSLOG_PRIORITIES)
_TO_STDERR: Final = "write to standard error"
_TO_LOGFILE: Final = "write to `logfile`"
_TO_SYSLOG: Final = "write to `/dev/log`, when it is there"
_LOGFILE: Final = "appended to; made with mode 0640; opened anew when it was renamed"
_AS_ABOVE: Final = "as in `logging`"

_LOGGING: Final = SectionRule(
    "logging",
    "Where log records go, and how many.",
    directives=(
        Directive("to_stderr", BOOLEAN, "yes", _TO_STDERR),
        Directive("to_logfile", BOOLEAN, "no", _TO_LOGFILE, aliases=("to_file",)),
        Directive("to_syslog", BOOLEAN, "yes", _TO_SYSLOG),
        Directive("logfile", ABSOLUTE_PATH, meaning=_LOGFILE),
        Directive("logfile_priority", _PRIORITY, "info", "least urgent level in the file"),
        Directive("syslog_priority", _PRIORITY, "info", "least urgent level in syslog"),
        Directive("syslog_facility", choice(*_FACILITIES), "daemon", "facility in syslog"),
        Directive(
            "debug",
            _DEBUG,
            "off",
            "`on`: messages, `trace`: everything, to every place whatever its priority",
        ),
        Directive(
            "timestamp",
            choice("off", "on", "hires"),
            "on",
            "before each line; `hires` with microseconds",
        ),
        Directive("fileline", BOOLEAN, "off", "name file and line of the source in each record"),
        Directive("function_name", BOOLEAN, "off", "name the function in each record"),
        Directive(
            "blackbox",
            BOOLEAN,
            "on",
            "keep the last records in memory, up to 1 MiB; a daemon that ends by an error nobody "
            "expected writes them to `blackbox/` in the state directory",
        ),
        Directive(
            "format", choice("text", "json"), "text", "`event key=value` or one object a line"
        ),
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
        Directive("to_stderr", BOOLEAN, meaning=_TO_STDERR, otherwise=_AS_ABOVE),
        Directive(
            "to_logfile", BOOLEAN, meaning=_TO_LOGFILE, otherwise=_AS_ABOVE, aliases=("to_file",)
        ),
        Directive("to_syslog", BOOLEAN, meaning=_TO_SYSLOG, otherwise=_AS_ABOVE),
        Directive("logfile", ABSOLUTE_PATH, meaning=_LOGFILE, otherwise=_AS_ABOVE),
        Directive(
            "logfile_priority",
            _PRIORITY,
            meaning="least urgent level in the file",
            otherwise=_AS_ABOVE,
        ),
        Directive(
            "syslog_priority",
            _PRIORITY,
            meaning="least urgent level in syslog",
            otherwise=_AS_ABOVE,
            aliases=("syslog_level",),
        ),
        Directive(
            "syslog_facility",
            choice(*_FACILITIES),
            meaning="facility in syslog",
            otherwise=_AS_ABOVE,
        ),
        Directive("debug", _DEBUG, meaning="as in `logging`", otherwise=_AS_ABOVE),
        Directive(
            "tags",
            words_of("|", "enter", "leave", *(f"trace{level}" for level in range(1, 9))),
            meaning="predecessors' way to say `debug: trace`; without effect beside `debug`",
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
        Directive(
            "sched_rr",
            BOOLEAN,
            "no",
            "totemd tries real-time scheduling; where cores are few, it starves its clients",
        ),
        Directive(
            "priority",
            PRIORITY,
            "max",
            "priority of totemd, a nice value where real-time scheduling is not had",
        ),
        Directive("mlock", BOOLEAN, "yes", "totemd tries to stay in memory"),
        *foreign("move_to_root_cgroup", "allow_knet_handle_fallback"),
    ),
)

_IPC: Final = SectionRule(
    "ipc",
    "The local sockets.",
    directives=(
        Directive("mode", octal(0o777), "0660", "mode of the sockets"),
        Directive("max_clients", integer(1, 65535), "1024", "sessions per service and node"),
        Directive(
            "max_process_sessions",
            integer(1, 65535),
            "256",
            "sessions of one process with one service",
        ),
        Directive(
            "max_user_sessions", integer(1, 65535), "1024", "sessions of one user with one service"
        ),
        Directive(
            "max_session_requests",
            integer(1, 1024),
            "1024",
            "requests of one session without an answer",
        ),
        Directive(
            "max_session_bytes",
            size(1 << 16, 1 << 30),
            "64M",
            "bytes of the requests of one session without an answer; one request always goes",
        ),
        Directive(
            "session_grace",
            milliseconds(0, DAY_MS),
            "5000",
            "how long a client that lives may be away before what it has open is released; runs "
            "only while the service serves",
        ),
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

_SERVICE_MEMORY: Final = SectionRule(
    "service_memory",
    "What totemd keeps so that a service that was killed goes on where it was.",
    directives=(
        Directive(
            "service_grace",
            milliseconds(0, DAY_MS),
            "5000",
            "how long a service may be away before the node takes its state from the others, if "
            "there are any; too low: a slow restart loses it, too high: the others learn late",
        ),
        Directive(
            "log_bytes_max",
            size(1 << 20, 16 << 30),
            "64M",
            "bytes delivered to a service since its last snapshot; past it a new snapshot is "
            "asked for, past twice it the log is dropped",
        ),
        Directive(
            "snapshot_log_bytes",
            size(1 << 16, 1 << 30),
            "4M",
            "bytes delivered to a service since its last snapshot at which it writes one by "
            "itself, unless the snapshot is larger; too low: much is written, too high: a restart "
            "is told much",
        ),
        Directive(
            "snapshot_log_entries",
            integer(100, 100_000_000),
            "2000",
            "likewise, in operations: what a restart has to apply again",
        ),
        Directive(
            "snapshot_fork_bytes",
            size(0, 1 << 30),
            "1M",
            "a state that large is written by a forked child, while the service goes on; smaller "
            "ones by the service itself",
        ),
        Directive(
            "snapshot_timeout",
            milliseconds(1_000, DAY_MS),
            "60000",
            "when a child that still writes is killed",
        ),
        Directive(
            "snapshot_exit",
            milliseconds(0, 10_000),
            "1000",
            "how long an orderly end may wait for a snapshot; what takes longer is left out, and "
            "the next process is told more",
        ),
    ),
)

_QUORUM: Final = SectionRule(
    "quorum",
    "Whether a part of the cluster may act: [operating.md](operating.md#quorum). The same on all "
    "nodes; where they differ, the file with the most expected votes counts.",
    directives=(
        Directive(
            "provider",
            choice(
                "majority", "votequorum", "none", synonyms=(("corosync_votequorum", "votequorum"),)
            ),
            "none",
            "`none`: every part of the cluster is quorate. `majority`, `votequorum`: the "
            "part with over half of the expected votes is",
        ),
        Directive(
            "expected_votes",
            integer(1, 255 * 512),
            meaning="votes of the whole cluster; quorum is over half of them. Mandatory without "
            "nodelist",
            otherwise="sum of the nodelist's `quorum_votes`",
        ),
        Directive("votes", integer(0, 255), "1", "this node's votes, without nodelist"),
        Directive(
            "two_node",
            BOOLEAN,
            "no",
            "one of two nodes is enough; needs exactly 2 expected votes",
        ),
        Directive(
            "wait_for_all",
            BOOLEAN,
            meaning="not quorate after a start until all nodes were seen once",
            otherwise="as `two_node`",
        ),
        Directive(
            "last_man_standing",
            BOOLEAN,
            "no",
            "lower the expected votes, while quorate, after `last_man_standing_window`. Not acted "
            "on yet",
        ),
        Directive("last_man_standing_window", milliseconds(1, DAY_MS), "10000", "see there"),
        Directive(
            "auto_tie_breaker",
            BOOLEAN,
            "no",
            "of two equal halves the one with the tie breaker goes on; not with `two_node`",
        ),
        Directive(
            "auto_tie_breaker_node",
            node_ids(NODE_ID_MAX),
            "lowest",
            "the tie breaker, or several in order",
        ),
        Directive(
            "allow_downscale",
            BOOLEAN,
            "no",
            "an orderly leave lowers the expected votes. Not acted on yet",
        ),
        Directive(
            "expected_votes_tracking",
            BOOLEAN,
            "no",
            "the expected votes are never below the highest seen. Not acted on yet",
        ),
        Directive(
            "no_quorum_policy",
            choice("stop", "freeze", "ignore"),
            "stop",
            "what services do without quorum. `stop` and `freeze`: requests are refused; `ignore`: "
            "they are served, and the status says that there is no quorum",
        ),
    ),
)

SERVICES: Final = {  # name in the file -> ours
    "openais_clm": "clm",
    "openais_ckpt": "ckpt",
    "corosync_cpg": "cpg",
    "corosync_evs": "evs",
}
SERVICE_NAMES_LATER: Final = (
    "openais_evt",
    "openais_amf",
    "openais_msg",
    "openais_lck",
    "openais_tmr",
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
            choice(*SERVICES, *SERVICE_NAMES_LATER),
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
        Directive(
            "nodes",
            text_of(1, 65_536),
            meaning="names of the nodes that may be members, separated by blanks; the same on all "
            "nodes. A node whose file does not list it stays out",
            otherwise="any node that has the key",
        ),
        Directive(
            "lock_callback_timeout",
            milliseconds(1, DAY_MS),
            "50000",
            "ms that a lock of this node waits for clients that want to get ready",
        ),
        Directive(
            "reset_command",
            text_of(1, 4096),
            meaning="command that reboots this node, with arguments; run as the user of `clm`",
            otherwise="`openais clm reset` is refused",
        ),
        *later("execution_environment", "info_timeout", "startup_wait", "state_dir", "quorum"),
    ),
)

_CKPT: Final = SectionRule(
    "ckpt",
    "The checkpoint service. What becomes of a checkpoint that two sides of a partition changed: "
    "[ckpt.md](ckpt.md#partitions). The same on all nodes.",
    directives=(
        Directive(
            "merge_policy",
            choice("winner", "mark_corrupted", "union"),
            "winner",
            "`winner`: it is that of one side. `mark_corrupted`: so, and its sections that differ "
            "get the state CORRUPTED. `union`: sections that only the other side has are added",
        ),
        Directive(
            "merge_conflict",
            choice("detach", "invalidate"),
            "detach",
            "of two checkpoints with one name one loses it. `detach`: who has it open keeps it. "
            "`invalidate`: it is deleted, and handles are bad",
        ),
        Directive(
            "conflict_dir",
            ABSOLUTE_PATH,
            meaning="where versions are kept that a merge discards, a file each; without it they "
            "are only logged",
        ),
    ),
)

_TOP: Final = SectionRule("", "Outside of all sections.", directives=foreign("compatibility"))


def _section_later(path: str) -> SectionRule:
    return SectionRule(path, "", multiple=True, treatment=Treatment.LATER)


def _section_foreign(path: str) -> SectionRule:
    return SectionRule(path, "", multiple=True, treatment=Treatment.FOREIGN)


SECTIONS: Final[tuple[SectionRule, ...]] = (
    _TOP,
    TOTEM,
    INTERFACE,
    MEMBER,
    NODELIST,
    NODE,
    _LOGGING,
    _LOGGER,
    _SYSTEM,
    _IPC,
    _UIDGID,
    _SERVICE_MEMORY,
    _QUORUM,
    SectionRule(
        "quorum.device",
        "a quorum device is not supported",
        multiple=True,
        treatment=Treatment.REFUSED,
    ),
    _SERVICE,
    _CLM,
    _CKPT,
    _section_later("amf"),
    _section_later("event"),
    _section_later("aisexec"),
    _section_later("resources"),
    _section_foreign("nozzle"),
    _section_foreign("qb"),
)
