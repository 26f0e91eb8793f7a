"""Our client of the measurements: one member of a process group. The lines: `bench.client`.

Every message carries its run, sender, serial number and the time of the call; every receiver
checks that nothing is missing, doubled or out of order.
"""

from __future__ import annotations

import select
import struct
import sys
import time
from array import array
from typing import Final

from openais import cpg
from openais.errors import TryAgainError

GROUP: Final = "bench"
HEADER: Final = struct.Struct("<IHHQQQ")  # run, sender, last, serial, time of the call, 0
BURST_MESSAGES: Final = 64  # sent between two looks at what was delivered
RETRY_S: Final = 0.001  # after flow control refused
DRAIN_S: Final = 30.0  # after the end of a run, for what is on the way
SAMPLES_MAX: Final = 1_000_000


class Member:
    """Sends, counts and checks."""

    def __init__(self, run_dir: str) -> None:
        self._cpg: Final = cpg.Cpg(deliver=self._deliver, run_dir=run_dir)
        self._cpg.join(GROUP)
        self._prepare(0, 0, 0, 0, 0, 0)

    def _prepare(
        self, run: int, size: int, from_ns: int, end_ns: int, senders: int, index: int
    ) -> None:
        self._run = run
        self._size = size
        self._from_ns = from_ns
        self._end_ns = end_ns
        self._index = index
        self._filler = bytes(max(0, size - HEADER.size))
        self._expected = [0] * senders
        self._last = 0
        self._sent = 0
        self._received = 0
        self._counted = 0
        self._refused = 0
        self._wrong = ""
        self._samples = array("Q")

    def _deliver(self, event: cpg.Delivery) -> None:
        run, sender, last, serial, called_ns, _ = HEADER.unpack_from(event.payload)
        if run != self._run or serial != self._expected[sender] or len(event.payload) != self._size:
            self._wrong = self._wrong or f"run:{run},sender:{sender},serial:{serial}"
            return
        now_ns = time.monotonic_ns()
        self._expected[sender] = serial + 1
        self._received += 1
        self._last += last
        if self._from_ns <= now_ns < self._end_ns:
            self._counted += 1
            if sender == self._index and len(self._samples) < SAMPLES_MAX:
                self._samples.append(now_ns - called_ns)

    def _dispatch(self, seconds: float) -> None:
        if select.select([self._cpg], [], [], seconds)[0]:
            self._cpg.dispatch()

    def wait_members(self, count: int) -> str:
        """Wait until the group is complete."""
        while len(self._cpg.members(GROUP)) < count:
            self._dispatch(0.05)
        return "members=" + str(count)

    def _send(self, called_ns: int, last: int = 0) -> bool:
        """Send one message; False: flow control refused."""
        header = HEADER.pack(self._run, self._index, last, self._sent, called_ns, 0)
        try:
            self._cpg.mcast(header + self._filler)
        except TryAgainError:
            self._refused += 1
            return False
        self._sent += 1
        return True

    def _open(self) -> None:
        while time.monotonic_ns() < self._end_ns:
            wait = 0.0
            for _ in range(BURST_MESSAGES):
                if not self._send(time.monotonic_ns()):
                    wait = RETRY_S
                    break
            self._dispatch(wait)

    def _closed(self) -> None:
        while time.monotonic_ns() < self._end_ns:
            if self._expected[self._index] == self._sent:
                self._send(time.monotonic_ns())
            self._dispatch(RETRY_S)

    def _paced(self, begin_ns: int, rate: int) -> None:
        while (now_ns := time.monotonic_ns()) < self._end_ns:
            due_ns = begin_ns + self._sent * 1_000_000_000 // rate
            # The time that counts is when it was to be sent: a late call is waiting, too.
            if due_ns > now_ns:
                self._dispatch((due_ns - now_ns) / 1e9)
            elif not self._send(due_ns):
                self._dispatch(RETRY_S)
            else:
                self._dispatch(0)

    def run(self, words: list[str]) -> str:
        """Do one run; return the answer."""
        mode = words[1]
        run, size, rate, begin_ns, from_ns, end_ns, senders, index = map(
            int, (words[0], *words[2:])
        )
        self._prepare(run, size, from_ns, end_ns, senders, index)
        while time.monotonic_ns() < begin_ns:
            self._dispatch(RETRY_S)
        if mode == "open":
            self._open()
        elif mode == "closed":
            self._closed()
        elif mode == "paced":
            self._paced(begin_ns, rate)
        return self._finish(mode, senders)

    def _finish(self, mode: str, senders: int) -> str:
        deadline = self._end_ns / 1e9 + DRAIN_S
        closing = mode != "receive"
        while self._last < senders and not self._wrong:
            if time.monotonic() > deadline:
                return f"error=incomplete received={self._received} expected={self._expected}"
            if closing and time.monotonic_ns() >= self._end_ns and self._send(self._end_ns, 1):
                closing = False
            self._dispatch(RETRY_S if closing else 0.05)
        if self._wrong:
            return f"error=order {self._wrong}"
        samples = sorted(self._samples) or [0]
        return (
            f"sent={self._sent} counted={self._counted} received={self._received} "
            f"refused={self._refused} p50_ns={samples[len(samples) // 2]} "
            f"p99_ns={samples[len(samples) * 99 // 100]}"
        )


def main() -> None:
    """Serve commands until standard input ends."""
    member = Member(sys.argv[1])
    for line in sys.stdin:
        command, *words = line.split()
        answer = member.run(words) if command == "run" else member.wait_members(int(words[0]))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
