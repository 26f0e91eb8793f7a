"""Requests that were applied twice, or not at all, are found."""

from __future__ import annotations

from tests.history.once import Added, Result, check

DONE = Added(b"done", Result.ACKNOWLEDGED)
MAYBE = Added(b"maybe", Result.UNKNOWN)
NEVER = Added(b"never", Result.REFUSED)
ALL = (DONE, MAYBE, NEVER)


def test_an_acknowledged_request_is_there_once_and_an_unknown_one_may_be() -> None:
    assert check(ALL, [b"done"]) == []
    assert check(ALL, [b"maybe", b"done"]) == []


def test_a_request_that_was_applied_twice_is_found() -> None:
    assert "applied 2 times" in check(ALL, [b"done", b"done"])[0]
    assert "applied 3 times" in check(ALL, [b"done", *[b"maybe"] * 3])[0]


def test_an_acknowledged_request_that_is_lost_is_found() -> None:
    assert "lost" in check(ALL, [b"maybe"])[0]


def test_what_one_side_of_a_partition_acknowledged_may_be_lost_but_not_doubled() -> None:
    assert check(ALL, [], all_kept=False) == []
    assert "applied 2 times" in check(ALL, [b"done", b"done"], all_kept=False)[0]


def test_a_request_that_was_refused_and_is_there_is_found() -> None:
    assert "refused" in check(ALL, [b"done", b"never"])[0]


def test_an_entry_of_nobody_is_found() -> None:
    assert "never written" in check(ALL, [b"done", b"strange"])[0]
