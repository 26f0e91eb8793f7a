"""The directory of a node: configuration, key, places for sockets, state and logs."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy import supervisor
from openais.node.paths import SOCKET_NAME_SIZE_MAX, SOCKET_PATH_SIZE_MAX

NODES_MAX: Final = 64
PORT_FIRST: Final = 5405
PORTS_TRIED: Final = 500
SERVICES: Final = ("clm", "ckpt")
FOLDERS: Final = {"conf": 0o755, "run": 0o750, "state": 0o700, "log": 0o750}

_CONFIGURATION: Final = """\
# One node of a cluster on one machine. Written by "openais cluster up"; edit freely.
totem {{
    version: 2
    cluster_name: {cluster}
    nodeid: {node_id}
    keyfile: {directory}/conf/authkey
    interface {{
        ringnumber: 0
        bindnetaddr: 127.0.0.{node_id}
        mcastaddr: {group}
        mcastport: {port}
    }}
}}
clm {{
    node_name: {name}
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
}}
"""


class LayoutError(Exception):
    """A cluster cannot be laid out: says what, where, the rule."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster on this machine."""

    node_id: int
    directory: Path

    @property
    def name(self) -> str:
        """Name of the node."""
        return f"node{self.node_id}"

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return self.directory / "run"


def nodes(directory: Path) -> tuple[Node, ...]:
    """Return the nodes that are laid out in a cluster directory."""
    found = [
        Node(int(path.name[1:]), path)
        for path in directory.glob("n*")
        if path.name[1:].isdigit() and (path / "conf" / "openais.conf").exists()
    ]
    return tuple(sorted(found, key=lambda node: node.node_id))


def make(directory: Path, count: int) -> tuple[Node, ...]:
    """Lay out the nodes of a cluster that are missing; return all.

    Raises:
        LayoutError: the directory cannot be used, no port is free, or the key cannot be made.
    """
    if not 1 <= count <= NODES_MAX:
        raise LayoutError(f"--nodes {count}: a cluster on one machine has 1..{NODES_MAX} nodes")
    _check_length(directory)
    present = nodes(directory)
    if len(present) >= count:
        return present
    if present:
        raise LayoutError(
            f"{directory} has {len(present)} nodes, {count} are asked for; "
            "take it down and remove it first, or use another --dir"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        wanted = [Node(n, directory / f"n{n}") for n in range(1, count + 1)]
        port = _free_port(directory, count)
        for node in wanted:
            _make_node(node, directory, port)
        _make_keys(wanted)
    except OSError as error:
        raise LayoutError(f"{error.filename or directory}: {error.strerror}") from error
    return tuple(wanted)


def _check_length(directory: Path) -> None:
    longest = len(os.fsencode(directory / f"n{NODES_MAX}" / "run")) + 1 + SOCKET_NAME_SIZE_MAX
    if longest > SOCKET_PATH_SIZE_MAX:
        raise LayoutError(
            f"{directory}: {longest - SOCKET_PATH_SIZE_MAX} bytes too long: the kernel limits the "
            "path of a local socket; use a shorter --dir"
        )


def _make_node(node: Node, cluster: Path, port: int) -> None:
    for folder, mode in FOLDERS.items():
        (node.directory / folder).mkdir(mode=mode, parents=True, exist_ok=True)
    digest = _digest(cluster)
    text = _CONFIGURATION.format(
        cluster=f"local-{digest[:4].hex()}",
        node_id=node.node_id,
        directory=node.directory,
        group=f"239.192.{digest[4]}.{digest[5]}",
        port=port,
        name=node.name,
    )
    conf = node.directory / "conf"
    (conf / "openais.conf").write_text(text, encoding="utf-8")
    supervisor.make(node.directory, node.name, SERVICES)


def _digest(directory: Path) -> bytes:
    return hashlib.sha256(os.fsencode(directory)).digest()


def _make_keys(wanted: list[Node]) -> None:
    first = wanted[0].directory / "conf" / "authkey"
    command = [sys.executable, "-m", "totemd.keygen", "-k", str(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LayoutError(f"ais-keygen: {done.stderr.strip()}")
    for node in wanted[1:]:
        shutil.copy2(first, node.directory / "conf" / "authkey")


def _free_port(directory: Path, count: int) -> int:
    """Return a port that is free, with the one below, on every address the nodes will use.

    Where to begin depends on the directory, so that clusters made at one time do not meet.
    """
    begin = int.from_bytes(_digest(directory)[6:8], "big")
    for number in range(PORTS_TRIED):
        port = PORT_FIRST + 2 * ((begin + number) % PORTS_TRIED)
        if all(_free(f"127.0.0.{n}", p) for n in range(1, count + 1) for p in (port - 1, port)):
            return port
    last = PORT_FIRST + 2 * PORTS_TRIED - 2
    raise LayoutError(f"no free pair of UDP ports in {PORT_FIRST - 1}..{last}")


def _free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.bind((address, port))
        except OSError:
            return False
    return True
