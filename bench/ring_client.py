"""The client of `bench.ring`: one member of a process group."""

from __future__ import annotations

import json
import select
import sys
import time

from openais import cpg
from openais.errors import TryAgainError

GROUP = "bench"
QUIET_S = 0.3  # without a delivery: the run is over
WARM_UP = 0.2  # share of the time that is not counted


class Member:
    """Counts what is delivered, sends when told to."""

    def __init__(self) -> None:
        self.delivered = 0
        self.latest_s = 0.0
        self._own = False
        self._cpg = cpg.Cpg(deliver=self._deliver)
        self._cpg.join(GROUP)

    def _deliver(self, event: cpg.Delivery) -> None:
        self.delivered += 1
        self.latest_s = time.monotonic()
        if event.sender.node_id == self._cpg.local_node:
            self._own = True

    def _dispatch(self, seconds: float) -> None:
        if select.select([self._cpg], [], [], seconds)[0]:
            self._cpg.dispatch()

    def wait_members(self, count: int) -> None:
        """Wait until the group is complete."""
        while len(self._cpg.members(GROUP)) < count:
            self._dispatch(0.05)

    def throughput(self, size: int, seconds: float, *, send: bool) -> dict[str, float]:
        """Send as fast as the queue lets us; count deliveries in the steady part."""
        payload = bytes(size)
        begin = time.monotonic()
        count_from, count_to = begin + WARM_UP * seconds, begin + seconds
        before: int | None = None
        while (now := time.monotonic()) < count_to:
            if before is None and now >= count_from:
                before = self.delivered
            if send:
                self._send(payload)
            self._dispatch(0.0 if send else 0.01)
        counted = self.delivered - (before or 0)
        self.latest_s = time.monotonic()
        while time.monotonic() - self.latest_s < QUIET_S:
            self._dispatch(0.05)
        return {"per_second": counted / (count_to - count_from)}

    def _send(self, payload: bytes) -> None:
        try:
            for _ in range(64):
                self._cpg.mcast(payload)
        except TryAgainError:
            self._dispatch(0.001)

    def latency(self, size: int, seconds: float, *, send: bool) -> dict[str, float]:
        """Send one message at a time; measure until it is delivered here."""
        payload = bytes(size)
        end = time.monotonic() + seconds
        samples = []
        while time.monotonic() < end:
            if not send:
                self._dispatch(0.05)
                continue
            self._own = False
            begin = time.monotonic()
            self._cpg.mcast(payload)
            while not self._own:
                self._dispatch(1.0)
            samples.append(time.monotonic() - begin)
        samples.sort()
        if not samples:
            return {}
        return {
            "p50_us": samples[len(samples) // 2] * 1e6,
            "p99_us": samples[len(samples) * 99 // 100] * 1e6,
        }


def main() -> None:
    """Serve commands until standard input ends."""
    member = Member()
    for line in sys.stdin:
        command = json.loads(line)
        member.wait_members(command["members"])
        measure = member.throughput if command["what"] == "throughput" else member.latency
        answer = measure(command["size"], command["seconds"], send=command["send"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
