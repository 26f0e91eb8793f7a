"""Does the ring hold on a machine that is three times as busy as it has cores?

Processes that only burn CPU time run beside three nodes under a light load. No node is ever gone,
so every change of the ring is a false alarm.
"""

from __future__ import annotations

import os
import time
from typing import Final

from bench.client import Mode, Run, play
from bench.contestants import (
    FAST,
    PLAIN,
    Cluster,
    Corosync,
    Openais,
    Settings,
    cluster,
    compared,
)
from bench.options import Options
from bench.process import busy
from bench.report import Report

NODES: Final = 3
PER_CORE: Final = 3
SECONDS: Final = 600.0
SECONDS_COROSYNC: Final = 120.0
SECONDS_QUICK: Final = 5.0
SIZE: Final = 300
RATE: Final = 100.0  # messages per second of each of the three clients
WIDTHS: Final = (20, 10, 13, 24)
CONTESTANTS: Final[tuple[tuple[type[Cluster], str, Settings], ...]] = (
    (Openais, "openais", Settings()),
    (Openais, "openais, fast", FAST),
    (Corosync, "udp plain", PLAIN),
)


def _row(report: Report, made: Cluster, seconds: float) -> None:
    made.up()
    made.open_clients()
    clients = list(made.clients.values())
    began_ns = time.monotonic_ns()
    with busy(PER_CORE * len(os.sched_getaffinity(0))):
        results = play(clients, Run(Mode.PACED, SIZE, NODES, seconds, 0.0, RATE), 1)
    line = made.ring_line()
    changes = max(len(daemon.lines(line, began_ns)) for daemon in made.daemons.values())
    p50, p99 = max(r.p50_us for r in results) / 1e3, max(r.p99_us for r in results) / 1e3
    cells = [made.title, f"{seconds:g} s", str(changes), f"{p50:,.1f} / {p99:,.1f} ms"]
    report.row(cells, WIDTHS)


def main(options: Options) -> None:
    """Measure and print."""
    seconds = options.minutes * 60 or (SECONDS_QUICK if options.quick else SECONDS)
    count = PER_CORE * len(os.sched_getaffinity(0))
    title = f"{NODES} nodes beside {count} busy processes"
    report = Report("oversubscribed", title, keep=options.keep)
    takes_part = compared(report)
    report.row(["", "for", "ring changes", "delivery, p50 / p99"], WIDTHS)
    for kind, name, settings in CONTESTANTS[:1] if options.quick else CONTESTANTS:
        if kind is Corosync and not takes_part:
            continue
        with cluster(kind, name, NODES, settings) as made:
            _row(report, made, min(seconds, SECONDS_COROSYNC) if kind is Corosync else seconds)
    report.close()
