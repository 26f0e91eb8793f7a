"""The judges of a run: pure checkers of `tests.history`, fed with what clients and replicas saw.

| rule | what must hold |
|---|---|
| A | reads with a fence and writes of each section are linearizable |
| P | two sections that are only written together are never seen to differ |
| L | reads without a fence never go back in one session |
| B | a resent request is applied once; what was refused, never; what was acknowledged is there |
| C | equal digests at equal positions, of replicas in one view and of the lives of one |
| D | what expires does so in time, never early |
| E | healed, all replicas are live with one digest within the bound |
| F | no session and no handle of a living client is lost |
| X | no service gives up |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openais.wire.status import Status
from tests.history import expiry, monotonic, once, register
from tests.history.expiry import Deed
from tests.history.register import Call, Kind
from tests.sim.floor.clients import LEDGER, Event, Lost, Outcome

if TYPE_CHECKING:
    from tests.sim.floor.run import FloorRun

MS: Final = 1_000_000
LATE_NS: Final = 1_500 * MS  # a section is gone so long after its expiration
GRACE_NS: Final = 4_500 * MS  # a session outlives its service for so long, and a little more
FORGOTTEN_NS: Final = 10_000 * MS  # between the loss of a memory and the end of a session by it
KEEPS_SESSIONS: Final = ("restarts", "both")  # mixes in which a restart must not end a session
TOLD_MAX: Final = 5  # violations of one rule

RESULTS: Final = {
    Outcome.DONE: once.Result.ACKNOWLEDGED,
    Outcome.REFUSED: once.Result.REFUSED,
    Outcome.UNKNOWN: once.Result.UNKNOWN,
    Outcome.WRONG: once.Result.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """What is broken: the letter of the rule, and the evidence."""

    rule: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.evidence}"


class FloorError(AssertionError):
    """A run broke rules."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(map(str, violations[:TOLD_MAX])))
        self.violations = violations


def judge(run: FloorRun) -> None:
    """Judge a run that came to its end.

    Raises:
        FloorError: something is violated.
    """
    found = {
        "A": _linearizable(run),
        "P": _pairs(run),
        "L": _local(run),
        "B": _once(run),
        "C": [f"{d.what}: {d.first} and {d.second}" for d in run.records.differing],
        "D": _expiry(run),
        "F": _kept(run),
        "X": [f"{told} at {at_ns}" for at_ns, told in run.records.given_up],
    }
    violations = [Violation(rule, w) for rule, wrong in found.items() for w in wrong[:TOLD_MAX]]
    if violations:
        raise FloorError(violations)


def _nodes(run: FloorRun) -> range:
    return range(1, run.plan.nodes + 1)


def _linearizable(run: FloorRun) -> list[str]:
    if run.plan.divides:
        return []
    calls: dict[bytes, list[Call]] = {}
    refused: dict[bytes, set[bytes]] = {}
    for event in run.history.events:
        if event.name == b"registers":
            call = _call(event)
            if call is not None:
                calls.setdefault(event.section, []).append(call)
            elif event.what in ("write", "write_own"):
                refused.setdefault(event.section, set()).add(event.value)
    end_ns = run.cluster.now_ns
    for node in _nodes(run):
        content = run.dump(node, b"registers") or {}
        for section, history in calls.items():
            read = Call(f"end{node}", Kind.READ, content.get(section), end_ns, end_ns + 1)
            history.append(read)
    wrong = []
    for section, history in sorted(calls.items()):
        violation = register.check(history)
        if violation is not None:
            wrong.append(f"section {section!r}: {violation}")
        seen = {c.value for c in history if c.kind is Kind.READ}
        wrong += [f"{v!r} was refused and seen" for v in sorted(refused.get(section, set()) & seen)]
    return wrong


