"""The simulation catches a core that is broken on purpose (the whole list: ./run mutants)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.sim.measures import MEASURES
from tests.sim.mutants import Mutant, load, mutate, try_mutant
from tests.sim.plan import mixes

MUTANTS = load()
KNOWN = [m for m in MUTANTS if m.known is not None]
KNOWN_MAX = 12  # each starts a process of its own


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_still_fits_the_code(mutant: Mutant, tmp_path: Path) -> None:
    mutate(mutant, tmp_path)
    for file in {file for file, _, _ in mutant.edits}:
        ast.parse((tmp_path / "totemd" / file).read_text(encoding="utf-8"))
    assert mutant.measure is None or mutant.measure in MEASURES
    assert mutant.mix is None or mutant.measure == "load_ms" or mutant.mix in mixes()


def test_there_are_enough_mutants_and_their_names_differ() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 30
    assert 0 < len(KNOWN) <= KNOWN_MAX


@pytest.mark.parametrize("mutant", KNOWN, ids=lambda m: m.name)
def test_a_mutant_is_caught_by_its_seed(mutant: Mutant) -> None:
    verdict = try_mutant(mutant, {}, seeds=1)
    assert verdict.caught
    assert set(verdict.found.split()) & set(mutant.breaks), verdict.found
