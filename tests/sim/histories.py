"""Random histories of replicas: clients that ask until they are answered, and every kind of fault.

The promise judged at the end: one state everywhere, and every answered request in it exactly once.
Each request adds to a counter of its own, so that sides of a partition never contend for one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from openais.wire.port import Reason
from openais.wire.status import Status
from services.kit import transfer
from services.kit.machine import SessionId
from tests.sim.replicas import SECOND, Stage
from tests.sim.toy import TABLE, Add, Toy

STEPS = 80
NODES_MAX = 5


def session(node_id: int) -> SessionId:
    return SessionId(b"session of node%2d" % node_id)


class History:
    """One random history.

    Args:
        seed: decides everything.
        steps: choices made.
    """

    def __init__(self, seed: int, steps: int = STEPS) -> None:
        self._rng = random.Random(seed)
        self._numbers: dict[int, int] = {}
        self.stage = Stage(lambda _node: Toy())
        self.partitioned = False
        for node_id in range(1, self._rng.randint(1, NODES_MAX - 1) + 1):
            self._arrive(node_id)
        self._steps = steps
        self._choices: list[tuple[int, Callable[[int], None]]] = [
            (30, self._request),
            (40, lambda n: self._some_steps(1, n)),
            (20, lambda n: self._some_steps(10, n)),
            (4, self._kill),
            (6, self._restart),
            (3, self._snapshot),
            (2, self._ring_process),
            (2, self._split),
            (4, self._merge),
            (2, self._join),
            (1, self._leave),
            (2, lambda _n: self.stage.run()),
        ]

    def _arrive(self, node_id: int) -> None:
        self.stage.join(node_id, [1] if node_id > 1 else None)
        self.stage.run()
        self.stage.open(node_id, session(node_id))

    def run(self) -> None:
        """Play it, heal everything, judge."""
        weights = [weight for weight, _ in self._choices]
        for _ in range(self._steps):
            (_, choice) = self._rng.choices(self._choices, weights)[0]
            choice(self._rng.choice(sorted(self._present())))
            self._renew()
        self._heal()
        self._judge()

    def _present(self) -> list[int]:
        return [n for ring in self.stage.rings for n in ring]

    # Choices

    def _request(self, node_id: int) -> None:
        host = self.stage.hosts[node_id]
        if host.down or session(node_id) not in host.replica.sessions.open:
            return
        number = self._numbers[node_id] = self._numbers.get(node_id, 0) + 1
        assert (
            self.stage.request(node_id, TABLE.encode(Add(b"%d-%d" % (node_id, number)))) == number
        )

    def _some_steps(self, count: int, node_id: int) -> None:
        for _ in range(count):
            self.stage.step(node_id)
            node_id = self._rng.choice(sorted(self._present()))

    def _kill(self, node_id: int) -> None:
        if not self.stage.hosts[node_id].down:
            self.stage.kill(node_id)

    def _restart(self, node_id: int) -> None:
        if self.stage.hosts[node_id].down:
            self.stage.restart(node_id)

    def _snapshot(self, node_id: int) -> None:
        self.stage.take_snapshot(node_id)

    def _ring_process(self, node_id: int) -> None:
        if not self.stage.hosts[node_id].down:
            self.stage.restart_ring_process(node_id)

    def _split(self, _node_id: int) -> None:
        rings = [ring for ring in self.stage.rings if len(ring) > 1]
        if rings:
            ring = self._rng.sample(rings[0], len(rings[0]))
            cut = self._rng.randint(1, len(ring) - 1)
            self.stage.split(sorted(ring[:cut]), sorted(ring[cut:]))

    def _merge(self, _node_id: int) -> None:
        if len(self.stage.rings) > 1:
            self.stage.merge()

    def _join(self, node_id: int) -> None:
        new = max(self.stage.hosts) + 1
        if new <= NODES_MAX:
            self.stage.join(new, [node_id])

    def _leave(self, node_id: int) -> None:
        """A node dies for good, if what it was answered is held by another, too."""
        leaving = self.stage.hosts[node_id].replica
        ring = next(r for r in self.stage.rings if node_id in r)
        others = [self.stage.hosts[n] for n in ring if n != node_id]
        holders = [
            host
            for host in others
            if not host.down
            and host.replica.serving
            and host.replica.component == leaving.component
            and host.node_id not in leaving.incomplete
        ]
        if leaving.serving and holders:
            self.stage.leave(node_id, Reason.NODEDOWN)

    def _renew(self) -> None:
        for node_id in self._present():
            if self.stage.hosts[node_id].rejoins:
                raise AssertionError(f"node {node_id}: {self.stage.hosts[node_id].rejoins}")

    # The end

    def _heal(self) -> None:
        for node_id in self._present():
            self._restart(node_id)
        if len(self.stage.rings) > 1:
            self.stage.merge()
        for _ in range(6):
            self.stage.run()
            self.stage.wait(3 * SECOND)
            self._renew()

    def _judge(self) -> None:
        stage = self.stage
        present = self._present()
        assert all(stage.hosts[n].replica.serving for n in present), "not all are live"
        assert len(stage.digests(*present)) == 1, "replicas differ"
        machine = stage.hosts[present[0]].replica.machine
        assert isinstance(machine, Toy)
        wrong = {name: count for name, count in machine.counters.items() if count != 1}
        assert not wrong, f"applied more than once: {wrong}"
        for host in stage.hosts.values():
            for reply in host.replies:
                name = b"%d-%d" % (host.node_id, reply.number)
                lost = reply.status is Status.OK and name not in machine.counters
                assert not lost, f"answered and lost: {name!r}"
            assert not host.divergences, "replicas diverged"


def main() -> int:
    """Play histories FIRST to LAST with small pieces; print the seeds that fail."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    transfer.OBJECTS_PER_PIECE_MAX = 2  # type: ignore[misc]  # states come in many pieces
    failed = 0
    for seed in range(first, last):
        try:
            History(seed).run()
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {error}")  # noqa: T201
    print(f"{last - first} histories, {failed} failed")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
