"""What the configuration of a node says, as values; built by `openais.node.config.load`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TotemConfig:
    """The ring. None: the ring's own default."""

    cluster_name: str  # "": none
    transport: str  # "udp" (multicast) or "udpu"
    node_id: int  # unique, never 0 nor 0xFFFFFFFF
    node_name: str  # unique in the cluster
    secauth: bool  # False: neither encryption nor authentication
    crypto_cipher: str  # "aes256gcm" or "chacha20poly1305"; "none" with secauth False
    key_file: Path
    rrp_mode: str  # "none", "passive" or "active"
    netmtu_bytes: int  # largest datagram with IP and UDP headers
    token_ms: int  # as configured; see runtime_token_ms
    token_coefficient_ms: int  # added for each nodelist entry above two
    runtime_token_ms: int  # token_ms with what the nodelist adds; the following derive from it
    token_retransmits_before_loss: int
    token_retransmit_ms: int  # <= runtime_token_ms
    hold_ms: int  # <= token_retransmit_ms
    consensus_ms: int  # >= join_ms
    join_ms: int
    send_join_ms: int
    merge_ms: int
    downcheck_ms: int
    window_size_messages: int  # 0: automatic
    max_messages: int | None  # <= window_size_messages where both are given
    fail_recv_const: int | None
    seqno_unchanged_const: int | None
    miss_count_const: int | None


@dataclass(frozen=True, slots=True)
class Interface:
    """One network of the ring."""

    ring_number: int
    bind_address: str  # of this machine, unless its interface is down
    multicast_address: str  # "" with transport udpu
    multicast_port: int  # the port below is used too
    ttl: int


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One node of the nodelist."""

    node_id: int
    name: str  # given, else the host name or address of ring 0
    addresses: tuple[str, ...]  # by ring


@dataclass(frozen=True, slots=True)
class Subsystem:
    """What the log does otherwise for one subsystem."""

    name: str  # upper case
    debug: str  # "on", "off" or "trace"


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """Where log records go."""

    to_stderr: bool = True
    to_logfile: bool = False
    to_syslog: bool = False
    logfile: Path | None = None
    logfile_priority: str = "info"
    syslog_priority: str = "info"
    syslog_facility: str = "daemon"
    debug: str = "off"  # "on", "off" or "trace"
    timestamp: str = "on"  # "off", "on" or "hires"
    format: str = "text"  # or "json"
    subsystems: tuple[Subsystem, ...] = ()


@dataclass(frozen=True, slots=True)
class SystemConfig:
    """Directories and privileges."""

    run_dir: Path
    state_dir: Path
    sched_rr: bool
    priority: str  # "max", "min" or a nice value
    mlock: bool


@dataclass(frozen=True, slots=True)
class IpcConfig:
    """Local sockets."""

    mode: int
    clients_max: int  # sessions per service
    message_size_max_bytes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """A user or group that may use the services besides root and the daemons' own."""

    uid: int | None
    gid: int | None
    admin: bool


@dataclass(frozen=True, slots=True)
class ServicesConfig:
    """Which services this node runs: "clm", "ckpt", "cpg"."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClmConfig:
    """The membership service."""

    cluster_name: str
    node_name_form: str  # "auto", "plain" or "dn"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything openais.conf says, checked. ``warnings`` are to be logged once at start."""

    path: Path
    totem: TotemConfig
    interfaces: tuple[Interface, ...]  # by ring number
    nodes: tuple[NodeEntry, ...]  # as in the file
    logging: LoggingConfig
    system: SystemConfig
    ipc: IpcConfig
    identities: tuple[Identity, ...]
    services: ServicesConfig
    clm: ClmConfig
    warnings: tuple[str, ...]
