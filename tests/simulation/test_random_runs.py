"""Random clusters under random faults keep every axiom."""

from __future__ import annotations

import pytest

from tests.sim.random_run import RandomRun

BLOCK = 10


@pytest.mark.parametrize("first", range(0, 300, BLOCK))
def test_a_random_cluster_keeps_the_axioms_and_ends_in_one_ring(first: int) -> None:
    for seed in range(first, first + BLOCK):
        RandomRun(seed).run()
