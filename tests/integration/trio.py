"""Nodes of which only totemd runs, with lines added to their configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy import layout
from openais import status
from tests.integration.cluster import Daemon, daemon, short_directory, wait_for


def config(node: layout.Node) -> Path:
    return node.directory / "conf" / "openais.conf"


def document(node: layout.Node) -> dict[str, Any]:
    return status.query(node.run_dir, "totemd") or {"members": [], "counters": {}, "ring": {}}


def dropped(node: layout.Node, rule: str) -> int:
    return int(document(node)["counters"].get(f"datagrams_dropped_{rule}", 0))


def together(*nodes: layout.Node) -> None:
    """Wait until these nodes are one ring."""
    ids = [node.node_id for node in nodes]
    wait_for(lambda: all(document(n)["members"] == ids for n in nodes), f"{ids} are one ring")


@contextlib.contextmanager
def laid_out(count: int, *lines: str, more: str = "") -> Iterator[tuple[layout.Node, ...]]:
    """Lay out nodes with further lines of the section totem, and further sections."""
    with short_directory() as directory:
        nodes = layout.make(directory, count)
        for node in nodes:
            text = config(node).read_text()
            added = "".join(f"\n    {line}" for line in lines)
            config(node).write_text(text.replace("version: 2", "version: 2" + added) + more)
        yield nodes


Start = Callable[[layout.Node], Daemon]


@contextlib.contextmanager
def starting() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:
        yield lambda node: stack.enter_context(daemon("totemd", config(node)))
