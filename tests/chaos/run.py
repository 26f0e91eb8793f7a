"""One run of chaos: a cluster, its clients, the faults of a seed, and the verdict."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos import history, injector
from tests.chaos.client import APPENDS
from tests.chaos.clients import ClientError, programs
from tests.chaos.history import Operation, Outcome, Record
from tests.chaos.injector import Injector
from tests.chaos.judge import Apart, Violation, judge
from tests.chaos.schedule import EVERYTHING, SUPERVISORD, Fault, Kind, draw
from tests.chaos.stage import Stage, StageError, loopback, namespaces

WHOLE_DEADLINE_S: Final = 45.0  # after the last fault: all processes serve, all replicas are equal
START_S: Final = 60.0
STOP_S: Final = 60.0
FINAL_S: Final = 180.0
PAUSE_MS: Final = 60  # of a client between two calls, on average
APART_GRACE_NS: Final = 15_000_000_000  # after a cut the sides may still be apart
# Faults after which a node may be alone for a while.
DIVIDING: Final = (Kind.CUT.value, "totemd", "cluster", SUPERVISORD, EVERYTHING)
FAULTS_AROUND_NS: Final = 6_000_000_000  # shown before a violation
VIOLATIONS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to be.

    Attributes:
        seed: of the faults and of what clients do.
        duration_ms: of the faults.
        nodes: of the cluster.
        cuts: in network namespaces, with partitions.
        quorum: is configured: nothing acknowledged may be lost, whatever is cut off.
    """

    seed: int
    duration_ms: int
    nodes: int
    cuts: bool = False
    quorum: bool = True


@dataclass(slots=True)
class Result:
    """What a run came to."""

    settings: Settings
    directory: Path
    faults: Sequence[Fault]
    begun_ns: int = 0
    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    whole_after_s: float = 0.0
    finished: bool = False

    @property
    def failed(self) -> bool:
        """True: something is wrong."""
        return bool(self.problems or self.violations)

    def summary(self) -> str:
        """Return the figures of the run."""
        outcomes = Counter(record.outcome for record in self.records)
        calls = ", ".join(f"{outcomes[o]} {o.value}" for o in Outcome if outcomes[o])
        kinds = Counter(fault.kind for fault in self.faults)
        faults = ", ".join(f"{kinds[k]} {k.value}" for k in Kind if kinds[k])
        longest_ns = max((r.ended_ns - r.begun_ns for r in self.records if r.ended_ns), default=0)
        return (
            f"seed {self.settings.seed}, {self.settings.nodes} nodes; faults: {faults}; "
            f"calls: {calls}; longest {longest_ns / 1e9:.1f} s; "
            f"whole {self.whole_after_s:.1f} s after the last fault"
        )

    def report(self) -> str:
        """Return what is wrong, the first violation with its surroundings."""
        lines = [self.summary(), f"everything is in {self.directory}", *self.problems]
        for violation in self.violations[:VIOLATIONS_SHOWN]:
            lines += [str(violation), *self._faults_before(violation.at_ns)]
        more = len(self.violations) - VIOLATIONS_SHOWN
        return "\n".join([*lines, f"and {more} violations more"] if more > 0 else lines)

    def _faults_before(self, at_ns: int) -> Iterator[str]:
        for what, begun_ns, ended_ns, outcome in injector.done(self.directory):
            if begun_ns <= at_ns + FAULTS_AROUND_NS and ended_ns >= at_ns - FAULTS_AROUND_NS:
                yield f"    fault {begun_ns / 1e9:.3f}..{ended_ns / 1e9:.3f} {what} ({outcome})"


def run(settings: Settings) -> Result:
    """Run; the directory of the result is there only if something is wrong.

    Raises:
        UnavailableError: this machine has no network namespaces, and cuts are wanted.
    """
    directory = Path(tempfile.mkdtemp(prefix="ais-"))  # short: for the paths of local sockets
    faults = draw(settings.seed, settings.duration_ms, settings.nodes, cuts=settings.cuts)
    result = Result(settings, directory, faults)
    make = namespaces if settings.cuts else loopback
    try:
        with make(directory / "c", settings.nodes, quorum=settings.quorum) as stage:
            _play(stage, result)
    except (StageError, ClientError) as error:
        result.problems.append(str(error))
    _judge(result)
    if result.failed:
        _keep(result)
    else:
        shutil.rmtree(directory)
    return result


def _play(stage: Stage, result: Result) -> None:
    result.begun_ns = begun_ns = time.monotonic_ns()
    commands = {
        f"clients{node.number}": [
            *("-m", "tests.chaos.client", "--node", str(node.number)),
            *("--seed", str(result.settings.seed), "--begun-ns", str(begun_ns)),
            *("--pause-ms", str(PAUSE_MS), "--run-dir", str(node.run_dir)),
            *("--directory", str(result.directory)),
        ]
        for node in stage.nodes
    }
    with programs(commands, result.directory) as clients:
        clients.expect("ready", START_S)
        with Injector(stage, result.faults, result.directory) as harm:
            harm.run()
            result.whole_after_s = stage.wait_whole(WHOLE_DEADLINE_S)
            result.problems += harm.failures
        clients.step("stopped", STOP_S)
        clients.step("done", FINAL_S)
        stage.wait_equal(WHOLE_DEADLINE_S)
    result.finished = True


def _judge(result: Result) -> None:
    result.records = history.read_all(result.directory)
    appended = {
        path.stem: path.read_text(encoding="utf-8").splitlines()
        for path in sorted(result.directory.glob(f"*.{APPENDS}"))
    }
    result.violations = judge(result.records, appended, _apart(result), finished=result.finished)
    if result.finished:
        result.problems += _memberships(result)


def _memberships(result: Result) -> list[str]:
    """Return who of those who follow the membership does not see all nodes in the end."""
    numbers = list(range(1, result.settings.nodes + 1))
    last = {r.client: r for r in result.records if r.operation is Operation.ASK}
    wanted = f"asked {numbers} followed {numbers}"
    return [f"membership in the end, not {wanted}: {r}" for r in last.values() if r.value != wanted]


def _apart(result: Result) -> list[Apart]:
    """Return when a side without a quorum may have acknowledged something."""
    if result.settings.quorum:
        return []
    return [
        Apart(begun_ns, ended_ns + APART_GRACE_NS)
        for what, begun_ns, ended_ns, _ in injector.done(result.directory)
        if any(word in what for word in DIVIDING)
    ]


def _keep(result: Result) -> None:
    """Leave what tells how it came about."""
    schedule = [fault.values() for fault in result.faults]
    path = result.directory / "schedule.json"
    path.write_text(json.dumps(schedule, indent=1), encoding="utf-8")
    discard_sockets(result.directory)


def discard_sockets(directory: Path) -> None:
    """Leave only what a person reads of the nodes of a run."""
    for node in (directory / "c").glob("n*"):
        shutil.rmtree(node / "run", ignore_errors=True)
