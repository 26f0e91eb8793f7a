"""The types of values: what each accepts, and what it says when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from openais.node import values
from openais.node.values import Kind, Value

MS = values.milliseconds(30, 600_000)
SIZE = values.size(1, 1 << 40)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (values.integer(-5, 5), "-5", -5),
        (values.integer(0, 9), "+7", 7),
        (MS, "1500", 1500),
        (MS, "1500ms", 1500),
        (MS, "1.5s", 1500),
        (MS, "2m", 120_000),
        (SIZE, "1M", 1 << 20),
        (SIZE, "64K", 65536),
        (SIZE, "12", 12),
        (values.octal(0o777), "0660", 0o660),
        (values.BOOLEAN, "enabled", True),
        (values.BOOLEAN, "0", False),
        (values.choice("a", "b", synonyms=(("c", "a"),)), "c", "a"),
        (values.ADDRESS, "fd00:0::1", "fd00::1"),
        (values.ADDRESS_OR_HOST, "beta.example.org", "beta.example.org"),
        (values.ABSOLUTE_PATH, "/run/ais", Path("/run/ais")),
        (values.text_of(1, 3), "äx", "äx"),
        (values.PRIORITY, "max", "max"),
        (values.PRIORITY, "-20", "-20"),
    ],
)
def test_a_value_is_converted_by_its_type(kind: Kind, text: str, value: Value) -> None:
    assert kind.convert(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (MS, "10", 'expected integer 30..600000, got "10"'),
        (MS, "1000x", 'expected integer 30..600000, got "1000x"'),
        (MS, "-5", 'expected integer 30..600000, got "-5"'),
        (MS, "9" * 20, f'expected integer 30..600000, got "{"9" * 20}"'),
        (MS, "100.5ms", 'expected integer 30..600000, got "100.5ms"'),
        (MS, "1e3", 'expected integer 30..600000, got "1e3"'),
        (values.integer(0, 9), "٣", 'expected integer 0..9, got "٣"'),
        (values.integer(0, 9), "1_0", 'expected integer 0..9, got "1_0"'),
        (SIZE, "1Q", f'expected integer 1..{1 << 40}, got "1Q"'),
        (values.octal(0o777), "1777", 'expected octal 0..777, got "1777"'),
        (values.octal(0o777), "88", 'expected octal 0..777, got "88"'),
        (
            values.BOOLEAN,
            "Yes",
            'expected one of yes, no, on, off, true, false, 1, 0, enabled, disabled, got "Yes"',
        ),
        (values.choice("a", "b"), "d", 'expected one of a, b, got "d"'),
        (values.ADDRESS, "host", '"host" is not an IPv4 or IPv6 address'),
        (
            values.ADDRESS_OR_HOST,
            "300.1.1.1",
            '"300.1.1.1" is neither an IPv4 or IPv6 address nor a host name',
        ),
        (values.ABSOLUTE_PATH, "run/ais", 'expected an absolute path, got "run/ais"'),
        (values.text_of(1, 3), "äxy", 'expected text of 1..3 bytes, got "äxy"'),
        (values.PRIORITY, "20", 'expected integer -20..19, max or min, got "20"'),
    ],
)
def test_a_wrong_value_is_refused_with_the_rule_and_the_text(
    kind: Kind, text: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        kind.convert(text)
    assert str(caught.value) == reason
