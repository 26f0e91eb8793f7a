"""Sessions that go back in time are found."""

from __future__ import annotations

from tests.history.monotonic import Seen, check


def test_a_session_may_see_old_values_but_none_older_than_it_has_seen() -> None:
    assert check([Seen("a", b"r", None), Seen("a", b"r", b"1"), Seen("a", b"r", b"2")]) == []
    assert "after b'2'" in check([Seen("a", b"r", b"2"), Seen("a", b"r", b"1")])[0]


def test_a_value_that_vanishes_is_found() -> None:
    assert "None" in check([Seen("a", b"r", b"1"), Seen("a", b"r", None)])[0]


def test_sessions_and_registers_are_judged_apart() -> None:
    assert check([Seen("a", b"r", b"2"), Seen("b", b"r", b"1"), Seen("a", b"s", b"1")]) == []
