"""How soon is a message delivered to its sender? Ours and corosync's, in one run.

One at a time; at a load that corosync carries with ease; and at full load, where the time is that
of waiting in queues.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Final

from bench.client import Mode, Result, Run, play
from bench.contestants import Cluster, compared, contestants
from bench.options import Options
from bench.report import Report, median, ratio

NODES: Final = 3
SIZE: Final = 300
ROUNDS: Final = 3
SECONDS: Final = 2.0
SECONDS_QUICK: Final = 1.0
WARM_UP_S: Final = 0.4
TITLES: Final = ("openais", "udp plain", "knet encrypted")
WIDTHS: Final = (34, 22, 22, 22, 8, 8)

Figures = dict[str, tuple[float, float]]  # title -> p50, p99 in microseconds


class Measurement:
    """All runs of one call.

    Args:
        clusters: that are compared.
        options: of the call.
    """

    def __init__(self, clusters: list[Cluster], options: Options) -> None:
        self.clusters: Final = clusters
        self._rounds: Final = 1 if options.quick else ROUNDS
        self.seconds: Final = SECONDS_QUICK if options.quick else SECONDS
        self._number = 0

    def play(self, cluster: Cluster, run: Run) -> list[Result]:
        """Let the clients of one cluster do one run."""
        self._number += 1
        return play(list(cluster.clients.values()), run, self._number)

    def most(self, cluster: Cluster) -> float:
        """Return the messages per second that one sender of a cluster gets through."""
        run = Run(Mode.OPEN, SIZE, 1, self.seconds, WARM_UP_S)
        rates = [
            min(r.counted for r in self.play(cluster, run)) / self.seconds
            for _ in range(self._rounds)
        ]
        return median(rates) or 0.0

    def figures(self, run: Run) -> Figures:
        """Return the latencies of each contestant: of the slowest sender, median of the rounds."""
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(self._rounds):
            for cluster in self.clusters:
                senders = self.play(cluster, run)[: run.senders]
                slowest = max(senders, key=lambda result: result.p50_us)
                found[cluster.title].append((slowest.p50_us, slowest.p99_us))
        return {
            title: (
                median([p50 for p50, _ in both]) or 0.0,
                median([p99 for _, p99 in both]) or 0.0,
            )
            for title, both in found.items()
        }


def _row(report: Report, what: str, figures: Figures) -> None:
    cells = [what]
    for title in TITLES:
        both = figures.get(title)
        cells.append("-" if both is None else f"{both[0]:,.0f} / {both[1]:,.0f} us")
    p50 = {title: both[0] for title, both in figures.items()}
    report.row([*cells, *(ratio(p50.get(TITLES[0]), p50.get(t)) for t in TITLES[1:])], WIDTHS)


def main(options: Options) -> None:
    """Measure and print."""
    title = f"{NODES} nodes, {SIZE} B, from the call of mcast to the delivery at the sender"
    report = Report("latency", title, keep=options.keep)
    compared(report)
    report.row(["p50 / p99", *TITLES, "/ plain", "/ knet"], WIDTHS)
    with contestants(NODES) as clusters:
        measurement = Measurement(clusters, options)
        run = Run(Mode.CLOSED, SIZE, 1, measurement.seconds, WARM_UP_S)
        _row(report, "one at a time", measurement.figures(run))
        for cluster in clusters[1:] or clusters:
            half = int(measurement.most(cluster) / 2)
            paced = measurement.figures(replace(run, mode=Mode.PACED, rate=half))
            _row(report, f"{half:,}/s, half of {cluster.title}'s most", paced)
        full = measurement.figures(replace(run, mode=Mode.OPEN, senders=NODES))
        _row(report, f"full load, {NODES} senders", full)
    report.close()
