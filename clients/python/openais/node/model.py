"""What the configuration of a node says, as values; built by `openais.node.config.load`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TotemConfig:
    """The ring."""

    # Identity
    preset: str  # "lan", "loopback" or "fast"
    cluster_name: str  # "": none
    config_version: int
    node_id: int  # unique, never 0 nor 0xFFFFFFFF
    node_name: str  # unique in the cluster
    max_nodes: int  # >= nodes of the nodelist

    # Security
    secauth: bool  # False: neither encryption nor authentication
    crypto_cipher: str  # "aes256gcm" or "chacha20poly1305"; "none" with secauth False
    key_file: Path  # not used where key_text is given
    key_text: str = field(repr=False)  # "": none
    key_accept: tuple[Path, ...]  # accepted for what is received
    replay_protection: str  # "window" or "strict"
    block_unlisted_ips: bool

    # Links
    transport: str  # "udp" (multicast, broadcast) or "udpu"
    rrp_mode: str  # "none" with one interface; "passive" or "active"
    netmtu_bytes: int  # largest datagram with IP and UDP headers
    block_datagrams: int  # that a sealed block may span; 1: each is sealed on its own
    ip_version: str  # "ipv4", "ipv6", "ipv4-6" or "ipv6-4"
    ip_dscp: int
    loopback: bool  # several nodes on this machine
    wait_for_interface: bool  # False: without one the start fails
    downcheck_ms: int
    link_probe_interval_ms: int
    link_probe_timeout_ms: int  # > link_probe_interval_ms
    link_probe_count: int
    rrp_problem_count_timeout_ms: int
    rrp_problem_count_threshold: int
    rrp_problem_count_mcast_threshold: int
    rrp_token_expired_timeout_ms: int
    rrp_autorecovery_check_timeout_ms: int

    # Token
    token_ms: int  # as configured; see runtime_token_ms
    token_coefficient_ms: int  # added for each nodelist entry above two
    runtime_token_ms: int  # token_ms with what the nodelist adds; the following derive from it
    token_warning_percent: int  # 0: never
    token_retransmits_before_loss: int
    token_retransmit_ms: int  # < runtime_token_ms
    token_retransmit_min_ms: int  # <= token_retransmit_ms
    token_retransmit_first_ms: int  # <= token_retransmit_ms
    hold_ms: int  # < token_retransmit_ms
    hold_cancel_retry_ms: int
    seqno_unchanged_const: int  # idle rotations
    cancel_token_hold_on_retransmit: bool
    singleton_interval_ms: int
    heartbeat_failures_allowed: int  # 0: off
    max_network_delay_ms: int

    # Membership
    join_ms: int
    send_join_ms: int
    consensus_ms: int  # >= join_ms
    silent_fail_ms: int  # < consensus_ms; 0: off
    startup_wait_ms: int
    merge_ms: int
    flap_max_ms: int  # 0: off
    sync_timeout_ms: int
    fail_recv_const: int
    fail_recv_time_ms: int

    # Flow
    window_size_messages: int  # 0: automatic
    max_messages: int  # <= window_size_messages where that is not 0
    flow: str  # "share" or "backlog"
    accelerated_window_messages: int  # <= max_messages; 0: off
    accel_min: int
    accel_priority: str  # "calm" or "eager"
    miss_count_const: int
    request_limit: str  # "previous" or "current"
    max_gap_messages: int  # >= window_size_messages
    max_unstable_bytes: int


@dataclass(frozen=True, slots=True)
class Interface:
    """One network of the ring: a link."""

    ring_number: int
    bind_address: str  # of this machine, unless its interface is down
    multicast_address: str  # of the network where broadcast is True; "" with transport udpu
    multicast_port: int  # the port below is used too
    ttl: int
    broadcast: bool
    priority: int  # the highest is preferred
    member_addresses: tuple[str, ...]  # of a cluster with udpu that has no nodelist


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One node of the nodelist."""

    node_id: int
    name: str  # given, else the host name or address of ring 0
    addresses: tuple[str, ...]  # by ring
    quorum_votes: int


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
    fileline: bool = False
    function_name: bool = False
    format: str = "text"  # or "json"
    blackbox: bool = False
    subsystems: tuple[Subsystem, ...] = ()


@dataclass(frozen=True, slots=True)
class Subsystem:
    """What the log does for one subsystem."""

    name: str  # upper case
    logging: LoggingConfig  # complete; without subsystems


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
    process_sessions_max: int  # of one process with one service
    user_sessions_max: int  # of one uid with one service
    session_requests_max: int  # unanswered
    session_bytes_max: int  # of the unanswered requests of a session
    session_grace_ms: int  # for a client that is away and alive; while the service serves
    message_size_max_bytes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """A user or group that may use the services besides root and the daemons' own."""

    uid: int | None
    gid: int | None
    admin: bool


@dataclass(frozen=True, slots=True)
class ServiceMemoryConfig:
    """What is kept for a service that was killed."""

    service_grace_ms: int
    log_bytes_max: int
    snapshot_log_bytes: int  # due when more was logged, unless the state is larger
    snapshot_log_entries: int  # likewise
    snapshot_fork_bytes: int  # larger states are written by a forked child
    snapshot_timeout_ms: int
    snapshot_exit_ms: int


@dataclass(frozen=True, slots=True)
class QuorumConfig:
    """Whether a part of the cluster may act."""

    provider: str  # "majority" or "votequorum", which are one; or "none"
    expected_votes: int  # 0 without provider
    votes: int
    two_node: bool
    wait_for_all: bool
    last_man_standing: bool
    last_man_standing_window_ms: int
    auto_tie_breaker: bool
    auto_tie_breaker_node: str | tuple[int, ...]  # "lowest", "highest" or node ids
    allow_downscale: bool
    expected_votes_tracking: bool
    no_quorum_policy: str  # "stop", "freeze" or "ignore"


@dataclass(frozen=True, slots=True)
class ServicesConfig:
    """Which services this node runs: "clm", "ckpt"; "cpg" and "evs", which totemd serves."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClmConfig:
    """The membership service."""

    cluster_name: str
    node_name_form: str  # "auto", "plain" or "dn"
    nodes: tuple[str, ...]  # names of those that may be members; (): any
    lock_callback_timeout_ms: int
    reset_command: str  # "": none


@dataclass(frozen=True, slots=True)
class CkptConfig:
    """The checkpoint service."""

    merge_policy: str  # "winner", "mark_corrupted" or "union"
    merge_conflict: str  # "detach" or "invalidate"
    conflict_dir: Path | None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything openais.conf says, checked. ``warnings`` are to be logged once at start."""

    path: Path
    amf_file: Path
    totem: TotemConfig
    interfaces: tuple[Interface, ...]  # by ring number
    nodes: tuple[NodeEntry, ...]  # as in the file
    logging: LoggingConfig
    system: SystemConfig
    ipc: IpcConfig
    identities: tuple[Identity, ...]
    service_memory: ServiceMemoryConfig
    quorum: QuorumConfig
    services: ServicesConfig
    clm: ClmConfig
    ckpt: CkptConfig
    warnings: tuple[str, ...]
