"""Is what the clients of one register saw linearizable?

The history is gone through in the order of its events (just-in-time linearization: Lowe, "Testing
for linearizability", 2017). A configuration is one way in which it may have gone so far: the value
of the register, and which of the calls that are under way have taken effect already. When a call
returns, only the configurations remain in which it has taken effect with the result it returned.

A call whose outcome nobody knows never returns: it may take effect at any time, or never. Of those,
only writes of a value that somebody saw need to be tried; values should be unique for that reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

CONFIGURATIONS_MAX: Final = 200_000  # more: the history has too many calls at a time to be judged

Value: TypeAlias = "bytes | None"  # None: there is nothing (not written yet, deleted, expired)


class Kind(Enum):
    """What a call does."""

    READ = "read"
    WRITE = "write"  # of None: delete
    SWAP = "swap"  # compare and swap: succeeds only on the expected value


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client.

    Attributes:
        client: who called; a client's calls do not overlap.
        kind: of the call.
        value: read, written, or to be swapped in.
        begun: when; any clock that all clients share.
        ended: when it returned; None: its outcome is not known.
        expected: of a swap.
        succeeded: False: a swap that found another value; it changed nothing.
    """

    client: str
    kind: Kind
    value: Value
    begun: int
    ended: int | None
    expected: Value = None
    succeeded: bool = True


@dataclass(frozen=True, slots=True)
class Violation:
    """No order of the calls explains what this one returned."""

    call: Call
    possible: tuple[Value, ...]  # values that the register may have had

    def __str__(self) -> str:
        found = ", ".join(sorted(repr(value) for value in self.possible))
        return f"{self.call}: the register can only have been {found}"


class TooManyError(Exception):
    """So many calls overlap that the history cannot be judged."""


_Configuration: TypeAlias = "tuple[Value, frozenset[int]]"  # value, calls that took effect early


def check(calls: Iterable[Call], initial: Value = None) -> Violation | None:
    """Return the first call that nothing explains; None: the history is linearizable.

    Raises:
        TooManyError: over CONFIGURATIONS_MAX ways to go on.
    """
    relevant = _without_invisible(list(calls))
    events = [(call.begun, 1, number) for number, call in enumerate(relevant)]
    events += [(c.ended, 0, number) for number, c in enumerate(relevant) if c.ended is not None]
    # One call is before another only if it ended strictly earlier than that one began.
    events.sort(key=lambda event: (event[0], -event[1]))
    under_way: set[int] = set()
    configurations: set[_Configuration] = {(initial, frozenset())}
    for _, begins, number in events:
        if begins:
            under_way.add(number)
            continue
        before = configurations
        configurations = _after_return(relevant, before, under_way, number)
        if not configurations:
            return Violation(relevant[number], tuple({value for value, _ in before}))
        under_way.discard(number)
    return None


def _without_invisible(calls: list[Call]) -> list[Call]:
    """Leave out calls of unknown outcome that changed nothing anybody saw."""
    seen = {c.value for c in calls if c.kind is Kind.READ and c.ended is not None}
    seen |= {c.expected for c in calls if c.kind is Kind.SWAP}
    failed_swaps = any(c.kind is Kind.SWAP and not c.succeeded for c in calls)
    return [
        c
        for c in calls
        if c.ended is not None or (c.kind is not Kind.READ and (c.value in seen or failed_swaps))
    ]


def _after_return(
    calls: Sequence[Call],
    configurations: set[_Configuration],
    under_way: set[int],
    number: int,
) -> set[_Configuration]:
    """Return the configurations in which a call has taken effect, and is forgotten."""
    found: set[_Configuration] = set()
    seen = set(configurations)
    todo = list(configurations)
    while todo:
        value, early = todo.pop()
        if number in early:
            found.add((value, early - {number}))
            continue
        for other in under_way - early:
            after = _effect(calls[other], value)
            if isinstance(after, _Impossible):
                continue
            following = (after, early | {other})
            if following not in seen:
                if len(seen) >= CONFIGURATIONS_MAX:
                    raise TooManyError(f"over {CONFIGURATIONS_MAX} ways at {calls[number]}")
                seen.add(following)
                todo.append(following)
    return found


class _Impossible:
    pass


_IMPOSSIBLE: Final = _Impossible()


def _effect(call: Call, value: Value) -> Value | _Impossible:
    match call.kind:
        case Kind.WRITE:
            return call.value
        case Kind.READ:
            return value if value == call.value else _IMPOSSIBLE
        case Kind.SWAP:
            if call.ended is None:  # it may have done nothing, which is as if it never took effect
                return call.value if value == call.expected else _IMPOSSIBLE
            if call.succeeded:
                return call.value if value == call.expected else _IMPOSSIBLE
            return value if value != call.expected else _IMPOSSIBLE
