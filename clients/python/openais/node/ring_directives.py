"""The directives of the ring: sections totem, interface, member and nodelist. Pure."""

from __future__ import annotations

from typing import Final

from openais.node.rules import (
    DAY_MS,
    HOLD_MIN_MS,
    NODE_ID_MAX,
    RINGS_MAX,
    TIMEOUT_MIN_MS,
    U32_MAX,
    Directive,
    SectionRule,
    Treatment,
    foreign,
)
from openais.node.values import (
    ABSOLUTE_PATH,
    ABSOLUTE_PATHS,
    ADDRESS,
    ADDRESS_OR_HOST,
    BOOLEAN,
    DSCP,
    choice,
    integer,
    milliseconds,
    secret,
    size,
    text_of,
)

WINDOW_MAX: Final = 512  # messages
BLOCK_DATAGRAMS_MAX: Final = 44  # what the kernel takes at once, at the usual MTU
NODES_MAX: Final = 255  # what the ring's messages can name
_RRP: Final = "of the predecessors' redundant rings: read and checked, nothing acts on it"
_RRP_NOTE: Final = "nothing acts on it: links are watched by probes, see link_probe_interval"
_timeout = milliseconds(TIMEOUT_MIN_MS, DAY_MS)

_IDENTITY: Final = (
    Directive("version", integer(0, U32_MAX), mandatory=True, meaning="must be 2"),
    Directive(
        "preset",
        choice("lan", "loopback", "fast"),
        "lan",
        "a set of defaults, see [presets](#presets); single directives override it",
    ),
    Directive(
        "cluster_name",
        text_of(1, 15),
        meaning="separates clusters: part of the key derivation and, when `mcastaddr` is "
        "absent, of the multicast address",
        otherwise="no name",
    ),
    Directive(
        "config_version",
        integer(0, (1 << 64) - 1),
        "0",
        "number of this version of the file, for tools that distribute it: a node that comes to "
        "others with a lower number than one of them has is not let in and ends with status 8; "
        "`0`: no version, fits all",
    ),
    Directive(
        "nodeid",
        integer(1, NODE_ID_MAX),
        meaning="this node's id, unique in the cluster; with a nodelist it names the entry "
        "of this machine. Mandatory with IPv6 unless the nodelist has it",
        otherwise="the nodelist's, else the IPv4 address of ring 0 as a number",
    ),
    Directive(
        "clear_node_high_bit",
        BOOLEAN,
        "no",
        "clear bit 31 of a node id that comes from an address",
    ),
    Directive(
        "max_nodes",
        integer(1, NODES_MAX),
        "128",
        "members a ring may have; at least the entries of the nodelist. Bounds every list that "
        "comes from the network",
    ),
)

_SECURITY: Final = (
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
        "`none` only with `secauth: off`; `aes128`, `aes192` and `aes256` mean `aes256gcm`, "
        "with a warning",
    ),
    Directive(
        "keyfile",
        ABSOLUTE_PATH,
        meaning="the key all nodes share",
        otherwise="`OPENAIS_TOTEM_AUTHKEY_FILE`, else `/etc/ais/authkey`",
    ),
    Directive(
        "key",
        secret(32, 4000),
        meaning="the key itself, for tests: refused unless `OPENAIS_ALLOW_INLINE_KEY=1` is in "
        "the environment or the file is only tested (`-t`); not together with `keyfile`",
    ),
    Directive(
        "key_accept",
        ABSOLUTE_PATHS,
        meaning="further key files, accepted for what is received: for the change of keys",
    ),
    Directive(
        "replay_protection",
        choice("window", "strict"),
        "window",
        "`strict`: additionally a sender must prove that its session is the current one, which "
        "costs one exchange per pair of nodes and start",
    ),
    Directive(
        "block_unlisted_ips",
        BOOLEAN,
        meaning="drop datagrams whose source address is not in the nodelist",
        otherwise="`yes` with a nodelist, else `no`",
    ),
)

