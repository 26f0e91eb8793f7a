"""Log records: their form, where they go, how many."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from openais.node import logs
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog, configure, event_text
from openais.node.model import LoggingConfig, Subsystem

LOG = EventLog("services.ckpt.service")


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    configure(LoggingConfig(to_stderr=False), "test")
    logging.getLogger().setLevel(level)


def test_an_event_is_one_line_of_keys_and_values() -> None:
    text = event_text(
        "view", {"node": 3, "members": (1, 2), "group": b"a b", "name": "", "x": 'q"', "n": None}
    )
    assert text == 'view node=3 members=1,2 group="a b" name="" x="q\\"" n=None'


def test_a_long_value_is_cut() -> None:
    assert len(event_text("e", {"k": "x" * 5000})) < 1100


def test_records_go_to_standard_error_with_program_and_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingConfig(timestamp="off"), "ckpt")
    LOG.info("live", node=1)
    LOG.debug("message")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ckpt[")
    assert lines[0].endswith("] INFO live node=1")


def test_debug_levels_are_switched_for_all_or_for_one_subsystem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    only_ckpt = LoggingConfig(subsystems=(Subsystem("CKPT", LoggingConfig(debug="trace")),))
    configure(only_ckpt, "totemd")
    LOG.debug("no")
    configure(only_ckpt, "ckpt")
    LOG.trace("yes")
    configure(LoggingConfig(debug="on"), "clm")
    LOG.debug("yes")
    LOG.trace("no")
    err = capsys.readouterr().err
    assert err.count("yes") == 2
    assert "no" not in err.split()


def test_a_record_of_several_lines_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LoggingConfig(), "ckpt")
    LOG.error("failed", why="a\nb")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_json_form_has_the_fields_as_keys(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LoggingConfig(format="json"), "ckpt")
    LOG.warning("view", node=3, members=(1, 2))
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["node"], line["members"]) == ("view", 3, "1,2")
    assert (line["level"], line["program"]) == ("warning", "ckpt")


def test_a_log_file_gets_what_is_urgent_enough(tmp_path: Path) -> None:
    logfile = tmp_path / "ckpt.log"
    configure(
        LoggingConfig(
            to_stderr=False, to_logfile=True, logfile=logfile, logfile_priority="warning"
        ),
        "ckpt",
    )
    LOG.info("calm")
    LOG.warning("urgent")
    text = logfile.read_text()
    assert "urgent" in text
    assert "calm" not in text
    assert logfile.stat().st_mode & 0o137 == 0


def test_cfg_021_a_log_file_that_cannot_be_written_ends_with_status_7(tmp_path: Path) -> None:
    config = LoggingConfig(to_logfile=True, logfile=tmp_path / "absent" / "log")
    with pytest.raises(ExitError) as caught:
        configure(config, "ckpt")
    assert caught.value.status is Exit.LOGGING_CONFIGURATION


def test_file_line_and_function_are_those_of_the_caller(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingConfig(fileline=True, function_name=True, timestamp="off"), "ckpt")
    LOG.info("here")
    line = capsys.readouterr().err
    assert "] INFO test_logs.py:" in line
    assert line.endswith(" test_file_line_and_function_are_those_of_the_caller() here\n")
    configure(LoggingConfig(fileline=True, function_name=True, format="json"), "ckpt")
    LOG.info("here")
    fields = json.loads(capsys.readouterr().err)
    assert fields["file"] == "test_logs.py"
    assert fields["line"] > 0
    assert fields["function"] == "test_file_line_and_function_are_those_of_the_caller"


@pytest.mark.parametrize(
    ("timestamp", "pattern"),
    [
        ("off", r"ckpt\["),
        ("on", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ckpt\["),
        ("hires", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6} ckpt\["),
    ],
)
def test_the_time_stands_before_each_line_as_configured(
    capsys: pytest.CaptureFixture[str], timestamp: str, pattern: str
) -> None:
    configure(LoggingConfig(timestamp=timestamp), "ckpt")
    LOG.info("now")
    assert re.match(pattern, capsys.readouterr().err)


def test_a_subsystem_has_places_levels_and_a_file_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = LoggingConfig(
        to_stderr=False, to_logfile=True, logfile=tmp_path / "ipc.log", debug="trace"
    )
    configure(LoggingConfig(subsystems=(Subsystem("IPC", own),)), "ckpt")
    EventLog("openais.node.ipc").trace("frame", size=3)
    LOG.trace("not_wanted")
    LOG.info("general")
    assert "TRACE frame size=3" in (tmp_path / "ipc.log").read_text()
    err = capsys.readouterr().err
    assert "general" in err
    assert "frame" not in err
    assert "not_wanted" not in err
    configure(LoggingConfig(), "ckpt")
    EventLog("openais.node.ipc").info("back")
    assert "back" in capsys.readouterr().err


def test_the_programs_own_subsystem_does_not_change_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingConfig(subsystems=(Subsystem("TOTEM", LoggingConfig(debug="on")),)), "totemd")
    EventLog("totemd.daemon").debug("of_the_ring")
    EventLog("openais.node.ipc").debug("of_a_socket")
    err = capsys.readouterr().err
    assert "of_the_ring" in err
    assert "of_a_socket" not in err


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A system log of our own."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(0)
        monkeypatch.setattr(logs, "SYSLOG_SOCKET", path)
        yield receiver


def received(receiver: socket.socket) -> list[str]:
    lines = []
    try:
        while True:
            lines.append(receiver.recv(4096).decode())
    except BlockingIOError:
        return lines


def test_syslog_gets_facility_severity_and_what_is_urgent_enough(syslog: socket.socket) -> None:
    config = LoggingConfig(
        to_stderr=False, to_syslog=True, syslog_facility="local3", syslog_priority="warning"
    )
    configure(config, "ckpt")
    LOG.info("calm")
    LOG.warning("urgent", node=1)
    LOG.error("bad")
    lines = received(syslog)
    local3 = 19 << 3
    assert [line.partition(">")[0] for line in lines] == [f"<{local3 | 4}", f"<{local3 | 3}"]
    assert lines[0].rstrip("\0").endswith("]: urgent node=1")


def test_tracing_reaches_syslog_as_debugging(syslog: socket.socket) -> None:
    configure(LoggingConfig(to_stderr=False, to_syslog=True, debug="trace"), "ckpt")
    LOG.trace("step")
    assert received(syslog)[0].startswith(f"<{3 << 3 | 7}>")


def test_a_log_file_that_was_renamed_is_opened_anew(tmp_path: Path) -> None:
    logfile = tmp_path / "ckpt.log"
    configure(LoggingConfig(to_stderr=False, to_logfile=True, logfile=logfile), "ckpt")
    LOG.info("before")
    logfile.rename(tmp_path / "ckpt.log.1")
    LOG.info("after")
    assert "after" in logfile.read_text()
    assert "after" not in (tmp_path / "ckpt.log.1").read_text()


def test_the_black_box_keeps_the_last_records_and_the_newest_files(tmp_path: Path) -> None:
    configure(LoggingConfig(to_stderr=False, blackbox=True), "ckpt")
    LOG.info("forgotten")
    for number in range(logs.BLACKBOX_SIZE_MAX // 1000 + 10):
        LOG.info("filler", number=number, text="x" * 1000)
    folder = tmp_path / "state" / "blackbox"
    folder.mkdir(parents=True)
    for number in range(logs.BLACKBOX_FILES_MAX + 3):
        (folder / f"ckpt-20000101T00000{number}Z-1.log").touch()
    (folder / "clm-20000101T000000Z-1.log").touch()
    path = logs.dump_blackbox(folder, "ckpt", "the end")
    assert path is not None
    text = path.read_text()
    assert "forgotten" not in text
    assert "INFO test_logs.py:" in text
    assert text.endswith("the end\n")
    assert len(text) < logs.BLACKBOX_SIZE_MAX + 10_000
    assert path.stat().st_mode & 0o137 == 0
    left = sorted(file.name for file in folder.iterdir())
    assert len(left) == logs.BLACKBOX_FILES_MAX + 1
    assert {path.name, "clm-20000101T000000Z-1.log"} <= set(left)


def test_without_a_black_box_nothing_is_written(tmp_path: Path) -> None:
    configure(LoggingConfig(to_stderr=False), "ckpt")
    assert logs.dump_blackbox(tmp_path / "none", "ckpt", "x") is None
    assert not (tmp_path / "none").exists()
