"""Nodes in the hosts of a laboratory: their directories, totemd alone or a whole node."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy import supervisor
from openais import status
from tests.net.namespaces import Host, Laboratory

GROUPS: Final = {4: "239.192.77.{}", 6: "ff15::77:{}"}
LINK_LOCAL_GROUP: Final = "ff12::77"
PORT: Final = 5405
KEY: Final = bytes(range(128))
STOP_TIMEOUT_S: Final = 15.0
START_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02
FOLDERS: Final = ("conf", "run", "state", "log")

_TOTEM: Final = """\
totem {{
    version: 2
    cluster_name: laboratory
    nodeid: {node_id}
    keyfile: {directory}/conf/authkey
    transport: {transport}
{more}
{interfaces}
}}
{nodelist}
{sections}
clm {{
    node_name: node{node_id}
}}
system {{
    run_dir: {directory}/run
    state_dir: {directory}/state
    sched_rr: no
    priority: 0
    mlock: no
}}
logging {{
    to_stderr: yes
    timestamp: hires
}}
"""
_INTERFACE: Final = """\
    interface {{
        ringnumber: {number}
        bindnetaddr: {address}
{group}        mcastport: {port}
    }}"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the configurations of a cluster have in common."""

    networks: tuple[int, ...] = (0,)  # ring n of each node runs on the n-th of them
    version: int = 4  # of IP
    transport: str = "udp"
    totem: Mapping[str, str | int] = field(default_factory=dict)  # further directives
    nodelist: bool = False  # always with udpu
    broadcast: bool = False
    link_local: bool = False  # IPv6 addresses that mean nothing without an interface
    sections: str = ""  # further sections


def configuration(shape: Shape, host: Host, hosts: Sequence[Host], directory: Path) -> str:
    """Return openais.conf of the node in one host."""
    udpu = shape.transport == "udpu"
    interfaces = []
    for number, network in enumerate(shape.networks):
        group = GROUPS[shape.version].format(number + 1)
        if shape.link_local:
            address, group = f"{host.link_local(network)}%net{network}", LINK_LOCAL_GROUP
        else:
            address = host.address(network, shape.version)
        line = "broadcast: yes" if shape.broadcast else f"mcastaddr: {group}"
        interfaces.append(
            _INTERFACE.format(
                number=number,
                address=address,
                group="" if udpu else f"        {line}\n",
                port=PORT + 2 * number,
            )
        )
    return _TOTEM.format(
        node_id=host.number,
        directory=directory,
        transport=shape.transport,
        more="".join(f"    {key}: {value}\n" for key, value in shape.totem.items()),
        interfaces="\n".join(interfaces),
        nodelist=_nodelist(shape, hosts) if udpu or shape.nodelist else "",
        sections=shape.sections,
    )


def _nodelist(shape: Shape, hosts: Sequence[Host]) -> str:
    entries = []
    for host in hosts:
        addresses = "".join(
            f"        ring{number}_addr: {host.address(network, shape.version)}\n"
            for number, network in enumerate(shape.networks)
        )
        rest = f"        nodeid: {host.number}\n        name: node{host.number}\n"
        entries.append(f"    node {{\n{addresses}{rest}    }}\n")
    return f"nodelist {{\n{''.join(entries)}}}"


