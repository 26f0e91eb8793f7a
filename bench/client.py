"""The harness' side of a client process: lines of words in, lines of ``key=value`` out.

The Python client of `bench.ring_client` and the C client of corosync understand the same lines:

    members COUNT
    run RUN MODE SIZE RATE BEGIN_NS FROM_NS END_NS SENDERS
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bench.process import DIE_WITH_PARENT

ANSWER_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
LEAD_NS: Final = 100_000_000  # between the command and the begin of a run


class Mode(Enum):
    """What a client does in a run."""

    RECEIVE = "receive"
    OPEN = "open"  # send as fast as flow control lets it
    PACED = "paced"  # send at a rate
    CLOSED = "closed"  # send when the last one was delivered here


class ClientError(Exception):
    """A client failed, or what it received is wrong: says which and what."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the clients of a cluster do at the same time."""

    mode: Mode
    size: int  # bytes of a message
    senders: int  # the first so many nodes
    seconds: float
    warm_up_s: float
    rate: float = 0  # messages per second of each sender, when paced


@dataclass(frozen=True, slots=True)
class Result:
    """What one client saw."""

    sent: int
    counted: int  # delivered after the warm-up and before the end
    received: int  # delivered in all
    refused: int  # that flow control turned away
    p50_us: float  # from the call of mcast to the delivery here
    p99_us: float


class Client:
    """One client process.

    Args:
        name: for errors.
        command: what is run.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self.name: Final = name
        self._popen: Final = subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ,
        )
        self._buffer = b""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def tell(self, line: str) -> None:
        """Give a command."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(line.encode() + b"\n")
        except BrokenPipeError as error:
            raise ClientError(f"{self.name}: ended with {self._popen.wait()}") from error

    def answer(self, seconds: float = ANSWER_TIMEOUT_S) -> dict[str, str]:
        """Return the answer of the last command.

        Raises:
            ClientError: there is none in time, or it is an error.
        """
        assert self._popen.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._popen.stdout], [], [], left)[0]:
                raise ClientError(f"{self.name}: no answer within {seconds:g} s")
            data = self._popen.stdout.read(4096)
            if not data:
                raise ClientError(f"{self.name}: ended with {self._popen.wait()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        found = dict(word.split("=", 1) for word in line.decode().split())
        if "error" in found:
            raise ClientError(f"{self.name}: {line.decode()}")
        return found

    def wait_members(self, count: int) -> None:
        """Wait until the group has so many members."""
        self.tell(f"members {count}")
        self.answer()

    def close(self) -> None:
        """End the process."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        try:
            self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def play(clients: list[Client], run: Run, number: int) -> list[Result]:
    """Let all clients do one run; return what each saw, in the same order.

    Args:
        clients: of all nodes; the first ones send.
        run: what they do.
        number: different for each run of these clients.

    Raises:
        ClientError: a client failed, or a message is missing, doubled or out of order.
    """
    begin_ns = time.monotonic_ns() + LEAD_NS
    from_ns = begin_ns + int(run.warm_up_s * 1e9)
    end_ns = from_ns + int(run.seconds * 1e9)
    for index, client in enumerate(clients):
        mode = run.mode if index < run.senders else Mode.RECEIVE
        client.tell(
            f"run {number} {mode.value} {run.size} {int(run.rate)} "
            f"{begin_ns} {from_ns} {end_ns} {run.senders} {index}"
        )
    seconds = run.warm_up_s + run.seconds + ANSWER_TIMEOUT_S
    results = [_result(client, seconds) for client in clients]
    sent = sum(result.sent for result in results)
    for client, result in zip(clients, results, strict=True):
        if result.received != sent:
            raise ClientError(f"{client.name}: {sent} messages sent, {result.received} received")
    return results


def _result(client: Client, seconds: float) -> Result:
    found = client.answer(seconds)
    return Result(
        sent=int(found["sent"]),
        counted=int(found["counted"]),
        received=int(found["received"]),
        refused=int(found["refused"]),
        p50_us=int(found["p50_ns"]) / 1e3,
        p99_us=int(found["p99_ns"]) / 1e3,
    )
