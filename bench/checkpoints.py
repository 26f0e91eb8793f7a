"""How many checkpoint writes and reads per second, and how many puts of etcd?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench import checkpoint_client as client
from bench import etcd
from bench.options import Options
from bench.process import DIE_WITH_PARENT, ProcessError
from bench.report import Report, median, ratio
from deploy import layout, local

NODES: Final = 3
MANY: Final = 64  # clients, spread over the nodes
ROUNDS: Final = 3
SECONDS: Final = 3.0
SECONDS_QUICK: Final = 1.0
WIDTHS: Final = (28, 14, 14)
ROWS: Final = (
    ("overwrite, all replicas", client.WRITE),
    ("read, fenced", client.FENCED),
    ("read, local", client.LOCAL),
)


def _spread(clients: int) -> list[int]:
    """Return how many of the clients are at each node."""
    return [clients // NODES + (node < clients % NODES) for node in range(NODES)]


def _ours(run_dirs: Sequence[Path], kind: str, seconds: float, clients: int) -> float:
    """Return operations per second of all clients together."""
    processes = []
    for node, count in enumerate(_spread(clients)):
        if count:
            command = [sys.executable, "-m", "bench.checkpoint_client", kind, f"n{node}"]
            processes.append(
                subprocess.Popen(
                    [*DIE_WITH_PARENT, *command, str(count), str(seconds)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"OPENAIS_RUN_DIR": str(run_dirs[node])},
                )
            )
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise ProcessError("a client did not begin: see what it wrote to standard error")
    rates = [process.communicate("go\n")[0] for process in processes]
    if not all(rates):
        raise ProcessError("a client failed: see what it wrote to standard error")
    return sum(map(float, rates))


def _etcd(ports: Sequence[int], seconds: float, clients: int) -> float:
    """Return puts per second of all clients together."""
    rates: list[float] = []
    threads = [
        threading.Thread(
            target=lambda port=port, count=count: rates.append(
                etcd.puts(port, count, client.SIZE, seconds)
            )
        )
        for port, count in zip(ports, _spread(clients), strict=True)
        if count
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(rates) != len(threads):
        raise ProcessError("a client of etcd failed: see what it wrote to standard error")
    return sum(rates)


def _rates(measure: Callable[[int], float], rounds: int) -> tuple[float, float]:
    one = [measure(1) for _ in range(rounds)]
    many = [measure(MANY) for _ in range(rounds)]
    return median(one) or 0.0, median(many) or 0.0


def _row(report: Report, title: str, rates: tuple[float, float]) -> None:
    report.row([title, *(f"{rate:,.0f}/s" for rate in rates)], WIDTHS)


def _play(report: Report, directory: Path, options: Options) -> None:
    rounds, seconds = (1, SECONDS_QUICK) if options.quick else (ROUNDS, SECONDS)
    run_dirs = [node.run_dir for node in layout.nodes(directory)]
    written = (0.0, 0.0)
    for title, kind in ROWS:
        rates = _rates(partial(_ours, run_dirs, kind, seconds), rounds)
        _row(report, title, rates)
        written = rates if kind == client.WRITE else written
    if (missing := etcd.missing()) is not None:
        report.line(missing)
        return
    with etcd.members(directory / "etcd") as ports:
        puts = _rates(partial(_etcd, ports, seconds), rounds)
    _row(report, "etcd, put", puts)
    report.row(["overwrite / put", *map(ratio, written, puts)], WIDTHS)


def main(options: Options) -> None:
    """Measure and print."""
    title = f"{NODES} nodes on loopback, {client.SIZE} B, each client one call at a time"
    report = Report("checkpoints", title, keep=options.keep)
    report.row(["", "1 client", f"{MANY} clients"], WIDTHS)
    directory = Path(tempfile.mkdtemp(prefix="aisbench-"))
    progress = local.Progress(quiet=True)
    try:
        local.up(directory, NODES, progress)
        _play(report, directory, options)
    finally:
        if layout.nodes(directory):
            local.down(directory, progress)
        shutil.rmtree(directory, ignore_errors=True)
    report.close()
