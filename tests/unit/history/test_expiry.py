"""Things that expire early or late are found."""

from __future__ import annotations

from tests.history.expiry import Deed, Step, check

MS = 1_000_000
LATE_NS = 10 * MS


def made(deadline_ms: int, *, there: bool | None = True, at_ms: int = 0) -> Step:
    return Step(b"x", Deed.SET, at_ms * MS, at_ms * MS + 1, deadline_ms * MS, there)


def look(at_ms: int, *, there: bool | None) -> Step:
    return Step(b"x", Deed.LOOK, at_ms * MS, at_ms * MS + 1, 0, there)


def test_a_thing_is_there_before_its_time_and_gone_soon_after() -> None:
    steps = [made(100), look(50, there=True), look(105, there=True), look(120, there=False)]
    assert check(steps, LATE_NS) == []


def test_a_thing_that_is_gone_early_is_found() -> None:
    assert "early" in check([made(100), look(50, there=False)], LATE_NS)[0]


def test_a_thing_that_is_there_late_is_found_unless_something_was_wrong_meanwhile() -> None:
    steps = [made(100), look(150, there=True)]
    assert "late" in check(steps, LATE_NS)[0]
    assert check(steps, LATE_NS, [(90 * MS, 145 * MS)]) == []
    assert "late" in check(steps, LATE_NS, [(0, 80 * MS)])[0]


def test_an_expiration_that_was_moved_does_not_count_any_more() -> None:
    steps = [made(100), made(200, at_ms=50), look(150, there=False)]
    assert "early" in check(steps, LATE_NS)[0]


def test_where_a_move_is_of_unknown_outcome_both_expirations_are_possible() -> None:
    moved = made(200, there=None, at_ms=50)
    assert check([made(100), moved, look(150, there=False)], LATE_NS) == []
    assert check([made(100), moved, look(150, there=True)], LATE_NS) == []
    assert "late" in check([made(100), moved, look(250, there=True)], LATE_NS)[0]
