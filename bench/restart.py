"""For how long does a client wait when ckpt is restarted or killed? Prints a table.

One client writes without a pause; the figure is its longest call. The time that supervisord takes
to notice and to start is in it. On a busy machine the CPU time of the new process until it serves
says more: everything else waits for a turn.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.options import Options
from bench.process import cpu_times
from bench.report import Report, median
from deploy import layout, local
from deploy.layout import Node
from deploy.supervisor import Supervisor
from openais import ckpt, status
from openais.ckpt import Attributes, CreationFlags
from openais.errors import AisError

NODES: Final = 3
SECTION_SIZE: Final = 256 << 10
SIZES: Final = (10 << 20, 1 << 30)
SIZES_QUICK: Final = (10 << 20, 100 << 20)
REPETITIONS: Final = 5
REPETITIONS_QUICK: Final = 2
PERIOD_S: Final = 3.0  # of load before and after
BACK_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
WIDTHS: Final = (12, 12, 20, 14, 12, 12)
LOAD: Final = Attributes(CreationFlags.WR_ALL_REPLICAS, 0, 0, 4, 4096, 32)


class Load(threading.Thread):
    """Overwrites a section of 256 B and keeps the longest call."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(daemon=True)
        self.longest_s = 0.0
        self.calls = 0
        self.failures = 0
        self._ending = threading.Event()
        self._client: Final = ckpt.Client(run_dir=run_dir)
        self._checkpoint: Final = self._client.open("load", LOAD)

    def run(self) -> None:
        """Write until told to end."""
        while not self._ending.is_set():
            begin = time.monotonic()
            try:
                self._checkpoint.overwrite("s", os.urandom(256), create=True)
                self.calls += 1
            except AisError:
                self.failures += 1
            self.longest_s = max(self.longest_s, time.monotonic() - begin)

    def end(self) -> None:
        """Stop writing."""
        self._ending.set()
        self.join()
        self._client.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One restart."""

    pause_s: float
    start_s: float  # CPU time of the new process until it serves
    replayed: int
    replayed_ms: int


def fill(run_dir: Path, size: int) -> ckpt.Client:
    """Create checkpoints of so many bytes; they live as long as the client."""
    client = ckpt.Client(run_dir=run_dir)
    count = size // SECTION_SIZE
    attributes = Attributes(CreationFlags.WR_ALL_REPLICAS, 0, 0, count, SECTION_SIZE, 32)
    checkpoint = client.open("state", attributes)
    for number in range(count):
        checkpoint.overwrite(f"s{number}", os.urandom(SECTION_SIZE), create=True)
    return client


def document(node: Node) -> dict[str, object] | None:
    """Return the status of ckpt, if it serves."""
    found = status.query(node.run_dir, "ckpt")
    return found if status.ready(found) else None


def settled(node: Node) -> None:
    """Wait until the last snapshot is written."""
    end = time.monotonic() + BACK_TIMEOUT_S
    while time.monotonic() < end:
        found = document(node)
        if found is not None and not found["memory"]["snapshot_pid"]:  # type: ignore[index]
            return
        time.sleep(POLL_S)


def kill(node: Node) -> None:
    """Kill -9 ckpt."""
    os.kill(int(Supervisor(node.run_dir).states()["ckpt"]["pid"]), signal.SIGKILL)


def restart(node: Node) -> None:
    """Do what ``supervisorctl restart ckpt`` does."""
    supervisor = Supervisor(node.run_dir)
    supervisor.stop("ckpt")
    supervisor.start("ckpt")


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process."""
    return sum(thread.user_ns + thread.system_ns for thread in cpu_times(pid).values()) / 1e9


def once(node: Node, action: Callable[[Node], None]) -> Outcome:
    """End ckpt under load, in some way; return what the client saw."""
    settled(node)
    load = Load(node.run_dir)
    before = document(node)
    load.start()
    time.sleep(PERIOD_S)
    action(node)
    end = time.monotonic() + BACK_TIMEOUT_S
    found = document(node)
    while found is None or before is None or found["pid"] == before["pid"]:
        if time.monotonic() > end:
            break
        time.sleep(POLL_S)
        found = document(node)
    start_s = cpu_s(int(str(found["pid"]))) if found is not None else 0.0
    time.sleep(PERIOD_S)
    load.end()
    found = document(node)
    memory = found["memory"] if found is not None else {}
    assert isinstance(memory, dict)
    return Outcome(load.longest_s, start_s, memory["replayed_entries"], memory["replayed_ms"])


def play(report: Report, size: int, repetitions: int) -> None:
    """Measure one size of the state."""
    directory = Path(tempfile.mkdtemp(prefix="aisbench-"))
    progress = local.Progress(quiet=True)
    try:
        local.up(directory, NODES if size <= SIZES[0] else 1, progress)
        node = layout.nodes(directory)[0]
        with fill(node.run_dir, size):
            for name, action in (("restart", restart), ("kill -9", kill)):
                found = [once(node, action) for _ in range(repetitions)]
                pauses = [outcome.pause_s for outcome in found]
                last = found[-1]
                report.row(
                    [
                        f"{size >> 20} MiB",
                        name,
                        f"{median(pauses):.2f} / {max(pauses):.2f} s",
                        f"{median([outcome.start_s for outcome in found]):.2f} s",
                        f"{last.replayed:,}",
                        f"{last.replayed_ms} ms",
                    ],
                    WIDTHS,
                )
    finally:
        if layout.nodes(directory):
            local.down(directory, progress)
        shutil.rmtree(directory, ignore_errors=True)


def main(options: Options) -> None:
    """Measure and print."""
    title = "longest call of a client, median / maximum; what the last restart was told again"
    report = Report("restart", title, keep=options.keep)
    report.row(["state", "what", "pause", "CPU of start", "replayed", "in"], WIDTHS)
    repetitions = options.repeat or (REPETITIONS_QUICK if options.quick else REPETITIONS)
    for size in SIZES_QUICK if options.quick else SIZES:
        play(report, size, repetitions)
    report.close()
