"""What an outsider who records, changes and repeats datagrams achieves: counters, nothing else."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
from collections.abc import Iterator

import pytest

from deploy import layout
from tests.integration.cluster import wait_for
from tests.integration.trio import config, document, dropped, laid_out, starting, together

RECORDED_MIN = 20
STRICT = "replay_protection: strict"


class Outsider:
    """A process on the network without the key."""

    def __init__(self, node: layout.Node) -> None:
        text = config(node).read_text()
        self.port = int(text.split("mcastport: ")[1].split()[0])
        self.group = text.split("mcastaddr: ")[1].split()[0]
        self._ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._ear.bind((self.group, self.port))
        membership = socket.inet_aton(self.group) + socket.inet_aton("127.0.0.1")
        self._ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._ear.settimeout(0)
        self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        loopback = socket.inet_aton("127.0.0.1")
        self._mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        self.recorded: list[bytes] = []

    def record(self) -> int:
        """Take what has come; return how much there is."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.recorded.append(self._ear.recv(65_535))
        return len(self.recorded)

    def of(self, node: layout.Node) -> list[bytes]:
        """Return what a node sent."""
        self.record()
        return [d for d in self.recorded if int.from_bytes(d[4:8], "big") == node.node_id]

    def send(self, datagrams: list[bytes]) -> None:
        """Send to all, and to the token socket of each node."""
        for datagram in datagrams:
            self._mouth.sendto(datagram, (self.group, self.port))
            for n in (1, 2, 3):
                self._mouth.sendto(datagram, (f"127.0.0.{n}", self.port - 1))

    def close(self) -> None:
        self._ear.close()
        self._mouth.close()


@contextlib.contextmanager
def outside(node: layout.Node) -> Iterator[Outsider]:
    made = Outsider(node)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("lines", [(), (STRICT,)])
def test_recorded_changed_and_cut_datagrams_reach_no_ring(lines: tuple[str, ...]) -> None:
    with laid_out(3, *lines) as nodes, starting() as start, outside(nodes[0]) as outsider:
        one, two, three = nodes
        start(one)
        start(two)
        third = start(three)
        together(*nodes)
        wait_for(lambda: outsider.record() >= RECORDED_MIN, "the ring sends")
        rng = random.Random(1)
        seq = document(one)["ring"]["seq"]
        outsider.send(outsider.recorded)
        wait_for(lambda: dropped(one, "replay") > 0, "replays are dropped")
        for datagram in outsider.recorded[:RECORDED_MIN]:
            spoiled = bytearray(datagram)
            spoiled[rng.randrange(28, len(spoiled))] ^= 1
            spoiled[20] ^= 1  # a counter that is new
            cut = bytearray(datagram[: rng.randrange(28, len(datagram))])
            cut[20] ^= 1
            outsider.send([bytes(spoiled), bytes(cut), datagram + b"x" * 9_000])
        wait_for(lambda: dropped(one, "digest") > 0, "changes are dropped")
        assert document(one)["ring"]["seq"] == seq
        third.process.kill()
        together(one, two)
        seq = document(one)["ring"]["seq"]
        before = dropped(one, "replay")
        outsider.send(outsider.of(three)[::-1])
        wait_for(lambda: dropped(one, "replay") > before, "replays are dropped")
        assert document(one)["members"] == [1, 2]
        assert document(one)["ring"]["seq"] == seq


def test_strict_lets_a_fresh_node_hear_nothing_of_a_recording() -> None:
    with laid_out(3, STRICT) as nodes, starting() as start, outside(nodes[0]) as outsider:
        one, two, three = nodes
        start(one)
        second, third = start(two), start(three)
        together(*nodes)
        wait_for(lambda: len(outsider.of(three)) >= 5, "the third node sends")
        third.process.kill()
        together(one, two)
        second.stop()
        shutil.rmtree(two.directory / "state")  # it remembers no session of anybody
        (two.directory / "state").mkdir()
        again = start(two)
        together(one, two)
        unproven = dropped(two, "unproven_session")
        outsider.send(outsider.of(three))
        wait_for(lambda: dropped(two, "unproven_session") > unproven, "the recording is refused")
        assert document(two)["members"] == [1, 2]
        output = again.stop()
        assert "members=1,2,3" not in output


def test_strict_lets_a_node_that_was_restarted_back_in() -> None:
    with laid_out(2, STRICT) as nodes, starting() as start:
        one, two = nodes
        start(one)
        second = start(two)
        together(one, two)
        for _ in range(2):
            second.process.kill()
            wait_for(lambda: document(one)["members"] == [1], "it is missed")
            second = start(two)
            together(one, two)
        assert dropped(one, "unproven_session") > 0


def test_a_node_with_the_key_that_is_not_listed_stays_out() -> None:
    listed = "".join(
        f"\nnode {{\n ring0_addr: 127.0.0.{n}\n nodeid: {n}\n name: node{n}\n}}" for n in (1, 2)
    )
    with laid_out(3) as nodes, starting() as start:
        one, two, three = nodes
        for node in (one, two):
            text = config(node).read_text()
            config(node).write_text(f"{text}\nnodelist {{{listed}\n}}\n")
        start(one)
        start(two)
        together(one, two)
        start(three)
        wait_for(lambda: dropped(one, "unlisted") > 0, "the stranger is refused")
        assert document(one)["members"] == [1, 2]
