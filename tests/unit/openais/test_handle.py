"""The queue of callbacks that wait for a dispatch, and its descriptor."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from openais.errors import InvalidParamError
from openais.handle import CallbackQueue, DispatchFlags


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


def test_what_comes_while_a_dispatch_is_going_to_look_is_signalled_only_if_it_is_left(
    queue: CallbackQueue,
) -> None:
    queue.quiet()
    queue.push_all(lambda _item: None, [1, 2])
    assert not readable(queue)
    queue.dispatch(DispatchFlags.ONE)
    assert readable(queue)
    queue.quiet()
    with pytest.raises(InvalidParamError):
        queue.dispatch(77)
    assert readable(queue)
