"""Every value of a configuration with its origin, as a person reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from openais.node.binding import DEFAULT, DERIVED, BoundSection
from openais.node.config import Loaded
from openais.node.rules import Directive, Treatment


@dataclass(frozen=True, slots=True)
class Row:
    """One value.

    ``name`` is the directive's with its sections; one that stands several times has its number.
    ``origin`` is ``FILE:LINE``, ``default``, ``derived``, ``preset NAME``, ``plugin:NAME``, ...
    """

    name: str
    value: str
    origin: str
    written: bool  # by a source


def rows(loaded: Loaded) -> list[Row]:
    """Return every value that counts, section by section in the order of the table."""
    totem, interfaces = loaded.config.totem, loaded.config.interfaces
    in_effect = {"totem.token": ("with token_coefficient", str(totem.runtime_token_ms))}
    numbers = [s.integer("ringnumber") for s in loaded.root.one("totem").all("totem.interface")]
    for place, number in enumerate(numbers):
        name = f"totem.interface[{place}].bindnetaddr"
        in_effect[name] = ("of this machine", interfaces[number].bind_address)
    found = []
    for row in _section(loaded.root, ""):
        found.append(row)
        what, value = in_effect.get(row.name, ("", row.value))
        if value != row.value:
            found.append(Row(f"{row.name} {what}", value, DERIVED, written=False))
    return found


def _section(section: BoundSection, prefix: str) -> list[Row]:
    found = [
        _row(section, directive, prefix)
        for directive in section.rule.directives
        if directive.treatment is Treatment.SERVED
    ]
    numbers: dict[str, int] = {}
    for inner in section.sections:
        name = f"{prefix}{inner.rule.path.rpartition('.')[2]}"
        if inner.rule.multiple:
            number = numbers.get(name, 0)
            numbers[name] = number + 1
            name = f"{name}[{number}]"
        found += _section(inner, f"{name}.")
    return found


def _row(section: BoundSection, directive: Directive, prefix: str) -> Row:
    key, kind = directive.key, directive.kind
    assert kind is not None, f"{prefix}{key} is served, so it has a type"
    if section.has(key):
        value, origin = kind.show(section.value(key)), section.origins[key]
    elif directive.default:
        value, origin = kind.show(section.value(key)), DEFAULT
    else:
        value, origin = f"- ({directive.otherwise or 'none'})", DEFAULT
    return Row(f"{prefix}{key}", value, origin, written=section.given(key))
