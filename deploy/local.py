"""A cluster of nodes on this machine: bring it up, take it down (``openais cluster``)."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from deploy import layout, supervisor
from deploy.layout import LayoutError, Node
from deploy.supervisor import CLUSTER, Supervisor, SupervisorError, end_orphan
from openais import status

UP_TIMEOUT_S: Final = 40.0
POLL_S: Final = 0.1
LOG_LINES: Final = 5  # shown of each log when a node does not come up
DIRECTORY: Final = Path("var/cluster")


class UpError(Exception):
    """A node does not come up: says which, and what its logs say."""


class Progress:
    """Lines for the person who waits."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet: Final = quiet
        self._began: Final = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            sys.stdout.write(f"  {time.monotonic() - self._began:5.1f} s  {text}\n")
            sys.stdout.flush()


def up(directory: Path, count: int, progress: Progress) -> None:
    """Lay out what is missing, start what is down, return when all nodes serve as one cluster.

    Raises:
        LayoutError, SupervisorError, UpError: with the reason.
    """
    nodes = layout.make(directory, count)
    progress.say(f"{len(nodes)} nodes in {directory}")
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lambda node: supervisor.launch(node.directory), nodes))
        progress.say("supervisord runs on each")
        list(pool.map(_start, nodes))
    _wait(nodes, progress)


def _start(node: Node) -> None:
    """Run ``supervisorctl start cluster``, as an operator does."""
    if Supervisor(node.run_dir).state(CLUSTER) == "RUNNING":
        return
    config = node.directory / "conf" / supervisor.CONFIG_NAME
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(config)]
    done = subprocess.run([*command, "start", CLUSTER], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SupervisorError(f"supervisorctl start cluster: {done.stdout.strip()}{_logs(node)}")


def _wait(nodes: Sequence[Node], progress: Progress) -> None:
    deadline = time.monotonic() + UP_TIMEOUT_S
    ids = [node.node_id for node in nodes]
    told: set[str] = set()
    while True:
        missing = [what for node in nodes if (what := _missing(node, ids))]
        for what in missing:
            if what not in told:
                told.add(what)
                progress.say(what)
        if not missing:
            progress.say("all nodes are up, one ring, all services live")
            return
        _check_failed(nodes)
        if time.monotonic() > deadline:
            logs = "".join(_logs(node) for node in nodes if _missing(node, ids))
            raise UpError(f"not up after {UP_TIMEOUT_S:.0f} s: {'; '.join(missing)}{logs}")
        time.sleep(POLL_S)


def _missing(node: Node, ids: list[int]) -> str | None:
    """Return what a node still lacks."""
    totemd = status.query(node.run_dir, "totemd")
    if not status.ready(totemd):
        return f"{node.name}: waiting for totemd"
    assert totemd is not None
    if totemd["members"] != ids:
        return f"{node.name}: waiting for the others, ring of {totemd['members']}"
    for service in layout.SERVICES:
        document = status.query(node.run_dir, service)
        if not status.ready(document) or document is None:
            return f"{node.name}: waiting for {service}"
        if document["view"]["members"] != ids:
            return f"{node.name}: waiting for {service} of the others"
    return None


def _check_failed(nodes: Sequence[Node]) -> None:
    for node in nodes:
        for name, info in Supervisor(node.run_dir).states().items():
            if info["statename"] == "EXITED" and info["exitstatus"] in supervisor.GIVEN_UP:
                raise UpError(f"{node.name}: {name} does not start{_logs(node, name)}")


def _logs(node: Node, program: str = "") -> str:
    """Return the last lines of a node's logs."""
    lines = []
    for path in sorted((node.directory / "log").glob(f"{program or '*'}.log")):
        text = path.read_text(encoding="utf-8", errors="replace").splitlines()
        lines += [f"\n  {path}:", *(f"\n    {line}" for line in text[-LOG_LINES:])]
    return "".join(lines)


def down(directory: Path, progress: Progress) -> None:
    """Stop every node in order, then its supervisord.

    Raises:
        LayoutError: there is no cluster in the directory.
        SupervisorError: a supervisord does not end.
    """
    nodes = layout.nodes(directory)
    if not nodes:
        raise LayoutError(f"{directory}: no cluster here")
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(_down, nodes))
    progress.say(f"{len(nodes)} nodes are down")


def _down(node: Node) -> None:
    own = Supervisor(node.run_dir)
    if own.pid() is not None:
        own.stop(CLUSTER)
        own.shutdown()
    for program in reversed(("totemd", *layout.SERVICES)):
        end_orphan(node.run_dir, program)


def main(arguments: list[str] | None = None) -> int:
    """Run ``openais cluster up`` or ``down``; return the exit status: 0, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="openais cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down"):
        one = commands.add_parser(name)
        one.add_argument("--dir", type=Path, default=DIRECTORY, help=f"default: {DIRECTORY}")
        one.add_argument("--quiet", action="store_true", help="say nothing while it goes well")
        if name == "up":
            one.add_argument("--nodes", type=int, default=3, help="default: 3")
    options = parser.parse_args(arguments)
    progress = Progress(quiet=options.quiet)
    try:
        if options.command == "up":
            up(options.dir.absolute(), options.nodes, progress)
        else:
            down(options.dir.absolute(), progress)
    except (LayoutError, SupervisorError, UpError) as error:
        sys.stderr.write(f"openais cluster {options.command}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
