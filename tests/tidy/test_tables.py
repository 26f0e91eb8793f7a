"""The ring's tables are complete, and each method takes what its row gives it."""

from __future__ import annotations

import inspect
import itertools
import typing

from openais.wire import port
from openais.wire.status import Status
from totemd.protocol import evs, local
from totemd.protocol.effects import State
from totemd.protocol.messages import Message
from totemd.protocol.ring import TABLE, TIMER_TABLE
from totemd.protocol.timers import Timer


def test_every_state_has_a_row_for_every_message() -> None:
    assert set(TABLE) == set(itertools.product(State, typing.get_args(Message)))


def test_every_state_has_a_row_for_every_timer() -> None:
    assert set(TIMER_TABLE) == set(itertools.product(State, Timer))


def test_a_method_accepts_the_message_of_its_row() -> None:
    for (state, message), method in TABLE.items():
        hints = typing.get_type_hints(method)
        hints.pop("return")
        (accepted,) = hints.values()
        fits = accepted is object or accepted is message
        assert fits, f"{state}: {method.__name__} does not take {message.__name__}"


def test_a_timer_method_needs_nothing() -> None:
    for (state, timer), method in TIMER_TABLE.items():
        needed = [
            p
            for p in list(inspect.signature(method).parameters.values())[1:]
            if p.default is inspect.Parameter.empty
        ]
        assert not needed, f"{state} {timer}: {method.__name__}"


def test_the_core_and_the_port_use_the_same_numbers() -> None:
    for ours, theirs in ((local.Reason, port.Reason),):
        assert {m.name: int(m) for m in ours} == {m.name: int(m) for m in theirs}
    for refusal in local.Refusal:
        assert int(Status[f"ERR_{refusal.name}"]) == int(refusal)
    assert local.PAYLOAD_SIZE_MAX == port.MULTICAST_SIZE_MAX
    assert evs.KEY_SIZE == port.EVS_KEY_SIZE
    assert evs.GROUPS_PER_CALL_MAX == port.EVS_GROUPS_PER_CALL_MAX
    assert evs.GROUPS_PER_CLIENT_MAX == port.EVS_GROUPS_PER_CLIENT_MAX
    assert evs.GROUPS_PER_MESSAGE_MAX == port.EVS_GROUPS_PER_MESSAGE_MAX
