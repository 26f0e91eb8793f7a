"""Binds a parsed file to the table of directives: names checked, values typed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from openais.node.directives import SECTIONS, Directive, SectionRule, Treatment
from openais.node.syntax import Directive as Written
from openais.node.syntax import Problems, Section, nearest
from openais.node.values import Value

RULES: Final = {rule.path: rule for rule in SECTIONS}


def _names(rule: SectionRule) -> dict[str, Directive]:
    return {
        name: directive
        for directive in rule.directives
        for name in (directive.key, *directive.aliases)
    }


_DIRECTIVES: Final = {rule.path: _names(rule) for rule in SECTIONS}


@dataclass(slots=True)
class BoundSection:
    """One section with typed values; what the file leaves out has its default."""

    rule: SectionRule
    line: int
    values: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # of every key that was written
    sections: list[BoundSection] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """True: the file says something valid for this key."""
        return key in self.values

    def line_of(self, key: str) -> int:
        """Return the line of a key, or the section's where it is left out."""
        return self.lines.get(key, self.line)

    def all(self, path: str) -> list[BoundSection]:
        """Return the sections of a path right inside this one."""
        return [section for section in self.sections if section.rule.path == path]

    def one(self, path: str) -> BoundSection:
        """Return the section of a path, or an empty one with this one's line."""
        found = self.all(path)
        return found[0] if found else BoundSection(RULES[path], self.line)

    def integer(self, key: str) -> int:
        """Return a whole number."""
        value = self._value(key)
        assert type(value) is int, f"{self.rule.path}.{key} has no integer"
        return value

    def boolean(self, key: str) -> bool:
        """Return a truth value."""
        value = self._value(key)
        assert isinstance(value, bool), f"{self.rule.path}.{key} has no boolean"
        return value

    def text(self, key: str) -> str:
        """Return a text."""
        value = self._value(key)
        assert isinstance(value, str), f"{self.rule.path}.{key} has no text"
        return value

    def optional_integer(self, key: str) -> int | None:
        """Return a whole number, None where the file has none."""
        return self.integer(key) if self.has(key) else None

    def optional_text(self, key: str) -> str | None:
        """Return a text, None where the file has none."""
        return self.text(key) if self.has(key) else None

    def optional_path(self, key: str) -> Path | None:
        """Return a path, None where the file has none."""
        value = self.values.get(key)
        assert value is None or isinstance(value, Path), f"{self.rule.path}.{key} is no path"
        return value

    def _value(self, key: str) -> Value:
        if key in self.values:
            return self.values[key]
        directive = _DIRECTIVES[self.rule.path][key]
        assert directive.kind is not None, f"{self.rule.path}.{key} is not served"
        return directive.kind.convert(directive.default)


def bind(root: Section, problems: Problems, *, lenient: bool) -> BoundSection:
    """Check every name and value of a tree against the table.

    Raises:
        TooManyProblemsError: see `Problems.error`.
    """
    return _Binder(problems, lenient=lenient).section(root, RULES[""])


class _Binder:
    def __init__(self, problems: Problems, *, lenient: bool) -> None:
        self._problems = problems
        self._lenient = lenient

    def section(self, written: Section, rule: SectionRule) -> BoundSection:
        bound = BoundSection(rule, written.line)
        for directive in written.directives:
            self._directive(directive, bound)
        for key in (d.key for d in rule.directives if d.mandatory and d.key not in bound.lines):
            self._problems.error(written.line, f"{rule.path}.{key} is missing")
        opened: dict[str, int] = {}
        for section in written.sections:
            self._subsection(section, bound, opened)
        return bound

    def _subsection(self, written: Section, parent: BoundSection, opened: dict[str, int]) -> None:
        rule = _section_rule(parent.rule.path, written.name)
        if rule is None:
            self._unknown(written.line, parent.rule, written.name, _section_names(parent.rule))
            return
        if rule.treatment is not Treatment.SERVED:
            self._problems.warning(written.line, f"{rule.path} {rule.treatment.value}")
            return
        if rule.path in opened and not rule.multiple:
            self._problems.error(
                written.line, f"section {rule.path} already opened at line {opened[rule.path]}"
            )
            return
        opened[rule.path] = written.line
        parent.sections.append(self.section(written, rule))

    def _directive(self, written: Written, bound: BoundSection) -> None:
        rule = bound.rule
        directive = _DIRECTIVES[rule.path].get(written.key)
        if directive is None:
            self._unknown(written.line, rule, written.key, sorted(_DIRECTIVES[rule.path]))
            return
        name = _join(rule.path, directive.key)
        if directive.key in bound.lines:
            self._problems.error(
                written.line, f"{name} already set at line {bound.lines[directive.key]}"
            )
            return
        bound.lines[directive.key] = written.line
        self._value(written, directive, name, bound)

    def _value(
        self, written: Written, directive: Directive, name: str, bound: BoundSection
    ) -> None:
        if directive.treatment is Treatment.REFUSED:
            self._problems.error(written.line, f"{name}: {directive.meaning}")
            return
        if directive.treatment is not Treatment.SERVED:
            self._problems.warning(written.line, f"{name} {directive.treatment.value}")
        if directive.kind is None:
            return
        try:
            bound.values[directive.key] = directive.kind.convert(written.value)
        except ValueError as error:
            self._problems.error(written.line, f"{name}: {error}")

    def _unknown(self, line: int, rule: SectionRule, name: str, known: list[str]) -> None:
        suggestion = nearest(name, known)
        reason = f"unknown directive {_join(rule.path, name)}"
        if suggestion is not None:
            reason += f", did you mean {suggestion}?"
        if self._lenient:
            self._problems.warning(line, reason)
        else:
            self._problems.error(line, reason)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _section_rule(parent: str, name: str) -> SectionRule | None:
    for rule in SECTIONS:
        if rule.path and rule.path.rpartition(".")[0] == parent:
            own = rule.path.rpartition(".")[2]
            if name == own or name in rule.aliases:
                return rule
    return None


def _section_names(parent: SectionRule) -> list[str]:
    return sorted(
        name
        for rule in SECTIONS
        if rule.path and rule.path.rpartition(".")[0] == parent.path
        for name in (rule.path.rpartition(".")[2], *rule.aliases)
    )
