"""The configuration of a node: names, cross checks, derived values, precedence."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path

import pytest

from openais.node.config import load
from openais.node.exits import NOT_RESTARTED, Exit
from openais.node.network import automatic_multicast_address, own_address
from tests.unit.openais.node.configs import (
    MACHINE,
    MINIMAL,
    complained,
    in_totem,
    loaded,
    refused,
)

NODELIST = """
totem {
    version: 2
    cluster_name: demo
}
nodelist {
    node {
        ring0_addr: 192.168.1.7
        nodeid: 1
        name: alpha
    }
    node {
        ring0_addr: beta
        nodeid: 2
        name: beta
    }
}
"""


def test_cfg_001_the_minimal_file_has_the_defaults_of_the_table(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL)
    totem = config.totem
    assert (totem.token_ms, totem.join_ms, totem.merge_ms) == (1000, 50, 200)
    assert (totem.transport, totem.secauth, totem.crypto_cipher) == ("udp", True, "aes256gcm")
    assert totem.key_file == Path("/etc/ais/authkey")
    assert totem.rrp_mode == "none"
    assert config.interfaces[0].bind_address == "192.168.1.7"
    assert config.interfaces[0].multicast_port == 5405
    assert config.system.run_dir == Path("/run/ais")
    assert config.ipc.mode == 0o660
    assert config.services.names == ("clm", "ckpt", "cpg", "evs")
    assert config.warnings == ()


def test_the_node_id_is_the_ring_address_and_the_name_the_host_name(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL)
    assert config.totem.node_id == int(ipaddress.ip_address("192.168.1.7"))
    assert config.totem.node_name == "alpha"


def test_the_high_bit_of_an_automatic_node_id_can_be_cleared(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("clear_node_high_bit: yes"))
    assert config.totem.node_id == int(ipaddress.ip_address("192.168.1.7")) & 0x7FFF_FFFF


def test_a_node_id_and_a_node_name_can_be_given_without_a_nodelist(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("nodeid: 3") + "clm {\nnode_name: gamma\n}\n")
    assert (config.totem.node_id, config.totem.node_name) == (3, "gamma")


def test_cfg_007_three_different_errors_are_reported_in_one_run(tmp_path: Path) -> None:
    error = refused(tmp_path, in_totem("token: x\nbogus_key_name: 1\nhello"))
    assert len(error.errors) == 3
    assert error.exit_status is Exit.MAIN_CONFIGURATION
    assert error.reason == "3 errors in the configuration"


def test_cfg_008_an_unknown_key_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    error = refused(tmp_path, in_totem("tokn: 1"))
    path = tmp_path / "openais.conf"
    assert error.errors == (
        f"parser error: {path}:4: unknown directive totem.tokn, did you mean token?",
    )


def test_an_unknown_section_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    error = refused(tmp_path, MINIMAL + "loging {\n}\n")
    assert complained(error, "unknown directive loging, did you mean logging?")


def test_cfg_009_lenient_turns_unknown_directives_into_warnings(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("tokn: 1"), lenient=True)
    assert config.warnings[0].endswith("unknown directive totem.tokn, did you mean token?")


def test_cfg_010_a_key_set_twice_names_the_first_line(tmp_path: Path) -> None:
    error = refused(tmp_path, in_totem("fail_recv_const: 1\nfail_to_recv_const: 2"))
    assert complained(error, "totem.fail_recv_const already set at line 4")


def test_a_section_that_may_stand_once_names_the_first_line(tmp_path: Path) -> None:
    error = refused(tmp_path, MINIMAL + "ipc {\n}\nipc {\n}\n")
    assert complained(error, "section ipc already opened at line 10")


def test_cfg_011_a_timeout_below_its_minimum_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, in_totem("token: 10"))
    assert complained(error, 'totem.token: expected integer 30..600000, got "10"')


@pytest.mark.parametrize("text", ["1000x", "-5", "99999999999999999999"])
def test_cfg_012_what_is_no_integer_is_refused(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, in_totem(f"token: {text}"))
    assert complained(error, f'totem.token: expected integer 30..600000, got "{text}"')


def test_cfg_013_consensus_below_join_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, in_totem("consensus: 40\njoin: 50"))
    assert complained(error, "totem.consensus: 40 is below totem.join 50")


def test_consensus_below_its_recommendation_is_a_warning(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("consensus: 1100"))
    assert config.warnings[0].endswith("totem.consensus: 1100 is below 1.2 * token 1000")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("token_retransmit: 1001", "totem.token_retransmit: 1001 is not below totem.token 1000"),
        (
            "token_retransmit: 100\nhold: 101",
            "totem.hold: 101 is not below totem.token_retransmit 100",
        ),
        (
            "window_size: 10\nmax_messages: 11",
            "totem.max_messages: 11 is over totem.window_size 10",
        ),
        ("crypto_cipher: none", "totem.crypto_cipher: none only with secauth off"),
        ("transport: knet", 'totem.transport: expected one of udp, udpu, got "knet"'),
        ("nodeid: 0", 'totem.nodeid: expected integer 1..4294967294, got "0"'),
        ("crypto_type: sober", 'expected one of nss, aes256, aes192, aes128, 3des, got "sober"'),
        (
            "transport: udpu\nnodeid: 1",
            "totem.transport: udpu needs a nodelist, or members of an interface",
        ),
        ("cluster_name: 0123456789abcdef", 'expected text of 1..15 bytes, got "0123456789abcdef"'),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, lines: str, reason: str
) -> None:
    assert complained(refused(tmp_path, in_totem(lines)), reason)


def test_the_version_is_mandatory_and_must_be_two(tmp_path: Path) -> None:
    assert complained(
        refused(tmp_path, MINIMAL.replace("version: 2", "version: 1")), "totem.version must be 2"
    )
    assert complained(
        refused(tmp_path, MINIMAL.replace("version: 2", "")), "totem.version is missing"
    )
    assert complained(refused(tmp_path, ""), "section totem is missing")


def test_a_file_without_interface_and_nodelist_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, "totem {\nversion: 2\n}\n")
    assert complained(error, "no interfaces defined")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.1", '"10.0.0.1" is not a multicast address'),  # CFG-015
        ("224.0.0.5", "224.0.0.5 is reserved for routing protocols"),
        ("ff15::1", "mcastaddr and bindnetaddr must be of one address family"),
        ("nonsense", '"nonsense" is not an IPv4 or IPv6 address'),
    ],
)
def test_cfg_015_a_wrong_multicast_address_is_refused(
    tmp_path: Path, address: str, reason: str
) -> None:
    error = refused(tmp_path, MINIMAL.replace("239.1.1.1", address))
    assert complained(error, reason)


def test_cfg_016_an_ipv6_network_needs_a_node_id(tmp_path: Path) -> None:
    text = MINIMAL.replace("192.168.1.0", "fd00::7").replace("239.1.1.1", "ff15::1")
    assert complained(refused(tmp_path, text), "an IPv6 network needs a node id")
    config = loaded(tmp_path, text.replace("version: 2", "version: 2\nnodeid: 5"))
    assert config.interfaces[0].bind_address == "fd00::7"


def test_cfg_018_node_ids_of_a_nodelist_are_unique_and_not_zero(tmp_path: Path) -> None:
    assert complained(
        refused(tmp_path, NODELIST.replace("nodeid: 2", "nodeid: 1")),
        "nodelist.node.nodeid: 1 is used twice",
    )
    assert complained(
        refused(tmp_path, NODELIST.replace("nodeid: 2", "nodeid: 0")),
        'nodelist.node.nodeid: expected integer 1..4294967294, got "0"',
    )


def test_names_and_addresses_of_a_nodelist_are_unique(tmp_path: Path) -> None:
    error = refused(tmp_path, NODELIST.replace("name: beta", "name: alpha"))
    assert complained(error, 'nodelist.node.name: "alpha" is used twice')
    error = refused(tmp_path, NODELIST.replace("addr: beta", "addr: 192.168.1.7"))
    assert complained(error, "nodelist.node: address 192.168.1.7 is used twice")


def test_a_nodelist_gives_id_name_and_address_of_this_machine(tmp_path: Path) -> None:
    config = loaded(tmp_path, NODELIST)
    assert (config.totem.node_id, config.totem.node_name) == (1, "alpha")
    assert config.interfaces[0].bind_address == "192.168.1.7"
    assert [node.addresses for node in config.nodes] == [("192.168.1.7",), ("192.168.1.8",)]


def test_cfg_019_a_nodelist_without_this_machine_is_refused(tmp_path: Path) -> None:
    error = refused(
        tmp_path, NODELIST.replace("192.168.1.7", "192.168.1.9").replace("alpha", "delta")
    )
    assert complained(error, "no nodelist entry matches this machine")
    assert error.exit_status is Exit.MAIN_CONFIGURATION


LOOPBACK_LIST = NODELIST.replace("192.168.1.7", "127.0.0.2").replace(
    "addr: beta", "addr: 127.0.0.3"
)


@pytest.mark.parametrize(
    ("lines", "machine_name", "node_id"),
    [
        ("nodeid: 2", "other", 2),
        ("interface {\nbindnetaddr: 127.0.0.3\n}", "other", 2),
        ("", "beta.example.org", 2),
        ("", "alpha", 1),
    ],
)
def test_this_machine_is_found_by_id_by_interface_or_by_name(
    tmp_path: Path, lines: str, machine_name: str, node_id: int
) -> None:
    machine = dataclasses.replace(MACHINE, host_name=machine_name)
    text = LOOPBACK_LIST.replace("version: 2", f"version: 2\n{lines}")
    assert loaded(tmp_path, text, machine=machine).totem.node_id == node_id


def test_a_node_id_that_is_not_in_the_nodelist_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, NODELIST.replace("version: 2", "version: 2\nnodeid: 9"))
    assert complained(error, "totem.nodeid: 9 is not in the nodelist")


def test_two_names_for_this_node_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, NODELIST + "clm {\nnode_name: omega\n}\n")
    assert complained(error, 'clm.node_name: "omega" differs from the nodelist\'s name "alpha"')


def test_a_host_name_nobody_knows_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, NODELIST.replace("addr: beta", "addr: nowhere"))
    assert complained(error, 'nodelist.node.ring0_addr: host name "nowhere" is not known')


def test_cfg_021_a_log_file_without_its_name_ends_with_status_7(tmp_path: Path) -> None:
    error = refused(tmp_path, MINIMAL + "logging {\nto_logfile: yes\n}\n")
    assert complained(error, "logfile missing")
    assert error.exit_status is Exit.LOGGING_CONFIGURATION


@pytest.mark.parametrize(
    ("name", "reason"), [("absent", "No such file or directory"), (".", "Is a directory")]
)
def test_cfg_022_a_main_file_that_cannot_be_read_ends_with_status_8(
    tmp_path: Path, name: str, reason: str
) -> None:
    path = tmp_path / name
    error = refused_path(path)
    assert error == (f"configuration file {path}: {reason}",)


def refused_path(path: Path) -> tuple[str, ...]:
    with pytest.raises(Exception, match="1 error") as caught:
        load(path, {}, machine=MACHINE)
    assert getattr(caught.value, "exit_status", None) is Exit.MAIN_CONFIGURATION
    return tuple(getattr(caught.value, "errors", ()))


def test_cfg_023_an_environment_variable_with_a_relative_path_ends_with_status_2(
    tmp_path: Path,
) -> None:
    error = refused(tmp_path, MINIMAL, {"OPENAIS_TOTEM_AUTHKEY_FILE": "authkey"})
    assert error.exit_status is Exit.USAGE
    assert "OPENAIS_TOTEM_AUTHKEY_FILE" in error.errors[0]


def test_the_environment_names_the_file_when_the_caller_does_not(tmp_path: Path) -> None:
    path = tmp_path / "other.conf"
    path.write_text(MINIMAL)
    config = load(None, {"OPENAIS_MAIN_CONFIG_FILE": str(path)}, machine=MACHINE)
    assert config.path == path


def test_the_key_file_is_the_files_then_the_environments_then_the_default(
    tmp_path: Path,
) -> None:
    environ = {"OPENAIS_TOTEM_AUTHKEY_FILE": "/from/environment"}
    given = in_totem("keyfile: /from/file")
    assert loaded(tmp_path, given, environ).totem.key_file == Path("/from/file")
    assert loaded(tmp_path, MINIMAL, environ).totem.key_file == Path("/from/environment")
    empty = {"OPENAIS_TOTEM_AUTHKEY_FILE": ""}
    assert loaded(tmp_path, MINIMAL, empty).totem.key_file == Path("/etc/ais/authkey")


def test_the_command_line_names_the_key_and_the_amf_file_before_all_else(tmp_path: Path) -> None:
    path = tmp_path / "openais.conf"
    path.write_text(in_totem("keyfile: /from/file"))
    environ = {"OPENAIS_AMF_CONFIG_FILE": "/amf/environment"}
    assert load(path, environ, machine=MACHINE).amf_file == Path("/amf/environment")
    assert load(path, {}, machine=MACHINE).amf_file == Path("/etc/ais/amf.conf")
    config = load(
        path, environ, key_file=Path("/k/option"), amf_file=Path("/a/option"), machine=MACHINE
    )
    assert (config.totem.key_file, config.amf_file) == (Path("/k/option"), Path("/a/option"))


def test_the_environment_is_ignored_with_elevated_privileges(tmp_path: Path) -> None:
    machine = dataclasses.replace(MACHINE, elevated=True)
    environ = {"OPENAIS_TOTEM_AUTHKEY_FILE": "/from/environment", "RUNTIME_DIRECTORY": "/x"}
    config = loaded(tmp_path, MINIMAL, environ, machine=machine)
    assert config.totem.key_file == Path("/etc/ais/authkey")
    assert config.system.run_dir == Path("/run/ais")
    assert "OPENAIS_TOTEM_AUTHKEY_FILE ignored" in config.warnings[0]


def test_a_key_in_the_file_is_refused_and_never_repeated(tmp_path: Path) -> None:
    for key in ("s3cr3t", "s3cr3t" * 10):
        error = refused(tmp_path, in_totem(f"key: {key}"))
        assert "totem.key: " in error.errors[0]
        assert "s3cr3t" not in "".join(error.errors)
    error = refused(tmp_path, in_totem(f"key: {'s3cr3t' * 10}"))
    assert "use totem.keyfile, or for tests OPENAIS_ALLOW_INLINE_KEY=1" in error.errors[0]


def test_directories_are_the_files_then_the_environments_then_the_default(
    tmp_path: Path,
) -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "STATE_DIRECTORY": "/var/lib/a"}
    config = loaded(tmp_path, MINIMAL, environ)
    assert (config.system.run_dir, config.system.state_dir) == (Path("/run/a"), Path("/var/lib/a"))
    config = loaded(tmp_path, MINIMAL + "system {\nrun_dir: /run/c\n}\n", environ)
    assert config.system.run_dir == Path("/run/c")


def test_a_run_directory_too_long_for_its_sockets_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, MINIMAL + f"system {{\nrun_dir: /{'r' * 90}\n}}\n")
    assert "longer than 74 bytes" in error.errors[0]


def test_what_is_served_later_or_meant_for_others_is_named_in_a_warning(tmp_path: Path) -> None:
    text = in_totem("threads: 4\nvsftype: none")
    text += "event {\n}\namf {\nmode: enabled\n}\nqb {\nx {\n}\n}\n"
    warnings = "\n".join(loaded(tmp_path, text).warnings)
    for expected in (
        "totem.threads is not supported and ignored",
        "event is not supported yet and ignored",
        "amf is not supported yet and ignored",
        "qb is not supported and ignored",
    ):
        assert expected in warnings


def test_switching_security_off_is_a_warning(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("secauth: off\nkeyfile: /k"))
    assert not config.totem.secauth
    assert "neither encrypted nor authenticated" in config.warnings[0]
    assert "not used with secauth off" in config.warnings[1]


def test_network_is_another_name_of_totem(tmp_path: Path) -> None:
    assert loaded(tmp_path, MINIMAL.replace("totem {", "network {")).totem.token_ms == 1000


def test_the_multicast_address_comes_from_the_cluster_name(tmp_path: Path) -> None:
    text = in_totem("cluster_name: demo").replace("mcastaddr: 239.1.1.1", "")
    config = loaded(tmp_path, text)
    assert config.interfaces[0].multicast_address == automatic_multicast_address("demo")
    assert automatic_multicast_address("demo").startswith("239.192.")
    assert automatic_multicast_address("demo") != automatic_multicast_address("other")
    error = refused(tmp_path, MINIMAL.replace("mcastaddr: 239.1.1.1", ""))
    assert "totem.interface.mcastaddr is missing" in error.errors[0]


def test_unicast_needs_neither_a_multicast_address_nor_a_ttl(tmp_path: Path) -> None:
    text = NODELIST.replace("version: 2", "version: 2\ntransport: udpu")
    assert loaded(tmp_path, text).interfaces[0].multicast_address == ""
    error = refused(tmp_path, text.replace("cluster_name: demo", "interface {\nttl: 2\n}"))
    assert complained(error, "totem.interface.ttl: only with totem.transport udp")


def test_an_interface_that_is_down_is_a_warning(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("nodeid: 1").replace("192.168.1.0", "10.9.9.9"))
    assert config.interfaces[0].bind_address == "10.9.9.9"
    assert "no interface has 10.9.9.9 now" in config.warnings[0]


@pytest.mark.parametrize(
    ("lines", "address", "reason"),
    [
        ("nodeid: 1", "10.9.9.0", "no interface has 10.9.9.0 now, and for a network it is not"),
        ("", "10.9.9.9", "no interface has 10.9.9.9 now, from which the node id would derive"),
    ],
)
def test_what_cannot_be_told_before_the_interface_is_up_is_tried_again(
    tmp_path: Path, lines: str, address: str, reason: str
) -> None:
    # A node id that derives from the address of the network is one that all nodes have.
    error = refused(tmp_path, in_totem(lines).replace("192.168.1.0", address))
    assert reason in error.errors[0]
    assert error.exit_status is Exit.NETWORK
    assert error.exit_status not in NOT_RESTARTED


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.1.0", "192.168.1.7"),
        ("192.168.1.7", "192.168.1.7"),
        ("127.0.0.3", "127.0.0.3"),  # the kernel takes every host of the loopback network
        ("127.0.0.0", "127.0.0.1"),
        ("192.168.1.8", None),
        ("fd00::", "fd00::7"),
        ("fd00::7%eth0", "fd00::7%eth0"),
    ],
)
def test_a_bind_address_is_an_own_address_or_the_network_of_one(
    text: str, address: str | None
) -> None:
    assert own_address(text, MACHINE.addresses) == address


def test_identities_are_users_and_groups_by_name_or_number(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, MINIMAL + "uidgid {\nuid: ais\n}\nuidgid {\ngid: calls\nadmin: yes\n}\n"
    )
    assert [(i.uid, i.gid, i.admin) for i in config.identities] == [
        (990, None, False),
        (None, 991, True),
    ]
    error = refused(tmp_path, MINIMAL + "uidgid {\nuid: nobody-here\n}\nuidgid {\n}\n")
    assert complained(error, 'uidgid.uid: "nobody-here" is not known here')
    assert complained(error, "uidgid: neither uid nor gid is given")


def test_a_drop_in_folder_adds_identities(tmp_path: Path) -> None:
    folder = tmp_path / "uidgid.d"
    folder.mkdir()
    (folder / "calls").write_text("uidgid {\ngid: calls\n}\n")
    assert [i.gid for i in loaded(tmp_path, MINIMAL).identities] == [991]
    (folder / "wrong").write_text("ipc {\n}\n")
    error = refused(tmp_path, MINIMAL)
    assert error.errors == (
        f"parser error: {folder / 'wrong'}:1: expected exactly one section uidgid",
    )


def test_services_are_chosen_by_their_old_names(tmp_path: Path) -> None:
    text = MINIMAL + (
        "service {\nname: openais_ckpt\nver: 0\n}\n"
        "service {\nname: openais_clm\nver: 1\n}\n"
        "service {\nname: openais_evt\n}\n"
    )
    config = loaded(tmp_path, text)
    assert config.services.names == ("ckpt",)
    assert len(config.warnings) == 2


def test_subsystems_have_their_own_debug_level_and_unknown_ones_a_warning(
    tmp_path: Path,
) -> None:
    text = MINIMAL + (
        "logging {\ndebug: off\nlogger_subsys {\nsubsys: CKPT\ndebug: on\n}\n"
        "logger {\nident: NOPE\ntags: enter\n}\n}\n"
    )
    config = loaded(tmp_path, text)
    assert [(s.name, s.logging.debug) for s in config.logging.subsystems] == [
        ("CKPT", "on"),
        ("NOPE", "trace"),
    ]
    assert any('"NOPE" is no subsystem' in warning for warning in config.warnings)


def test_the_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    error = refused(tmp_path, b"#" * (1 << 20) + b"\n")
    assert "longer than 1048576 bytes" in error.errors[0]


def test_more_than_twenty_errors_say_that_there_are_more(tmp_path: Path) -> None:
    error = refused(tmp_path, "x\n" * 30)
    assert len(error.errors) == 21
    assert error.errors[-1] == "further errors are not shown"
