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
    if process == TOTEMD:
        asked = port.TABLE.encode(port.StatusQuery(1))
    else:
        asked = session.TABLE.encode(session.StatusQuery())
    found = _ask(run_dir, process, asked, timeout_s, (port.StatusReport, session.StatusReport))
    if found is None:
        return None
    document: dict[str, Any] = json.loads(found.json)
    return document


def request(run_dir: Path, message: object, timeout_s: float = TIMEOUT_S) -> object | None:
    """Return totemd's answer to a request that needs no attached connection.

    Args:
        run_dir: of the node.
        message: of the port of totemd; answered by `Done` or `Refused`.
        timeout_s: how long to wait for the answer.
    """
    answer: object | None = _ask(
        run_dir, TOTEMD, port.TABLE.encode(message), timeout_s, (port.Done, port.Refused)
    )
    return answer


def _ask(
    run_dir: Path, process: str, asked: bytes, timeout_s: float, wanted: tuple[type, ...]
) -> Any | None:
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
        bundles.send(socket, [asked])
        return _answer(socket, process, time.monotonic() + timeout_s, wanted)
    finally:
        socket.close()


def _answer(
    socket: zmq.Socket[bytes], process: str, deadline: float, wanted: tuple[type, ...]
) -> Any | None:
    while (left := deadline - time.monotonic()) > 0 and socket.poll(int(left * 1000) + 1):
        for data in _messages(socket, process):
            if isinstance(data, wanted):
                return data
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


def quorate(document: dict[str, Any] | None) -> bool:
    """True: a process is on a side of the cluster that may act, as far as it knows."""
    return document is None or bool(document.get("quorum", {"quorate": True})["quorate"])
