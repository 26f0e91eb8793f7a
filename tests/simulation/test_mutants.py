"""The simulation catches a core that is broken on purpose (the whole list: ./run mutants)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.floor import plan as floor
from tests.sim.measures import MEASURES
from tests.sim.mutants import Mutant, edited, environment, load, mutate, try_mutant
from tests.sim.plan import mixes

MUTANTS = load()
KNOWN = [m for m in MUTANTS if m.known is not None]
KNOWN_MAX = 12  # each starts a process of its own
SHRINK_S = 300


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_still_fits_the_code(mutant: Mutant, tmp_path: Path) -> None:
    mutate(mutant, tmp_path)
    for file in {file for file, _, _ in mutant.edits}:
        ast.parse(edited(mutant, tmp_path, file).read_text(encoding="utf-8"))
    assert mutant.measure is None or mutant.measure in MEASURES
    known = floor.mixes() if mutant.services else mixes()
    assert mutant.mix is None or mutant.measure == "load_ms" or mutant.mix in known


def test_there_are_enough_mutants_and_their_names_differ() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 30
    assert 0 < len(KNOWN) <= KNOWN_MAX


@pytest.mark.parametrize("mutant", KNOWN, ids=lambda m: m.name)
def test_a_mutant_is_caught_by_its_seed(mutant: Mutant) -> None:
    verdict = try_mutant(mutant, {}, seeds=1)
    assert verdict.caught
    assert set(verdict.found.split()) & set(mutant.breaks), verdict.found


def test_a_failing_seed_is_made_smaller_and_still_fails(tmp_path: Path) -> None:
    mutant = next(m for m in MUTANTS if m.name == "the transitional configuration comes last")
    mutate(mutant, tmp_path)
    replay = [sys.executable, "-m", "tests.sim.command", "--mix", "recovery", "--replay", "2"]
    finished = subprocess.run(
        [*replay, "--shrink"],
        cwd=tmp_path,
        env=environment(tmp_path),
        check=False,
        capture_output=True,
        text=True,
        timeout=SHRINK_S,
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    told = re.search(r"^(\w+): (\d+) of (\d+) actions, (\d+) of", finished.stdout, re.MULTILINE)
    assert told is not None, finished.stdout
    axiom, actions, of_actions, _ = told.groups()
    assert axiom in mutant.breaks
    assert int(actions) < int(of_actions) // 2
    # The story that follows is that of the smaller plan, and it ends in the same way.
    assert re.search(rf"^  {axiom}: node", finished.stdout, re.MULTILINE)
