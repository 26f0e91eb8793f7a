"""Overload: on every node clients send as fast as they can, and all stays in bounds."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos import flood
from tests.chaos.clients import ClientError, programs
from tests.chaos.flood import Progress
from tests.chaos.run import discard_sockets
from tests.chaos.stage import SERVING, Stage, StageError, loopback

# Resident, of each process, at any time. totemd may keep a log of 64 MiB for each of two services.
MEMORY_MAX_MIB: Final = {"totemd": 192, "clm": 64, "ckpt": 128}
FAIR: Final = 0.3  # the slowest client has at least so much of the mean
SAMPLE_S: Final = 0.5
START_S: Final = 60.0
END_S: Final = 60.0
WHOLE_DEADLINE_S: Final = 30.0


@dataclass(slots=True)
class Overload:
    """What a run came to."""

    directory: Path
    seconds: float
    memory_mib: dict[str, float] = field(default_factory=dict)  # program -> largest of all nodes
    clients: list[Progress] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return the figures of the run."""
        done = [client.done for client in self.clients]
        memory = ", ".join(f"{name} {mib:.0f}" for name, mib in self.memory_mib.items())
        slowest = min(done, default=0) * len(done) / max(1, sum(done))
        return (
            f"overload of {self.seconds:.0f} s: {len(done)} clients, "
            f"{sum(done) / self.seconds:.0f} calls/s, slowest client {slowest:.2f} of the mean, "
            f"{sum(c.refused for c in self.clients)} to be tried again, "
            f"{sum(c.lost for c in self.clients)} lost, "
            f"longest {max((c.longest_s for c in self.clients), default=0.0):.1f} s; "
            f"largest MiB: {memory}"
        )

    def report(self) -> str:
        """Return what is wrong."""
        return "\n".join([self.summary(), *self.problems, f"everything is in {self.directory}"])


def run(seconds: float, nodes: int) -> Overload:
    """Run; the directory of the result is there only if something is wrong."""
    directory = Path(tempfile.mkdtemp(prefix="ais-"))
    result = Overload(directory, seconds)
    try:
        with loopback(directory / "c", nodes, quorum=True) as stage:
            _play(stage, result)
    except (StageError, ClientError) as error:
        result.problems.append(str(error))
    result.clients = flood.read(directory)
    result.problems += _verdict(result)
    if result.problems:
        discard_sockets(directory)
    else:
        shutil.rmtree(directory)
    return result


def _play(stage: Stage, result: Overload) -> None:
    commands = {
        f"clients{node.number}": [
            *("-m", "tests.chaos.flood", "--node", str(node.number)),
            *("--run-dir", str(node.run_dir), "--directory", str(result.directory)),
        ]
        for node in stage.nodes
    }
    with programs(commands, result.directory) as clients:
        clients.expect("ready", START_S)
        before = _shape(stage)
        end = time.monotonic() + result.seconds
        while time.monotonic() < end:
            _sample(stage, result.memory_mib)
            time.sleep(SAMPLE_S)
        after = _shape(stage)
        clients.step("done", END_S)
        if after != before:
            result.problems.append(f"the ring was configured anew: {before}, then {after}")
        stage.wait_equal(WHOLE_DEADLINE_S)


def _shape(stage: Stage) -> list[Any]:
    """Return the ring and the processes as each node has them."""
    documents = [node.status("totemd") or {} for node in stage.nodes]
    pids = [[node.pids(program) for program in SERVING] for node in stage.nodes]
    return [[d.get("ring") for d in documents], pids]


def _sample(stage: Stage, largest_mib: dict[str, float]) -> None:
    for node in stage.nodes:
        for program in SERVING:
            for pid in node.pids(program):
                largest_mib[program] = max(largest_mib.get(program, 0.0), memory_mib(pid))


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process; 0: it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kib = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(kib[0]) / 1024 if kib else 0.0


def _verdict(result: Overload) -> list[str]:
    found = [
        f"{program} had {mib:.0f} MiB, limit {MEMORY_MAX_MIB[program]}"
        for program, mib in result.memory_mib.items()
        if mib > MEMORY_MAX_MIB[program]
    ]
    mean = sum(client.done for client in result.clients) / max(1, len(result.clients))
    found += [
        f"{client.name} did {client.done} calls, less than {FAIR} of the mean, {mean:.0f}"
        for client in result.clients
        if client.done < FAIR * mean
    ]
    found += [
        f"{client.name}: {client.wrong} sections without their newest acknowledged content"
        for client in result.clients
        if client.wrong
    ]
    return found
