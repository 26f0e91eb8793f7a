"""supervisord is woken when a program has ended, unless it ended at its start."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from supervisor import events

from deploy import promptly
from openais.node.poller import Poller


@pytest.fixture
def wakeup() -> Iterator[Any]:
    sockets: dict[int, Any] = {}
    before = list(events.callbacks)
    wakeup_fd = signal.set_wakeup_fd(-1)
    promptly.make(SimpleNamespace(options=SimpleNamespace(get_socket_map=lambda: sockets)))
    (made,) = sockets.values()
    yield made
    signal.set_wakeup_fd(wakeup_fd)
    events.callbacks[:] = before


def woken(wakeup: Any) -> bool:
    poller = Poller()
    poller.register(wakeup.descriptor)
    found = poller.poll(0) == [wakeup.descriptor]
    wakeup.handle_read_event()
    return found


def ended(ran_s: float) -> None:
    process = SimpleNamespace(
        laststart=time.time() - ran_s, config=SimpleNamespace(name="ckpt"), group=None, pid=7
    )
    events.notify(events.ProcessStateExitedEvent(process, 0))


def test_a_program_that_ran_is_started_again_at_once(wakeup: Any) -> None:
    ended(10.0)
    assert woken(wakeup)
    assert not woken(wakeup), "once"


def test_a_program_that_ends_at_its_start_is_not_started_in_a_loop(wakeup: Any) -> None:
    ended(0.1)
    assert not woken(wakeup)
