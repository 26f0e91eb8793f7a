"""Real clusters of five under load and random faults, and under overload."""

from __future__ import annotations

import pytest

from tests.chaos import overload
from tests.chaos.run import Settings, run
from tests.net.namespaces import missing, remove_leftovers

SEED = 20
FAULTS_MS = 50_000  # a minute with the start and the end
OVERLOAD_S = 20.0
NODES = 5


def test_a_minute_of_faults_loses_and_doubles_nothing_that_was_acknowledged() -> None:
    # Where namespaces are possible the network is cut too; a quorum decides who goes on.
    cuts = missing() is None
    if cuts:
        remove_leftovers()
    result = run(Settings(SEED, FAULTS_MS, NODES, cuts=cuts))
    if result.failed:
        pytest.fail(result.report(), pytrace=False)
    assert len(result.records) > 1000, result.summary()


def test_clients_that_send_as_fast_as_they_can_are_served_fairly_in_bounded_memory() -> None:
    result = overload.run(OVERLOAD_S, NODES)
    if result.problems:
        pytest.fail(result.report(), pytrace=False)
