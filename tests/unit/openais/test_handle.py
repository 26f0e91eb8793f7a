"""The queue of callbacks that wait for a dispatch, and its descriptor."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from openais.handle import CallbackQueue


@pytest.fixture
def queue() -> Iterator[CallbackQueue]:
    made = CallbackQueue("test")
    yield made
    made.close()


def readable(queue: CallbackQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def test_the_descriptor_is_readable_while_something_waits(queue: CallbackQueue) -> None:
    ran: list[int] = []
    assert not readable(queue)
    queue.push_all(ran.append, [1, 2])
    assert readable(queue)
    assert queue.dispatch() == 2
    assert ran == [1, 2]
    assert not readable(queue)


def test_a_nudge_outlives_the_dispatch_of_what_waits(queue: CallbackQueue) -> None:
    queue.push_all(lambda _item: None, [1])
    queue.nudge()
    queue.dispatch()
    assert readable(queue)
    queue.quiet()
    assert not readable(queue)


def test_a_nudge_is_not_taken_back_while_something_waits(queue: CallbackQueue) -> None:
    queue.push_all(lambda _item: None, [1])
    queue.nudge()
    queue.quiet()
    assert readable(queue)
