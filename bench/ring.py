"""How many ordered messages, how many megabytes? Ours and corosync's, in one run.

A message counts when the slowest node's client has it. One client per node, all senders as fast
as flow control lets them. Rounds are short and the contestants take turns, because what else a
machine does changes from second to second; the figure is the median of the rounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from bench.client import Client, Mode, Run, play
from bench.contestants import Cluster, compared, contestants
from bench.options import Options
from bench.process import Process, ThreadTime, cpu_times
from bench.report import Report, median, ratio

NODES: Final = 3
SIZES: Final = (64, 300, 1_024, 8_192, 65_536, 524_288)
SIZES_QUICK: Final = (300, 8_192)
ROUNDS: Final = 3
SECONDS: Final = 2.0
SECONDS_QUICK: Final = 1.0
WARM_UP_S: Final = 0.4
TITLES: Final = ("openais", "udp plain", "knet encrypted")
WIDTHS: Final = (10, 7, 22, 22, 22, 10, 10)

Rates = dict[str, list[float]]  # title -> messages per second of each round
Costs = dict[str, dict[str, list[float]]]  # title -> kind of thread -> microseconds per message


class _Times:
    """CPU time of all threads of a cluster, by kind."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster: Final = cluster
        self._before: Final = dict(self._threads())

    def _threads(self) -> Iterator[tuple[tuple[str, int], ThreadTime]]:
        kinds: Mapping[str, Mapping[int, Process | Client]] = {
            "daemon": self._cluster.daemons,
            "client": self._cluster.clients,
        }
        for kind, processes in kinds.items():
            for process in processes.values():
                for thread, spent in cpu_times(process.pid).items():
                    yield (f"{kind} {spent.name}", thread), spent

    def spent_ns(self) -> dict[str, int]:
        """Return the time since the begin, user and system apart, of all nodes together."""
        spent: dict[str, int] = defaultdict(int)
        none = ThreadTime("", 0, 0)
        for key, now in self._threads():
            before = self._before.get(key, none)
            spent[f"{key[0]} user"] += now.user_ns - before.user_ns
            spent[f"{key[0]} system"] += now.system_ns - before.system_ns
        return spent


class Measurement:
    """All runs of one call.

    Args:
        clusters: that are compared.
        options: of the call.
    """

    def __init__(self, clusters: list[Cluster], options: Options) -> None:
        self._clusters: Final = clusters
        self._rounds: Final = 1 if options.quick else ROUNDS
        self._seconds: Final = SECONDS_QUICK if options.quick else SECONDS
        self._number = 0
        self.costs: Final[dict[tuple[int, int], Costs]] = {}

    def rates(self, size: int, senders: int) -> Rates:
        """Return the messages per second of each round of each contestant."""
        run = Run(Mode.OPEN, size, senders, self._seconds, WARM_UP_S)
        rates: Rates = defaultdict(list)
        costs: Costs = defaultdict(lambda: defaultdict(list))
        for _ in range(self._rounds):
            for cluster in self._clusters:
                self._number += 1
                times = _Times(cluster)
                results = play(list(cluster.clients.values()), run, self._number)
                counted = min(result.counted for result in results)
                received = max(1, results[0].received)
                rates[cluster.title].append(counted / self._seconds)
                for kind, spent_ns in times.spent_ns().items():
                    costs[cluster.title][kind].append(spent_ns / 1e3 / received)
        self.costs[size, senders] = costs
        return rates


def _cells(size: int, senders: int, rates: Rates) -> list[str]:
    cells = [f"{size:,} B", str(senders)]
    medians = {title: median(rates.get(title, [])) for title in TITLES}
    for title in TITLES:
        rate = medians[title]
        cells.append("-" if rate is None else f"{rate:,.0f}/s {rate * size / 1e6:6.2f} MB/s")
    ours = medians[TITLES[0]]
    return [*cells, *(ratio(ours, medians[title]) for title in TITLES[1:])]


def _cost_table(report: Report, costs: dict[tuple[int, int], Costs]) -> None:
    report.line()
    report.line("CPU time per message, microseconds, all nodes together (more than 2 %)")
    for (size, senders), of_all in costs.items():
        for title, kinds in of_all.items():
            medians = {kind: median(values) or 0.0 for kind, values in kinds.items()}
            total = sum(medians.values())
            shown = sorted(medians.items(), key=lambda item: -item[1])
            text = ", ".join(f"{kind} {us:.1f}" for kind, us in shown if us > total / 50)
            report.line(f"{size:>9,} B {senders} sending  {title:<15} {total:>8.1f}: {text}")


def main(options: Options) -> None:
    """Measure and print."""
    title = f"{NODES} nodes, a network namespace each, MTU 1500; a message counts at all of them"
    report = Report("ring", title, keep=options.keep)
    compared(report)
    head = ["size", "senders", *TITLES, "/ plain", "/ knet"]
    report.row(head, WIDTHS)
    with contestants(NODES) as clusters:
        measurement = Measurement(clusters, options)
        for size in options.sizes or (SIZES_QUICK if options.quick else SIZES):
            for senders in (1, NODES):
                report.row(_cells(size, senders, measurement.rates(size, senders)), WIDTHS)
    _cost_table(report, measurement.costs)
    report.close()
