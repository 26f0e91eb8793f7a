"""What clients did and saw, as lines of a file that outlives the client. Pure but for the files.

A line is written before a call and another one after it, so the history of a client that was
killed has its last call, with an outcome that nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, TextIO

SUFFIX: Final = ".history"


class Operation(Enum):
    """What a call does to one section."""

    READ = "read"
    PUT = "put"  # write, and create what is not there
    OVERWRITE = "overwrite"  # only what is there
    CREATE = "create"  # only what is not there
    DELETE = "delete"
    SWAP = "swap"  # write, if what is there is what was read before
    APPEND = "append"  # a new section with an id that the service chooses
    ASK = "ask"  # CLM, who is a member


FINDING: Final = (Operation.READ, Operation.ASK)  # the value of their records is what they found
REGISTER: Final = tuple(o for o in Operation if o not in (Operation.APPEND, Operation.ASK))


class Outcome(Enum):
    """How a call ended."""

    DONE = "done"
    ABSENT = "absent"  # there was no such section
    PRESENT = "present"  # there was one
    OTHER = "other"  # there was something else than expected
    REFUSED = "refused"  # certainly not done
    STALE = "stale"  # no quorum: as unknown, and the handle is to be opened again
    UNKNOWN = "unknown"  # done, or still to be done, or never
    BROKEN = "broken"  # as unknown, and the handle is of no use any more


@dataclass(frozen=True, slots=True)
class Record:
    """One call of a client.

    Attributes:
        client: its name; its calls do not overlap.
        number: of the call, from 1.
        operation: what it does.
        checkpoint: on what.
        section: on what; empty: the service chooses.
        value: a name for the data that it writes, unique; of a read, for what it found.
        begun_ns: by the clock that all processes of a machine share.
        ended_ns: None: it never returned.
        outcome: how it ended.
        error: the words of the error.
        expected: of a swap, the name of the data that is to be there; None: nothing.
    """

    client: str
    number: int
    operation: Operation
    checkpoint: str
    section: str
    value: str | None
    begun_ns: int
    ended_ns: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""
    expected: str | None = None

    def __str__(self) -> str:
        end = "never" if self.ended_ns is None else f"{self.ended_ns / 1e9:.6f}"
        error = f" ({self.error})" if self.error else ""
        return (
            f"{self.begun_ns / 1e9:.6f}..{end} {self.client} #{self.number} {self.operation.value} "
            f"{self.checkpoint}/{self.section} {self.value}: {self.outcome.value}{error}"
        )


class Writer:
    """Writes the history of one client."""

    def __init__(self, directory: Path, client: str) -> None:
        self.client: Final = client
        self.path: Final = directory / f"{client}{SUFFIX}"
        self._file: Final[TextIO] = self.path.open("w", encoding="utf-8", buffering=1)

    def begin(self, record: Record) -> None:
        """Write that a call begins."""
        self._line(
            [
                record.number,
                record.begun_ns,
                record.operation.value,
                record.checkpoint,
                record.section,
                record.value,
                record.expected,
            ]
        )

    def end(
        self, number: int, ended_ns: int, outcome: Outcome, value: str | None, error: str
    ) -> None:
        """Write how it ended."""
        self._line([number, ended_ns, outcome.value, value, error])

    def _line(self, values: list[Any]) -> None:
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[Record]:
    """Return the history of one client, by call."""
    found: dict[int, Record] = {}
    client = path.name.removesuffix(SUFFIX)
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            break  # the last line of a client that was killed
        if values[0] not in found:
            number, begun_ns, operation, checkpoint, section, value, expected = values
            found[number] = Record(
                client,
                number,
                Operation(operation),
                checkpoint,
                section,
                value,
                begun_ns,
                expected=expected,
            )
        else:
            found[values[0]] = _ended(found[values[0]], values)
    return list(found.values())


def _ended(record: Record, values: list[Any]) -> Record:
    _, ended_ns, outcome, value, error = values
    return replace(
        record,
        value=value if record.operation in FINDING else record.value,
        ended_ns=ended_ns,
        outcome=Outcome(outcome),
        error=error,
    )


def read_all(directory: Path) -> list[Record]:
    """Return the histories of all clients that left one in a directory."""
    paths = sorted(directory.glob(f"*{SUFFIX}"))
    return [record for path in paths for record in read(path)]


def by_section(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the records of each section, in the order in which they began."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda r: r.begun_ns):
        if record.operation in REGISTER:
            found.setdefault((record.checkpoint, record.section), []).append(record)
    return found
