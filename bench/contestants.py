"""The clusters that are compared: ours, and corosync's where it is installed.

Each has a network of its own. All daemons run with the defaults of their project, in the
foreground, and are observed through what they log.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.client import Client
from bench.network import Network, network
from bench.process import Process
from bench.report import Report

START_TIMEOUT_S: Final = 20.0
RING_TIMEOUT_S: Final = 60.0
KEY_BYTES: Final = 128
LIBRARY: Final = "libcpg.so.4"

_OURS: Final = """\
totem {{
    version: 2
    cluster_name: bench
    nodeid: {node}
    keyfile: {directory}/authkey
{totem}\
    interface {{
        ringnumber: 0
        bindnetaddr: {address}
    }}
}}
clm {{
    node_name: node{node}
}}
system {{
    run_dir: {directory}/run
    state_dir: {directory}/state
}}
logging {{
    to_stderr: yes
}}
"""

_COROSYNC: Final = """\
totem {{
    version: 2
    cluster_name: bench
{totem}\
}}
nodelist {{
{nodes}\
}}
logging {{
    to_stderr: yes
    to_logfile: no
    to_syslog: no
}}
system {{
    state_dir: {directory}/state
}}
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from the defaults.

    Attributes:
        totem: lines of the section ``totem``, as (key, value).
    """

    totem: tuple[tuple[str, str], ...] = ()

    def lines(self) -> str:
        """Return the lines of the section ``totem``."""
        return "".join(f"    {key}: {value}\n" for key, value in self.totem)


class Cluster(ABC):
    """The nodes of one contestant; node ids count from 1.

    Args:
        title: in tables.
        net: where the nodes are.
        directory: for the files of all nodes.
        settings: what differs from the defaults.
    """

    READY: re.Pattern[str]  # logged when the daemon serves

    def __init__(self, title: str, net: Network, directory: Path, settings: Settings) -> None:
        self.title: Final = title
        self.net: Final = net
        self.settings: Final = settings
        self.ids: Final = tuple(range(1, net.count + 1))
        self.daemons: Final[dict[int, Process]] = {}
        self.clients: Final[dict[int, Client]] = {}
        self._directory: Final = directory
        for node in self.ids:
            for folder in ("run", "state"):
                (self.directory(node) / folder).mkdir(parents=True)
        self._configure()

    def directory(self, node: int) -> Path:
        """Return where a node's files are."""
        return self._directory / f"n{node}"

    @abstractmethod
    def _configure(self) -> None:
        """Write the files of all nodes."""

    @abstractmethod
    def daemon_command(self, node: int) -> list[str]:
        """Return the command that runs a node's daemon in the foreground."""

    @abstractmethod
    def client_command(self, node: int) -> list[str]:
        """Return the command that runs a client of a node."""

    @abstractmethod
    def ring_line(self, members: tuple[int, ...] | None = None) -> re.Pattern[str]:
        """Return the pattern of the log line that tells of a new ring; None: of any members."""

    def start(self, node: int) -> Process:
        """Start a daemon; returns at once, or when the one before has ended."""
        if (before := self.daemons.get(node)) is not None:
            before.close()
        command = self.net.command(node, self.daemon_command(node))
        self.daemons[node] = Process(f"{self.title}, node {node}", command)
        return self.daemons[node]

    def wait_ready(self, node: int) -> int:
        """Return when the daemon was ready."""
        return self.daemons[node].wait_line(self.READY, START_TIMEOUT_S).at_ns

    def wait_ring(self, members: tuple[int, ...], since_ns: int = 0) -> int:
        """Return when the last member had installed the ring of these members.

        Raises:
            ProcessError: some member has not within RING_TIMEOUT_S.
        """
        line = self.ring_line(members)
        deadline = time.monotonic() + RING_TIMEOUT_S
        return max(
            self.daemons[node]
            .wait_line(line, max(0.0, deadline - time.monotonic()), since_ns)
            .at_ns
            for node in members
        )

    def up(self) -> None:
        """Start all daemons, wait for one ring."""
        for node in self.ids:
            self.start(node)
        self.wait_ring(self.ids)

    def open_clients(self) -> None:
        """Start one client per node; return when all are members of one group."""
        for node in self.ids:
            command = self.net.command(node, self.client_command(node))
            self.clients[node] = Client(f"client of {self.title}, node {node}", command)
        for client in self.clients.values():
            client.wait_members(len(self.ids))

    def close(self) -> None:
        """End everything."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()
        for daemon in self.daemons.values():
            if daemon.runs:
                daemon.stop()
        for daemon in self.daemons.values():
            daemon.close()
        self.daemons.clear()


class Openais(Cluster):
    """totemd of this project, encrypted."""

    READY = re.compile(r"\bstarted\b.*\bnode=")

    def _configure(self) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        for node in self.ids:
            directory = self.directory(node)
            (directory / "authkey").write_bytes(key)
            (directory / "authkey").chmod(0o400)
            text = _OURS.format(
                node=node,
                directory=directory,
                address=self.net.address(node),
                totem=self.settings.lines(),
            )
            (directory / "openais.conf").write_text(text, encoding="utf-8")

    def daemon_command(self, node: int) -> list[str]:
        """Return the command that runs a node's daemon in the foreground."""
        return [sys.executable, "-m", "totemd", "-c", str(self.directory(node) / "openais.conf")]

    def client_command(self, node: int) -> list[str]:
        """Return the command that runs a client of a node."""
        return [sys.executable, "-m", "bench.ring_client", str(self.directory(node) / "run")]

    def ring_line(self, members: tuple[int, ...] | None = None) -> re.Pattern[str]:
        """Return the pattern of the log line that tells of a new ring; None: of any members."""
        listed = r"[\d,]+" if members is None else ",".join(map(str, members))
        return re.compile(rf"\bring ring=\S+ members={listed}(\s|$)")


