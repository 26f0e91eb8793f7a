"""Ask the processes of a node how they are: for tools, not for applications."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

import zmq

from openais.node import bundles
from openais.node.paths import SocketPathError, socket_path
from openais.wire import port, session
from openais.wire.codec import DecodeError

TIMEOUT_S: Final = 2.0
TOTEMD: Final = "totemd"


def query(run_dir: Path, process: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any] | None:
    """Return the status document of one process; None: it does not answer.

    Args:
        run_dir: of the node.
        process: ``totemd``, or the name of a service.
        timeout_s: how long to wait for the answer.
    """
    try:
        path = socket_path(run_dir, f"{process}.sock")
    except SocketPathError:
        return None
    try:
        if not path.exists():
            return None
    except OSError:
        return None  # the directory may not be entered
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.connect(f"ipc://{path}")
        if process == TOTEMD:
            asked = port.TABLE.encode(port.StatusQuery(1))
        else:
            asked = session.TABLE.encode(session.StatusQuery())
        bundles.send(socket, [asked])
        return _answer(socket, process, time.monotonic() + timeout_s)
    finally:
        socket.close()


def _answer(socket: zmq.Socket[bytes], process: str, deadline: float) -> dict[str, Any] | None:
    while (left := deadline - time.monotonic()) > 0 and socket.poll(int(left * 1000) + 1):
        for data in _messages(socket, process):
            if isinstance(data, port.StatusReport | session.StatusReport):
                document: dict[str, Any] = json.loads(data.json)
                return document
    return None


def _messages(socket: zmq.Socket[bytes], process: str) -> list[Any]:
    table = port.TABLE if process == TOTEMD else session.TABLE
    try:
        return list(table.take(bundles.receive(socket)))
    except DecodeError:
        return []


def ready(document: dict[str, Any] | None) -> bool:
    """True: a process serves."""
    if document is None:
        return False
    if document["process"] == TOTEMD:
        return bool(document["state"] == "operational" and document["gate"] == "open")
    return bool(document["state"] == "live")
