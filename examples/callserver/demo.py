"""The main job, end to end: three faults under load, and not one record lost.

Makes a cluster of three nodes on this machine, runs the call server on two of them with 100 open
calls, and injects: kill -9 of the active component; kill -9 of everything of its node; a restart
of the checkpoint service beside it. Exits 0 only if every acknowledged record is there, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.callserver.client import CallLostError, Findings, Interruption, Load

CALLS: Final = 100
RECORD_PAUSE_S: Final = 0.4  # per call: some 250 records a second in all
SETTLE_S: Final = 25.0  # after a fault every waiting call is answered within this time
STEADY_S: Final = 2.0  # load before and after each fault
PORT_FIRST: Final = 5060
PORTS_TRIED: Final = 500
READY_S: Final = 15.0
COMPONENT_NODES: Final = (1, 2)


@dataclass(slots=True)
class Component:
    """One call server process."""

    node: int
    process: subprocess.Popen[bytes]


class Stage:
    """The cluster and the two components on it."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self.components: dict[int, Component] = {}
        self._port: Final = _free_port(directory)

    def node_dir(self, node: int) -> Path:
        """Return the directory of one node."""
        return self.directory / f"n{node}"

    def address(self, node: int) -> tuple[str, int]:
        """Return where the component of one node listens."""
        return (f"127.0.0.{node}", self._port)

    def log(self, node: int) -> Path:
        """Return the log of the component of one node."""
        return self.directory / f"callserver-{node}.log"

    def cluster(self, *arguments: str) -> None:
        """Run one ``openais cluster`` command.

        Raises:
            CalledProcessError: it failed; it has said why.
        """
        command = [sys.executable, "-m", "openais.cli", "cluster", *arguments]
        subprocess.run([*command, "--dir", str(self.directory)], check=True)

    def start_component(self, node: int) -> None:
        """Start the component of one node."""
        host, port = self.address(node)
        with self.log(node).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "examples.callserver.server", "--listen", f"{host}:{port}"],
                env=os.environ | {"OPENAIS_RUN_DIR": str(self.node_dir(node) / "run")},
                stdout=log,
                stderr=log,
            )
        self.components[node] = Component(node, process)

    def kill_component(self, node: int) -> None:
        """Kill -9 the component of one node."""
        component = self.components.pop(node)
        component.process.kill()
        component.process.wait()

    def kill_node(self, node: int) -> None:
        """Kill -9 everything of one node: supervisord, its programs and the component."""
        supervisord = int((self.node_dir(node) / "run" / "supervisord.pid").read_text())
        victims = [supervisord, *_children(supervisord)]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        self.kill_component(node)

    def supervisorctl(self, node: int, *arguments: str) -> None:
        """Run supervisorctl on one node."""
        config = self.node_dir(node) / "conf" / "supervisord.conf"
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(config)]
        subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL)

    def stop_components(self) -> None:
        """End the components in order; kill what does not."""
        for component in self.components.values():
            component.process.terminate()
        for component in self.components.values():
            try:
                component.process.wait(5)
            except subprocess.TimeoutExpired:
                component.process.kill()
                component.process.wait()
        self.components.clear()


async def active_node(stage: Stage) -> int:
    """Ask the components which of them is active; wait until one is.

    Raises:
        CallLostError: none is within READY_S.
    """
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        for node, component in stage.components.items():
            if component.process.poll() is not None:
                raise CallLostError(f"the component of node {node} ended; see {stage.log(node)}")
            if await _is_active(stage.address(node)):
                return node
        await asyncio.sleep(0.05)
    raise CallLostError(f"no component became active within {READY_S} s")


async def _is_active(address: tuple[str, int]) -> bool:
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError:
        return False
    with contextlib.closing(writer):
        writer.write(b'{"do": "read", "call": "nobody"}\n')
        try:
            line = await asyncio.wait_for(reader.readline(), 1.0)
        except (TimeoutError, OSError):
            return False
    return bool(line) and b"standby" not in line


def _free_port(directory: Path) -> int:
    """Return a port that is free at every component's address; demos beside each other differ.

    Raises:
        CallLostError: there is none.
    """
    begin = zlib.crc32(os.fsencode(directory))
    for number in range(PORTS_TRIED):
        port = PORT_FIRST + (begin + number) % PORTS_TRIED
        if all(_is_free((f"127.0.0.{node}", port)) for node in COMPONENT_NODES):
            return port
    raise CallLostError(f"no free TCP port in {PORT_FIRST}..{PORT_FIRST + PORTS_TRIED - 1}")


