"""`./run sim`: run ranges of seeds, replay one, make a failing one smaller."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.sim.axioms import AxiomError
from tests.sim.coverage import Counts, Coverage, missing, report
from tests.sim.narrate import narrate
from tests.sim.plan import draw, mixes
from tests.sim.random_run import RandomRun
from tests.sim.shrink import shrink

BLOCK: Final = 5  # seeds that one process runs before it reports
RECORDS_SHOWN: Final = 200


@dataclass(slots=True)
class Outcome:
    """What a block of seeds came to."""

    seeds: int = 0
    events: int = 0
    virtual_ns: int = 0
    failed: list[tuple[int, str, str]] = field(default_factory=list)  # seed, mix, why
    counts: Counts = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Add another block."""
        self.seeds += other.seeds
        self.events += other.events
        self.virtual_ns += other.virtual_ns
        self.failed += other.failed
        self.counts.update(other.counts)


def run_seed(seed: int, mix: str | None, outcome: Outcome) -> RandomRun:
    """Run one seed, and add what it came to."""
    run = RandomRun(seed, mix)
    try:
        run.run()
    except AxiomError as error:
        outcome.failed.append((seed, run.plan.mix, f"AxiomError: {error}"))
    except Exception as error:  # nothing may escape the core
        why = traceback.format_exc(limit=-3)
        outcome.failed.append((seed, run.plan.mix, f"{type(error).__name__}: {why}"))
    outcome.seeds += 1
    outcome.events += run.cluster.events
    outcome.virtual_ns += run.cluster.now_ns
    return run


def run_block(block: tuple[int, int, str | None, bool]) -> Outcome:
    """Run some seeds in a row."""
    first, count, mix, covered = block
    outcome = Outcome()
    if not covered:
        for seed in range(first, first + count):
            run_seed(seed, mix, outcome)
        return outcome
    with Coverage() as coverage:
        for seed in range(first, first + count):
            coverage.moved(run_seed(seed, mix, outcome).cluster.notes)
    outcome.counts = coverage.counts
    return outcome


def run_range(first: int, seeds: int, mix: str | None, jobs: int, *, covered: bool) -> Outcome:
    """Run a range of seeds in some processes; say so when one fails."""
    blocks = [
        (start, min(BLOCK, first + seeds - start), mix, covered)
        for start in range(first, first + seeds, BLOCK)
    ]
    total = Outcome()
    with multiprocessing.Pool(jobs) as pool:
        for outcome in pool.imap_unordered(run_block, blocks):
            total.add(outcome)
            for seed, name, why in outcome.failed:
                _say(f"seed {seed} ({name}): {why}\n  replay: {_replay(seed, name)}")
    return total


def _replay(seed: int, mix: str) -> str:
    return f"./run sim --replay {seed} --mix {mix}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def replay(seed: int, mix: str | None, *, smaller: bool) -> int:
    """Run one seed and tell what happens; the exit status tells whether it held."""
    plan = draw(seed, mix)
    if smaller:
        plan = shrink(plan, _say)
    run = RandomRun(seed, plan=plan)
    error: Exception | None = None
    try:
        run.run()
    except Exception as raised:
        error = raised
    _say(narrate(run, RECORDS_SHOWN))
    if error is None:
        _say(f"seed {seed} ({plan.mix}): holds; trace {run.cluster.digest()}")
        return 0
    _say(f"seed {seed} ({plan.mix}): {type(error).__name__}")
    if isinstance(error, AxiomError):
        for violation in error.violations[:20]:
            _say(f"  {violation}")
    else:
        _say("".join(traceback.format_exception(error, limit=-6)))
    return 1


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="./run sim", description="simulate clusters of real protocol cores"
    )
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--mix", choices=sorted(mixes()), help="faults; default: by the seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--coverage", action="store_true", help="count rows and causes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one seed, tell its story")
    parser.add_argument("--shrink", action="store_true", help="with --replay: make it smaller")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(options.replay, options.mix, smaller=options.shrink)
    began = time.monotonic()
    total = run_range(
        options.first, options.seeds, options.mix, options.jobs, covered=options.coverage
    )
    took = time.monotonic() - began
    if options.coverage:
        _say(report(total.counts))
        _say(f"never seen: {missing(total.counts) or 'nothing'}")
    _say(
        f"{total.seeds} seeds, {total.virtual_ns / 3_600e9:.2f} simulated hours, "
        f"{total.events} events, {total.events / took:.0f}/s, {len(total.failed)} failed"
    )
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
