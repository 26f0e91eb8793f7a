#!/usr/bin/env python3
"""Write the generated parts of the documentation; ``--check`` only says whether they are current.

A generated part stands between two comment lines, ``generated: NAME`` and ``end of generated``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "clients" / "python"))

from openais.node.directives import SECTIONS  # noqa: E402 - found through the line above
from openais.node.presets import PRESETS  # noqa: E402 - likewise
from openais.node.rules import Directive, SectionRule, Treatment  # noqa: E402 - likewise

_PART: Final = re.compile(
    r"(<!-- generated: (?P<name>[a-z]+), by docs/generate.py -->\n).*?(<!-- end of generated -->)",
    re.DOTALL,
)


def directives() -> str:
    """Return the reference of all sections and directives of openais.conf."""
    served = [rule for rule in SECTIONS if rule.path and rule.treatment is Treatment.SERVED]
    parts = [_section(rule) for rule in served]
    return "\n".join([*parts, _ignored()])


def _section(rule: SectionRule) -> str:
    names = [rule.path.rpartition(".")[2], *rule.aliases]
    title = " or ".join(f"`{name} {{ }}`" for name in names)
    parent = rule.path.rpartition(".")[0]
    place = f" inside `{parent}`" if parent else ""
    often = ", may stand several times" if rule.multiple else ""
    lines = [f"### {title}{place}{often}", "", rule.meaning, ""]
    rows = [_row(d) for d in rule.directives if d.treatment is Treatment.SERVED]
    if rows:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(directive: Directive) -> str:
    assert directive.kind is not None
    key = f"`{directive.key}`"
    if directive.aliases:
        key += f" (also {', '.join(f'`{alias}`' for alias in directive.aliases)})"
    if directive.mandatory:
        default = "**mandatory**"
    else:
        default = f"`{directive.default}`" if directive.default else directive.otherwise or "none"
    return f"| {key} | {directive.kind.label} | {default} | {directive.meaning} |"


def _ignored() -> str:
    lines = ["### Accepted, with a warning, without effect", ""]
    for treatment, title in (
        (Treatment.LATER, "Not supported yet"),
        (Treatment.FOREIGN, "Of the predecessors, without meaning here"),
    ):
        names = [f"`{rule.path} {{ }}`" for rule in SECTIONS if rule.treatment is treatment]
        for rule in SECTIONS:
            prefix = f"{rule.path}." if rule.path else ""
            names += [f"`{prefix}{d.key}`" for d in rule.directives if d.treatment is treatment]
        lines += [f"{title}: {', '.join(names)}.", ""]
    taken = [
        f"`{rule.path}.{d.key}` as `{d.meaning}`"
        for rule in SECTIONS
        for d in rule.directives
        if d.treatment is Treatment.TRANSLATED
    ]
    lines += [f"Of the predecessors, taken up with a warning: {', '.join(taken)}.", ""]
    refused = [
        f"`{rule.path}.{d.key}` ({d.meaning})"
        for rule in SECTIONS
        for d in rule.directives
        if d.treatment is Treatment.REFUSED
    ]
    refused += [
        f"`{rule.path} {{ }}` ({rule.meaning})"
        for rule in SECTIONS
        if rule.treatment is Treatment.REFUSED
    ]
    return "\n".join([*lines, f"Refused: {', '.join(refused)}.", ""])


def presets() -> str:
    """Return what each preset sets."""
    rows = [
        f"| `{name}` | `{path}.{key}` | `{value}` |"
        for name, paths in PRESETS.items()
        for path, values in paths.items()
        for key, value in values.items()
    ]
    return "\n".join(["| preset | sets | to |", "|---|---|---|", *rows, ""])


GENERATORS: Final[dict[str, Callable[[], str]]] = {
    "directives": directives,
    "presets": presets,
}


def rendered(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{GENERATORS[part['name']]()}\n{part[3]}", text)


def outdated() -> list[Path]:
    """Return the pages whose generated parts are not current."""
    pages = sorted(DOCS.glob("*.md"))
    return [page for page in pages if rendered(page.read_text()) != page.read_text()]


def main() -> int:
    """Write the pages that are not current, or name them."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if not current")
    check = parser.parse_args().check
    pages = outdated()
    for page in pages:
        if check:
            sys.stderr.write(f"{page}: not current, run docs/generate.py\n")
        else:
            page.write_text(rendered(page.read_text()))
    return 1 if check and pages else 0


if __name__ == "__main__":
    sys.exit(main())
