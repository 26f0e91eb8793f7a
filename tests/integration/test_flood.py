"""A flood of datagrams: one wake-up reads a bounded number, so timers and the token still run."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from openais.node.poller import Poller
from tests.integration.cluster import wait_for
from totemd import network
from totemd.network import Network
from totemd.protocol.links import LinkParameters
from totemd.protocol.parameters import MS
from totemd.udp import LinkSettings

ADDRESS = "127.0.0.77"
BUDGET = 20
FLOOD = 90


def free_ports() -> int:
    """Return a port that is free, and so is the one below it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as above:
        above.bind((ADDRESS, 0))
        port = int(above.getsockname()[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as below:
            below.bind((ADDRESS, port - 1))
        return port


@contextlib.contextmanager
def listening(port: int) -> Iterator[Network]:
    settings = [LinkSettings(number=0, address=ADDRESS, port=port, loop=True)]
    now_ns = time.monotonic_ns()
    made = Network(settings, LinkParameters(node_id=1), 1000 * MS, lambda _: [], Poller(), now_ns)
    try:
        yield made
    finally:
        made.close()


def read(made: Network) -> list[bytes]:
    return [data for _, (data, _, _) in made.receive(lambda: False)]


def test_a_flood_is_read_in_bounded_pieces_and_the_token_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "DATAGRAMS_PER_WAKE", BUDGET)
    monkeypatch.setattr(network, "TOKENS_PER_WAKE", BUDGET // 2)
    port = free_ports()
    with listening(port) as made, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooder:
        for k in range(FLOOD):
            flooder.sendto(b"data %d" % k, (ADDRESS, port))
            flooder.sendto(b"token %d" % k, (ADDRESS, port - 1))
        pieces: list[list[bytes]] = []

        def all_read() -> bool:
            pieces.append(read(made))
            return sum(map(len, pieces)) == 2 * FLOOD

        wait_for(all_read, "everything is read at last")
    for piece in pieces:
        tokens = [data for data in piece if data.startswith(b"token")]
        assert len(piece) - len(tokens) <= BUDGET
        assert len(tokens) <= BUDGET // 2
    assert any(data.startswith(b"token") for data in pieces[0]), "tokens do not wait for the end"
    assert len(pieces) >= FLOOD // BUDGET
