"""``openais restart`` and ``openais upgrade``: programs of nodes, one at a time, each until live.

What it restarts it waits for: the process serves, and the views have their members again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy import layout, release
from deploy.release import ReleaseError
from deploy.supervisor import GIVEN_UP, Supervisor, SupervisorError
from openais import status
from openais.node import paths

WAIT_S: Final = 60.0
POLL_S: Final = 0.05
QUERY_S: Final = 0.5
DEATHS_MAX: Final = 3  # of a process in one start; then it does not come
TOTEMD: Final = "totemd"

Say = Callable[[str], None]


class RenewError(Exception):
    """A program does not come back: says which, and why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node."""

    name: str
    run_dir: Path


class Renewal:
    """The programs of one node.

    Args:
        node: whose.
        wait_s: how long a program may take to be live.
        say: prints a line.
    """

    def __init__(self, node: Member, wait_s: float, say: Say) -> None:
        self._node: Final = node
        self._supervisor: Final = Supervisor(node.run_dir)
        self._wait_s: Final = wait_s
        self._say: Final = say

    def programs(self) -> tuple[str, ...]:
        """Return the programs that run, in the order of their start.

        Raises:
            SupervisorError: supervisord does not answer.
        """
        running = [n for n, info in self._supervisor.states().items() if info["pid"]]
        services = sorted(n for n in running if n not in (TOTEMD, "cluster"))
        return (*(n for n in (TOTEMD,) if n in running), *services)

    def restart(self, program: str) -> None:
        """Restart one program and wait until it serves with all members there were before.

        Raises:
            RenewError: it does not come back.
            SupervisorError: supervisord refuses.
        """
        documents = self._documents()
        before = {name: _members(document) for name, document in documents.items()}
        began = time.monotonic()
        self._supervisor.stop(program)
        self._supervisor.start(program)
        self._wait(program, before)
        took = time.monotonic() - began
        self._say(f"{self._node.name}: {program} is live again after {took:.1f} s")

    def upgrade(self, program: str, new: Path) -> None:
        """Start a program from another release; go back if it does not come.

        Raises:
            ReleaseError: the release or the link cannot be used; nothing was done.
            RenewError: it did not come; says whether the way back succeeded.
            SupervisorError: supervisord refuses.
        """
        links = release.links_of(self._node.run_dir)
        old = release.target(links, program)
        versions = _version_or_unknown(old, program), release.version(new, program)
        release.point(links, program, new)
        self._say(f"{self._node.name}: {program} {versions[0]} -> {versions[1]}, {new}")
        try:
            self.restart(program)
        except RenewError as failure:
            self._say(f"{self._node.name}: {failure}; going back to {old}")
            release.point(links, program, old)
            self._back(program, failure, old)
            raise RenewError(f"{failure}; {program} runs from {old} again") from failure

    def _back(self, program: str, failure: RenewError, old: Path) -> None:
        try:
            self.restart(program)
        except RenewError as again:
            raise RenewError(
                f"{failure}; and it does not come from {old} either: {again}. See its log"
            ) from again

    def _documents(self) -> dict[str, dict[str, Any] | None]:
        run_dir = self._node.run_dir
        return {name: status.query(run_dir, name, QUERY_S) for name in self.programs()}

    def _wait(self, program: str, before: dict[str, list[int]]) -> None:
        watched = before if program == TOTEMD else {program: before.get(program, [])}
        deadline = time.monotonic() + self._wait_s
        pids: set[int] = set()
        while missing := self._missing(watched):
            info = self._supervisor.states()[program]
            pids.add(int(info["pid"]))
            state, exit_status = str(info["statename"]), int(info["exitstatus"])
            if state == "FATAL" or (state == "EXITED" and exit_status in GIVEN_UP):
                raise RenewError(f"{program} ended with status {exit_status}")
            if len(pids - {0}) > DEATHS_MAX:
                raise RenewError(f"{program} died {DEATHS_MAX} times")
            if time.monotonic() > deadline:
                raise RenewError(f"{missing} after {self._wait_s:.0f} s")
            time.sleep(POLL_S)

    def _missing(self, watched: dict[str, list[int]]) -> str:
        """Return what is not as it was yet; "": nothing."""
        for name, members in watched.items():
            document = status.query(self._node.run_dir, name, QUERY_S)
            if not status.ready(document):
                return f"{name} is not live"
            if not set(members) <= set(_members(document)):
                return f"{name} lacks {sorted(set(members) - set(_members(document)))}"
        return ""


def _members(document: dict[str, Any] | None) -> list[int]:
    if document is None:
        return []
    found: list[int] = document.get("members") or document.get("view", {}).get("members", [])
    return found


def _version_or_unknown(of: Path, program: str) -> str:
    try:
        return release.version(of, program)
    except ReleaseError:
        return "(unusable)"


def nodes(directory: Path | None, run_dir: Path | None) -> Sequence[Member]:
    """Return the nodes that are meant.

    Raises:
        ReleaseError: there is none.
    """
    if directory is not None:
        found = [Member(node.name, node.run_dir) for node in layout.nodes(directory.absolute())]
        if not found:
            raise ReleaseError(f"{directory}: no cluster here")
        return found
    return [Member("node", paths.run_dir(run_dir).absolute())]


def run(options: argparse.Namespace, say: Say) -> None:
    """Do one command on every node that is meant, one after the other."""
    new = None if options.command == "restart" else options.release.absolute()
    for node in nodes(options.dir, options.run_dir):
        renewal = Renewal(node, options.wait, say)
        running = renewal.programs()
        wanted = running if options.program == "all" else (options.program,)
        for program in wanted:
            if program not in running:
                raise RenewError(f"{node.name}: {program} does not run; running: {running}")
            if new is None:
                renewal.restart(program)
            else:
                renewal.upgrade(program, new)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run ``openais restart`` or ``upgrade``; return 0 done, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="openais", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("restart", "upgrade"):
        one = commands.add_parser(name)
        one.add_argument("program", metavar="SERVICE|all", help="totemd, a service, or all")
        one.add_argument("--dir", type=Path, help="a cluster made by up: node after node")
        one.add_argument("--run-dir", type=Path, help="one node; else OPENAIS_RUN_DIR, /run/ais")
        one.add_argument("--wait", type=float, default=WAIT_S, help="seconds for each; 60")
        if name == "upgrade":
            one.add_argument("--release", type=Path, required=True, help="directory of a release")
    options = parser.parse_args(arguments)
    try:
        run(options, _say)
    except (ReleaseError, RenewError, SupervisorError) as error:
        sys.stderr.write(f"openais {options.command}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
