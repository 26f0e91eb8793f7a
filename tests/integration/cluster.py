"""Real nodes for tests: directories, supervisord, daemons; everything is ended again by pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy import layout, local
from deploy.layout import Node
from deploy.supervisor import Supervisor
from openais import status

DEADLINE_S = 30.0
POLL_S = 0.02


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the condition's value once it is true; fail with a sentence."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(POLL_S)


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """Make a directory whose path is short enough for local sockets."""
    path = Path(tempfile.mkdtemp(prefix="ais-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Cluster:
    """Nodes under supervisord."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        self.count = count
        self.up()
        self.nodes = layout.nodes(directory)

    def up(self) -> None:
        """Start what is down; return when all serve."""
        local.up(self.directory, self.count, local.Progress(quiet=True))

    def down(self) -> None:
        """Stop everything."""
        local.down(self.directory, local.Progress(quiet=True))

    def node(self, node_id: int) -> Node:
        """Return a node."""
        return self.nodes[node_id - 1]

    def run_dir(self, node_id: int) -> Path:
        """Return where a node's sockets are."""
        return self.node(node_id).run_dir

    def supervisor(self, node_id: int) -> Supervisor:
        """Return a node's supervisord."""
        return Supervisor(self.run_dir(node_id))

    def supervisorctl(self, node_id: int, *arguments: str) -> str:
        """Run supervisorctl as an operator does; return what it printed."""
        config = self.node(node_id).directory / "conf" / "supervisord.conf"
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def pid(self, node_id: int, program: str) -> int:
        """Return the pid of a program that supervisord runs."""
        return int(self.supervisor(node_id).states()[program]["pid"])

    def kill(self, node_id: int, program: str) -> int:
        """Kill -9 one program; return the pid it had."""
        pid = self.pid(node_id, program)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_node(self, node_id: int) -> None:
        """Kill -9 everything of a node."""
        supervisor = self.supervisor(node_id)
        pids = [info["pid"] for info in supervisor.states().values() if info["pid"]]
        own = supervisor.pid()
        for pid in [own, *pids]:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    def status(self, node_id: int, process: str) -> dict[str, Any] | None:
        """Return the status document of a process."""
        return status.query(self.run_dir(node_id), process)

    def wait_live(self, node_id: int, process: str) -> dict[str, Any]:
        """Wait until a process serves; return its status."""

        def live() -> dict[str, Any] | None:
            document = self.status(node_id, process)
            return document if status.ready(document) else None

        document: dict[str, Any] = wait_for(live, f"{process} of node {node_id} serves")
        return document

    def wait_restarted(self, node_id: int, program: str, before: int) -> None:
        """Wait until supervisord has started a program again."""
        wait_for(
            lambda: self.pid(node_id, program) not in (before, 0),
            f"{program} of node {node_id} runs again",
        )

    def wait_equal(self, process: str) -> None:
        """Wait until all replicas of a service are at one position, with one digest."""

        def equal() -> bool:
            found = [self.wait_live(n.node_id, process) for n in self.nodes]
            if len({d["applied"] for d in found}) > 1:
                return False
            digests = {d["digest"] for d in found}
            assert len(digests) == 1, f"{process}: replicas differ after {found[0]['applied']}"
            return True

        wait_for(equal, f"the replicas of {process} are at one position")

    def log(self, node_id: int, program: str) -> str:
        """Return what a program logged."""
        path = self.node(node_id).directory / "log" / f"{program}.log"
        return path.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def running(count: int) -> Iterator[Cluster]:
    """Run a cluster for the time of a test."""
    with short_directory() as directory:
        cluster: Cluster | None = None
        try:
            cluster = Cluster(directory, count)
            yield cluster
        finally:
            if layout.nodes(directory):
                local.down(directory, local.Progress(quiet=True))


class Daemon:
    """One daemon started directly, without supervisord."""

    def __init__(self, module: str, config: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "-c", str(config), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self) -> tuple[int, str]:
        """Return (exit status, output) of a daemon that ends by itself."""
        output, _ = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, output

    def stop(self) -> str:
        """End it in order; return its output."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=DEADLINE_S)
        return output


@contextlib.contextmanager
def daemon(module: str, config: Path) -> Iterator[Daemon]:
    """Run one daemon for the time of a test."""
    started = Daemon(module, config)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.communicate()
