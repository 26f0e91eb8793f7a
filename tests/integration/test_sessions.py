"""Sessions outlive what serves them; what a safe write promises."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openais import ckpt
from openais.wire.status import ONE_SECOND_NS
from tests.integration.cluster import Cluster, wait_for
from tests.integration.load import ATTRIBUTES

PATIENCE_NS = 90 * ONE_SECOND_NS


class Call(threading.Thread):
    """One call that is on its way while something happens."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.failure = error

    def finish(self) -> None:
        self.join(120)
        assert not self.is_alive(), "the call is not answered"
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def opened(cluster: Cluster) -> Iterator[ckpt.Checkpoint]:
    """A checkpoint open at node 1, with one section."""
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client:
        with client.open("sessions", ATTRIBUTES, timeout_ns=PATIENCE_NS) as checkpoint:
            checkpoint["a"] = b"before"
            yield checkpoint
        client.unlink("sessions")


def append(checkpoint: ckpt.Checkpoint) -> Callable[[], Any]:
    """Return a call that must be done exactly once: a section is created once."""
    return lambda: checkpoint.section_create("once", b"1")


def members(cluster: Cluster, node_id: int) -> list[int]:
    found: list[int] = (cluster.status(node_id, "ckpt") or {"view": {"members": []}})["view"][
        "members"
    ]
    return found


def test_a_service_that_starts_too_slowly_costs_no_session(
    cluster: Cluster, opened: ckpt.Checkpoint
) -> None:
    # Danger: its seat expires, the others close its sessions, clients find theirs lost.
    before = cluster.kill(1, "ckpt")
    pid = wait_for(
        lambda: cluster.pid(1, "ckpt") not in (before, 0) and cluster.pid(1, "ckpt"),
        "supervisord starts it",
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        call = Call(append(opened))
        wait_for(lambda: members(cluster, 2) == [2, 3], "the seat of node 1 expires", 60)
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.wait_live(1, "ckpt")
    call.finish()
    assert opened["a"] == b"before"
    assert opened["once"] == b"1"
    cluster.wait_equal("ckpt")


def test_a_session_survives_the_death_of_its_service_and_of_totemd_together(
    cluster: Cluster, opened: ckpt.Checkpoint
) -> None:
    pids = [cluster.pid(1, name) for name in ("totemd", "ckpt")]
    call = Call(append(opened))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for name, pid in zip(("totemd", "ckpt"), pids, strict=True):
        cluster.wait_restarted(1, name, pid)
    cluster.wait_live(1, "ckpt")
    call.finish()
    assert opened["a"] == b"before"
    assert opened["once"] == b"1"
    opened["a"] = b"after"
    cluster.wait_equal("ckpt")


def test_an_acknowledged_safe_write_outlives_the_writer_s_node(cluster: Cluster) -> None:
    with ckpt.Client(run_dir=cluster.run_dir(3)) as client:
        table = client.open("safe", ATTRIBUTES)
        for number in range(1, 20):
            table["a"] = b"%d" % number
        cluster.kill_node(3)
        with (
            ckpt.Client(run_dir=cluster.run_dir(1)) as other,
            other.open("safe", ATTRIBUTES, timeout_ns=PATIENCE_NS) as copy,
        ):
            assert copy["a"] == b"19"
            other.unlink("safe")
    cluster.up()
    cluster.wait_equal("ckpt")
