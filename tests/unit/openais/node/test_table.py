"""The table of directives itself."""

from __future__ import annotations

import pytest

from openais.node.directives import SECTIONS
from openais.node.rules import SectionRule, Treatment


@pytest.mark.parametrize("rule", SECTIONS, ids=lambda rule: rule.path or "top")
def test_names_of_a_section_are_unique_with_their_aliases(rule: SectionRule) -> None:
    names = [name for d in rule.directives for name in (d.key, *d.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", SECTIONS, ids=lambda rule: rule.path or "top")
def test_what_is_served_has_a_type_a_meaning_and_says_what_happens_without_it(
    rule: SectionRule,
) -> None:
    for directive in rule.directives:
        if directive.treatment is not Treatment.SERVED:
            continue
        assert directive.kind is not None, directive.key
        assert directive.meaning, directive.key
        if directive.default:
            directive.kind.convert(directive.default)  # raises when the table is wrong


def test_sections_are_named_once_and_after_those_around_them() -> None:
    seen: set[str] = set()
    for rule in SECTIONS:
        assert rule.path not in seen
        parent = rule.path.rpartition(".")[0]
        assert parent in seen or not parent
        seen.add(rule.path)
