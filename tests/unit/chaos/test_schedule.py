"""The schedule of faults is data, drawn from the seed."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.schedule import RECOVERY_MS, Fault, Kind, draw

SEEDS = range(40)
MINUTE_MS = 60_000


def in_trouble(faults: tuple[Fault, ...], at_ms: int) -> set[int]:
    """Return the nodes that have a fault at a time, or are to recover from one."""
    return {
        node
        for fault in faults
        for node in fault.nodes
        if fault.at_ms <= at_ms < fault.end_ms + RECOVERY_MS
    }


def test_a_seed_has_its_faults_and_another_seed_has_others() -> None:
    assert draw(7, MINUTE_MS, 5, cuts=True) == draw(7, MINUTE_MS, 5, cuts=True)
    assert draw(7, MINUTE_MS, 5, cuts=True) != draw(8, MINUTE_MS, 5, cuts=True)


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_at_most_a_minority_is_in_trouble_at_a_time(nodes: int) -> None:
    # If a majority lost its memory at once, what was acknowledged could be lost with it.
    for seed in SEEDS:
        faults = draw(seed, MINUTE_MS, nodes, cuts=True)
        for fault in faults:
            assert len(in_trouble(faults, fault.at_ms)) <= (nodes - 1) // 2, (seed, str(fault))


def test_a_network_is_cut_while_nothing_else_happens_to_it() -> None:
    for seed in SEEDS:
        faults = draw(seed, MINUTE_MS, 5, cuts=True)
        cuts = [fault for fault in faults if fault.kind is Kind.CUT]
        assert all(a.end_ms <= b.at_ms for a, b in itertools.pairwise(cuts))
    assert not [f for f in draw(1, MINUTE_MS, 5, cuts=False) if f.kind is Kind.CUT]


def test_every_fault_begins_and_ends_within_the_run() -> None:
    for seed in SEEDS:
        assert all(f.end_ms <= MINUTE_MS for f in draw(seed, MINUTE_MS, 5, cuts=True))


def test_a_few_seeds_have_every_kind_of_fault_for_every_program() -> None:
    seen = {(f.kind, f.program) for seed in SEEDS for f in draw(seed, MINUTE_MS, 5, cuts=True)}
    for kind in (Kind.KILL, Kind.PAUSE, Kind.RESTART):
        programs = {program for k, program in seen if k is kind}
        assert {"totemd", "ckpt", "clm", "cluster", "supervisord"} <= programs


def test_a_minute_has_a_score_of_faults() -> None:
    assert min(len(draw(seed, MINUTE_MS, 5, cuts=False)) for seed in SEEDS) >= 15


def test_a_pair_of_nodes_has_no_minority_to_harm() -> None:
    assert draw(1, MINUTE_MS, 2, cuts=False) == ()
