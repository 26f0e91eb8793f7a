"""The types of configuration values: text as written to a value, or the rule it breaks. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

Value: TypeAlias = int | bool | str | Path | tuple[Path, ...] | tuple[int, ...]

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}\Z", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h)\Z", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,15})([KMG])\Z", re.ASCII)
_OCTAL: Final = re.compile(r"[0-7]{1,5}\Z", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.\-]{0,252}[A-Za-z0-9])?\Z", re.ASCII)

_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_UNIT_BYTES: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_BOOLEANS: Final = {
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "true": True,
    "false": False,
    "1": True,
    "0": False,
    "enabled": True,
    "disabled": False,
}
_LIST_MAX: Final = 16  # words of a list
_DSCP_MAX: Final = 63
_DSCP_NAMES: Final = {
    "ef": 46,
    **{f"cs{level}": 8 * level for level in range(8)},
    **{f"af{level}{drop}": 8 * level + 2 * drop for level in range(1, 5) for drop in range(1, 4)},
}
_NICE_MIN: Final = -20
_NICE_MAX: Final = 19


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shown_octal(value: Value) -> str:
    return f"{value:04o}"


def _hidden(_: Value) -> str:
    return "(hidden)"


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value.

    ``label`` is how the reference page names it. ``convert`` raises ValueError, whose text says
    what was expected and what was found. ``synonyms`` are words of predecessors and what each is
    taken as. ``show`` writes a value as it can stand in the file.
    """

    label: str
    convert: Callable[[str], Value]
    synonyms: tuple[tuple[str, str], ...] = ()
    show: Callable[[Value], str] = _shown


def _expected(rule: str, text: str) -> ValueError:
    return ValueError(f'expected {rule}, got "{text}"')


def _between(value: int | None, minimum: int, maximum: int, text: str) -> int:
    if value is None or not minimum <= value <= maximum:
        raise _expected(f"integer {minimum}..{maximum}", text)
    return value


def _whole(text: str) -> int | None:
    return int(text) if _INTEGER.match(text) else None


def integer(minimum: int, maximum: int) -> Kind:
    """Decimal digits with an optional sign."""
    return Kind(
        f"integer {minimum}..{maximum}",
        lambda text: _between(_whole(text), minimum, maximum, text),
    )


def milliseconds(minimum: int, maximum: int) -> Kind:
    """Return the type of durations: in milliseconds, or with suffix ``ms``, ``s``, ``m``, ``h``."""

    def convert(text: str) -> int:
        value = _whole(text)
        suffixed = _DURATION.match(text)
        if suffixed:
            exact = Decimal(suffixed[1]) * _UNIT_MS[suffixed[2]]
            value = int(exact) if exact == int(exact) else None
        return _between(value, minimum, maximum, text)

    return Kind(f"milliseconds {minimum}..{maximum}", convert)


def size(minimum: int, maximum: int) -> Kind:
    """Return the type of sizes: bytes, or with suffix K, M, G (powers of 1024)."""

    def convert(text: str) -> int:
        value = _whole(text)
        suffixed = _SIZE.match(text)
        if suffixed:
            value = int(suffixed[1]) * _UNIT_BYTES[suffixed[2]]
        return _between(value, minimum, maximum, text)

    return Kind(f"bytes {minimum}..{maximum}", convert)


def octal(maximum: int) -> Kind:
    """Return the type of file modes."""
    label = f"octal 0..{maximum:o}"

    def convert(text: str) -> int:
        if not _OCTAL.match(text) or int(text, 8) > maximum:
            raise _expected(label, text)
        return int(text, 8)

    return Kind(label, convert, show=_shown_octal)


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise _expected(f"one of {', '.join(_BOOLEANS)}", text)
    return _BOOLEANS[text]


BOOLEAN: Final = Kind("yes or no", _boolean)


