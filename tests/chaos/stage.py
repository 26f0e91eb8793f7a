"""The cluster of a run: node directories, each with its supervisord, and doing harm to them.

On loopback, or each node in a network namespace, where the network can be cut.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from deploy import layout, supervisor
from deploy.supervisor import CLUSTER, Supervisor, SupervisorError
from openais import status
from openais.node import lock
from tests.chaos.schedule import EVERYTHING, PROGRAMS, SUPERVISORD
from tests.net.namespaces import Laboratory, laboratory
from tests.net.nodes import Member as NamespaceNode
from tests.net.nodes import Shape, configuration

SERVING: Final = ("totemd", *layout.SERVICES)  # those that tell how they are
UP_DEADLINE_S: Final = 60.0
COMMAND_TIMEOUT_S: Final = 30.0
WELL_TIMEOUT_S: Final = 0.5  # a service that serves answers sooner
POLL_S: Final = 0.05


class StageError(Exception):
    """The cluster does not come up, or not back: says what is missing."""


class ChaosNode:
    """One node.

    Args:
        number: of the node.
        directory: of the node.
        prefix: the command that runs a program where the node is.
    """

    def __init__(self, number: int, directory: Path, prefix: Sequence[str] = ()) -> None:
        self.number: Final = number
        self.directory: Final = directory
        self.run_dir: Final = directory / "run"
        self.supervisor: Final = Supervisor(self.run_dir)
        self._prefix: Final = tuple(prefix)

    def launch(self) -> None:
        """Start supervisord and the program ``cluster``, as systemd does; returns when it runs.

        Raises:
            StageError: supervisord does not start.
        """
        self._run("supervisord")
        end = time.monotonic() + COMMAND_TIMEOUT_S
        while self.supervisor.pid() is None:
            if time.monotonic() > end:
                raise StageError(f"node {self.number}: supervisord does not answer")
            time.sleep(POLL_S)
        self.supervisor.start(CLUSTER)

    def _run(self, module: str, *arguments: str) -> None:
        config = self.directory / "conf" / supervisor.CONFIG_NAME
        command = [sys.executable, "-m", f"supervisor.{module}", "-c", str(config), *arguments]
        done = subprocess.run(
            [*self._prefix, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
            env=supervisor.environment(),
        )
        if done.returncode:
            raise StageError(f"node {self.number}: {module}: {done.stdout}{done.stderr}")

    def supervisord_runs(self) -> bool:
        """True: there is a supervisord of this node."""
        return bool(self.pids(SUPERVISORD))

    def pids(self, program: str) -> list[int]:
        """Return the process of a program, or all processes of the node, supervisord first."""
        if program == EVERYTHING:
            return [pid for name in (SUPERVISORD, *PROGRAMS) for pid in self.pids(name)]
        if program != SUPERVISORD:
            pid = lock.holder(self.run_dir, program)
            return [] if pid is None else [pid]
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.run_dir / supervisor.PID_NAME).read_text(encoding="ascii"))
            if os.fsencode(self.directory) in Path(f"/proc/{pid}/cmdline").read_bytes():
                return [pid]
        return []

    def send(self, program: str, number: signal.Signals) -> list[int]:
        """Send a signal to a program; return who got it."""
        reached = []
        for pid in self.pids(program):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                reached.append(pid)
        return reached

    @contextlib.contextmanager
    def paused(self, program: str) -> Iterator[list[int]]:
        """Stop a program's processes; let those very ones go on afterwards."""
        descriptors = []
        pids = self.pids(program)
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    descriptors.append(os.pidfd_open(pid))
            self._signal_all(descriptors, signal.SIGSTOP)
            yield pids
        finally:
            self._signal_all(descriptors, signal.SIGCONT)
            for descriptor in descriptors:
                os.close(descriptor)

    def _signal_all(self, descriptors: list[int], number: signal.Signals) -> None:
        for descriptor in descriptors:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)

    def restart(self, program: str) -> None:
        """Stop and start a program in order.

        Raises:
            SupervisorError: supervisord does not answer, or not now.
        """
        if program == SUPERVISORD:
            self.send(SUPERVISORD, signal.SIGTERM)  # the watch starts it again
            return
        self.supervisor.stop(program)
        self.supervisor.start(program)

    def status(self, process: str) -> dict[str, Any] | None:
        """Return the status document of a process."""
        return status.query(self.run_dir, process)

    def well(self) -> bool:
        """True: its replicas have the state and serve."""
        return all(
            status.ready(status.query(self.run_dir, service, WELL_TIMEOUT_S))
            for service in layout.SERVICES
        )

    def missing(self, numbers: list[int]) -> str | None:
        """Return what this node lacks to be whole in a cluster of these nodes."""
        try:
            states = self.supervisor.states()
        except SupervisorError as error:
            return str(error)
        for program in PROGRAMS:
            if states[program]["statename"] != "RUNNING":
                return f"{program} is {states[program]['statename']}"
        for process in SERVING:
            document = self.status(process)
            if document is None or not status.ready(document):
                return f"{process} does not serve: {(document or {}).get('state', 'no answer')}"
            members = document["members"] if process == "totemd" else document["view"]["members"]
            if members != numbers:
                return f"{process} sees {members}"
        return None

    def take_down(self) -> None:
        """Stop everything in order, by force if need be."""
        with contextlib.suppress(SupervisorError):
            if self.supervisord_runs():
                self.supervisor.stop(CLUSTER)
                self.supervisor.shutdown()
        self.send(EVERYTHING, signal.SIGKILL)


