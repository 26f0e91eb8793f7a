"""The scripts in this folder do what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenario.script import run
from totemd.protocol.effects import Cause

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))
REWRITE = "REWRITE"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_goes_as_written(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    found = run(written)
    if os.environ.get(REWRITE):
        path.write_text(found, encoding="utf-8")
    assert found == written or os.environ.get(REWRITE)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_of_a_change_is_shown(cause: Cause) -> None:
    shown = [path for path in SCENARIOS if f": {cause.value}\n" in path.read_text()]
    assert shown, f"no scenario shows {cause}"