def _is_free(address: tuple[str, int]) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            return False
    return True


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the demo: what is done to the active component, and how to repair it."""

    title: str
    inject: Callable[[Stage, int], None]
    repair: Callable[[Stage, int], None]


def _kill_component(stage: Stage, node: int) -> None:
    stage.kill_component(node)


def _kill_node(stage: Stage, node: int) -> None:
    stage.kill_node(node)


def _restart_ckpt(stage: Stage, node: int) -> None:
    stage.supervisorctl(node, "restart", "ckpt")


def _start_component(stage: Stage, node: int) -> None:
    stage.start_component(node)


def _start_node(stage: Stage, node: int) -> None:
    stage.cluster("up", "--nodes", "3", "--quiet")
    stage.start_component(node)


def _nothing(stage: Stage, node: int) -> None:
    """Leave the node as it is: a restart repairs itself."""


FAULTS: Final = (
    Fault("kill -9 of the active component", _kill_component, _start_component),
    Fault("kill -9 of everything of its node", _kill_node, _start_node),
    Fault("supervisorctl restart ckpt beside it", _restart_ckpt, _nothing),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one fault did."""

    title: str
    node: int
    next_node: int
    interruption: Interruption


async def play(stage: Stage) -> tuple[list[Row], Findings]:
    """Run the load and inject the faults.

    Returns:
        One row per fault, and the findings of the client.

    Raises:
        CallLostError: no component took over, or calls were not answered in time.
    """
    load = Load([stage.address(node) for node in COMPONENT_NODES], CALLS, RECORD_PAUSE_S)
    await active_node(stage)
    await load.start()
    say(f"{CALLS} calls are open")
    rows = [await _one_fault(stage, load, fault) for fault in FAULTS]
    say("killing the active component once more: what is read back comes from the checkpoint")
    stage.kill_component(await active_node(stage))
    return rows, await load.finish()


async def _one_fault(stage: Stage, load: Load, fault: Fault) -> Row:
    await asyncio.sleep(STEADY_S)
    node = await active_node(stage)
    say(f"{fault.title} (node {node})")
    interruption = load.watch()
    await _in_thread(fault.inject, stage, node)
    await load.settle(SETTLE_S)
    await asyncio.sleep(STEADY_S)
    await _in_thread(fault.repair, stage, node)
    next_node = await active_node(stage)
    say(f"  longest wait {interruption.longest_s * 1000:.0f} ms, active now: node {next_node}")
    return Row(fault.title, node, next_node, interruption)


def _in_thread(action: Callable[[Stage, int], None], stage: Stage, node: int) -> Awaitable[None]:
    return asyncio.to_thread(action, stage, node)


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"  {time.monotonic() - STARTED:5.1f} s  {text}", flush=True)


def report(rows: list[Row], findings: Findings) -> None:
    """Print the table that the demo ends with."""
    title = f"fault, under a load of {CALLS} open calls"
    print(f"\n{title:<40} {'node':>4} {'then':>5} {'interruption':>13}")
    print("-" * 66)
    for row in rows:
        longest_ms = row.interruption.longest_s * 1000
        print(f"{row.title:<40} {row.node:>4} {row.next_node:>5} {longest_ms:>10.0f} ms")
    print("-" * 66)
    print(
        f"{findings.calls} calls, {findings.records} records acknowledged: "
        f"{len(findings.missing)} missing, {len(findings.doubled)} doubled, "
        f"{len(findings.lost)} calls lost"
    )
    for problem in [*findings.missing, *findings.doubled, *findings.lost][:20]:
        print(f"  WRONG: {problem}")


@contextlib.contextmanager
def staged(directory: Path, *, keep: bool) -> Iterator[Stage]:
    """Bring the cluster and the components up; take everything down again unless kept."""
    stage = Stage(directory)
    try:
        stage.cluster("up", "--nodes", "3")
        for node in COMPONENT_NODES:
            stage.start_component(node)
        yield stage
    finally:
        stage.stop_components()
        if keep:
            print(f"\nThe cluster goes on: openais cluster status --dir {directory}")
        else:
            stage.cluster("down", "--quiet")
            shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running at the end")
    parser.add_argument("--dir", type=Path, default=Path("var/demo"), help="where the nodes live")
    options = parser.parse_args()
    try:
        with staged(options.dir.absolute(), keep=options.keep) as stage:
            rows, findings = asyncio.run(play(stage))
            report(rows, findings)
    except (CallLostError, subprocess.CalledProcessError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0 if findings.clean else 1


STARTED: Final = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