class Stage:
    """A running cluster; use `loopback` or `namespaces`."""

    def __init__(self, nodes: Sequence[ChaosNode], bed: Laboratory | None = None) -> None:
        self.nodes: Final = tuple(nodes)
        self.numbers: Final = [node.number for node in nodes]
        self._bed: Final = bed

    def __getitem__(self, number: int) -> ChaosNode:
        return self.nodes[number - 1]

    def unwell(self) -> set[int]:
        """Return the nodes whose replicas do not serve."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            well = pool.map(ChaosNode.well, self.nodes)
            return {number for number, fine in zip(self.numbers, well, strict=True) if not fine}

    def cut(self, minority: Sequence[int]) -> None:
        """Cut the network between some nodes and the others."""
        assert self._bed is not None, "the network of loopback cannot be cut"
        others = [number for number in self.numbers if number not in minority]
        self._bed.partition(list(minority), others)

    def heal(self) -> None:
        """Make the network whole."""
        if self._bed is not None:
            self._bed.heal()

    def launch(self) -> None:
        """Start every node and wait until all are one cluster."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(ChaosNode.launch, self.nodes))
        self.wait_whole(UP_DEADLINE_S)

    def wait_whole(self, deadline_s: float) -> float:
        """Wait until every process of every node runs and serves, in one cluster.

        Returns:
            How many seconds it took.

        Raises:
            StageError: not in time; says what was missing last.
        """
        return self._wait_while(self._lacks, "not whole", deadline_s)

    def wait_equal(self, deadline_s: float) -> None:
        """Wait until all replicas have applied as much; nobody may be at work.

        Raises:
            StageError: not in time, or their digests differ.
        """
        self._wait_while(self._behind, "not at one position", deadline_s)
        for service in layout.SERVICES:
            digests = self._seen(service, "digest")
            if len(set(digests.values())) != 1:
                raise StageError(f"the replicas of {service} differ: {digests}")

    def _wait_while(self, missing: Callable[[], list[str]], what: str, deadline_s: float) -> float:
        begin = time.monotonic()
        while lacks := missing():
            if time.monotonic() - begin > deadline_s:
                raise StageError(f"{what} after {deadline_s:.0f} s: {'; '.join(lacks)}")
            time.sleep(POLL_S)
        return time.monotonic() - begin

    def _lacks(self) -> list[str]:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            found = pool.map(lambda node: node.missing(self.numbers), self.nodes)
            return [
                f"node {n}: {what}" for n, what in zip(self.numbers, found, strict=True) if what
            ]

    def _behind(self) -> list[str]:
        seen = {service: self._seen(service, "applied") for service in layout.SERVICES}
        return [
            f"{service}: {found}" for service, found in seen.items() if len(set(found.values())) > 1
        ]

    def _seen(self, service: str, key: str) -> dict[int, Any]:
        return {node.number: (node.status(service) or {}).get(key) for node in self.nodes}

    def take_down(self) -> None:
        """Stop every node."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(ChaosNode.take_down, self.nodes))


@contextlib.contextmanager
def loopback(directory: Path, count: int, *, quorum: bool) -> Iterator[Stage]:
    """Have a cluster on loopback, as ``openais cluster up`` makes it."""
    made = layout.make(directory, count)
    for node in made:
        path = node.directory / "conf" / "openais.conf"
        path.write_text(path.read_text(encoding="utf-8") + _quorum(count, quorum=quorum))
    stage = Stage([ChaosNode(node.node_id, node.directory) for node in made])
    with _running(stage):
        yield stage


@contextlib.contextmanager
def namespaces(directory: Path, count: int, *, quorum: bool) -> Iterator[Stage]:
    """Have a cluster whose nodes are in network namespaces.

    Raises:
        UnavailableError: not possible on this machine.
    """
    with laboratory(count) as bed:
        nodes = []
        for host in bed.hosts:
            home = directory / f"n{host.number}"
            text = configuration(Shape(), host, bed.hosts, home) + _quorum(count, quorum=quorum)
            NamespaceNode(host, home).make(text)
            supervisor.make(home, f"node{host.number}", layout.SERVICES)
            nodes.append(ChaosNode(host.number, home, host.command()))
        with _running(Stage(nodes, bed)) as stage:
            yield stage


def _quorum(count: int, *, quorum: bool) -> str:
    if not quorum:
        return ""
    return f"quorum {{\n    provider: majority\n    expected_votes: {count}\n}}\n"


@contextlib.contextmanager
def _running(stage: Stage) -> Iterator[Stage]:
    try:
        stage.launch()
        yield stage
    finally:
        stage.take_down()
