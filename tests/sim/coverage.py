"""Which rows of the ring's tables a run has used, and for which causes states changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from totemd.protocol import ring
from totemd.protocol.effects import Cause, Moved, State
from totemd.protocol.ring import Ring
from totemd.protocol.timers import Timer

Counts = Counter[tuple[str, str]]

# Rows that nothing can reach: the timer is disarmed before the state is entered.
UNREACHABLE: Final = frozenset(
    (state.value, f"timer {timer.name.lower()}")
    for (state, timer), handler in ring.TIMER_TABLE.items()
    if handler is Ring.ignore
)
CAUSES: Final = tuple(("cause", cause.value) for cause in Cause)


class Coverage:
    """Counts while it is entered: every row is wrapped, and put back at the end."""

    def __init__(self) -> None:
        self.counts: Counts = Counter()
        self._wrapped: list[tuple[Any, object, Callable[..., None]]] = []

    def __enter__(self) -> Self:
        for state, handlers in ring.HANDLERS.items():
            for event in list(handlers):
                self._wrap(handlers, event, row(state, event))
        for key in list(ring.TIMER_TABLE):
            self._wrap(ring.TIMER_TABLE, key, row(*key))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for table, key, handler in self._wrapped:
            table[key] = handler
        self._wrapped.clear()

    def _wrap(self, table: Any, key: object, name: tuple[str, str]) -> None:
        handler: Callable[..., None] = table[key]
        counts = self.counts

        def counted(*arguments: Any) -> None:
            counts[name] += 1
            handler(*arguments)

        self._wrapped.append((table, key, handler))
        table[key] = counted

    def moved(self, notes: list[tuple[int, int, Any]]) -> None:
        """Count the causes of a finished run."""
        for _, _, note in notes:
            if isinstance(note, Moved):
                self.counts["cause", note.cause.value] += 1


def row(state: State, event: type | Timer) -> tuple[str, str]:
    """Name one row of a table."""
    what = f"timer {event.name.lower()}" if isinstance(event, Timer) else event.__name__
    return state.value, what


def missing(counts: Counts) -> list[tuple[str, str]]:
    """Return what was never seen though it can be."""
    rows = [row(*key) for key in ring.TABLE] + [row(*key) for key in ring.TIMER_TABLE]
    return [key for key in (*rows, *CAUSES) if key not in UNREACHABLE and not counts[key]]


def report(counts: Counts) -> str:
    """Return a table: events down, states across; then causes."""
    states = [state.value for state in State]
    events = sorted({what for _, what in counts if _ != "cause"})
    lines = [f"{'':24}" + "".join(f"{state:>13}" for state in states)]
    for what in events:
        cells = [
            "-" if (state, what) in UNREACHABLE else str(counts[state, what]) for state in states
        ]
        lines.append(f"{what:24}" + "".join(f"{cell:>13}" for cell in cells))
    lines.append("")
    lines += [f"{cause:36}{counts['cause', cause]:>13}" for _, cause in CAUSES]
    return "\n".join(lines) + "\n"
