"""What does a node cost that has nothing to do? CPU time and memory of each process."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.contestants import (
    ENCRYPTED,
    PLAIN,
    Cluster,
    Corosync,
    Openais,
    Settings,
    cluster,
    compared,
)
from bench.network import unavailable
from bench.options import Options
from bench.process import cpu_times, memory_kib
from bench.report import Report
from deploy import layout, local
from deploy.supervisor import Supervisor

NODES: Final = 3
SECONDS: Final = 30.0
SECONDS_QUICK: Final = 3.0
SETTLE_S: Final = 2.0
WIDTHS: Final = (44, 14, 12, 12)


def _cpu_ns(pid: int) -> int:
    return sum(spent.user_ns + spent.system_ns for spent in cpu_times(pid).values())


def _rows(report: Report, pids: Mapping[str, int], seconds: float, *, total: str | None) -> None:
    """Watch processes for some seconds; one row for each, and one for all."""
    time.sleep(SETTLE_S)
    before = {name: _cpu_ns(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    sums = [0.0, 0, 0]
    for name, pid in pids.items():
        percent = (_cpu_ns(pid) - before[name]) / 1e9 / elapsed * 100
        rss, pss = memory_kib(pid)
        sums = [sums[0] + percent, sums[1] + rss, sums[2] + pss]
        _row(report, name, percent, rss, pss)
    if total is not None:
        _row(report, total, *sums)


def _row(report: Report, name: str, percent: float, rss: float, pss: float) -> None:
    cells = [name, f"{percent:.2f} %", f"{rss / 1024:,.1f} MiB", f"{pss / 1024:,.1f} MiB"]
    report.row(cells, WIDTHS)


def _daemons(
    report: Report, kind: type[Cluster], title: str, settings: Settings, seconds: float
) -> None:
    """Watch the daemon that holds the token when idle, and another."""
    with cluster(kind, title, NODES, settings) as made:
        made.up()
        pids = {f"{title}, node {n}": made.daemons[n].pid for n in made.ids[:2]}
        _rows(report, pids, seconds, total=None)


def _node(report: Report, seconds: float) -> None:
    """Watch all processes of a node, as `openais cluster up` makes it."""
    directory = Path(tempfile.mkdtemp(prefix="aisbench-"))
    progress = local.Progress(quiet=True)
    try:
        local.up(directory, NODES, progress)
        supervisor = Supervisor(layout.nodes(directory)[0].run_dir)
        pids = {name: info["pid"] for name, info in supervisor.states().items() if info["pid"]}
        own = supervisor.pid()
        assert own is not None
        pids["supervisord"] = own
        named = {f"node of {NODES} on loopback: {name}": pid for name, pid in pids.items()}
        _rows(report, named, seconds, total="node: all processes")
    finally:
        if layout.nodes(directory):
            local.down(directory, progress)
        shutil.rmtree(directory, ignore_errors=True)


def main(options: Options) -> None:
    """Measure and print."""
    seconds = SECONDS_QUICK if options.quick else SECONDS
    title = f"{NODES} nodes with nothing to do, {seconds:g} s; node 1 holds the token"
    report = Report("idle", title, keep=options.keep)
    takes_part = compared(report)
    report.row(["process", "CPU of a core", "RSS", "PSS"], WIDTHS)
    if (reason := unavailable()) is None:
        _daemons(report, Openais, "totemd", Settings(), seconds)
        if takes_part:
            _daemons(report, Corosync, "corosync udp plain", PLAIN, seconds)
            _daemons(report, Corosync, "corosync knet encrypted", ENCRYPTED, seconds)
    else:
        report.line(f"no daemons in namespaces: {reason}")
    _node(report, seconds)
    report.close()
