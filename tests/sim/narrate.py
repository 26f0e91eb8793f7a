"""The story of a run in lines that can be read: plan, faults, what every node did last."""

from __future__ import annotations

from tests.sim.network import MS
from tests.sim.random_run import RandomRun
from tests.sim.trace import Got, Installed, Originated, Record
from totemd.protocol.effects import Moved, Noted


def narrate(run: RandomRun, records: int) -> str:
    """Tell the plan and the last records of all nodes, in the order of time."""
    return "\n".join([*_plan(run), "", *_story(run)[-records:], ""])


def _plan(run: RandomRun) -> list[str]:
    p = run.plan
    lines = [
        f"seed {p.seed}, mix {p.mix}: {p.nodes} nodes, {p.run_ns // MS} ms of faults",
        f"wire: {p.faults}" + (" sealed" if p.sealed else ""),
        f"clocks per thousand: {p.skews}; ns per datagram: {p.costs}",
        f"{p.parameters}",
    ]
    lines += [f"trigger: {t.kind} on {t.state.value}, up to {t.budget}" for t in p.triggers]
    lines += [str(action) for _, action in p.happening()]
    return lines


def _story(run: RandomRun) -> list[str]:
    told: list[tuple[int, int, str]] = []
    for life in run.cluster.lives:
        who = f"n{life.node_id}.{life.epoch}"
        told += [(r.at_ns, life.epoch, f"{who} {describe(r)}") for r in life.records]
        told.append((run.cluster.now_ns, life.epoch, f"{who} is {life.ended.value}"))
    for at_ns, node, note in run.cluster.notes:
        if isinstance(note, Moved):
            text = f"{note.old.value} -> {note.new.value}: {note.cause.value}"
            told.append((at_ns, 0, f"n{node} {text}"))
        elif isinstance(note, Noted):
            fields = " ".join(f"{key}={value}" for key, value in note.fields)
            told.append((at_ns, 0, f"n{node} notes {note.event} {fields}"))
    told.sort(key=lambda one: one[0])
    return [f"{at_ns / MS:12.3f} {text}" for at_ns, _, text in told]


def describe(record: Record) -> str:
    """Tell one record."""
    ring = f"{record.ring.seq}.{record.ring.representative}"
    match record:
        case Installed():
            members = " ".join(map(str, record.members))
            return f"{record.kind.value} {ring} of {members}"
        case Originated():
            return f"originates {ring} #{record.seq} g{record.guarantee} after {record.delivered}"
        case Got():
            part = " transitional" if record.transitional else ""
            who = f"n{record.originator}"
            return f"delivers {ring} #{record.seq} of {who} g{record.guarantee}{part}"
