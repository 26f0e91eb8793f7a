"""How long nodes that come and go are not merged with."""

from __future__ import annotations

from totemd.protocol.damping import HoldOffs

UNIT = 100


def excluded(*times: int, limit: int = 1_000) -> HoldOffs:
    hold_offs = HoldOffs(UNIT, limit)
    for at in times:
        hold_offs.exclude({2}, at)
    return hold_offs


def until(hold_offs: HoldOffs, now: int) -> int:
    """Return for how long the node is held off."""
    return next(wait for wait in range(10_000) if not hold_offs.damped(2, now + wait))


def test_one_exclusion_is_no_flapping() -> None:
    assert until(excluded(10), 10) == 0


def test_each_further_exclusion_doubles_the_hold_off_up_to_the_limit() -> None:
    assert until(excluded(10, 20), 20) == UNIT
    assert until(excluded(10, 20, 200), 200) == 2 * UNIT
    assert until(excluded(10, 20, 200, 500), 500) == 4 * UNIT
    assert until(excluded(10, 20, 200, 500, 1_000, limit=500), 1_000) == 500


def test_an_exclusion_long_after_the_last_begins_anew() -> None:
    assert until(excluded(10, 20, 20 + UNIT + 10 * UNIT), 1_120) == 2 * UNIT
    assert until(excluded(10, 20, 20 + UNIT + 10 * UNIT + 1), 1_121) == 0


def test_without_a_limit_nobody_is_held_off() -> None:
    assert until(excluded(10, 20, 30, limit=0), 30) == 0


def test_a_link_ends_the_hold_offs_of_those_that_were_excluded_together() -> None:
    hold_offs = HoldOffs(UNIT, 1_000)
    for at in (10, 20):
        hold_offs.exclude({2, 3}, at)
    hold_offs.link_up(4)
    assert hold_offs.damped(2, 20)
    hold_offs.link_up(3)
    assert not hold_offs.damped(2, 20)
    assert not hold_offs.damped(3, 20)


def test_a_ring_that_excludes_nobody_changes_nothing() -> None:
    hold_offs = excluded(10, 20)
    hold_offs.exclude(set(), 30)
    assert hold_offs.damped(2, 30)
    hold_offs.link_up(2)
    assert not hold_offs.damped(2, 30)


def test_who_is_held_off_can_be_told_and_forgotten() -> None:
    hold_offs = excluded(10, 20)
    hold_offs.exclude({3}, 20)
    assert hold_offs.held(20) == (2,)
    assert hold_offs.held(20 + UNIT) == ()
    hold_offs.clear_all()
    assert hold_offs.held(20) == ()
