"""`./run sim`: run ranges of seeds, replay one, make a failing one smaller."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.sim import plan
from tests.sim.axioms import AxiomError
from tests.sim.coverage import Counts, Coverage, missing, report
from tests.sim.floor import plan as floor
from tests.sim.floor.judge import FloorError
from tests.sim.floor.run import FloorRun
from tests.sim.floor.story import tell
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
    kills: Counter[str] = field(default_factory=Counter)  # of services, by the call they came at

    def add(self, other: Outcome) -> None:
        """Add another block."""
        self.seeds += other.seeds
        self.events += other.events
        self.virtual_ns += other.virtual_ns
        self.failed += other.failed
        self.counts.update(other.counts)
        self.kills.update(other.kills)


class Block(NamedTuple):
    """Some seeds in a row."""

    first: int
    seeds: int
    mix: str | None
    covered: bool  # count the rows of the tables
    services: bool  # above the ring


def make(seed: int, mix: str | None, *, services: bool) -> RandomRun | FloorRun:
    """Return the run of a seed."""
    return FloorRun(seed, mix) if services else RandomRun(seed, mix)


def run_seed(run: RandomRun | FloorRun, outcome: Outcome) -> None:
    """Run one seed, and add what it came to."""
    seed, mix = run.plan.seed, run.plan.mix
    try:
        run.run()
    except (AxiomError, FloorError) as error:
        outcome.failed.append((seed, mix, f"{type(error).__name__}: {error}"))
    except Exception as error:  # nothing may escape the core
        why = traceback.format_exc(limit=-3)
        outcome.failed.append((seed, mix, f"{type(error).__name__}: {why}"))
    outcome.seeds += 1
    outcome.events += run.cluster.events
    outcome.virtual_ns += run.cluster.now_ns
    if isinstance(run, FloorRun):
        outcome.kills.update(run.cluster.system.kills)


def run_block(block: Block) -> Outcome:
    """Run some seeds in a row."""
    outcome = Outcome()
    seeds = range(block.first, block.first + block.seeds)
    if not block.covered:
        for seed in seeds:
            run_seed(make(seed, block.mix, services=block.services), outcome)
        return outcome
    with Coverage() as coverage:
        for seed in seeds:
            run = make(seed, block.mix, services=block.services)
            run_seed(run, outcome)
            coverage.moved(run.cluster.notes)
    outcome.counts = coverage.counts
    return outcome


def run_range(
    first: int,
    seeds: int,
    mix: str | None,
    jobs: int,
    *,
    covered: bool = False,
    services: bool = False,
) -> Outcome:
    """Run a range of seeds in some processes; say so when one fails."""
    blocks = [
        Block(start, min(BLOCK, first + seeds - start), mix, covered, services)
        for start in range(first, first + seeds, BLOCK)
    ]
    total = Outcome()
    with multiprocessing.Pool(jobs) as pool:
        for outcome in pool.imap_unordered(run_block, blocks):
            total.add(outcome)
            for seed, name, why in outcome.failed:
                again = _replay(seed, name, services=services)
                _say(f"seed {seed} ({name}): {why}\n  replay: {again}")
    return total


def _replay(seed: int, mix: str, *, services: bool) -> str:
    return f"./run sim {'--services ' if services else ''}--replay {seed} --mix {mix}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def replay(seed: int, mix: str | None, *, smaller: bool) -> int:
    """Run one seed and tell what happens; the exit status tells whether it held."""
    drawn = draw(seed, mix)
    if smaller:
        drawn = shrink(drawn, _say)
    run = RandomRun(seed, plan=drawn)
    error: Exception | None = None
    try:
        run.run()
    except Exception as raised:
        error = raised
    _say(narrate(run, RECORDS_SHOWN))
    if error is None:
        _say(f"seed {seed} ({drawn.mix}): holds; trace {run.cluster.digest()}")
        return 0
    _say(f"seed {seed} ({drawn.mix}): {type(error).__name__}")
    if isinstance(error, AxiomError):
        for violation in error.violations[:20]:
            _say(f"  {violation}")
    else:
        _say("".join(traceback.format_exception(error, limit=-6)))
    return 1


def replay_services(seed: int, mix: str | None) -> int:
    """Run one seed of the services' floor, tell its story; the status tells whether it held."""
    run = FloorRun(seed, mix)
    error: Exception | None = None
    try:
        run.run()
    except Exception as raised:
        error = raised
    _say(tell(run))
    name = f"seed {seed} ({run.plan.mix})"
    if error is None:
        _say(f"{name}: holds; {run.history.digest()}")
        return 0
    _say(f"{name}: {type(error).__name__}")
    if isinstance(error, FloorError):
        for violation in error.violations:
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
    names = sorted(mixes().keys() | floor.mixes().keys())
    parser.add_argument("--mix", choices=names, help="faults; default: by the seed")
    parser.add_argument("--services", action="store_true", help="the services above the ring, too")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--coverage", action="store_true", help="count rows and causes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one seed, tell its story")
    parser.add_argument("--shrink", action="store_true", help="with --replay: make it smaller")
    options = parser.parse_args()
    if options.mix is not None and options.mix not in (floor if options.services else plan).mixes():
        parser.error(f"--mix {options.mix} is {'not ' if options.services else ''}of the services")
    if options.services and options.replay is not None:
        return replay_services(options.replay, options.mix)
    if options.replay is not None:
        return replay(options.replay, options.mix, smaller=options.shrink)
    began = time.monotonic()
    total = run_range(
        options.first,
        options.seeds,
        options.mix,
        options.jobs,
        covered=options.coverage,
        services=options.services,
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