class Corosync(Cluster):
    """corosync; the transport and its encryption are in the settings."""

    READY = re.compile(r"Service engine loaded: corosync cluster quorum service")

    def _configure(self) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        nodes = "".join(
            "    node {\n"
            f"        ring0_addr: {self.net.address(node)}\n"
            f"        nodeid: {node}\n"
            f"        name: node{node}\n"
            "    }\n"
            for node in self.ids
        )
        for node in self.ids:
            directory = self.directory(node)
            (directory / "authkey").write_bytes(key)
            text = _COROSYNC.format(
                directory=directory,
                nodes=nodes,
                totem=self.settings.lines() + f"    keyfile: {directory}/authkey\n",
            )
            (directory / "corosync.conf").write_text(text, encoding="utf-8")

    def daemon_command(self, node: int) -> list[str]:
        """Return the command that runs a node's daemon in the foreground."""
        # Its pid file has a fixed place, so each gets a /run of its own.
        directory = self.directory(node)
        script = (
            f"mount --bind {directory}/run /run && exec corosync -f -c {directory}/corosync.conf"
        )
        return ["sh", "-c", script]

    def client_command(self, node: int) -> list[str]:
        """Return the command that runs a client of a node."""
        target = self._directory / "corosync_client"
        if not target.exists():
            self._build_client(target)
        return [str(target)]

    def ring_line(self, members: tuple[int, ...] | None = None) -> re.Pattern[str]:
        """Return the pattern of the log line that tells of a new ring; None: of any members."""
        listed = r"\[\d+\]: .*" if members is None else rf"\[\d+\]: {' '.join(map(str, members))}"
        return re.compile(rf"Sync members{listed}\s*$")

    def _build_client(self, target: Path) -> None:
        """Compile the client; raises what the compiler has said why."""
        source = Path(__file__).parent / "corosync_client.c"
        compiler = shutil.which("gcc") or "gcc"
        warnings = ["-Wall", "-Wextra", "-Werror"]
        options = ["-O2", "-std=gnu11", *warnings, "-o", str(target), str(source)]
        subprocess.run([compiler, *options, f"-l:{LIBRARY}"], check=True)


PLAIN: Final = Settings((("transport", "udp"), ("crypto_cipher", "none"), ("crypto_hash", "none")))
ENCRYPTED: Final = Settings(
    (("transport", "knet"), ("crypto_cipher", "aes256"), ("crypto_hash", "sha256"))
)

FAST: Final = Settings((("preset", "fast"),))


def corosync_missing() -> str | None:
    """Return why corosync cannot take part; None: it can."""
    if shutil.which("corosync") is None:
        return "corosync not installed"
    if shutil.which("gcc") is None:
        return "corosync is installed, but its client needs gcc"
    return None


def compared(report: Report) -> bool:
    """Return whether corosync takes part; say so in the report if it does not."""
    missing = corosync_missing()
    if missing is not None:
        report.line(missing)
    return missing is None


@contextlib.contextmanager
def cluster(
    kind: type[Cluster], title: str, count: int, settings: Settings | None = None
) -> Iterator[Cluster]:
    """Have a cluster, not started, for the time of a block."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower())
    with network(name, count) as net, _directory() as directory:
        made = kind(title, net, directory, settings or Settings())
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def contestants(count: int) -> Iterator[list[Cluster]]:
    """Have the contestants of a throughput measurement, started, with a client at each node."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(cluster(Openais, "openais", count))]
        if corosync_missing() is None:
            for title, settings in (("udp plain", PLAIN), ("knet encrypted", ENCRYPTED)):
                made.append(stack.enter_context(cluster(Corosync, title, count, settings)))
        for one in made:
            one.up()
            one.open_clients()
        yield made


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="aisbench-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
