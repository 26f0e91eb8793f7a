"""The configuration as written: sections of keys and values, each with its origin. Pure.

Every source of configuration fills this tree: the parser of openais.conf, the other built-in ones
and plug-ins. Knows no directive by name and no value's type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from openais.node.exits import Exit

LINE_SIZE_MAX: Final = 4096  # bytes of one line, of one value
PROBLEMS_MAX: Final = 20
FILE_SIZE_MAX: Final = 1 << 20  # bytes
DEPTH_MAX: Final = 16  # sections inside each other
SUGGESTION_EDITS_MAX: Final = 2  # a misspelling farther away gets no suggestion

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*\Z")
_LINE_ENDS: Final = frozenset("\n\r\0")
_FILE_LINE: Final = re.compile(r".*:([0-9]+)\Z", re.DOTALL)


@dataclass(slots=True)
class Directive:
    """``key: value`` as written; the value is never empty.

    ``origin`` is ``FILE:LINE``, or what else tells an operator where it comes from.
    ``source`` counts the sources in the order they ran, from 1; 0: not known yet.
    """

    key: str
    value: str
    origin: str
    source: int = 0


@dataclass(slots=True)
class Section:
    """``name { ... }``; the tree's root has no name."""

    name: str
    origin: str
    source: int = 0
    directives: list[Directive] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def section(self, name: str, origin: str = "") -> Section:
        """Return the last section of a name in this one; made where there is none."""
        found = self.all(name)
        return found[-1] if found else self.new_section(name, origin)

    def new_section(self, name: str, origin: str = "") -> Section:
        """Add one more section of a name.

        Raises:
            ValueError: the name has no place in a configuration.
        """
        _check_name(name)
        self.sections.append(Section(name, origin))
        return self.sections[-1]

    def all(self, name: str) -> list[Section]:
        """Return the sections of a name in this one."""
        return [section for section in self.sections if section.name == name]

    def add(self, key: str, value: str, origin: str = "") -> None:
        """Add a value; it replaces what an earlier source has added.

        Raises:
            ValueError: the key or value has no place in a configuration.
        """
        _check_name(key)
        value = value.strip()
        if not 1 <= len(value.encode()) <= LINE_SIZE_MAX or not _LINE_ENDS.isdisjoint(value):
            raise ValueError(f"{key}: expected one line of 1..{LINE_SIZE_MAX} bytes")
        self.directives.append(Directive(key, value, origin))

    def get(self, key: str) -> str | None:
        """Return the value that counts as long as no later source replaces it."""
        found = [directive.value for directive in self.directives if directive.key == key]
        return found[-1] if found else None

    def stamp(self, source: int, name: str, depth: int = DEPTH_MAX) -> None:
        """Note which source has added what was added since the last call.

        Args:
            source: its number, from 1.
            name: the origin of what has none.
            depth: of sections that may stand inside this one.

        Raises:
            ValueError, TypeError: what was added has no place in a configuration.
        """
        if depth < 0:
            raise ValueError(f"more than {DEPTH_MAX} sections inside each other")
        self.source = self.source or source
        self.origin = self.origin or name
        for directive in self.directives:
            if not directive.source:
                _check_name(directive.key)
                str.encode(directive.value)  # a plug-in can put anything there
                directive.source = source
                directive.origin = directive.origin or name
        for section in self.sections:
            section.stamp(source, name, depth - 1)


def _check_name(name: str) -> None:
    if not NAME.match(name):
        raise ValueError(f'"{name}": expected a letter, then letters, digits, "_", "." and "-"')


class TooManyProblemsError(Exception):
    """PROBLEMS_MAX errors were collected; looking further would not help the reader."""


class Problems:
    """Collects what is wrong with a configuration, as the lines that are shown to the operator."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.statuses: set[Exit] = set()  # with which the errors would end a start

    def error(self, origin: str, reason: str, *, status: Exit = Exit.MAIN_CONFIGURATION) -> None:
        """Add an error.

        Raises:
            TooManyProblemsError: this was the last one that is collected.
        """
        self.errors.append(f"parser error: {origin}: {reason}")
        self.statuses.add(status)
        if len(self.errors) >= PROBLEMS_MAX:
            raise TooManyProblemsError

    def warning(self, origin: str, reason: str) -> None:
        """Add a warning."""
        self.warnings.append(f"parser warning: {origin}: {reason}")


def place(origin: str) -> str:
    """Return how an error at another place of the same source names an origin."""
    numbered = _FILE_LINE.match(origin)
    return f"line {numbered[1]}" if numbered else origin


def nearest(word: str, candidates: list[str]) -> str | None:
    """Return the candidate that is at most two edits away from a misspelt word, or None."""
    close = [name for name in candidates if abs(len(name) - len(word)) <= SUGGESTION_EDITS_MAX]
    best = min(((_distance(word, name), name) for name in close), default=None)
    return best[1] if best is not None and 0 < best[0] <= SUGGESTION_EDITS_MAX else None


def _distance(one: str, other: str) -> int:
    """Return the Levenshtein distance."""
    previous = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        current = [row]
        for column, against in enumerate(other, start=1):
            current.append(
                min(
                    previous[column] + 1,
                    current[-1] + 1,
                    previous[column - 1] + (letter != against),
                )
            )
        previous = current
    return previous[-1]
