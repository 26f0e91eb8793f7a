"""Binds a tree to the table of directives: names checked, values typed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from openais.node.directives import SECTIONS
from openais.node.rules import Directive, SectionRule, Treatment
from openais.node.tree import Directive as Written
from openais.node.tree import Problems, Section, nearest, place
from openais.node.values import Value

RULES: Final = {rule.path: rule for rule in SECTIONS}
DEFAULT: Final = "default"  # origins of values that nobody wrote
DERIVED: Final = "derived"


def _names(rule: SectionRule) -> dict[str, Directive]:
    return {
        name: directive
        for directive in rule.directives
        for name in (directive.key, *directive.aliases)
    }


_DIRECTIVES: Final = {rule.path: _names(rule) for rule in SECTIONS}


@dataclass(slots=True)
class BoundSection:
    """One section with typed values; what nobody wrote has its default.

    ``source`` is 0 for a section that nobody wrote.
    """

    rule: SectionRule
    origin: str
    source: int = 0
    values: dict[str, Value] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # of every key that has a say
    written: dict[str, int] = field(default_factory=dict)  # key -> source, valid or not
    sections: list[BoundSection] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """True: there is a valid value besides the table's default."""
        return key in self.values

    def given(self, key: str) -> bool:
        """True: a source has written a valid value."""
        return key in self.values and key in self.written

    def fill(self, key: str, value: Value, origin: str) -> None:
        """Set a value that nobody has set before."""
        if key not in self.values:
            self.values[key] = value
            self.origins[key] = origin

    def origin_of(self, key: str) -> str:
        """Return where a key was written, or the section where nobody wrote it."""
        return self.origins[key] if key in self.written else self.origin

    def all(self, path: str) -> list[BoundSection]:
        """Return the sections of a path right inside this one."""
        return [section for section in self.sections if section.rule.path == path]

    def one(self, path: str) -> BoundSection:
        """Return the section of a path; an empty one is added where nobody wrote it."""
        found = self.all(path)
        if not found:
            found = [BoundSection(RULES[path], self.origin)]
            self.sections += found
        return found[0]

    def integer(self, key: str) -> int:
        """Return a whole number."""
        value = self.value(key)
        assert type(value) is int, f"{self.rule.path}.{key} has no integer"
        return value

    def boolean(self, key: str) -> bool:
        """Return a truth value."""
        value = self.value(key)
        assert isinstance(value, bool), f"{self.rule.path}.{key} has no boolean"
        return value

    def text(self, key: str) -> str:
        """Return a text."""
        value = self.value(key)
        assert isinstance(value, str), f"{self.rule.path}.{key} has no text"
        return value

    def path(self, key: str) -> Path:
        """Return a path."""
        value = self.value(key)
        assert isinstance(value, Path), f"{self.rule.path}.{key} has no path"
        return value

    def paths(self, key: str) -> tuple[Path, ...]:
        """Return a list of paths, empty where there is none."""
        value = self.values.get(key, ())
        assert isinstance(value, tuple), f"{self.rule.path}.{key} is no list"
        return tuple(path for path in value if isinstance(path, Path))

    def node_ids(self, key: str) -> str | tuple[int, ...]:
        """Return a list of node ids, or the word in its place."""
        value = self.value(key)
        if isinstance(value, tuple):
            return tuple(number for number in value if isinstance(number, int))
        return self.text(key)

    def optional_integer(self, key: str) -> int | None:
        """Return a whole number, None where there is none."""
        return self.integer(key) if self.has(key) else None

    def optional_boolean(self, key: str) -> bool | None:
        """Return a truth value, None where there is none."""
        return self.boolean(key) if self.has(key) else None

    def optional_text(self, key: str) -> str | None:
        """Return a text, None where there is none."""
        return self.text(key) if self.has(key) else None

    def optional_path(self, key: str) -> Path | None:
        """Return a path, None where there is none."""
        return self.path(key) if self.has(key) else None

    def value(self, key: str) -> Value:
        """Return a value of any type, the table's default where nothing else was set."""
        if key in self.values:
            return self.values[key]
        directive = _DIRECTIVES[self.rule.path][key]
        assert directive.kind is not None, f"{self.rule.path}.{key} is not served"
        assert directive.default, f"{self.rule.path}.{key} has no default"
        return directive.kind.convert(directive.default)


