"""What a section and a directive of openais.conf are: the shape of the table. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from openais.node.values import Kind

U32_MAX: Final = 0xFFFF_FFFF
NODE_ID_MAX: Final = U32_MAX - 1  # the largest value stands for "the local node" in the CLM API
DAY_MS: Final = 86_400_000
TIMEOUT_MIN_MS: Final = 30
HOLD_MIN_MS: Final = 14
RINGS_MAX: Final = 8


class Treatment(Enum):
    """What happens to a directive or section that is written in the file."""

    SERVED = "served"
    LATER = "is not supported yet and ignored"  # ours, in a later release
    FOREIGN = "is not supported and ignored"  # means something to a predecessor only
    TRANSLATED = "is a predecessor's name; what it says is taken as"  # `meaning` says as what
    REFUSED = "refused"  # ignoring it would be dangerous


@dataclass(frozen=True, slots=True)
class Directive:
    """One key of a section.

    ``default`` is written as in the file and goes through ``kind``; "" means that there is none
    and ``otherwise`` says what happens then. ``meaning`` holds the reason where it is refused.
    ``harmless`` are values of an ignored directive that need no warning. ``note`` is a warning
    that who writes the directive gets.
    """

    key: str
    kind: Kind | None
    default: str = ""
    meaning: str = ""
    otherwise: str = ""
    aliases: tuple[str, ...] = ()
    mandatory: bool = False
    treatment: Treatment = Treatment.SERVED
    harmless: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class SectionRule:
    """One section; ``path`` is its name with those around it, joined by dots."""

    path: str
    meaning: str
    directives: tuple[Directive, ...] = ()
    aliases: tuple[str, ...] = ()
    multiple: bool = False
    treatment: Treatment = Treatment.SERVED


def later(*keys: str) -> tuple[Directive, ...]:
    """Return directives that a later release will serve."""
    return tuple(Directive(key, None, treatment=Treatment.LATER) for key in keys)


def foreign(*keys: str) -> tuple[Directive, ...]:
    """Return directives that mean something to a predecessor only."""
    return tuple(Directive(key, None, treatment=Treatment.FOREIGN) for key in keys)