_NETWORK: Final = (
    Directive(
        "transport",
        choice("udp", "udpu"),
        "udp",
        "`udp` multicast, `udpu` unicast to each node of the nodelist",
    ),
    Directive(
        "rrp_mode",
        choice("none", "active", "passive", synonyms=(("rr", "active"),)),
        aliases=("link_mode",),
        meaning="how several links are used. `passive`: each datagram on the best link that "
        "works; `active`: each datagram on every link; `rr` means `active`, with a warning",
        otherwise="`none` with one interface, `passive` with more",
    ),
    Directive(
        "netmtu",
        integer(576, 65507),
        "1500",
        "bytes of the largest datagram with IP and UDP headers; too high: fragments, "
        "too low: overhead",
    ),
    Directive(
        "block_datagrams",
        integer(1, BLOCK_DATAGRAMS_MAX),
        "22",
        "datagrams that are sealed and sent as one block; 1: each on its own. Higher: cheaper "
        "under load; one datagram lost is the block lost",
    ),
    Directive(
        "ip_version",
        choice("ipv4", "ipv6", "ipv4-6", "ipv6-4"),
        meaning="which addresses of a host name in the nodelist are taken; with two, the first "
        "one is preferred",
        otherwise="`ipv4` with `udp`, `ipv6-4` with `udpu`",
    ),
    Directive("ip_dscp", DSCP, "0", "mark of the datagrams for the switches' priorities"),
    Directive(
        "loopback",
        BOOLEAN,
        meaning="several nodes of the cluster run on this machine: multicasts are looped back",
        otherwise="`yes` when the address of ring 0 is a loopback address, or this machine has "
        "several in that network",
    ),
    Directive(
        "loopback_fast",
        choice("yes"),
        "yes",
        "a node's own messages never come back from the network: always so",
    ),
    Directive(
        "wait_for_interface",
        BOOLEAN,
        "yes",
        "without an interface for `bindnetaddr` wait for it, looking each `downcheck`; `no`: end "
        "with status 22",
    ),
    Directive("downcheck", _timeout, "1000", "between two looks for an interface that is down"),
    Directive(
        "link_probe_interval",
        milliseconds(1, DAY_MS),
        meaning="between two probes of a link to a node",
        otherwise="token / 4",
    ),
    Directive(
        "link_probe_timeout",
        milliseconds(2, DAY_MS),
        meaning="a link without an answer for that long is down; over `link_probe_interval`",
        otherwise="token / 2",
    ),
    Directive(
        "link_probe_count",
        integer(1, 100),
        "2",
        "answers in a row until a link counts as up again",
    ),
    Directive(
        "rrp_problem_count_timeout",
        _timeout,
        "2000",
        _RRP,
        note=_RRP_NOTE,
    ),
    Directive("rrp_problem_count_threshold", integer(2, U32_MAX), "10", _RRP, note=_RRP_NOTE),
    Directive(
        "rrp_problem_count_mcast_threshold",
        integer(2, U32_MAX),
        meaning=_RRP,
        otherwise="10 * rrp_problem_count_threshold",
        note=_RRP_NOTE,
    ),
    Directive(
        "rrp_token_expired_timeout",
        _timeout,
        meaning=_RRP,
        otherwise="token_retransmit",
        note=_RRP_NOTE,
    ),
    Directive("rrp_autorecovery_check_timeout", _timeout, "1000", _RRP, note=_RRP_NOTE),
)

_TOKEN: Final = (
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
        "token_warning",
        integer(0, 100),
        "75",
        "log a token that took longer than this share of `token`, in per cent; 0: never",
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
        meaning="longest wait before a token that was not seen to move on is sent again; at most "
        "`token`",
        otherwise="token / (token_retransmits_before_loss_const + 0.2)",
    ),
    Directive(
        "token_retransmit_min",
        milliseconds(1, DAY_MS),
        "5",
        "shortest such wait, where the token goes round fast; at most `token_retransmit`",
    ),
    Directive(
        "token_retransmit_first",
        milliseconds(1, DAY_MS),
        "20",
        "such wait while it is not known how fast the token goes round; at most `token_retransmit`",
    ),
    Directive(
        "hold",
        milliseconds(HOLD_MIN_MS, DAY_MS),
        meaning="the token of an idle ring rests that long; below `token_retransmit`",
        otherwise="0.8 * token_retransmit - 10",
    ),
    Directive(
        "hold_cancel_retry",
        milliseconds(1, DAY_MS),
        "20",
        "between two requests to let the token go; at most `hold` is of use",
    ),
    Directive(
        "seqno_unchanged_const",
        integer(2, U32_MAX),
        "3",
        "rotations without a message before the token is held; too high: an idle ring costs CPU",
    ),
    Directive(
        "cancel_token_hold_on_retransmit",
        BOOLEAN,
        "no",
        "do not slow the token down while messages are only sent again",
    ),
    Directive(
        "singleton_interval",
        milliseconds(1, 1000),
        "1",
        "between two token visits of a node alone on its ring that has nothing to send",
    ),
    Directive(
        "heartbeat_failures_allowed",
        integer(0, 1000),
        "0",
        "a second watch on the token: lost after this many `token_retransmit`, plus "
        "`max_network_delay`; that must be below `token`. 0: off",
    ),
    Directive("max_network_delay", milliseconds(1, DAY_MS), "50", "used with heartbeats only"),
)

