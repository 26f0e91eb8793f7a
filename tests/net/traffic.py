"""Ordered messages among nodes: every node sends, every node must get all, in one order."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from openais import cpg
from tests.net.nodes import Member

GROUP: Final = "traffic"
DEADLINE_S: Final = 30.0
WAIT_S: Final = 0.005
_NUMBER: Final = struct.Struct(">IQ")  # node, number


class Traffic:
    """One member of a process group on each of some nodes."""

    def __init__(self, nodes: Sequence[Member]) -> None:
        self._numbers: Final = [node.host.number for node in nodes]
        self._sent = 0
        self.received: Final[list[list[tuple[int, int]]]] = [[] for _ in nodes]
        self._ends: Final[list[cpg.Cpg]] = []
        try:
            for position, node in enumerate(nodes):
                end = cpg.Cpg(self._collector(position), run_dir=node.run_dir)
                self._ends.append(end)
                end.join(GROUP)
            self._wait(lambda: len(self._ends[0].members(GROUP)) == len(nodes), "all have joined")
        except BaseException:
            self.close()
            raise

    def _collector(self, position: int) -> Callable[[cpg.Delivery], None]:
        def collect(delivery: cpg.Delivery) -> None:
            self.received[position].append(_NUMBER.unpack_from(delivery.payload))

        return collect

    def exchange(self, count: int, size: int = 1000) -> None:
        """Send so many messages from each node; return when all have all, in one order."""
        self.send(count, size)
        self.wait_all()

    def send(self, count: int, size: int = 1000) -> None:
        """Send so many messages from each node."""
        for number in range(self._sent, self._sent + count):
            for node, end in zip(self._numbers, self._ends, strict=True):
                end.mcast(_NUMBER.pack(node, number).ljust(size, b"."), wait=DEADLINE_S)
                end.dispatch()
        self._sent += count

    def wait_all(self) -> None:
        """Return when every node has everything, in one order."""
        wanted = self._sent * len(self._ends)
        self._wait(lambda: all(len(r) >= wanted for r in self.received), "all is delivered")
        first, *others = self.received
        assert all(other == first for other in others), "delivered in different orders"
        assert len(set(first)) == len(first) == wanted, "something was delivered twice"

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            for one in self._ends:
                one.dispatch()
            assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}: {self._counts()}"
            time.sleep(WAIT_S)

    def _counts(self) -> list[int]:
        return [len(one) for one in self.received]

    def close(self) -> None:
        """Leave the group."""
        for end in self._ends:
            end.close()


@contextlib.contextmanager
def traffic(nodes: Sequence[Member]) -> Iterator[Traffic]:
    """Have traffic for the time of a test."""
    made = Traffic(nodes)
    try:
        yield made
    finally:
        made.close()
