"""Exit statuses: the last line of every end."""

from __future__ import annotations

import pytest

from openais.node.config import ConfigError
from openais.node.exits import Exit, ExitError, guard, last_line


def raising(error: BaseException) -> int:
    def body() -> None:
        raise error

    return guard(body)


def test_an_orderly_end_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: None) == 0
    assert capsys.readouterr().err == ""


def test_the_last_line_tells_reason_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(ExitError(Exit.NETWORK, "cannot bind")) == 22
    assert capsys.readouterr().err == "exiting: cannot bind (status 22)\n"


def test_errors_of_the_configuration_stand_before_the_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert raising(ConfigError(("one", "two"), Exit.MAIN_CONFIGURATION)) == 8
    assert capsys.readouterr().err.splitlines() == [
        "one",
        "two",
        last_line(Exit.MAIN_CONFIGURATION, "2 errors in the configuration"),
    ]


@pytest.mark.parametrize(("error", "status"), [(KeyError("x"), 1), (AssertionError("broken"), 15)])
def test_a_bug_shows_its_traceback_before_the_last_line(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == status
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].endswith(f"(status {status})")