_MEMBERSHIP: Final = (
    Directive(
        "join",
        _timeout,
        "50",
        "between two join messages while a ring forms; at most `consensus`",
    ),
    Directive(
        "send_join",
        milliseconds(0, DAY_MS),
        "0",
        "longest random delay before a join message: many nodes starting together send less. `0`: "
        "5 for a join that concerns more than 16 nodes, else none",
        aliases=("join_coalesce",),
    ),
    Directive(
        "consensus",
        _timeout,
        meaning="a membership not agreed upon within this time goes on without the silent; at "
        "least `join`, better 1.2 * `token`",
        otherwise="1.2 * token",
    ),
    Directive(
        "silent_fail",
        milliseconds(0, DAY_MS),
        meaning="a node that sends no join at all for that long while a ring forms is left out; "
        "below `consensus`. Too low: slow nodes are left out. 0: off",
        otherwise="the larger of 6 * join and 0.3 * token, but below `consensus`",
    ),
    Directive(
        "startup_wait",
        milliseconds(0, DAY_MS),
        meaning="a node that starts forms no ring of its own before; too low: a ring of one "
        "first, then a merge",
        otherwise="2 * join",
    ),
    Directive("merge", _timeout, "200", "between two looks for other rings of this cluster"),
    Directive(
        "flap_max",
        milliseconds(0, DAY_MS),
        "30000",
        "longest time for which a node that comes and goes is not merged with; 0: off",
    ),
    Directive(
        "sync_timeout",
        _timeout,
        "2000",
        "a node that does not finish the synchronisation of groups within that time is left out",
    ),
    Directive(
        "fail_recv_const",
        integer(1, U32_MAX),
        "2500",
        "token visits without anything received that was due before a node counts as one that "
        "cannot receive",
        aliases=("fail_to_recv_const",),
    ),
    Directive(
        "fail_recv_time",
        _timeout,
        meaning="shortest time that this takes",
        otherwise="token",
    ),
)

_FLOW: Final = (
    Directive(
        "window_size",
        integer(1, WINDOW_MAX),
        meaning="messages per token rotation of all nodes together; too high: receivers lose "
        "datagrams, too low: throughput",
        otherwise="16 per node, at least 50",
    ),
    Directive(
        "max_messages",
        integer(1, WINDOW_MAX),
        meaning="messages per token visit of one node; at most `window_size`",
        otherwise="17, or `window_size` where that is lower",
    ),
    Directive(
        "flow",
        choice("share", "backlog"),
        "share",
        "`share`: every node always has its share of the window; `backlog`: also by what each "
        "has waiting",
    ),
    Directive(
        "accelerated_window",
        integer(0, WINDOW_MAX),
        "0",
        "messages of a visit that are sent after the token was passed on; at most "
        "`max_messages`. 0: none. Worth it where every node has cores of its own",
    ),
    Directive(
        "accel_min",
        integer(0, WINDOW_MAX),
        "4",
        "with so few messages or less in a visit all are sent before the token",
    ),
    Directive(
        "accel_priority",
        choice("calm", "eager"),
        "calm",
        "when the token goes before data. `calm`: once the one before is seen to have sent data "
        "after it; `eager`: once any of its data of the next rotation is seen",
    ),
    Directive(
        "miss_count_const",
        integer(1, U32_MAX),
        "1",
        "token visits before a missing message is asked for",
    ),
    Directive(
        "request_limit",
        choice("previous", "current"),
        "previous",
        "up to which message a node asks for missing ones: those known at its `previous` visit, "
        "or all, which asks for what is still on the way",
    ),
    Directive(
        "max_gap",
        integer(64, 1 << 20),
        "4096",
        "messages of a ring that not all nodes have yet; at least `window_size`. Bounds memory "
        "and recovery",
    ),
    Directive(
        "max_unstable_bytes",
        size(1 << 20, 4 << 30),
        "64M",
        "bytes of such messages",
    ),
)