def choice(*words: str, synonyms: tuple[tuple[str, str], ...] = ()) -> Kind:
    """One of a few words; a synonym is a predecessor's word and what it means here."""

    def convert(text: str) -> str:
        meant = dict(synonyms).get(text, text)
        if meant not in words:
            raise _expected(f"one of {', '.join(words)}", text)
        return meant

    return Kind(" or ".join((", ".join(words[:-1]), words[-1])), convert, synonyms)


def words_of(separator: str, *words: str) -> Kind:
    """One or more of a few words, joined by a separator."""
    label = f"{', '.join(words)}, joined by {separator}"

    def convert(text: str) -> str:
        if not {word.strip() for word in text.split(separator)} <= set(words):
            raise _expected(label, text)
        return text

    return Kind(label.replace("|", "\\|"), convert)


def text_of(minimum: int, maximum: int) -> Kind:
    """Free text of a length in bytes of UTF-8."""
    label = f"text of {minimum}..{maximum} bytes"

    def convert(text: str) -> str:
        if not minimum <= len(text.encode()) <= maximum:
            raise _expected(label, text)
        return text

    return Kind(label, convert)


def secret(minimum: int, maximum: int) -> Kind:
    """Free text that no error repeats, of a length in bytes of UTF-8."""
    label = f"text of {minimum}..{maximum} bytes"

    def convert(text: str) -> str:
        if not minimum <= len(text.encode()) <= maximum:
            raise ValueError(f"expected {label}")
        return text

    return Kind(label, convert, show=_hidden)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f'"{text}" is not an IPv4 or IPv6 address') from None


def _address_or_host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if _HOST.match(text) and not text.replace(".", "").isdigit():
            return text
    raise ValueError(f'"{text}" is neither an IPv4 or IPv6 address nor a host name')


def _absolute_path(text: str) -> Path:
    if not text.startswith("/"):
        raise _expected("an absolute path", text)
    return Path(text)


def _paths(text: str) -> tuple[Path, ...]:
    words = text.replace(",", " ").split()
    if not 1 <= len(words) <= _LIST_MAX or not all(word.startswith("/") for word in words):
        raise _expected(f"1..{_LIST_MAX} absolute paths", text)
    return tuple(map(Path, words))


def node_ids(maximum: int) -> Kind:
    """Return the type of lists of node ids, or one of the words ``lowest`` and ``highest``."""
    label = f"lowest, highest or list of 1..{_LIST_MAX} integers 1..{maximum}"

    def convert(text: str) -> Value:
        if text in ("lowest", "highest"):
            return text
        ids = [_whole(word) for word in text.replace(",", " ").split()]
        known = tuple(value for value in ids if value is not None and 1 <= value <= maximum)
        if not 1 <= len(known) <= _LIST_MAX or len(known) != len(ids):
            raise _expected(label, text)
        return known

    return Kind(label, convert)


def _dscp(text: str) -> int:
    value = _DSCP_NAMES.get(text, _whole(text))
    if value is None or not 0 <= value <= _DSCP_MAX:
        raise _expected(f"integer 0..{_DSCP_MAX}, cs0..cs7, af11..af43 or ef", text)
    return value


def _priority(text: str) -> str:
    if text in ("max", "min"):
        return text
    value = _whole(text)
    if value is None or not _NICE_MIN <= value <= _NICE_MAX:
        raise _expected(f"integer {_NICE_MIN}..{_NICE_MAX}, max or min", text)
    return str(value)


ADDRESS: Final = Kind("address", _address)  # kept in canonical form
ADDRESS_OR_HOST: Final = Kind("address or host name", _address_or_host)
ABSOLUTE_PATH: Final = Kind("absolute path", _absolute_path)
ABSOLUTE_PATHS: Final = Kind(f"list of 1..{_LIST_MAX} absolute paths", _paths)
DSCP: Final = Kind(f"integer 0..{_DSCP_MAX}, cs0..cs7, af11..af43 or ef", _dscp)
PRIORITY: Final = Kind(f"integer {_NICE_MIN}..{_NICE_MAX}, max or min", _priority)