def _call(event: Event) -> Call | None:
    """Return a call of a register; None: it did nothing, for certain, or says nothing."""
    done = event.outcome is Outcome.DONE
    ended = event.ended_ns if done else None
    match event.what:
        case "write" | "write_own" if event.outcome is not Outcome.REFUSED:
            return Call(event.client, Kind.WRITE, event.value, event.begun_ns, ended)
        case "delete" if event.outcome is not Outcome.REFUSED:
            kind = Kind.READ if event.status is Status.ERR_NOT_EXIST else Kind.WRITE
            return Call(event.client, kind, None, event.begun_ns, ended)
        case "read" if done:
            return Call(event.client, Kind.READ, event.value, event.begun_ns, ended)
    return None


def _pairs(run: FloorRun) -> list[str]:
    wrong = [
        f"{e.client} read {e.value} at {e.begun_ns}"
        for e in run.history.events
        if e.what == "pair_read" and e.value is not None and len(set(e.value)) > 1
    ]
    for node in _nodes(run):
        content = run.dump(node, b"pair") or {}
        values = {content.get(b"left", b""), content.get(b"right", b"")}
        if len(values) > 1:
            wrong.append(f"node {node} has {sorted(values)} at the end")
    return wrong


def _local(run: FloorRun) -> list[str]:
    if run.plan.divides:
        return []
    return monotonic.check(
        monotonic.Seen(e.client, e.section, e.value)
        for e in run.history.events
        if e.what == "read_local" and e.outcome is Outcome.DONE
    )


def _once(run: FloorRun) -> list[str]:
    requests = [
        once.Added(e.value, RESULTS[e.outcome])
        for e in run.history.events
        if e.what == "append" and (e.outcome is not Outcome.DONE or e.status is Status.OK)
    ]
    wrong = []
    for node in _nodes(run):
        entries = [v for s, v in (run.dump(node, LEDGER) or {}).items() if s]
        found = once.check(requests, entries, all_kept=not run.plan.divides)
        wrong += [f"node {node}: {what}" for what in found]
    return wrong


def _expiry(run: FloorRun) -> list[str]:
    wrong = [
        f"node {node} has {section!r} at the end"
        for node in _nodes(run)
        for section in run.dump(node, b"registers") or {}
        if section.startswith(b"x.")
    ]
    if run.plan.divides:
        return wrong
    steps = []
    for e in run.history.events:
        if e.what in ("expiring", "extend", "expiring_read") and e.outcome is not Outcome.REFUSED:
            there = None if e.outcome is not Outcome.DONE else e.status is Status.OK
            deed = Deed.LOOK if e.what == "expiring_read" else Deed.SET
            steps.append(expiry.Step(e.section, deed, e.begun_ns, e.ended_ns, e.value, there))
    slack = run.records.troubles(run.healed_ns)
    if run.plan.faults.loss:
        slack = [(0, run.healed_ns)]
    return wrong + expiry.check(steps, LATE_NS, slack)


def _kept(run: FloorRun) -> list[str]:
    wrong = [
        f"{lost.client} at node {lost.node}, {lost.at_ns}: {lost.status.name} {lost.reason}"
        for lost in run.history.lost
        if not _excused(run, lost)
    ]
    return wrong + [
        f"{e.client} got {e.status.name} of {e.what} at {e.ended_ns}"
        for e in run.history.events
        if e.outcome is Outcome.WRONG
    ]


def _excused(run: FloorRun, lost: Lost) -> bool:
    """True: the session had to end: its node had no quorum, or its service was away for long."""
    if lost.status is Status.ERR_UNAVAILABLE:
        return run.plan.quorum
    if run.plan.mix not in KEEPS_SESSIONS:
        forgotten = [at_ns for at_ns, node, _ in run.records.forgotten if node == lost.node]
        if any(abs(lost.at_ns - at_ns) < FORGOTTEN_NS for at_ns in forgotten):
            return True
    downs = run.records.downs.get((lost.node, "ckpt"), [])
    return any(to - begin > GRACE_NS and begin < lost.at_ns for begin, to in downs)
