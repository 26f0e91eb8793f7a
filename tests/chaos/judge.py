"""What must be true of the histories of a run. Pure.

Sections belong to epochs: clients use those of the epoch that it is, and all of them are read once
more at the end. A register of a short life has few calls whose outcome nobody knows, so the
checker of linearizability can tell in every case.

While sides of the cluster work apart and no quorum is configured, what was acknowledged on the
side that loses is discarded when they meet. Sections of epochs in which that could be are held to
less: a read finds what somebody wrote there, or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.history import Operation, Outcome, Record, by_section
from tests.history import register
from tests.history.register import Call, TooManyError

NEIGHBOURS_SHOWN: Final = 12  # records before and after the one at fault
SESSION_GRACE_NS: Final = 5_000_000_000  # so long a session outlives its service
ANSWERED: Final = (Outcome.DONE, Outcome.ABSENT, Outcome.PRESENT, Outcome.OTHER)
TORN: Final = "torn"  # begin of the name of data that no client wrote


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, when, and what happened around it."""

    rule: str
    at_ns: int
    around: tuple[Record, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.rule, *(f"    {record}" for record in self.around)])


@dataclass(frozen=True, slots=True)
class Apart:
    """A time in which sides of the cluster may have worked apart."""

    begin_ns: int
    end_ns: int


def judge(
    records: Sequence[Record],
    appended: Mapping[str, Sequence[str]],
    apart: Sequence[Apart] = (),
    *,
    finished: bool = True,
) -> list[Violation]:
    """Return what is wrong, the earliest first.

    Args:
        records: of all clients.
        appended: what each reader found at the end where clients appended.
        apart: when sides may have worked apart.
        finished: False: the clients were ended in the middle of their work.
    """
    found = _broken(records)
    if finished:
        found += [
            Violation(f"a call never returned: {record}", record.begun_ns)
            for record in records
            if record.ended_ns is None
        ]
    for section, calls in by_section(records).items():
        found += _section("/".join(section), calls, apart)
    for reader, values in appended.items():
        found += _appends(reader, values, records, apart)
    return sorted(found, key=lambda violation: violation.at_ns)


def _broken(records: Sequence[Record]) -> list[Violation]:
    """A handle outlives all but a long silence of its node's service."""
    found: list[Violation] = []
    served_ns: dict[tuple[str, bool], int] = {}  # service of a node -> when it answered last
    ended = [(record.ended_ns, record) for record in records if record.ended_ns is not None]
    for ended_ns, record in sorted(ended, key=lambda one: one[0]):
        service = record.client.partition("c")[0], record.operation is Operation.ASK
        if record.outcome in ANSWERED:
            served_ns[service] = ended_ns
        elif (
            record.outcome is Outcome.BROKEN
            and ended_ns - served_ns.get(service, 0) < SESSION_GRACE_NS
        ):
            rule = f"a handle broke though its service answered less than 5 s before: {record}"
            found.append(Violation(rule, record.begun_ns))
    return found


# Registers


def _section(name: str, records: Sequence[Record], apart: Sequence[Apart]) -> list[Violation]:
    if _touched_apart(records, apart):
        return _invented(name, records)
    try:
        violation = register.check(call for record in records for call in _calls(record))
    except TooManyError as error:
        return [Violation(f"{name}: cannot be judged: {error}", records[0].begun_ns)]
    if violation is None:
        return []
    rule = f"{name}: not linearizable: {violation}"
    return [Violation(rule, violation.call.begun, _around(records, violation.call.begun))]


def _calls(record: Record) -> list[Call]:
    """Return a record as the checker knows it."""
    unknown = record.outcome in (Outcome.UNKNOWN, Outcome.STALE, Outcome.BROKEN)
    ended = None if unknown else record.ended_ns
    value = None if record.value is None else record.value.encode()

    def call(kind: register.Kind, value: bytes | None, expected: str | None = None) -> list[Call]:
        return [
            Call(
                record.client,
                kind,
                value,
                record.begun_ns,
                ended,
                None if expected is None else expected.encode(),
                record.outcome not in (Outcome.PRESENT, Outcome.OTHER),
            )
        ]

    match record.operation, record.outcome:
        case (_, Outcome.REFUSED) | (Operation.APPEND | Operation.ASK, _):
            return []
        case (_, Outcome.ABSENT):  # it saw that there is nothing
            return call(register.Kind.READ, None)
        case (Operation.READ, _):
            return [] if unknown else call(register.Kind.READ, value)
        case (Operation.PUT | Operation.OVERWRITE, _):
            return call(register.Kind.WRITE, value)
        case (Operation.DELETE, _):
            return call(register.Kind.WRITE, None)
        case (Operation.CREATE | Operation.SWAP, _):
            return call(register.Kind.SWAP, value, record.expected)
    raise AssertionError(f"no meaning for {record}")


def _touched_apart(records: Sequence[Record], apart: Sequence[Apart]) -> bool:
    return any(_overlaps(r, apart) for r in records if r.operation is not Operation.READ)


def _overlaps(record: Record, apart: Sequence[Apart]) -> bool:
    end_ns = record.begun_ns if record.ended_ns is None else record.ended_ns
    return any(record.begun_ns <= a.end_ns and end_ns >= a.begin_ns for a in apart)


def _invented(name: str, records: Sequence[Record]) -> list[Violation]:
    written = {r.value for r in records if r.operation is not Operation.READ}
    return [
        Violation(f"{name}: found what nobody wrote: {r}", r.begun_ns, _around(records, r.begun_ns))
        for r in records
        if r.operation is Operation.READ and r.outcome is Outcome.DONE and r.value not in written
    ]


def _around(records: Sequence[Record], at_ns: int) -> tuple[Record, ...]:
    before = sum(record.begun_ns < at_ns for record in records)
    first = max(0, before - NEIGHBOURS_SHOWN)
    return tuple(records[first : before + NEIGHBOURS_SHOWN])


# Appends


def _appends(
    reader: str, values: Sequence[str], records: Iterable[Record], apart: Sequence[Apart]
) -> list[Violation]:
    """Each append that was acknowledged is there once; one of unknown outcome at most once."""
    counts = Counter(values)
    found = []
    for record in records:
        if record.operation is not Operation.APPEND:
            continue
        assert record.value is not None, f"an append writes something: {record}"
        count = counts.pop(record.value, 0)
        most = 0 if record.outcome is Outcome.REFUSED else 1
        least = int(record.outcome is Outcome.DONE and not _overlaps(record, apart))
        if not least <= count <= most:
            rule = f"{reader} finds an append {count} times, not {least}..{most} times: {record}"
            found.append(Violation(rule, record.begun_ns))
    found += [Violation(f"{reader} finds {value}, which nobody appended", 0) for value in counts]
    return found
