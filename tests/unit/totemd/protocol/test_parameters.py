"""The rules between the constants of the ring."""

from __future__ import annotations

import dataclasses

import pytest

from totemd.protocol.parameters import MS, ParameterError, RingParameters

BROKEN: dict[str, int] = {
    "token_ns": 29 * MS,
    "join_ns": 29 * MS,
    "consensus_ns": 40 * MS,
    "hold_ns": 238 * MS,
    "token_retransmit_ns": 1000 * MS,
    "silent_fail_ns": 1200 * MS,
    "idle_rotations": 1,
    "max_messages": 0,
    "accelerated_window_messages": -1,
    "heartbeat_failures_allowed": 4,
    "token_warning_percent": 100,
    "max_unstable_bytes": 1000,
    "max_gap_messages": 16,
    "max_nodes": 256,
    "seq_base": 1 << 63,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named(name: str) -> None:
    broken = dataclasses.replace(RingParameters(), **{name: BROKEN[name]})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=name):
        broken.validate()


def test_the_window_grows_with_the_ring_up_to_what_the_receivers_take() -> None:
    p = RingParameters(window_messages_max=200)
    assert [p.window(n) for n in (2, 8, 64)] == [50, 128, 200]
    assert RingParameters(window_messages=70).window(64) == 70


def test_nodes_that_should_agree_and_do_not_have_another_hash() -> None:
    standard = RingParameters()
    changes: list[dict[str, int]] = [
        {"token_ns": 2_000 * MS},
        {"consensus_ns": 2_000 * MS},
        {"window_messages": 70},
        {"accelerated_window_messages": 17},
    ]
    hashes = [dataclasses.replace(standard, **c).agreed_on() for c in changes]  # type: ignore[arg-type]
    assert len({standard.agreed_on(), *hashes}) == 5
    assert all(0 < h <= 0xFFFF for h in hashes)
    assert dataclasses.replace(standard, merge_ns=1).agreed_on() == standard.agreed_on()
