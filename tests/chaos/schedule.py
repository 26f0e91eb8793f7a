"""The faults of a run, drawn from its seed before it begins. Pure.

Faults come in troubles: some nodes, at most a minority of the cluster at a time, have several
faults one after another, and then some time to recover. So whatever happens to a node in trouble,
even to all of its processes at once, a majority keeps what was acknowledged.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

PROGRAMS: Final = ("totemd", "clm", "ckpt", "cluster")
SUPERVISORD: Final = "supervisord"
EVERYTHING: Final = "node"
FAULTS_PER_TROUBLE: Final = (1, 2, 2, 3, 4)
GAP_MS: Final = (20, 2_000)  # between the faults of one trouble
PAUSES_MS: Final = ((100, 1_000), (100, 1_000), (1_000, 4_000), (4_000, 10_000))
CUT_CHANCE: Final = 0.3  # that the next trouble is one
CUT_MS: Final = (500, 8_000)
QUIET_FIRST_MS: Final = 2_000  # without faults: there is something to lose
RECOVERY_MS: Final = 4_000  # after the last fault of a trouble


class Kind(Enum):
    """What happens."""

    KILL = "kill"  # -9
    PAUSE = "pause"  # SIGSTOP, and SIGCONT
    RESTART = "restart"  # in order, as an operator does
    CUT = "cut"  # the network: the nodes from the others


# What is likely to happen, with its weight.
_CHOICES: Final = (
    (Kind.KILL, "ckpt", 6),
    (Kind.KILL, "totemd", 4),
    (Kind.KILL, "clm", 2),
    (Kind.KILL, "cluster", 1),
    (Kind.KILL, SUPERVISORD, 1),
    (Kind.KILL, EVERYTHING, 1),
    (Kind.PAUSE, "ckpt", 4),
    (Kind.PAUSE, "totemd", 3),
    (Kind.PAUSE, "clm", 1),
    (Kind.PAUSE, "cluster", 1),
    (Kind.PAUSE, SUPERVISORD, 1),
    (Kind.PAUSE, EVERYTHING, 1),
    (Kind.RESTART, "ckpt", 3),
    (Kind.RESTART, "totemd", 1),
    (Kind.RESTART, "clm", 1),
    (Kind.RESTART, "cluster", 1),  # stops and starts all of the node
    (Kind.RESTART, SUPERVISORD, 1),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_ms: since the begin of the run.
        kind: what happens.
        nodes: to which.
        program: to which process of each; empty for a cut.
        duration_ms: of a pause or a cut.
    """

    at_ms: int
    kind: Kind
    nodes: tuple[int, ...]
    program: str = ""
    duration_ms: int = 0

    @property
    def end_ms(self) -> int:
        """When it is over."""
        return self.at_ms + self.duration_ms

    def __str__(self) -> str:
        what = f"{self.kind.value} {self.program}".strip()
        nodes = ",".join(map(str, self.nodes))
        lasts = f" for {self.duration_ms} ms" if self.duration_ms else ""
        return f"{self.at_ms / 1000:.3f} s: {what} of {nodes}{lasts}"

    def values(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"kind": self.kind.value}


def draw(seed: int, duration_ms: int, nodes: int, *, cuts: bool) -> tuple[Fault, ...]:
    """Return the faults of a run, by time.

    Args:
        seed: the same seed has the same faults.
        duration_ms: no fault begins later, or ends later.
        nodes: of the cluster.
        cuts: the network can be cut too.
    """
    rng = random.Random(f"chaos {seed}")
    minority = (nodes - 1) // 2
    free_ms = dict.fromkeys(range(1, nodes + 1), QUIET_FIRST_MS)  # node -> when it is well again
    slots_ms = [QUIET_FIRST_MS] * minority  # as many nodes are in trouble at a time
    faults: list[Fault] = []
    whole_ms = 0  # when the network is whole again
    while slots_ms and min(slots_ms) < duration_ms:
        slots_ms.sort()
        used = rng.randint(1, minority) if cuts and rng.random() < CUT_CHANCE else 0
        begin_ms = max(slots_ms[max(used, 1) - 1], whole_ms if used else 0) + rng.randint(*GAP_MS)
        well = [node for node, at_ms in free_ms.items() if at_ms <= begin_ms]
        if used:
            chosen = tuple(sorted(rng.sample(well, used)))
            trouble = [Fault(begin_ms, Kind.CUT, chosen, "", rng.randint(*CUT_MS))]
            whole_ms = trouble[0].end_ms
        else:
            chosen = (rng.choice(well),)
            trouble = _trouble(rng, begin_ms, chosen[0])
        faults += trouble
        over_ms = max(fault.end_ms for fault in trouble) + RECOVERY_MS
        slots_ms[: len(chosen)] = [over_ms] * len(chosen)
        free_ms |= dict.fromkeys(chosen, over_ms)
    fitting = [fault for fault in faults if fault.end_ms <= duration_ms]
    return tuple(sorted(fitting, key=lambda fault: (fault.at_ms, fault.nodes)))


def _trouble(rng: random.Random, at_ms: int, node: int) -> list[Fault]:
    found = []
    weights = [weight for _, _, weight in _CHOICES]
    for _ in range(rng.choice(FAULTS_PER_TROUBLE)):
        kind, program, _ = rng.choices(_CHOICES, weights)[0]
        lasts_ms = rng.randint(*rng.choice(PAUSES_MS)) if kind is Kind.PAUSE else 0
        found.append(Fault(at_ms, kind, (node,), program, lasts_ms))
        at_ms += rng.randint(*GAP_MS)
    return found
