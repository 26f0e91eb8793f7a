"""A cluster and one client process per node, for measurements."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy import layout, local


class Client:
    """A client process of one node, told what to do by lines of JSON."""

    def __init__(self, module: str, node: layout.Node) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENAIS_RUN_DIR": str(node.run_dir)},
        )

    def tell(self, **command: Any) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the answer of the last command."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client of the measurement ended: {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@contextlib.contextmanager
def stage(nodes: int, module: str) -> Iterator[list[Client]]:
    """Run a cluster and one client per node; take everything down at the end."""
    directory = Path(tempfile.mkdtemp(prefix="ais-bench-"))
    clients: list[Client] = []
    progress = local.Progress(quiet=True)
    try:
        local.up(directory, nodes, progress)
        clients = [Client(module, node) for node in layout.nodes(directory)]
        yield clients
    finally:
        for client in clients:
            client.close()
        if layout.nodes(directory):
            local.down(directory, progress)
        shutil.rmtree(directory, ignore_errors=True)


def say(text: str = "") -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
