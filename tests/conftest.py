"""One cluster of three real nodes for the tests that leave it whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.integration.cluster import Cluster, running

# A shell ignores it for what it starts in the background, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def three() -> Iterator[Cluster]:
    with running(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(three: Cluster) -> Cluster:
    """The shared cluster, with everything up again."""
    three.up()
    return three
