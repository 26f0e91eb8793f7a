"""Did things expire in time, and none of them early?

One client makes a thing that is to expire, moves its expiration and looks at it, one call after
the other. Where the outcome of a call is not known, both expirations are possible.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Deed(Enum):
    """What the client did."""

    SET = "set"  # made it, or moved its expiration
    LOOK = "look"


@dataclass(frozen=True, slots=True)
class Step:
    """One call about one thing.

    Attributes:
        thing: its name.
        deed: see there.
        begun_ns: when.
        ended_ns: when.
        deadline_ns: of a set: the expiration that it asks for.
        there: the thing was found; None: the outcome is not known.
    """

    thing: bytes
    deed: Deed
    begun_ns: int
    ended_ns: int
    deadline_ns: int
    there: bool | None


def check(steps: Iterable[Step], late_ns: int, slack: Iterable[tuple[int, int]] = ()) -> list[str]:
    """Return the things that were gone early, or were there late.

    Args:
        steps: by thing in the order in which they were made.
        late_ns: a thing may be there for so long after its expiration.
        slack: from, to: times in which nothing has to expire in time, and for late_ns after.
    """
    pauses = sorted(slack)
    possible: dict[bytes, set[int]] = {}
    wrong = []
    for step in steps:
        deadlines = possible.setdefault(step.thing, set())
        if step.there is False and deadlines and step.ended_ns < min(deadlines):
            left_ms = (min(deadlines) - step.ended_ns) // 1_000_000
            wrong.append(f"{step.thing!r} was gone {left_ms} ms early, at {step.ended_ns}")
        if step.there and deadlines and _late(step.begun_ns, max(deadlines), late_ns, pauses):
            over_ms = (step.begun_ns - max(deadlines)) // 1_000_000
            wrong.append(f"{step.thing!r} was there {over_ms} ms late, at {step.begun_ns}")
        if step.deed is Deed.SET and step.there is not False:
            if step.there:
                deadlines.clear()
            deadlines.add(step.deadline_ns)
    return wrong


def _late(begun_ns: int, deadline_ns: int, late_ns: int, slack: list[tuple[int, int]]) -> bool:
    if begun_ns <= deadline_ns + late_ns:
        return False
    return not any(begin < begun_ns and end + late_ns > deadline_ns for begin, end in slack)
