"""Tell what happened in a run of the services' floor."""

from __future__ import annotations

from tests.sim.floor.run import FloorRun

MS = 1_000_000
CALLS_SHOWN = 60


def tell(run: FloorRun) -> str:
    """Return the story of a run: its plan, deaths, views, the calls that did not simply succeed."""
    p, records = run.plan, run.records
    lines = [
        f"{p.nodes} nodes, {', '.join(p.services)}, quorum {p.quorum}, safe {p.safe}, "
        f"loss {p.faults.loss:.3f}, log {p.log_bytes}, snapshot after {p.journal_bytes} bytes"
    ]
    told = [(a.at_ns, f"plan: {a.kind} {_arguments(a)}") for a in p.actions]
    for (node, name), downs in records.downs.items():
        told += [(begin, f"{name}@{node} dies, back at {_ms(end)}") for begin, end in downs]
    told += [(at_ns, f"totemd@{node} dies") for at_ns, node in records.totemd_deaths]
    told += [
        (at_ns, f"{name}@{node} has a state of others") for at_ns, node, name in records.forgotten
    ]
    for (node, name), found in records.components.items():
        told += [(at_ns, f"{name}@{node} is of {component}") for at_ns, component in found]
    told += [(x.at_ns, f"{x.client} loses its session: {x.status.name}") for x in run.history.lost]
    odd = [e for e in run.history.events if e.outcome.value != "done"]
    told += [(e.begun_ns, f"{e.client} {e.what}: {e.status.name}") for e in odd[:CALLS_SHOWN]]
    told.append((run.healed_ns, "healed"))
    lines += [f"{_ms(at_ns)} {what}" for at_ns, what in sorted(told)]
    return "\n".join(lines)


def _arguments(a: tuple[object, ...]) -> str:
    return " ".join(str(value) for value in a[2:])


def _ms(at_ns: int) -> str:
    return f"{at_ns / MS:.3f}"