class Member:
    """One node: a directory and, in its host, the process totemd."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host: Final = host
        self.directory: Final = directory
        self.config: Final = directory / "conf" / "openais.conf"
        self.run_dir: Final = directory / "run"
        self._process: subprocess.Popen[bytes] | None = None

    def make(self, text: str) -> None:
        """Write the directory."""
        for folder in FOLDERS:
            (self.directory / folder).mkdir(mode=0o750, parents=True, exist_ok=True)
        self.config.write_text(text, encoding="utf-8")
        key = self.directory / "conf" / "authkey"
        key.write_bytes(KEY)
        key.chmod(0o400)

    @property
    def pid(self) -> int:
        """The pid of totemd."""
        assert self._process is not None, "totemd was not started"
        return self._process.pid

    def start(self) -> None:
        """Start totemd; returns at once."""
        assert self._process is None, "totemd runs"
        command = self.host.command(sys.executable, "-m", "totemd", "-c", str(self.config))
        with self._log_path("totemd").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> int:
        """End totemd in order; return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def status(self, process: str = "totemd") -> dict[str, Any] | None:
        """Return the status document of a process of this node."""
        return status.query(self.run_dir, process)

    def members(self) -> list[int]:
        """Return the ring as this node sees it; empty while it is not in one that serves."""
        document = self.status()
        return list(document["members"]) if document and status.ready(document) else []

    def ring(self) -> tuple[int, int]:
        """Return the id of the installed ring."""
        document = self.status()
        assert document is not None, f"totemd of node {self.host.number} does not answer"
        return document["ring"]["seq"], document["ring"]["representative"]

    def counter(self, name: str) -> int:
        """Return a counter of totemd."""
        document = self.status()
        assert document is not None, f"totemd of node {self.host.number} does not answer"
        return int(document["counters"].get(name, 0))

    def log(self, program: str = "totemd") -> str:
        """Return what a program has logged."""
        path = self._log_path(program)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def _log_path(self, program: str) -> Path:
        return self.directory / "log" / f"{program}.log"

    def start_whole(self, services: tuple[str, ...]) -> None:
        """Start the node as an operator does: supervisord, then its program ``cluster``."""
        name = f"node{self.host.number}"
        config = supervisor.make(self.directory, name, services)
        for module, *arguments in (("supervisord",), ("supervisorctl", "start", "cluster")):
            command = [sys.executable, "-m", f"supervisor.{module}", "-c", str(config)]
            done = subprocess.run(
                self.host.command(*command, *arguments),
                capture_output=True,
                text=True,
                check=False,
                timeout=START_TIMEOUT_S,
                env=supervisor.environment(),
            )
            assert not done.returncode, f"{module}: {done.stdout}{done.stderr}"

    def stop_whole(self) -> None:
        """End the node in order, and supervisord."""
        own = supervisor.Supervisor(self.run_dir)
        if own.pid() is not None:
            own.stop(supervisor.CLUSTER)
            own.shutdown()


class Members:
    """The nodes of a laboratory, node n in host n."""

    def __init__(self, bed: Laboratory, directory: Path, shape: Shape) -> None:
        self.all: Final = tuple(Member(h, directory / f"n{h.number}") for h in bed.hosts)
        for member in self.all:
            text = configuration(shape, member.host, bed.hosts, member.directory)
            member.make(text)

    def __getitem__(self, number: int) -> Member:
        return self.all[number - 1]

    def start(self) -> None:
        """Start every totemd and wait for one ring."""
        for member in self.all:
            member.start()
        self.wait_ring(*(member.host.number for member in self.all))

    def wait_ring(self, *numbers: int, deadline_s: float = START_TIMEOUT_S) -> None:
        """Wait until these nodes are a ring of just them, and serve."""
        wanted = sorted(numbers)
        end = time.monotonic() + deadline_s
        while True:
            seen = {number: self[number].members() for number in wanted}
            if all(members == wanted for members in seen.values()):
                rings = {self[number].ring() for number in wanted}
                if len(rings) == 1:
                    return
            if time.monotonic() > end:
                logs = "".join(f"\n--- node {n}\n{self[n].log()[-2000:]}" for n in wanted)
                raise AssertionError(f"no ring {wanted} in {deadline_s} s: {seen}{logs}")
            time.sleep(POLL_S)


@contextlib.contextmanager
def members(bed: Laboratory, directory: Path, shape: Shape | None = None) -> Iterator[Members]:
    """Have nodes for the time of a test; start them as the test needs them."""
    made = Members(bed, directory, shape or Shape())
    try:
        yield made
    finally:
        for member in made.all:
            if (member.run_dir / supervisor.SOCKET_NAME).exists():
                with contextlib.suppress(supervisor.SupervisorError, OSError):
                    member.stop_whole()
            member.kill()
        _end_rest(bed)


def _end_rest(bed: Laboratory) -> None:
    """End what still runs in the hosts: it was started there by the nodes."""
    for host in bed.hosts:
        for pid in host.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
