"""Random clusters under random faults keep every axiom, and every seed that ever failed holds."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.sim.command import Outcome, run_range
from tests.sim.coverage import missing
from tests.sim.plan import draw, mixes
from tests.sim.random_run import RandomRun

SEEDS = 300
JOBS = 2
KNOWN = tomllib.loads((Path(__file__).parent / "seeds.toml").read_text(encoding="utf-8"))["seed"]
DIGEST = "from tests.sim.random_run import RandomRun; print(RandomRun({}).run().digest())"


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run_range(0, SEEDS, None, JOBS, covered=True)


def test_random_clusters_keep_the_axioms_and_end_in_one_ring(outcome: Outcome) -> None:
    assert outcome.failed == []
    assert outcome.seeds == SEEDS


def test_the_random_runs_use_every_row_of_the_tables_and_every_cause(outcome: Outcome) -> None:
    assert missing(outcome.counts) == []


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: f"{k['mix']}-{k['number']}")
def test_a_seed_that_failed_once_holds(known: dict[str, str | int]) -> None:
    RandomRun(int(known["number"]), str(known["mix"])).run()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_seed_tells_the_same_story_each_time(seed: int) -> None:
    assert RandomRun(seed).run().digest() == RandomRun(seed).run().digest()


def test_a_run_does_not_depend_on_how_strings_are_hashed() -> None:
    found = set()
    for hashseed in ("1", "2"):
        environment = dict(os.environ, PYTHONHASHSEED=hashseed)
        finished = subprocess.run(
            [sys.executable, "-c", DIGEST.format(7)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        found.add(finished.stdout)
    assert len(found) == 1


def test_every_mix_is_chosen_by_some_seed() -> None:
    assert {draw(seed).mix for seed in range(SEEDS)} == set(mixes())
