"""One random run of a cluster: workload, faults, quiet end. A function of its seed alone."""

from __future__ import annotations

import argparse
import random
import sys

from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster
from tests.sim.network import MS, Faults
from totemd.protocol.local import ConnectionId

NODES_MAX = 5
STEPS = 30
SIZES = (0, 10, 1286, 1290, 1300, 5_000, 40_000)  # bytes; around one frame, and many
SETTLE_NS = 5_000 * MS  # longer than the longest pause
ONE_RING_NS = 30_000 * MS


class RandomRun:
    """Drives a cluster by the seed.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.size = self.random.randint(1, NODES_MAX)
        faults = Faults(
            loss=self.random.choice([0, 0, 0.01, 0.05]), duplicate=self.random.choice([0, 0.02])
        )
        self.cluster = Cluster(self.size, seed, faults)
        self.connections: dict[int, ConnectionId] = {}
        self.sent = 0

    def run(self) -> Cluster:
        """Run to the quiet end and judge; raise AssertionError at a violation."""
        for _ in range(STEPS):
            for _ in range(self.random.randint(0, 10)):
                self._send(self.random.randint(1, self.size))
            self.cluster.run(self.random.choice([1, 3, 10, 100, 500]) * MS)
            self._fault()
        self.cluster.wire.heal()
        self.cluster.wire.faults = Faults()
        self.cluster.run(SETTLE_NS)
        self.cluster.wait(self.cluster.one_ring, ONE_RING_NS)
        self.cluster.run(3_000 * MS)
        check_all(self.cluster)
        return self.cluster

    def _send(self, node_id: int) -> None:
        if node_id not in self.cluster.running:
            return
        if node_id not in self.connections:
            self.connections[node_id] = self.cluster.attach(node_id)
        self.sent += 1
        payload = b"%d:%d:" % (node_id, self.sent) + bytes(self.random.choice(SIZES))
        guarantee = self.random.choice([2, 2, 3])
        self.cluster.multicast(node_id, self.connections[node_id], payload, guarantee)

    def _fault(self) -> None:
        dice = self.random.random()
        up = sorted(self.cluster.running)
        if dice < 0.1 and len(up) > 1:
            node_id = self.random.choice(up)
            self.cluster.crash(node_id)
            self.connections.pop(node_id, None)
        elif dice < 0.25:
            for node_id in sorted(set(range(1, self.size + 1)) - set(up))[:1]:
                self.cluster.boot(node_id)
        elif dice < 0.32:
            side = {n for n in range(1, self.size + 1) if self.random.random() < 0.5}
            self.cluster.wire.partition(side, set(range(1, self.size + 1)) - side)
        elif dice < 0.4:
            self.cluster.wire.heal()
        elif dice < 0.45:
            pause_ms = self.random.choice([100, 500, 1_500, 4_000])
            self.cluster.pause(self.random.choice(up), pause_ms * MS)


def main() -> int:
    """Run a range of seeds; the exit status tells whether all held."""
    parser = argparse.ArgumentParser(description="simulate clusters of real protocol cores")
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    options = parser.parse_args()
    failed = []
    virtual_ns = 0
    for seed in range(options.first, options.first + options.seeds):
        run = RandomRun(seed)
        try:
            run.run()
        except AssertionError as error:
            failed.append(seed)
            sys.stdout.write(
                f"seed {seed}: {error}\n  replay: ./run sim --first {seed} --seeds 1\n"
            )
        virtual_ns += run.cluster.now_ns
    sys.stdout.write(
        f"{options.seeds} seeds, {virtual_ns / 3_600e9:.1f} simulated hours, {len(failed)} failed\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
