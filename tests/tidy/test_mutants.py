"""The list of ways to break the core follows the core."""

from __future__ import annotations

import pytest

from tests.sim.mutants import ROOT, Mutant, edited, load


@pytest.mark.parametrize("mutant", load(), ids=lambda mutant: mutant.name)
def test_the_text_that_a_mutant_changes_is_there_once(mutant: Mutant) -> None:
    for file, text, _ in mutant.edits:
        assert edited(mutant, ROOT, file).read_text(encoding="utf-8").count(text) == 1, file
