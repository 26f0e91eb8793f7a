"""Three members of etcd on this machine, where it is installed, and what their clients do.

The client speaks HTTP to the JSON gateway of a member, over connections that stay open, with
requests encoded beforehand: it costs a tenth of what etcd's own client in Python would.
"""

from __future__ import annotations

import base64
import contextlib
import json
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.process import DIE_WITH_PARENT

MEMBERS: Final = 3
START_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.1
RECEIVE_BYTES: Final = 65_536
HOST: Final = "127.0.0.1"


class EtcdError(Exception):
    """The members did not start, or did not do what they were asked."""


def missing() -> str | None:
    """Return why etcd cannot take part; None: it can."""
    return None if shutil.which("etcd") else "etcd not installed"


def _ports() -> tuple[int, int]:
    """Return two ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as two:
        for s in (one, two):
            s.bind((HOST, 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])


@contextlib.contextmanager
def members(directory: Path) -> Iterator[list[int]]:
    """Have members that serve, with their data below a directory; yields their ports."""
    ports = [_ports() for _ in range(MEMBERS)]
    peers = ",".join(f"m{n}=http://{HOST}:{peer}" for n, (_, peer) in enumerate(ports))
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number, (client, peer) in enumerate(ports):
            command = ["etcd", "--name", f"m{number}", "--data-dir", str(directory / f"m{number}")]
            command += ["--listen-client-urls", f"http://{HOST}:{client}"]
            command += ["--advertise-client-urls", f"http://{HOST}:{client}"]
            command += ["--listen-peer-urls", f"http://{HOST}:{peer}"]
            command += ["--initial-advertise-peer-urls", f"http://{HOST}:{peer}"]
            command += ["--initial-cluster", peers, "--log-level", "error"]
            running.append(
                subprocess.Popen(
                    [*DIE_WITH_PARENT, *command],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        _wait_healthy(ports[0][0])
        yield [client for client, _ in ports]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(START_TIMEOUT_S)


def _wait_healthy(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, EtcdError):
            if puts(port, 1, 16, 0.01) > 0:
                return
        time.sleep(POLL_S)
    raise EtcdError(f"no member takes a put within {START_TIMEOUT_S:g} s")


def _request(port: int, number: int, size: int) -> bytes:
    """Return a put of a value of so many bytes."""
    key = base64.b64encode(f"bench/{number}".encode()).decode()
    value = base64.b64encode(bytes(size)).decode()
    body = json.dumps({"key": key, "value": value}).encode()
    head = f"POST /v3/kv/put HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def puts(port: int, clients: int, size: int, seconds: float) -> float:
    """Return puts per second of clients that each wait for the answer before they go on.

    Raises:
        EtcdError: a put was refused.
    """
    connections = [socket.create_connection((HOST, port)) for _ in range(clients)]
    requests = {s.fileno(): _request(port, n, size) for n, s in enumerate(connections)}
    by_descriptor = {s.fileno(): s for s in connections}
    poller = select.epoll()
    done = 0
    try:
        for s in connections:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poller.register(s, select.EPOLLIN)
            s.sendall(requests[s.fileno()])
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            for descriptor, _ in poller.poll(begun + seconds - now):
                answer = by_descriptor[descriptor].recv(RECEIVE_BYTES)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise EtcdError(f"a put was answered {answer[:200]!r}")
                done += 1
                by_descriptor[descriptor].sendall(requests[descriptor])
        return done / (time.monotonic() - begun)
    finally:
        poller.close()
        for s in connections:
            s.close()
