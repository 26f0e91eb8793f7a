"""Was each request applied at most once, and each acknowledged one exactly once?

Each request adds one entry with a value of its own to what is judged: applied twice, it adds two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """What the client of a request knows."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"  # it was not done, for certain
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Added:
    """One request.

    Attributes:
        value: unique.
        result: see there.
    """

    value: bytes
    result: Result


def check(
    requests: Iterable[Added], entries: Iterable[bytes], *, all_kept: bool = True
) -> list[str]:
    """Return what is wrong with the entries that the requests left.

    Args:
        requests: all that were made.
        entries: the values that are there at the end.
        all_kept: False: what was acknowledged may be lost (one side of a partition), not doubled.
    """
    found = Counter(entries)
    wrong = []
    known = set()
    for request in requests:
        known.add(request.value)
        count = found[request.value]
        if count > 1:
            wrong.append(f"{request.value!r} ({request.result.value}) was applied {count} times")
        elif count and request.result is Result.REFUSED:
            wrong.append(f"{request.value!r} was refused and is there")
        elif not count and request.result is Result.ACKNOWLEDGED and all_kept:
            wrong.append(f"{request.value!r} was acknowledged and is lost")
    wrong += [f"{value!r} was never written" for value in sorted(found.keys() - known)]
    return wrong
