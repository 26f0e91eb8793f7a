"""What a start would find wrong, found without one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from openais.node.checking import Report, check
from openais.node.config import NodeConfig, load_with_origins
from openais.node.effective import rows
from openais.node.exits import Exit, ExitError
from tests.unit.openais.node.configs import MACHINE, MINIMAL, in_totem, nodelist


def logging_to(path: Path) -> str:
    return f"logging {{\nto_logfile: yes\nlogfile: {path}\n}}\n"


def checked(folder: Path, text: str) -> Report:
    path = folder / "openais.conf"
    path.write_text(f"{text}system {{\nrun_dir: {folder}/run\nstate_dir: {folder}/deep/state\n}}\n")
    return check(path, {}, machine=MACHINE)


def test_cfg_024_a_good_file_is_good_and_nothing_is_made(tmp_path: Path) -> None:
    report = checked(
        tmp_path, MINIMAL + f"logging {{\nto_logfile: yes\nlogfile: {tmp_path}/l\n}}\n"
    )
    assert report == Report((), (), Exit.OK, tmp_path / "openais.conf")
    assert [file.name for file in tmp_path.iterdir()] == ["openais.conf"]


def test_a_faulty_file_has_the_status_and_the_lines_of_a_start(tmp_path: Path) -> None:
    report = checked(tmp_path, in_totem("tokn: 1\ntoken: x"))
    assert report.status is Exit.MAIN_CONFIGURATION
    assert len(report.problems) == 2


def test_everything_is_reported_with_the_status_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    text = in_totem("wait_for_interface: no\nnodeid: 1").replace("192.168.1.0", "10.9.9.9")
    text += logging_to(tmp_path / "absent" / "log")
    report = checked(tmp_path, text)
    assert report.status is Exit.LOGGING_CONFIGURATION
    assert report.problems == (
        f"log file {tmp_path}/absent/log: No such file or directory",
        f"directory {tmp_path}/run: Not a directory",
        "network 0: no interface has 10.9.9.9",
    )


def test_a_directory_for_a_log_file_is_refused(tmp_path: Path) -> None:
    report = checked(tmp_path, MINIMAL + logging_to(tmp_path))
    assert report.problems == (f"log file {tmp_path}: Is a directory",)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("")
    report = checked(tmp_path, MINIMAL)
    assert report.status is Exit.DIRECTORY
    assert report.problems == (f"directory {tmp_path}/deep/state: Not a directory",)


def test_the_programs_own_checks_are_among_them(tmp_path: Path) -> None:
    def refuse(config: NodeConfig) -> None:
        raise ExitError(Exit.KEY_FILE, f"no key {config.totem.key_file}")

    path = tmp_path / "openais.conf"
    path.write_text(MINIMAL)
    report = check(path, {}, more=(refuse,), key_file=Path("/from/option"), machine=MACHINE)
    assert "no key /from/option" in report.problems


def test_datagrams_longer_than_the_interface_takes_are_a_warning(tmp_path: Path) -> None:
    machine = dataclasses.replace(
        MACHINE, mtu_bytes={"192.168.1.7": 1500}.get, receive_buffer_max_bytes=212_992
    )
    path = tmp_path / "openais.conf"
    path.write_text(in_totem("netmtu: 9000\nwindow_size: 50"))
    warnings = check(path, {}, machine=machine).warnings
    assert [warning.partition(": ")[2].partition(": ")[2] for warning in warnings] == [
        "totem.netmtu: 9000 is over the MTU 1500 of the interface that has 192.168.1.7",
        "totem.window_size: 50 messages of totem.netmtu 9000 are over the 212992 bytes that the "
        "kernel lets wait at a socket; set net.core.rmem_max to 450000 or more",
    ]


def test_a_test_asks_no_name_server(tmp_path: Path) -> None:
    def ask(name: str) -> tuple[str, ...]:
        pytest.fail(f"asked for {name}")

    machine = dataclasses.replace(MACHINE, resolve=ask, full_name=lambda: str(ask("me")))
    path = tmp_path / "openais.conf"
    text = in_totem("") + nodelist(2).replace("192.168.1.8", "beta").replace("192.168.1.7", "me")
    path.write_text(text)
    report = check(path, {}, machine=machine)
    assert sum("a test asks no name server" in line for line in report.warnings) == 2
    assert any("cannot be told without a name server" in line for line in report.warnings)
    listed = dataclasses.replace(machine, listed=lambda _: ("192.168.1.7",))
    assert "192.168.1.7 is used twice" in check(path, {}, machine=listed).problems[0]


def test_a_key_in_the_file_may_be_tested_but_not_started(tmp_path: Path) -> None:
    text = in_totem(f"key: {'s3cr3t' * 8}")
    assert checked(tmp_path, text).status is Exit.OK
    loaded = load_with_origins(
        tmp_path / "openais.conf", {"OPENAIS_ALLOW_INLINE_KEY": "1"}, machine=MACHINE
    )
    assert loaded.config.totem.key_text == "s3cr3t" * 8
    assert "s3cr3t" not in repr(loaded.config)
    assert "s3cr3t" not in str(rows(loaded))


def test_a_key_and_a_key_file_together_are_refused(tmp_path: Path) -> None:
    report = checked(tmp_path, in_totem(f"key: {'s3cr3t' * 8}\nkeyfile: /k"))
    assert report.problems[0].endswith("totem.key and totem.keyfile: only one of them")


def test_every_effective_value_has_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "openais.conf"
    path.write_text(in_totem("preset: fast\njoin: 40\ncluster_name: demo") + nodelist(3))
    environ = {
        "OPENAIS_TOTEM_AUTHKEY_FILE": "/from/environment",
        "RUNTIME_DIRECTORY": "/run/x",
    }
    loaded = load_with_origins(path, environ, machine=MACHINE)
    found = {row.name: (row.value, row.origin) for row in rows(loaded)}
    assert found["totem.join"] == ("40", f"{path}:5")
    assert found["totem.token"] == ("200", "preset fast")
    assert found["totem.token with token_coefficient"] == ("205", "derived")
    assert found["totem.consensus"] == ("246", "derived")
    assert found["totem.merge"] == ("100", "preset fast")
    assert found["totem.interface[0].bindnetaddr"] == ("192.168.1.0", f"{path}:10")
    assert found["totem.interface[0].bindnetaddr of this machine"] == ("192.168.1.7", "derived")
    assert found["totem.netmtu"] == ("1500", "default")
    assert found["totem.window_size"] == ("- (16 per node, at least 50)", "default")
    assert found["totem.keyfile"] == ("/from/environment", "environment OPENAIS_TOTEM_AUTHKEY_FILE")
    assert found["totem.interface[0].mcastport"] == ("5405", "derived")
    assert found["nodelist.node[2].nodeid"][0] == "3"
    assert found["system.run_dir"] == ("/run/x", "environment RUNTIME_DIRECTORY")
    assert found["ipc.mode"] == ("0660", "default")
    assert found["totem.nodeid"] == ("1", "nodelist")


def test_what_is_shown_can_stand_in_a_file_and_means_the_same(tmp_path: Path) -> None:
    # The effective values of section totem, written out, must be accepted and change nothing.
    path = tmp_path / "openais.conf"
    path.write_text(in_totem("preset: loopback\ncluster_name: demo\ntoken: 500"))
    loaded = load_with_origins(path, {}, machine=MACHINE)
    lines = [
        f"{row.name.removeprefix('totem.')}: {row.value}"
        for row in rows(loaded)
        if row.name.count(".") == 1
        and row.name.startswith("totem.")
        and not row.value.startswith("- (")
        and row.name not in ("totem.version", "totem.preset")
    ]
    path.write_text(in_totem("\n".join(["preset: loopback", *lines])))
    again = load_with_origins(path, {}, machine=MACHINE)
    assert again.config.totem == loaded.config.totem
