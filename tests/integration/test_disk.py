"""A disk that hangs or refuses, below a ring that has a number to store."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from deploy.layout import Node
from openais.node.exits import Exit
from tests.integration.cluster import wait_for
from tests.integration.trio import document, laid_out, starting, together
from totemd import store


def writer_of(pid: int) -> int:
    """Return the process that writes the files of a totemd."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def far_ahead(node: Node) -> None:
    """Let the rings of a node begin beyond what the others have reserved."""
    number = (int(time.time()) << 8) + (1 << 32)
    (node.directory / "state" / f"ringid_{node.node_id}").write_bytes(
        store.encode(store.RING_MAGIC, number)
    )


def test_a_disk_that_hangs_holds_up_one_ring_and_nothing_else() -> None:
    with laid_out(2) as nodes, starting() as start:
        one, two = nodes
        far_ahead(two)
        first = start(one)
        together(one)
        writer = writer_of(first.process.pid)
        os.kill(writer, signal.SIGSTOP)
        try:
            start(two)
            gathers = document(one)["counters"]["gathers"]
            wait_for(
                lambda: document(one)["counters"]["gathers"] > gathers + 1,
                "the node answers, and goes on trying, while its disk hangs",
            )
            assert document(two)["members"] != [1, 2]
        finally:
            os.kill(writer, signal.SIGCONT)
        together(one, two)
        assert first.process.poll() is None


def test_a_ring_number_that_cannot_be_stored_ends_totemd() -> None:
    with laid_out(2) as nodes, starting() as start:
        one, two = nodes
        far_ahead(two)
        first = start(one)
        together(one)
        shutil.rmtree(one.directory / "state")
        start(two)
        code, output = first.wait()
        assert code == Exit.RING_ID, output
        assert "ringid_1: No such file or directory" in output.splitlines()[-1]


def test_a_writer_that_is_killed_ends_totemd() -> None:
    with laid_out(1) as nodes, starting() as start:
        first = start(nodes[0])
        together(nodes[0])
        os.kill(writer_of(first.process.pid), signal.SIGKILL)
        code, output = first.wait()
        assert code == Exit.RING_ID, output
        assert "the process that writes files is gone" in output
