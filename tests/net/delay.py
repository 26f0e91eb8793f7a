"""Carry frames between two interfaces, each some time after it came: a long cable.

A program of its own, run in the switch's namespace: ``python -m tests.net.delay A B MS_AB MS_BA``.
It says ``ready`` and goes on until it is killed. It stands in for the qdisc netem, which many
kernels are built without.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from typing import Final

ETH_P_ALL: Final = 3
SOL_PACKET: Final = 263
PACKET_VNET_HDR: Final = 15  # a header that keeps checksums to be computed, and trains
PACKET_IGNORE_OUTGOING: Final = 23
SO_RCVBUFFORCE: Final = 33
BUFFER_BYTES: Final = 16 << 20
FRAME_SIZE_MAX: Final = 1 << 17
FRAMES_MAX: Final = 100_000  # under way in one direction; more are lost
READS_PER_WAKE: Final = 64


class Direction:
    """One way of the cable."""

    def __init__(self, source: socket.socket, destination: socket.socket, delay_s: float) -> None:
        self.source: Final = source
        self._destination: Final = destination
        self._delay_s: Final = delay_s
        self._under_way: Final[deque[tuple[float, bytes]]] = deque()

    def read(self) -> None:
        """Take what has come."""
        for _ in range(READS_PER_WAKE):
            try:
                frame = self.source.recv(FRAME_SIZE_MAX)
            except BlockingIOError:
                return
            except OSError:
                return  # the interface is down
            if len(self._under_way) < FRAMES_MAX:
                self._under_way.append((time.monotonic() + self._delay_s, frame))

    def deliver(self) -> float | None:
        """Pass on what is due; return when the next one is."""
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            frame = self._under_way.popleft()[1]
            try:
                self._destination.send(frame)
            except OSError:
                continue  # lost, as on a cable
        return self._under_way[0][0] if self._under_way else None


def _socket(interface: str) -> socket.socket:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    s.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    s.settimeout(0)
    s.bind((interface, ETH_P_ALL))
    return s


def main(arguments: list[str]) -> None:
    """Carry frames for ever."""
    first, second, there_ms, back_ms = arguments
    a, b = _socket(first), _socket(second)
    directions = [Direction(a, b, float(there_ms) / 1e3), Direction(b, a, float(back_ms) / 1e3)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        due = [at for one in directions if (at := one.deliver()) is not None]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select([a, b], [], [], timeout)
        for one in directions:
            if one.source in readable:
                one.read()


if __name__ == "__main__":
    main(sys.argv[1:])
