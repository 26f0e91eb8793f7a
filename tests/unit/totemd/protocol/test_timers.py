"""Deadlines by name, and delays that repeat."""

from __future__ import annotations

from totemd.protocol.timers import Jitter, Timer, Timers


def test_the_earliest_timer_is_the_deadline_and_comes_first() -> None:
    timers = Timers()
    assert timers.deadline_ns() is None
    timers.set(Timer.JOIN, 20)
    timers.set(Timer.MERGE, 10)
    assert timers.deadline_ns() == 10
    assert timers.pop_due(9) is None
    assert timers.pop_due(25) is Timer.MERGE
    assert timers.pop_due(25) is Timer.JOIN
    assert timers.pop_due(25) is None


def test_of_two_that_are_due_at_one_time_the_first_in_the_list_comes_first() -> None:
    timers = Timers()
    timers.set(Timer.TOKEN_LOSS, 10)
    timers.set(Timer.JOIN, 10)
    assert timers.pop_due(10) is Timer.JOIN


def test_setting_a_timer_again_replaces_its_deadline() -> None:
    timers = Timers()
    timers.set(Timer.JOIN, 20)
    timers.set(Timer.JOIN, 30)
    assert timers.deadline_ns() == 30


def test_a_cancelled_timer_never_comes() -> None:
    timers = Timers()
    timers.set(Timer.JOIN, 20)
    timers.set(Timer.LEAVE, 30)
    timers.cancel_all(keep=(Timer.LEAVE,))
    assert not timers.armed(Timer.JOIN)
    assert timers.deadline_ns() == 30


def test_only_armed_timers_can_be_postponed() -> None:
    timers = Timers()
    timers.set(Timer.JOIN, 20)
    timers.postpone(5, Timer.JOIN, Timer.LEAVE)
    assert timers.deadline_ns() == 25
    assert not timers.armed(Timer.LEAVE)


def test_delays_stay_below_their_bound_and_repeat_with_the_seed() -> None:
    def some(seed: int) -> list[int]:
        jitter = Jitter(seed)
        return [jitter.below(1_000) for _ in range(200)]

    assert some(1) == some(1) != some(2)
    assert 0 <= min(some(1)) < 50
    assert 950 < max(some(1)) < 1_000
