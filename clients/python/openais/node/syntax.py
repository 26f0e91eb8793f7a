"""The brace syntax of openais.conf: text in, a tree of sections and directives out. Pure.

Knows lines, sections and directives; knows no directive by name and no value's type. Every
problem is collected with its line, up to PROBLEMS_MAX, so that one run reports them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from openais.node.exits import Exit

LINE_SIZE_MAX: Final = 4096  # bytes, without the end of the line
PROBLEMS_MAX: Final = 20
FILE_SIZE_MAX: Final = 1 << 20  # bytes
DEPTH_MAX: Final = 16  # sections inside each other
SUGGESTION_EDITS_MAX: Final = 2  # a misspelling farther away gets no suggestion

_BLANKS: Final = " \t\u00a0"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*\Z")
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Directive:
    """``key: value`` as written; the value is never empty."""

    key: str
    value: str
    line: int


@dataclass(slots=True)
class Section:
    """``name { ... }``; the tree's root has no name and line 0."""

    name: str
    line: int
    directives: list[Directive] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


class TooManyProblemsError(Exception):
    """PROBLEMS_MAX errors were collected; looking further would not help the reader."""


class Problems:
    """Collects what is wrong with one file, as the lines that are shown to the operator."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.statuses: set[Exit] = set()  # with which the errors would end a start

    def error(self, line: int, reason: str, *, status: Exit = Exit.MAIN_CONFIGURATION) -> None:
        """Add an error.

        Raises:
            TooManyProblemsError: this was the last one that is collected.
        """
        self.errors.append(f"parser error: {self._file}:{line}: {reason}")
        self.statuses.add(status)
        if len(self.errors) >= PROBLEMS_MAX:
            raise TooManyProblemsError

    def warning(self, line: int, reason: str) -> None:
        """Add a warning."""
        self.warnings.append(f"parser warning: {self._file}:{line}: {reason}")


def parse(data: bytes, problems: Problems) -> Section:
    """Parse a file; what is wrong goes to ``problems`` and is left out of the tree.

    Raises:
        TooManyProblemsError: see `Problems.error`.
    """
    root = Section("", 0)
    open_sections = [root]
    lines = data.removeprefix(_BOM).split(b"\n")
    for number, raw in enumerate(lines, start=1):
        text = _text(raw.removesuffix(b"\r"), number, problems)
        if text and not text.startswith("#"):
            _line(text, number, open_sections, problems)
    for section in reversed(open_sections[1:]):
        problems.error(
            len(lines), f"section {section.name} opened at line {section.line} is not closed"
        )
    return root


def _text(raw: bytes, number: int, problems: Problems) -> str:
    if len(raw) > LINE_SIZE_MAX:
        problems.error(number, f"line too long ({len(raw)} bytes, limit {LINE_SIZE_MAX})")
        return ""
    if b"\0" in raw:
        problems.error(number, "NUL byte")
        return ""
    try:
        return raw.decode("utf-8").strip(_BLANKS)
    except UnicodeDecodeError as error:
        problems.error(number, f"invalid UTF-8 at byte {error.start + 1}")
        return ""


def _line(text: str, number: int, open_sections: list[Section], problems: Problems) -> None:
    brace, colon = text.find("{"), text.find(":")
    if text.startswith("}") or ("}" in text and brace < 0 and colon < 0):
        _close(text, number, open_sections, problems)
    elif brace >= 0 and (colon < 0 or brace < colon):
        _open(text, number, open_sections, problems)
    elif colon >= 0:
        _directive(text, number, open_sections[-1], problems)
    else:
        problems.error(number, "neither a section, a directive nor a comment")


def _open(text: str, number: int, open_sections: list[Section], problems: Problems) -> None:
    # A faulty opening still opens: else its '}' would close the wrong section.
    name, _, rest = text.partition("{")
    name = name.rstrip(_BLANKS)
    if len(open_sections) > DEPTH_MAX:
        problems.error(number, f"more than {DEPTH_MAX} sections inside each other")
    elif not name:
        problems.error(number, "section name missing before '{'")
    elif not _NAME.match(name):
        problems.error(number, "neither a section, a directive nor a comment")
    elif rest.strip(_BLANKS):
        problems.error(number, "unexpected text after '{'")
    else:
        section = Section(name, number)
        open_sections[-1].sections.append(section)
        open_sections.append(section)
        return
    if not rest.rstrip(_BLANKS).endswith("}"):
        open_sections.append(Section(name, number))  # not part of the tree


def _close(text: str, number: int, open_sections: list[Section], problems: Problems) -> None:
    if len(open_sections) == 1:
        problems.error(number, "'}' without open section")
        return
    open_sections.pop()
    if text != "}":
        problems.error(number, "unexpected text around '}'")


def _directive(text: str, number: int, section: Section, problems: Problems) -> None:
    key, _, value = text.partition(":")
    key, value = key.rstrip(_BLANKS), value.lstrip(_BLANKS)
    if not key:
        problems.error(number, "key missing before ':'")
    elif not _NAME.match(key):
        problems.error(number, "neither a section, a directive nor a comment")
    elif not value:
        problems.error(number, f"value missing for {key}")
    else:
        section.directives.append(Directive(key, value, number))


def nearest(word: str, candidates: list[str]) -> str | None:
    """Return the candidate that is at most two edits away from a misspelt word, or None."""
    best = min(((_distance(word, name), name) for name in candidates), default=None)
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
