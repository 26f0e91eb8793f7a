"""How long is the ring without an order when a node dies, leaves or starts?

The time is that from the event to the line with which the last node of the new ring logs that it is
installed. Daemons of all contestants write such a line; no client takes part.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.contestants import (
    ENCRYPTED,
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
from bench.process import ProcessError
from bench.report import Report, median

NODES: Final = 3
NODES_MANY: Final = 5
REPETITIONS: Final = 10
REPETITIONS_QUICK: Final = 1
COLD_STARTS: Final = 50
COLD_STARTS_QUICK: Final = 1
COLD_STARTS_THEIRS: Final = 10
WIDTHS: Final = (34, 20, 20, 20, 20)
CONTESTANTS: Final[tuple[tuple[type[Cluster], str, Settings], ...]] = (
    (Openais, "openais", Settings()),
    (Openais, "openais, fast", FAST),
    (Corosync, "udp plain", PLAIN),
    (Corosync, "knet encrypted", ENCRYPTED),
)


@dataclass(slots=True)
class Times:
    """What was measured of one event, in milliseconds."""

    values: list[float] = field(default_factory=list)
    failures: int = 0

    def cell(self) -> str:
        """Return what the table shows."""
        failed = f", {self.failures} failed" if self.failures else ""
        if not self.values:
            return f"-{failed}"
        return f"{median(self.values):,.0f} / {max(self.values):,.0f} ms{failed}"


Column = dict[str, Times]  # event -> times


def _measure(times: Times, event: Callable[[], float]) -> None:
    try:
        times.values.append(event())
    except ProcessError:
        times.failures += 1


def _since_ms(began_ns: int, ended_ns: int) -> float:
    return max(0, ended_ns - began_ns) / 1e6


def _changes(made: Cluster, column: Column, repetitions: int) -> None:
    """Kill a node, let it join again, let it leave, let it join again; each node in turn."""
    made.up()
    for number in range(repetitions):
        node = made.ids[number % len(made.ids)]
        rest = tuple(one for one in made.ids if one != node)

        def kill(node: int = node, rest: tuple[int, ...] = rest) -> float:
            at_ns = made.daemons[node].kill()
            return _since_ms(at_ns, made.wait_ring(rest, at_ns))

        def leave(node: int = node, rest: tuple[int, ...] = rest) -> float:
            at_ns = made.daemons[node].stop()
            ended_ns = made.wait_ring(rest, at_ns)
            made.daemons[node].close()
            return _since_ms(at_ns, ended_ns)

        def join(node: int = node) -> float:
            at_ns = made.start(node).began_ns
            made.wait_ring(made.ids, at_ns)
            return _since_ms(made.wait_ready(node), made.wait_ring(made.ids, at_ns))

        _measure(column["kill -9 of one of three"], kill)
        _measure(column["join, from its daemon being ready"], join)
        _measure(column["planned leave of one of three"], leave)
        _measure(column["join, from its daemon being ready"], join)
    made.close()


def _cold_start(made: Cluster, from_exec: Times, from_ready: Times) -> None:
    began_ns = time.monotonic_ns()
    try:
        for node in made.ids:
            made.start(node)
        ended_ns = made.wait_ring(made.ids, began_ns)
        ready_ns = max(made.wait_ready(node) for node in made.ids)
    except ProcessError:
        from_exec.failures += 1
        from_ready.failures += 1
    else:
        from_exec.values.append(_since_ms(began_ns, ended_ns))
        from_ready.values.append(_since_ms(ready_ns, ended_ns))
    finally:
        made.close()


def _events() -> Column:
    names = [
        "kill -9 of one of three",
        "planned leave of one of three",
        "join, from its daemon being ready",
    ]
    for count in (NODES, NODES_MANY):
        names += [
            f"cold start of {count}, from the first exec",
            f"cold start of {count}, all ready",
        ]
    return {name: Times() for name in names}


def main(options: Options) -> None:
    """Measure and print."""
    report = Report("failover", "until the last node has installed the new ring", keep=options.keep)
    takes_part = compared(report)
    columns: dict[str, Column] = {}
    for kind, title, settings in CONTESTANTS:
        columns[title] = _events()
        if kind is Corosync and not takes_part:
            continue
        with cluster(kind, title, NODES, settings) as made:
            usual = REPETITIONS_QUICK if options.quick else REPETITIONS
            _changes(made, columns[title], options.repeat or usual)
        starts = COLD_STARTS if kind is Openais else COLD_STARTS_THEIRS
        for count in (NODES, NODES_MANY):
            with contextlib.ExitStack() as stack:
                made = stack.enter_context(cluster(kind, title, count, settings))
                names = [
                    name for name in columns[title] if name.startswith(f"cold start of {count}")
                ]
                usual = COLD_STARTS_QUICK if options.quick else starts
                for _ in range(options.repeat or usual):
                    _cold_start(made, *(columns[title][name] for name in names))
    report.row(["median / max", *columns], WIDTHS)
    for event in _events():
        report.row([event, *(column[event].cell() for column in columns.values())], WIDTHS)
    report.close()
