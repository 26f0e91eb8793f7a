"""The brace syntax of openais.conf: text in, a tree of sections and directives out. Pure.

Knows lines, sections and directives; knows no directive by name and no value's type. Every
problem is collected with its line, up to PROBLEMS_MAX, so that one run reports them all.
"""

from __future__ import annotations

from typing import Final

from openais.node.tree import DEPTH_MAX, LINE_SIZE_MAX, NAME, Directive, Problems, Section, place

_BLANKS: Final = " \t\u00a0"
_BOM: Final = b"\xef\xbb\xbf"


def parse(data: bytes, file: str, problems: Problems, root: Section) -> None:
    """Parse a file into a tree; what is wrong goes to ``problems`` and is left out.

    Raises:
        TooManyProblemsError: see `Problems.error`.
    """
    parser = _Parser(file, problems, root)
    lines = data.removeprefix(_BOM).split(b"\n")
    for number, raw in enumerate(lines, start=1):
        parser.line(raw.removesuffix(b"\r"), f"{file}:{number}")
    parser.end(f"{file}:{len(lines)}")


class _Parser:
    def __init__(self, file: str, problems: Problems, root: Section) -> None:
        self._file = file
        self._problems = problems
        self._open_sections = [root]

    def line(self, raw: bytes, origin: str) -> None:
        text = self._text(raw, origin)
        if not text or text.startswith("#"):
            return
        brace, colon = text.find("{"), text.find(":")
        if text.startswith("}") or ("}" in text and brace < 0 and colon < 0):
            self._close(text, origin)
        elif brace >= 0 and (colon < 0 or brace < colon):
            self._open(text, origin)
        elif colon >= 0:
            self._directive(text, origin)
        else:
            self._problems.error(origin, "neither a section, a directive nor a comment")

    def end(self, origin: str) -> None:
        for section in reversed(self._open_sections[1:]):
            self._problems.error(
                origin, f"section {section.name} opened at {place(section.origin)} is not closed"
            )

    def _text(self, raw: bytes, origin: str) -> str:
        if len(raw) > LINE_SIZE_MAX:
            reason = f"line too long ({len(raw)} bytes, limit {LINE_SIZE_MAX})"
        elif b"\0" in raw:
            reason = "NUL byte"
        else:
            try:
                return raw.decode("utf-8").strip(_BLANKS)
            except UnicodeDecodeError as error:
                reason = f"invalid UTF-8 at byte {error.start + 1}"
        self._problems.error(origin, reason)
        return ""

    def _open(self, text: str, origin: str) -> None:
        # A faulty opening still opens: else its '}' would close the wrong section.
        name, _, rest = text.partition("{")
        name = name.rstrip(_BLANKS)
        section = Section(name, origin)
        if len(self._open_sections) > DEPTH_MAX:
            reason = f"more than {DEPTH_MAX} sections inside each other"
        elif not name:
            reason = "section name missing before '{'"
        elif not NAME.match(name):
            reason = "neither a section, a directive nor a comment"
        elif rest.strip(_BLANKS):
            reason = "unexpected text after '{'"
        else:
            self._open_sections[-1].sections.append(section)
            self._open_sections.append(section)
            return
        self._problems.error(origin, reason)
        if not rest.rstrip(_BLANKS).endswith("}"):
            self._open_sections.append(section)  # not part of the tree

    def _close(self, text: str, origin: str) -> None:
        if len(self._open_sections) == 1:
            self._problems.error(origin, "'}' without open section")
            return
        self._open_sections.pop()
        if text != "}":
            self._problems.error(origin, "unexpected text around '}'")

    def _directive(self, text: str, origin: str) -> None:
        key, _, value = text.partition(":")
        key, value = key.rstrip(_BLANKS), value.lstrip(_BLANKS)
        if not key:
            self._problems.error(origin, "key missing before ':'")
        elif not NAME.match(key):
            self._problems.error(origin, "neither a section, a directive nor a comment")
        elif not value:
            self._problems.error(origin, f"value missing for {key}")
        else:
            self._open_sections[-1].directives.append(Directive(key, value, origin))
