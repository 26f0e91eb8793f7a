"""Real service processes and SDK sessions above the simulated ring keep every rule under faults."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.sim.command import Outcome, run_range
from tests.sim.floor.plan import CALLS, draw, mixes
from tests.sim.floor.run import FloorRun

SEEDS = 150
JOBS = 2
FILE = Path(__file__).parent / "service_seeds.toml"
KNOWN = tomllib.loads(FILE.read_text(encoding="utf-8")).get("seed", [])
DIGEST = (
    "from tests.sim.floor.run import FloorRun; r = FloorRun({}); r.run(); print(r.history.digest())"
)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run_range(0, SEEDS, None, JOBS, services=True)


def test_services_keep_every_rule_through_random_faults(outcome: Outcome) -> None:
    assert outcome.failed == []
    assert outcome.seeds == SEEDS


def test_services_are_killed_at_every_kind_of_call(outcome: Outcome) -> None:
    assert {call for call in CALLS if call} <= outcome.kills.keys()


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: f"{k['mix']}-{k['number']}")
def test_a_seed_of_services_that_failed_once_holds(known: dict[str, str | int]) -> None:
    FloorRun(int(known["number"]), str(known["mix"])).run()


def test_sessions_outlive_the_death_of_their_service_and_its_ring_process() -> None:
    for seed in range(4):
        FloorRun(seed, "both").run()


def test_a_minority_acknowledges_nothing_that_the_others_lack() -> None:
    FloorRun(64, "partitions").run()


@pytest.mark.parametrize("seed", [3, 4])
def test_a_seed_of_services_tells_the_same_story_each_time(seed: int) -> None:
    runs = [FloorRun(seed), FloorRun(seed)]
    for run in runs:
        run.run()
    assert runs[0].history.digest() == runs[1].history.digest()


def test_a_run_of_services_does_not_depend_on_how_strings_are_hashed() -> None:
    found = set()
    for hashseed in ("1", "2"):
        finished = subprocess.run(
            [sys.executable, "-c", DIGEST.format(5)],
            env=dict(os.environ, PYTHONHASHSEED=hashseed),
            check=True,
            capture_output=True,
            text=True,
        )
        found.add(finished.stdout)
    assert len(found) == 1


def test_every_usual_mix_of_the_services_is_chosen_by_some_seed() -> None:
    usual = {name for name, mix in mixes().items() if mix.get("usual", True)}
    assert {draw(seed).mix for seed in range(SEEDS)} == usual
