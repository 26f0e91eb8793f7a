"""Numbers of runs, for faults of the core that cost time or traffic and break no axiom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from tests.sim.cluster import Cluster, payloads
from tests.sim.network import MS, Faults
from tests.sim.random_run import RandomRun
from tests.sim.trace import Installed
from totemd.protocol.effects import Moved, State
from totemd.protocol.messages import RingId

SEEDS: Final = 24
LOAD_MESSAGES: Final = 3000
LOAD_LOSS: Final = 0.001


def _runs(mix: str) -> list[Cluster]:
    return [RandomRun(seed, mix).run() for seed in range(SEEDS)]


def gathers(mix: str) -> float:
    """Return how often nodes began to gather."""
    return sum(
        isinstance(note, Moved) and note.new is State.GATHER
        for cluster in _runs(mix)
        for _, _, note in cluster.notes
    )


def repairs_percent(mix: str) -> float:
    """Return how many messages were sent again, of all that were sent."""
    stats = [host.node.ring.stats for c in _runs(mix) for host in c.running.values()]
    return 100 * sum(s.messages_sent_again for s in stats) / sum(s.messages_sent for s in stats)


def install_spread_ms(mix: str) -> float:
    """Return the longest time between two members that install one ring."""
    longest_ns = 0
    for cluster in _runs(mix):
        times: dict[RingId, list[int]] = defaultdict(list)
        for life in cluster.lives:
            for record in life.records:
                if isinstance(record, Installed):
                    times[record.ring].append(record.at_ns)
        longest_ns = max(longest_ns, *(max(at) - min(at) for at in times.values()))
    return longest_ns / MS


def load_ms(_mix: str) -> float:
    """Return how long three nodes with a little loss need for a load."""
    cluster = Cluster(3, seed=1, faults=Faults(loss=LOAD_LOSS))
    cluster.wait(cluster.one_ring, 10_000 * MS)
    connections = {n: cluster.attach(n) for n in cluster.running}
    cluster.run(500 * MS)
    began_ns = cluster.now_ns
    for k in range(LOAD_MESSAGES // 3):
        for n, connection in connections.items():
            cluster.multicast(n, connection, b"%d:%d:" % (n, k) + bytes(1200))
    stream = cluster.running[2].life.streams[connections[2]]
    cluster.wait(lambda: len(payloads(stream)) >= LOAD_MESSAGES // 3 * 3, 120_000 * MS)
    return (cluster.now_ns - began_ns) / MS


MEASURES: Final[dict[str, Callable[[str], float]]] = {
    "gathers": gathers,
    "repairs_percent": repairs_percent,
    "install_spread_ms": install_spread_ms,
    "load_ms": load_ms,
}