_PREDECESSORS: Final = (
    Directive(
        "crypto_type",
        choice("nss", "aes256", "aes192", "aes128", "3des"),
        treatment=Treatment.FOREIGN,
        meaning="predecessors' cipher; `sober` is an error",
    ),
    *foreign(
        "crypto_hash",
        "crypto_model",
        "crypto_accept",
        "knet_pmtud_interval",
        "knet_mtu",
        "knet_compression_model",
        "knet_compression_threshold",
        "knet_compression_level",
    ),
    Directive(
        "threads", integer(0, 64), treatment=Treatment.FOREIGN, harmless=("0",), meaning="threads"
    ),
    Directive(
        "vsftype",
        choice("ykd", "none"),
        treatment=Treatment.FOREIGN,
        harmless=("none",),
        meaning="virtual synchrony filter",
    ),
)

TOTEM: Final = SectionRule(
    "totem",
    "The ring: who belongs to the cluster, how it is protected, its timeouts.",
    aliases=("network",),
    directives=(
        *_IDENTITY,
        *_SECURITY,
        *_NETWORK,
        *_TOKEN,
        *_MEMBERSHIP,
        *_FLOW,
        *_PREDECESSORS,
    ),
)

INTERFACE: Final = SectionRule(
    "totem.interface",
    "One network the ring runs on: a link. Up to 8.",
    multiple=True,
    directives=(
        Directive(
            "ringnumber",
            integer(0, RINGS_MAX - 1),
            aliases=("linknumber",),
            meaning="number of the link, from 0 without a gap; mandatory with several interfaces",
            otherwise="0",
        ),
        Directive(
            "bindnetaddr",
            ADDRESS,
            meaning="an address of this machine, or the network of one. Mandatory without nodelist",
            otherwise="this machine's `ringN_addr` of the nodelist",
        ),
        Directive(
            "mcastaddr",
            ADDRESS,
            meaning="multicast group of the link, not 224.0.0.x",
            otherwise="from `cluster_name`: 239.192.x.y, or ff15::x:y with IPv6; mandatory for "
            "`udp` without one",
        ),
        Directive(
            "broadcast",
            BOOLEAN,
            "no",
            "send to the broadcast address of the network; IPv4 only, excludes `mcastaddr`",
        ),
        Directive(
            "mcastport",
            integer(1024, 65535),
            meaning="UDP port; the port below it is used too",
            otherwise="5405 + 2 * ringnumber",
        ),
        Directive("ttl", integer(0, 255), "1", "hops of a multicast; `udp` only"),
        Directive(
            "link_priority",
            integer(0, 255),
            "1",
            "which link `passive` prefers: the highest, of equal ones the lowest number",
        ),
        Directive(
            "knet_link_priority",
            integer(0, 255),
            meaning="totem.interface.link_priority",
            treatment=Treatment.TRANSLATED,
        ),
        Directive(
            "knet_ping_interval",
            milliseconds(1, DAY_MS),
            meaning="totem.link_probe_interval",
            treatment=Treatment.TRANSLATED,
        ),
        Directive(
            "knet_ping_timeout",
            milliseconds(2, DAY_MS),
            meaning="totem.link_probe_timeout",
            treatment=Treatment.TRANSLATED,
        ),
        Directive(
            "knet_pong_count",
            integer(1, 100),
            meaning="totem.link_probe_count",
            treatment=Treatment.TRANSLATED,
        ),
        *foreign("bindport", "knet_transport", "knet_ping_precision"),
    ),
)

MEMBER: Final = SectionRule(
    "totem.interface.member",
    "One node of a cluster with `udpu` that has no nodelist.",
    multiple=True,
    directives=(
        Directive("memberaddr", ADDRESS, mandatory=True, meaning="its address on this link"),
    ),
)

NODELIST: Final = SectionRule("nodelist", "The nodes of the cluster.")

NODE: Final = SectionRule(
    "nodelist.node",
    "One node of the cluster.",
    multiple=True,
    directives=(
        Directive("ring0_addr", ADDRESS_OR_HOST, mandatory=True, meaning="address on link 0"),
        *(
            Directive(
                f"ring{ring}_addr",
                ADDRESS_OR_HOST,
                meaning=f"address on link {ring}; all nodes or none",
            )
            for ring in range(1, RINGS_MAX)
        ),
        Directive(
            "nodeid", integer(1, NODE_ID_MAX), mandatory=True, meaning="unique in the cluster"
        ),
        Directive(
            "name",
            text_of(1, 64),
            meaning="node name, unique in the cluster",
            otherwise="`clm.node_name`, else for this machine its host name",
        ),
        Directive("quorum_votes", integer(0, 255), "1", "votes of the node"),
    ),
)
