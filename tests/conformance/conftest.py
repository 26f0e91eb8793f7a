"""Handles of the checkpoint service at several levels and nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openais import ckpt
from tests.conformance.checkpoints import serial
from tests.integration.cluster import Cluster


@pytest.fixture
def name() -> str:
    return f"conformance-{next(serial)}"


@pytest.fixture
def client(cluster: Cluster) -> Iterator[ckpt.Client]:
    """A handle of level B.01 at node 1."""
    with ckpt.Client(run_dir=cluster.run_dir(1), level="B.01") as opened:
        yield opened


@pytest.fixture
def newer(cluster: Cluster) -> Iterator[ckpt.Client]:
    """A handle of level B.02 at node 1."""
    with ckpt.Client(run_dir=cluster.run_dir(1), level="B.02") as opened:
        yield opened


@pytest.fixture
def other(cluster: Cluster) -> Iterator[ckpt.Client]:
    """A handle at node 2."""
    with ckpt.Client(run_dir=cluster.run_dir(2)) as opened:
        yield opened
