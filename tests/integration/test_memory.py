"""What a service goes on from: snapshots that children write under load, and logs that are gone."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy import layout
from openais import ckpt
from tests.integration.cluster import Cluster, running, short_directory, wait_for
from tests.integration.load import ATTRIBUTES, Writer, check
from tests.integration.trio import config

SECTIONS = ckpt.Attributes(ckpt.CreationFlags.WR_ALL_REPLICAS, 0, 1 << 62, 512, 1 << 16, 32)


@contextlib.contextmanager
def remembering(count: int, *lines: str) -> Iterator[Cluster]:
    """Run nodes with lines in their section service_memory."""
    with short_directory() as directory:
        for node in layout.make(directory, count):
            with config(node).open("a") as file:
                file.write("\nservice_memory {\n" + "\n".join(lines) + "\n}\n")
        cluster = Cluster(directory, count)
        try:
            yield cluster
        finally:
            cluster.down()


def seat(cluster: Cluster, node_id: int) -> dict[str, Any]:
    document = cluster.status(node_id, "totemd")
    assert document is not None
    (found,) = [seat for seat in document["seats"] if seat["group"] == "ckpt"]
    return dict(found)


def test_a_service_whose_log_was_dropped_takes_the_state_from_the_others() -> None:
    with remembering(3, "log_bytes_max: 1M") as cluster:
        writer = Writer(cluster.run_dir(1), "w")
        writer.start()
        deaf = cluster.pid(3, "ckpt")
        os.kill(deaf, signal.SIGSTOP)
        with ckpt.Client(run_dir=cluster.run_dir(2)) as client:
            big = client.open("big", ATTRIBUTES)
            for k in range(64):
                big[f"s{k}"] = bytes([k]) * 60_000
            assert seat(cluster, 3)["logs_dropped"] >= 1
            os.kill(deaf, signal.SIGKILL)
            cluster.wait_restarted(3, "ckpt", deaf)
            document = cluster.wait_live(3, "ckpt")
            assert document["counters"]["states_received"] == 1
            writer.finish()
            check(cluster.run_dir(3), [writer])
            with ckpt.Client(run_dir=cluster.run_dir(3)) as other, other.open("big") as copy:
                assert [copy[f"s{k}"] for k in range(64)] == [
                    bytes([k]) * 60_000 for k in range(64)
                ]
            cluster.wait_equal("ckpt")


def killed_while_writing(cluster: Cluster, writer: Writer) -> None:
    """Kill ckpt while a child writes a snapshot; return when both are gone and ckpt is back."""

    def child() -> int:
        document = cluster.status(1, "ckpt")
        return 0 if document is None else int(document["memory"]["snapshot_pid"])

    before = writer.acknowledged
    wait_for(lambda: writer.acknowledged > before + 30, "it goes on")
    written = wait_for(child, "a child writes")
    pid = cluster.kill(1, "ckpt")
    cluster.wait_restarted(1, "ckpt", pid)
    cluster.wait_live(1, "ckpt")
    wait_for(lambda: not Path(f"/proc/{written}").exists(), "the child ends too")


def test_kill_9_while_a_child_writes_a_snapshot_loses_nothing_on_one_node() -> None:
    # The danger: the child of the dead process replaces a newer snapshot, or holds its sockets.
    with remembering(1, "snapshot_log_entries: 100", "snapshot_fork_bytes: 0") as cluster:
        with ckpt.Client(run_dir=cluster.run_dir(1)) as client:
            big = client.open("big", SECTIONS)
            for k in range(300):
                big[f"s{k}"] = os.urandom(60_000)
        writer = Writer(cluster.run_dir(1), "w")
        writer.start()
        for _ in range(4):
            killed_while_writing(cluster, writer)
        writer.finish()
        check(cluster.run_dir(1), [writer])


def test_the_status_tells_of_snapshots_and_logs() -> None:
    with running(1) as cluster:
        writer = Writer(cluster.run_dir(1), "w")
        writer.start()
        wait_for(lambda: writer.acknowledged > 50, "it goes on")
        assert cluster.status(1, "ckpt")["memory"]["log_entries"] > 50  # type: ignore[index]
        assert seat(cluster, 1)["log_bytes"] > 0
        cluster.supervisorctl(1, "restart", "ckpt")
        memory = cluster.wait_live(1, "ckpt")["memory"]
        writer.finish()
        assert memory["snapshot_bytes"] > 0
        assert seat(cluster, 1)["log_base"] >= memory["snapshot_index"] > 0
