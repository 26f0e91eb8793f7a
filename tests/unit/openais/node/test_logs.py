"""Log records: their form, where they go, how many."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog, check_logfile, configure, event_text
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
    only_ckpt = LoggingConfig(subsystems=(Subsystem("CKPT", "trace"),))
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
    with pytest.raises(ExitError):
        check_logfile(config)
