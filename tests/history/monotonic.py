"""Does a session that reads its own replica without a fence go back in time?

The values of a register that one client writes, each larger than the one before, are read by
others: a session may see an old value, never an older one than it has seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """One read of a session.

    Attributes:
        session: that reads; its reads are in the order in which they were made.
        register: that it read.
        value: None: there was nothing.
    """

    session: str
    register: bytes
    value: bytes | None


def check(reads: Iterable[Seen]) -> list[str]:
    """Return the reads that went back."""
    last: dict[tuple[str, bytes], bytes] = {}
    wrong = []
    for read in reads:
        key = (read.session, read.register)
        before = last.get(key)
        if before is not None and (read.value is None or read.value < before):
            wrong.append(f"{read.session} saw {read.value!r} of {read.register!r} after {before!r}")
        if read.value is not None:
            last[key] = read.value
    return wrong
