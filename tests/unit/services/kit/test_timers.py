"""Timers in a machine's state, and ids."""

from __future__ import annotations

import random

from services.kit.identifiers import Identifiers
from services.kit.machine import NodeId
from services.kit.timers import DUE_MAX, Timers


def test_a_timer_that_was_set_anew_is_not_over_at_its_old_time() -> None:
    timers = Timers()
    timers.set(b"a", 10)
    timers.set(b"a", 30)
    assert timers.deadline_ns() == 30
    assert timers.due(20) == []
    assert not timers.over(b"a", 20)
    assert timers.due(30) == [b"a"]
    assert timers.over(b"a", 30)
    assert not timers.over(b"a", 30), "an operation that was proposed twice does it once"
    assert timers.deadline_ns() is None


def test_timers_are_due_in_order_and_so_many_at_a_time() -> None:
    timers = Timers()
    order = list(range(2 * DUE_MAX))
    random.Random(1).shuffle(order)
    for at_ns in order:
        timers.set(b"%5d" % at_ns, at_ns)
    assert timers.due(10**9) == [b"%5d" % at_ns for at_ns in range(DUE_MAX)]


def test_timers_that_are_moved_often_do_not_pile_up() -> None:
    timers = Timers()
    for at_ns in range(10_000):
        timers.set(b"a", at_ns)
    assert len(timers._heap) < 100
    assert timers.deadline_ns() == 9_999


def test_timers_of_a_snapshot_are_the_same() -> None:
    timers, copy = Timers(), Timers()
    timers.set(b"b", 2)
    timers.set(b"a", 1)
    timers.cancel(b"b")
    copy.restore((bytes(k), int(v)) for k, v in timers.values())
    assert copy.values() == timers.values() == [[b"a", 1]]
    assert copy.deadline_ns() == 1


def test_ids_are_unique_also_after_sides_meet() -> None:
    one, other = Identifiers(), Identifiers()
    first = one.take(NodeId(1))
    other.restore((n, c) for n, c in one.values())
    given = {first, *(one.take(NodeId(1)) for _ in range(5))}
    given |= {other.take(NodeId(2)) for _ in range(5)}
    one.join((n, c) for n, c in other.values())
    other.join((n, c) for n, c in one.values())
    given |= {one.take(NodeId(1)), one.take(NodeId(2))}
    assert len(given) == 13
    assert min(given) > 1000