def bind(root: Section, problems: Problems, *, lenient: bool) -> BoundSection:
    """Check every name and value of a tree against the table.

    Raises:
        TooManyProblemsError: see `Problems.error`.
    """
    binder = _Binder(problems, lenient=lenient)
    bound = BoundSection(RULES[""], root.origin, root.source)
    binder.fill(root, bound)
    binder.check_complete(bound)
    return bound


class _Binder:
    def __init__(self, problems: Problems, *, lenient: bool) -> None:
        self._problems = problems
        self._lenient = lenient

    def fill(self, written: Section, bound: BoundSection) -> None:
        latest: dict[str, int] = {}
        names = _DIRECTIVES[bound.rule.path]
        for directive in written.directives:
            key = names[directive.key].key if directive.key in names else directive.key
            latest[key] = max(latest.get(key, 0), directive.source)
        for directive in written.directives:
            key = names[directive.key].key if directive.key in names else directive.key
            if directive.source == latest[key]:
                self._directive(directive, bound)
        for section in written.sections:
            self._subsection(section, bound)

    def check_complete(self, bound: BoundSection) -> None:
        for directive in bound.rule.directives:
            if directive.mandatory and directive.key not in bound.written:
                self._problems.error(bound.origin, f"{bound.rule.path}.{directive.key} is missing")
        for section in bound.sections:
            self.check_complete(section)

    def _subsection(self, written: Section, parent: BoundSection) -> None:
        rule = _section_rule(parent.rule.path, written.name)
        if rule is None:
            self._unknown(written.origin, parent.rule, written.name, _section_names(parent.rule))
            return
        if rule.treatment is Treatment.REFUSED:
            self._problems.error(written.origin, f"{rule.path}: {rule.meaning}")
            return
        if rule.treatment is not Treatment.SERVED:
            self._problems.warning(written.origin, f"{rule.path} {rule.treatment.value}")
            return
        before = None if rule.multiple else next(iter(parent.all(rule.path)), None)
        if before is not None and before.source == written.source:
            self._problems.error(
                written.origin, f"section {rule.path} already opened at {place(before.origin)}"
            )
            return
        if before is None:
            before = BoundSection(rule, written.origin, written.source)
            parent.sections.append(before)
        before.source = written.source
        self.fill(written, before)

    def _directive(self, written: Written, bound: BoundSection) -> None:
        rule = bound.rule
        directive = _DIRECTIVES[rule.path].get(written.key)
        if directive is None:
            self._unknown(written.origin, rule, written.key, sorted(_DIRECTIVES[rule.path]))
            return
        name = _join(rule.path, directive.key)
        if bound.written.get(directive.key) == written.source:
            before = place(bound.origins[directive.key])
            self._problems.error(written.origin, f"{name} already set at {before}")
            return
        bound.written[directive.key] = written.source
        bound.origins[directive.key] = written.origin
        bound.values.pop(directive.key, None)
        self._value(written, directive, name, bound)

    def _value(
        self, written: Written, directive: Directive, name: str, bound: BoundSection
    ) -> None:
        if directive.treatment is Treatment.REFUSED:
            self._problems.error(written.origin, f"{name}: {directive.meaning}")
            return
        self._warn(written, directive, name)
        if directive.kind is None:
            return
        try:
            bound.values[directive.key] = directive.kind.convert(written.value)
        except ValueError as error:
            self._problems.error(written.origin, f"{name}: {error}")

    def _warn(self, written: Written, directive: Directive, name: str) -> None:
        treatment = directive.treatment
        if directive.note:
            reason = f"{name}: {directive.note}"
        elif treatment is Treatment.TRANSLATED:
            reason = f"{name} {treatment.value} {directive.meaning}"
        elif treatment is not Treatment.SERVED and written.value not in directive.harmless:
            reason = f"{name} {treatment.value}"
        else:
            meant = dict(directive.kind.synonyms if directive.kind is not None else ())
            if written.value not in meant:
                return
            reason = f'{name}: "{written.value}" is taken as {meant[written.value]}'
        self._problems.warning(written.origin, reason)

    def _unknown(self, origin: str, rule: SectionRule, name: str, known: list[str]) -> None:
        suggestion = nearest(name, known)
        reason = f"unknown directive {_join(rule.path, name)}"
        if suggestion is not None:
            reason += f", did you mean {suggestion}?"
        if self._lenient:
            self._problems.warning(origin, reason)
        else:
            self._problems.error(origin, reason)


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
