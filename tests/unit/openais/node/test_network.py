"""Links: several interfaces, what the nodelist says of them, what derives."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path

import pytest

from openais.node.network import automatic_multicast_address
from tests.unit.openais.node.configs import (
    MACHINE,
    MINIMAL,
    complained,
    in_totem,
    loaded,
    nodelist,
    refused,
)

TWO_LINKS = """
totem {
    version: 2
    interface {
        ringnumber: 0
        bindnetaddr: 192.168.1.7
        mcastaddr: 239.1.1.1
        mcastport: 5405
    }
    interface {
        ringnumber: 1
        bindnetaddr: 192.168.1.7
        mcastaddr: 239.1.1.2
        mcastport: PORT
    }
}
"""


def links(count: int, totem: str = "") -> str:
    """Return a configuration of two nodes that are joined by so many links."""
    addresses = [
        "".join(f"ring{ring}_addr: 192.168.{ring}.{host}\n" for ring in range(count))
        for host in (7, 8)
    ]
    return (
        f"totem {{\nversion: 2\nnodeid: 1\ncluster_name: demo\n{totem}\n}}\nnodelist {{\n"
        f"node {{\n{addresses[0]}nodeid: 1\nname: a\n}}\n"
        f"node {{\n{addresses[1]}nodeid: 2\nname: b\n}}\n}}\n"
    )


def test_cfg_017_links_with_one_address_need_ports_two_apart(tmp_path: Path) -> None:
    error = refused(tmp_path, TWO_LINKS.replace("PORT", "5406"))
    assert complained(error, "ports that differ by 2 or more, got 5405 and 5406")


def test_two_interfaces_are_two_links_in_passive_mode(tmp_path: Path) -> None:
    config = loaded(tmp_path, TWO_LINKS.replace("PORT", "5407"))
    assert config.totem.rrp_mode == "passive"
    assert [i.ring_number for i in config.interfaces] == [0, 1]
    assert config.warnings == ()


def test_a_second_link_with_mode_none_or_a_gap_is_refused(tmp_path: Path) -> None:
    text = TWO_LINKS.replace("PORT", "5407")
    error = refused(tmp_path, text.replace("version: 2", "version: 2\nrrp_mode: none"))
    assert complained(error, "totem.rrp_mode: none with 2 interfaces")
    error = refused(tmp_path, text.replace("ringnumber: 0", "ringnumber: 2"))
    assert complained(error, "numbers must be unique and begin at 0")
    error = refused(tmp_path, text.replace("ringnumber: 0", ""))
    assert complained(error, "totem.interface.ringnumber is missing")


def test_the_mode_of_a_predecessor_is_taken_as_active_with_a_warning(tmp_path: Path) -> None:
    text = TWO_LINKS.replace("PORT", "5407").replace("version: 2", "version: 2\nrrp_mode: rr")
    config = loaded(tmp_path, text)
    assert config.totem.rrp_mode == "active"
    assert config.warnings[0].endswith('totem.rrp_mode: "rr" is taken as active')


def test_a_nodelist_gives_up_to_eight_links_with_ports_and_groups_of_their_own(
    tmp_path: Path,
) -> None:
    config = loaded(tmp_path, links(8))
    assert [i.bind_address for i in config.interfaces] == [f"192.168.{k}.7" for k in range(8)]
    assert [i.multicast_port for i in config.interfaces] == list(range(5405, 5421, 2))
    assert len({i.multicast_address for i in config.interfaces}) == 8
    assert config.nodes[1].addresses == tuple(f"192.168.{k}.8" for k in range(8))


def test_a_ninth_link_is_an_unknown_directive(tmp_path: Path) -> None:
    assert "unknown directive nodelist.node.ring8_addr" in refused(tmp_path, links(9)).errors[0]


def test_an_interface_of_a_link_in_the_nodelist_changes_that_link_only(tmp_path: Path) -> None:
    config = loaded(tmp_path, links(2, "interface {\nringnumber: 1\nmcastport: 6000\n}"))
    assert [i.multicast_port for i in config.interfaces] == [5405, 6000]
    assert [i.ring_number for i in config.interfaces] == [0, 1]


def test_all_nodes_of_a_nodelist_have_the_same_links(tmp_path: Path) -> None:
    text = links(2).replace("ring1_addr: 192.168.1.8\n", "")
    assert complained(
        refused(tmp_path, text), "nodelist.node.ring1_addr: all nodes must have one, or none"
    )
    text = (
        links(3).replace("ring1_addr: 192.168.1.7\n", "").replace("ring1_addr: 192.168.1.8\n", "")
    )
    assert complained(
        refused(tmp_path, text), "nodelist.node: ring2_addr without those of the links before"
    )


def test_links_of_different_address_families_are_refused(tmp_path: Path) -> None:
    text = TWO_LINKS.replace("PORT", "5407").replace("version: 2", "version: 2\nnodeid: 1")
    second = text.rpartition("bindnetaddr: 192.168.1.7")
    text = second[0] + "bindnetaddr: fd00::7" + second[2].replace("239.1.1.2", "ff15::1")
    assert complained(
        refused(tmp_path, text), "totem.interface: all rings must be of one address family"
    )


def test_a_group_derives_from_the_name_for_both_families_and_each_link() -> None:
    four = [automatic_multicast_address("demo", ring) for ring in range(8)]
    six = [automatic_multicast_address("demo", ring, 6) for ring in range(8)]
    assert len(set(four)) == len(set(six)) == 8
    assert all(a.startswith("239.192.") for a in four)
    assert all(a.startswith("ff15::") and ipaddress.ip_address(a).is_multicast for a in six)


def test_an_ipv6_network_has_an_automatic_group_too(tmp_path: Path) -> None:
    text = in_totem("nodeid: 1\ncluster_name: demo").replace("mcastaddr: 239.1.1.1", "")
    config = loaded(tmp_path, text.replace("192.168.1.0", "fd00::7"))
    assert config.interfaces[0].multicast_address == automatic_multicast_address("demo", 0, 6)


def test_broadcast_takes_the_address_of_the_network_and_excludes_a_group(tmp_path: Path) -> None:
    text = MINIMAL.replace("mcastaddr: 239.1.1.1", "broadcast: yes")
    config = loaded(tmp_path, text)
    assert config.interfaces[0].broadcast
    assert config.interfaces[0].multicast_address == "192.168.1.255"
    error = refused(tmp_path, in_totem("", "broadcast: yes"))
    assert complained(error, "totem.interface.broadcast: not together with mcastaddr")
    error = refused(tmp_path, text.replace("192.168.1.0", "fd00::7"))
    assert complained(error, "totem.interface.broadcast: only with IPv4")


def test_the_names_of_a_predecessors_probes_are_taken_with_a_warning(tmp_path: Path) -> None:
    lines = "knet_ping_interval: 100\nknet_ping_timeout: 300\nknet_pong_count: 3\n"
    config = loaded(tmp_path, in_totem("", lines + "knet_link_priority: 5"))
    t = config.totem
    assert (t.link_probe_interval_ms, t.link_probe_timeout_ms, t.link_probe_count) == (100, 300, 3)
    assert config.interfaces[0].priority == 5
    assert len(config.warnings) == 4
    assert config.warnings[0].endswith(
        "totem.interface.knet_ping_interval is a predecessor's name; what it says is taken as "
        "totem.link_probe_interval"
    )
    own = loaded(tmp_path, in_totem("link_probe_interval: 50", lines)).totem
    assert own.link_probe_interval_ms == 50


def test_members_stand_in_for_a_nodelist_with_unicast_only(tmp_path: Path) -> None:
    member = "member {\nmemberaddr: 192.168.1.8\n}"
    text = in_totem("transport: udpu", member).replace("mcastaddr: 239.1.1.1", "")
    assert loaded(tmp_path, text).interfaces[0].member_addresses == ("192.168.1.8",)
    error = refused(tmp_path, in_totem("", member))
    assert complained(error, "totem.interface.member: only with totem.transport udpu")


def test_a_host_name_is_resolved_to_the_family_that_ip_version_says(tmp_path: Path) -> None:
    machine = dataclasses.replace(MACHINE, resolve=lambda _: ("fd00::8", "192.168.1.8"))
    text = links(1).replace("192.168.0.8", "beta")

    def address(lines: str) -> str:
        changed = text.replace("version: 2", f"version: 2\n{lines}")
        return loaded(tmp_path, changed, machine=machine).nodes[1].addresses[0]

    assert address("") == "192.168.1.8"
    assert address("ip_version: ipv6") == "fd00::8"
    assert address("ip_version: ipv6-4") == "fd00::8"
    assert address("transport: udpu") == "fd00::8"
    only4 = dataclasses.replace(MACHINE, resolve=lambda _: ("192.168.1.8",))
    error = refused(
        tmp_path, text.replace("version: 2", "version: 2\nip_version: ipv6"), machine=only4
    )
    assert complained(error, 'host name "beta" has no address for totem.ip_version')


def test_several_nodes_on_one_machine_are_noticed(tmp_path: Path) -> None:
    assert not loaded(tmp_path, MINIMAL).totem.loopback
    assert loaded(tmp_path, MINIMAL.replace("192.168.1.0", "127.0.0.3")).totem.loopback
    two = dataclasses.replace(
        MACHINE,
        addresses=(*MACHINE.addresses, ipaddress.ip_interface("192.168.1.9/24")),
    )
    assert loaded(tmp_path, MINIMAL, machine=two).totem.loopback
    assert not loaded(tmp_path, in_totem("loopback: no"), machine=two).totem.loopback


def test_unlisted_addresses_are_blocked_where_there_is_a_list(tmp_path: Path) -> None:
    assert not loaded(tmp_path, MINIMAL).totem.block_unlisted_ips
    assert loaded(tmp_path, MINIMAL + nodelist(3)).totem.block_unlisted_ips
    error = refused(tmp_path, in_totem("block_unlisted_ips: yes"))
    assert complained(error, "without a nodelist it would block every node")


def test_an_address_of_the_nodelist_that_this_machine_has_not_is_a_warning(
    tmp_path: Path,
) -> None:
    warnings = loaded(tmp_path, links(2)).warnings
    assert len(warnings) == 1
    assert warnings[0].endswith("nodelist.node.ring0_addr: no interface has 192.168.0.7 now")


def test_what_nothing_acts_on_is_said_to_who_writes_it(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("rrp_token_expired_timeout: 47"))
    assert config.totem.rrp_token_expired_timeout_ms == 47
    assert [warning.partition(": ")[2].partition(": ")[2] for warning in config.warnings] == [
        "totem.rrp_token_expired_timeout: nothing acts on it: links are watched by probes, see "
        "link_probe_interval",
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("two_node: yes", "quorum.two_node: needs exactly 2 expected votes, got 3"),
        (
            "two_node: yes\nauto_tie_breaker: yes\nexpected_votes: 2",
            "quorum.auto_tie_breaker: not together with quorum.two_node",
        ),
        ("device {\n}", "quorum.device: a quorum device is not supported"),
        ("auto_tie_breaker_node: 1 x", 'integers 1..4294967294, got "1 x"'),
    ],
)
def test_cfg_020_quorum_is_checked(tmp_path: Path, lines: str, reason: str) -> None:
    text = MINIMAL + nodelist(3) + f"quorum {{\nprovider: votequorum\n{lines}\n}}\n"
    assert complained(refused(tmp_path, text), reason)


def test_quorum_is_read_and_says_what_nothing_acts_on(tmp_path: Path) -> None:
    lines = "provider: majority\nauto_tie_breaker_node: 3, 1\nallow_downscale: yes"
    text = MINIMAL + f"quorum {{\n{lines}\n}}\n"
    error = refused(tmp_path, text)
    assert complained(error, "quorum.expected_votes is missing (only a nodelist gives it)")
    config = loaded(tmp_path, text + nodelist(3))
    assert (config.quorum.provider, config.quorum.expected_votes) == ("majority", 3)
    assert config.quorum.auto_tie_breaker_node == (3, 1)
    warnings = [w for w in config.warnings if "quorum" in w]
    assert len(warnings) == 1
    assert "quorum.allow_downscale: read and checked; this release does not act" in warnings[0]


def test_what_is_kept_for_a_killed_service_is_bounded(tmp_path: Path) -> None:
    memory = loaded(tmp_path, MINIMAL).service_memory
    assert (memory.service_grace_ms, memory.log_bytes_max) == (5000, 64 << 20)
    text = MINIMAL + "service_memory {\nservice_grace: 2s\nlog_bytes_max: 8M\n}\n"
    memory = loaded(tmp_path, text).service_memory
    assert (memory.service_grace_ms, memory.log_bytes_max) == (2000, 8 << 20)
    assert (memory.snapshot_log_bytes, memory.snapshot_log_entries) == (4 << 20, 2_000)
    assert (memory.snapshot_fork_bytes, memory.snapshot_timeout_ms) == (1 << 20, 60_000)
    text = MINIMAL + "service_memory {\nsnapshot_exit: 2s\nsnapshot_log_bytes: 1M\n}\n"
    memory = loaded(tmp_path, text).service_memory
    assert (memory.snapshot_exit_ms, memory.snapshot_log_bytes) == (2000, 1 << 20)
