"""What a run of the services' floor does, drawn from its seed before anything happens."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.sim.network import Faults

FOLDER: Final = Path(__file__).parent / "mixes"
MS: Final = 1_000_000
CALLS: Final = (  # of a service into the system, at which it may be killed
    "snapshot",
    "snapshot_written",
    "send",
    "receive",
    "serve",
    "answer",
    "",
)


class Action(NamedTuple):
    """One fault."""

    at_ns: int
    kind: str
    node: int
    duration_ns: int  # how long it lasts, or until what was killed is started again
    call: str  # of a kill: at which call into the system; see `Task.call`
    number: int  # how many of it first
    sides: tuple[tuple[int, ...], ...]  # of a partition


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided beforehand.

    Attributes:
        seed: of everything else.
        mix: name of the kind of trouble.
        nodes: of the cluster.
        services: on each node.
        quorum: a minority refuses changes.
        safe: changes wait for safe delivery.
        faults: of the wire, until it heals.
        log_bytes: bound of a seat's log; past twice it the log is dropped.
        journal_bytes: logged before a service makes a snapshot by itself.
        fork_bytes: size of the state from which on a child writes the snapshot.
        clients: per node.
        think_ms: between two calls of one, at most twice that.
        timeout_ms: of a call.
        run_ms: until everything heals.
        actions: by time.
    """

    seed: int
    mix: str
    nodes: int
    services: tuple[str, ...]
    quorum: bool
    safe: bool
    faults: Faults
    log_bytes: int
    journal_bytes: int
    fork_bytes: int
    clients: int
    think_ms: int
    timeout_ms: int
    run_ms: int
    actions: tuple[Action, ...]

    @property
    def divides(self) -> bool:
        """True: two parts may act at the same time, so one of them loses what it did."""
        return not self.quorum and self.mix == "divided"


@cache
def mixes() -> dict[str, dict[str, Any]]:
    """Return all mixes by name."""
    return {
        path.stem: tomllib.loads(path.read_text(encoding="utf-8"))
        for path in sorted(FOLDER.glob("*.toml"))
    }


def draw(seed: int, mix: str | None = None) -> Plan:
    """Draw the plan of a seed; without a mix, the seed chooses one."""
    source = random.Random(f"services {seed}")
    names = sorted(name for name, m in mixes().items() if m.get("usual", True))
    name = mix or names[seed % len(names)]
    m = mixes()[name]
    nodes = source.randint(*m["nodes"])
    loss = source.uniform(*m["loss"]) if "loss" in m else 0.0
    run_ms = m["run_ms"]
    clients = source.randint(*m["clients"])
    actions = [
        _action(source, fault, nodes, run_ms)
        for fault in m["fault"]
        if source.random() < fault["chance"]
        for _ in range(source.randint(*fault["count"]))
    ]
    return Plan(
        seed,
        name,
        nodes,
        tuple(m["services"]),
        m["quorum"] and nodes > 2,
        m["safe"] == "always" or source.random() < 0.5,
        Faults(loss=loss),
        source.choice(m["log_bytes"]),
        source.choice(m["journal_bytes"]),
        source.choice((0, 1 << 20)),
        clients,
        source.choice(m["think_ms"]) * nodes * clients,
        source.choice(m["timeout_ms"]),
        run_ms,
        tuple(sorted(actions)),
    )


def _action(source: random.Random, fault: dict[str, Any], nodes: int, run_ms: int) -> Action:
    low, high = fault["ms"]
    everybody = list(range(1, nodes + 1))
    source.shuffle(everybody)
    cut = source.randint(1, max(1, nodes - 1))
    return Action(
        int(source.uniform(0.1, 0.9) * run_ms * MS),
        fault["kind"],
        source.randint(1, nodes),
        int(source.uniform(low, high) * MS),
        source.choice(fault.get("calls", CALLS)),
        source.randint(1, fault.get("calls_max", 12)),
        (tuple(sorted(everybody[:cut])), tuple(sorted(everybody[cut:]))),
    )
