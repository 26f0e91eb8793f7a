"""What happened to services and what their replicas were, seen from outside after each turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.kit.entries import RoundId
from services.kit.replica import Replica
from tests.sim.floor.stack import Service

RING_NS: Final = 8_000_000_000  # after the death of a node; announces are waited for


@dataclass(frozen=True, slots=True)
class Differs:
    """Two replicas, or two lives of one, have another state at the same position."""

    what: str
    first: str
    second: str


class Records:
    """Writes down what the judges need."""

    def __init__(self) -> None:
        self.differing: Final[list[Differs]] = []
        self.components: Final[dict[tuple[int, str], list[tuple[int, RoundId]]]] = {}
        self.sizes: Final[dict[tuple[RoundId, str], int]] = {}  # members
        self.forgotten: Final[list[tuple[int, int, str]]] = []  # when, node, service: no memory
        self.cuts: Final[list[tuple[int, int]]] = []  # from, to
        self.pauses: Final[list[tuple[int, int]]] = []
        self.totemd_deaths: Final[list[tuple[int, int]]] = []  # when, node
        self.downs: Final[dict[tuple[int, str], list[tuple[int, int]]]] = {}
        self.given_up: Final[list[tuple[int, str]]] = []  # when, why a service ended by itself
        self.positions = 0
        self.counts: Final[dict[str, int]] = {}
        self._digests: Final[dict[Any, tuple[bytes, str]]] = {}
        self._seen: Final[dict[int, tuple[Any, ...]]] = {}
        self._known: Final[dict[int, Replica]] = {}  # kept, so that no other has its id

    def observe(self, service: Service) -> None:
        """Look at a replica after a turn of its process."""
        replica, process = service.replica, service.process
        if replica is None or process is None or replica.view is None:
            return
        key = (service.node_id, service.name)
        now_ns = process._now().ns
        where = self.components.setdefault(key, [])
        if replica.component is not None and (not where or where[-1][1] != replica.component):
            where.append((now_ns, replica.component))
            self.sizes[replica.component, service.name] = len(replica.view.members)
        if id(replica) not in self._known:
            self._known[id(replica)] = replica
            if replica.stats.states_received:
                self.forgotten.append((now_ns, *key))
        seen = (replica.component, replica.index)
        if self._seen.get(service.task.pid) == seen or not replica.settled:
            return
        self._seen[service.task.pid] = seen
        self.positions += 1
        digest = replica.digest()
        told = f"{service.name}@{service.node_id} pid {service.task.pid} at {now_ns}"
        # Who has got the state meanwhile is shared, and no entry that counts tells of it.
        lacking = tuple(sorted(replica.incomplete))
        place = ("view", service.name, replica.component, replica.applied, lacking)
        self._compare(place, digest, told)
        history = process._history
        if history:
            self._compare(("stream", service.name, history, replica.index), digest, told)

    def _compare(self, position: tuple[Any, ...], digest: bytes, told: str) -> None:
        known = self._digests.setdefault(position, (digest, told))
        if known[0] != digest:
            self.differing.append(Differs(str(position), known[1], told))

    def started(self, service: Service, now_ns: int) -> None:
        """Note that a service runs again."""
        downs = self.downs.setdefault((service.node_id, service.name), [])
        if downs and downs[-1][1] < 0:
            downs[-1] = (downs[-1][0], now_ns)

    def ended(self, service: Service, now_ns: int) -> None:
        """Note that a service ended."""
        self.counts["service deaths"] = self.counts.get("service deaths", 0) + 1
        downs = self.downs.setdefault((service.node_id, service.name), [])
        if not downs or downs[-1][1] >= 0:
            downs.append((now_ns, -1))

    def totemd_died(self, node: int, now_ns: int) -> None:
        """Note that the ring process of a node ended."""
        self.counts["totemd deaths"] = self.counts.get("totemd deaths", 0) + 1
        self.totemd_deaths.append((now_ns, node))

    def cut(self, begin_ns: int, end_ns: int) -> None:
        """Note that not all nodes hear each other for a while."""
        self.counts["cuts"] = self.counts.get("cuts", 0) + 1
        self.cuts.append((begin_ns, end_ns))

    def pause(self, begin_ns: int, end_ns: int) -> None:
        """Note that somebody did not run for a while."""
        self.pauses.append((begin_ns, end_ns))

    def troubles(self, until_ns: int) -> list[tuple[int, int]]:
        """Return when not everything was well: from, to."""
        downs = [d for found in self.downs.values() for d in found]
        deaths = [(at_ns, at_ns + RING_NS) for at_ns, _ in self.totemd_deaths]
        found = [*downs, *deaths, *self.cuts, *self.pauses]
        return [(begin, end if end >= 0 else until_ns) for begin, end in found]
