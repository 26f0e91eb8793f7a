"""A run as data: cluster, wire, faults, workload. Drawn from a mix and a seed, before it begins.

A mix is a file in `tests/sim/faults`: which faults there may be, how often and how strong. The
seed decides which of them there are, so that of many seeds some are calm and some brutal. What is
drawn is a list, so that a failing run can be made smaller by leaving things out.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.sim.network import MS, US, Faults
from totemd.protocol.effects import State
from totemd.protocol.parameters import AccelPriority, Flow, RequestLimit, RingParameters

FOLDER: Final = Path(__file__).parent / "faults"
FRAME: Final = 1300  # bytes; sizes of the workload are chosen around it
SEQ_BASES: Final = (0, 2**31 - 512, 2**32 - 512, 2**63 - 2**20)
GROUPS: Final = (b"red", b"green", b"blue")

FAULTS: Final = frozenset(
    (
        *("partition", "flapping", "one_way", "pair", "dead_multicast", "dead_unicast", "clog"),
        *("storm", "crash", "crash_lost_disk", "crash_persist", "pause", "leave", "leave_many"),
        *("restart_all", "pause_all", "narrow", "force_gather", "mute", "lie", "unheard"),
    )
)
AT_FAULTS: Final = frozenset(("partition", "crash", "one_way", "storm", "pair", "flapping"))
TRIGGERS: Final = frozenset(
    ("partition", "crash", "drop_token", "pause", "one_way", "storm", "mute", "lie")
)
CLUSTER_KEYS: Final = frozenset(
    (
        *("nodes", "run_ms", "token_ms", "sealed", "skew", "slow", "small_windows", "late"),
        *("flap_max", "sync_ms"),
    )
)
WIRE_KEYS: Final = frozenset(
    ("loss", "link_loss", "duplicate", "tail", "multicast_late", "corrupt", "replay", "large")
)
WORK_KEYS: Final = frozenset(("bursts", "burst_max", "huge", "processes", "safe", "at_faults"))


class Action(NamedTuple):
    """Something that happens at a time."""

    at_ns: int
    kind: str
    node: int = 0
    peer: int = 0
    duration_ns: int = 0
    sides: tuple[tuple[int, ...], ...] = ()
    value: float = 0.0
    sizes: tuple[int, ...] = ()
    number: int = 0  # seeds what the action leaves open

    def __str__(self) -> str:
        parts = [f"{self.at_ns / MS:9.3f} ms {self.kind}"]
        if self.node:
            parts.append(f"node {self.node}" + (f" from {self.peer}" if self.peer else ""))
        if self.sides:
            parts.append(" | ".join(" ".join(map(str, side)) for side in self.sides))
        if self.duration_ns:
            parts.append(f"for {self.duration_ns / MS:.3f} ms")
        if self.sizes:
            parts.append(f"{len(self.sizes)} messages of {sum(self.sizes)} bytes")
        return " ".join(parts)


class Trigger(NamedTuple):
    """Something that happens when a node enters a state."""

    state: State
    kind: str
    probability: float
    budget: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about one run."""

    seed: int
    mix: str
    nodes: int
    run_ns: int
    parameters: RingParameters
    faults: Faults
    sealed: bool
    late: bool  # the nodes start one after another
    skews: tuple[int, ...]  # per thousand, by node
    costs: tuple[int, ...]  # ns of one datagram, by node
    actions: tuple[Action, ...]
    triggers: tuple[Trigger, ...]
    kept: frozenset[int] | None = field(default=None)  # of the actions, when made smaller

    def without(self, *, actions: frozenset[int], triggers: tuple[Trigger, ...]) -> Plan:
        """Return a smaller plan: only these actions, only these triggers."""
        return replace(self, kept=actions, triggers=triggers)

    def happening(self) -> Iterator[tuple[int, Action]]:
        """Yield the actions that are to happen."""
        for position, action in enumerate(self.actions):
            if self.kept is None or position in self.kept:
                yield position, action


class MixError(ValueError):
    """A file of faults breaks a rule; names both."""


@dataclass(frozen=True, slots=True)
class Mix:
    """One file of faults."""

    name: str
    weight: int
    cluster: dict[str, Any]
    wire: dict[str, Any]
    work: dict[str, Any]
    faults: tuple[dict[str, Any], ...]
    triggers: tuple[dict[str, Any], ...]


def _known(where: str, given: dict[str, Any], known: frozenset[str]) -> None:
    surplus = sorted(set(given) - known)
    if surplus:
        raise MixError(f"{where}: unknown {surplus}; known are {sorted(known)}")


@cache
def mixes() -> dict[str, Mix]:
    """Return all mixes by name.

    Raises:
        MixError: a file has a key or a fault that does not exist.
    """
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        _known(
            path.name,
            data,
            frozenset(("about", "weight", "cluster", "wire", "work", "fault", "trigger")),
        )
        _known(f"{path.name} cluster", data.get("cluster", {}), CLUSTER_KEYS)
        _known(f"{path.name} wire", data.get("wire", {}), WIRE_KEYS)
        _known(f"{path.name} work", data.get("work", {}), WORK_KEYS)
        for fault in data.get("fault", []):
            _known(f"{path.name} fault", {fault["kind"]: 0}, FAULTS)
        for trigger in data.get("trigger", []):
            _known(f"{path.name} trigger", {trigger["kind"]: 0}, TRIGGERS)
        found[path.stem] = Mix(
            path.stem,
            data["weight"],
            data.get("cluster", {}),
            data.get("wire", {}),
            data.get("work", {}),
            tuple(data.get("fault", [])),
            tuple(data.get("trigger", [])),
        )
    return found


def draw(seed: int, mix_name: str | None = None) -> Plan:
    """Draw the plan of one run."""
    choice = random.Random(f"mix {seed}")
    known = mixes()
    names = sorted(known)
    name = mix_name or choice.choices(names, [known[n].weight for n in names])[0]
    return _Drawing(random.Random(f"plan {name} {seed}"), known[name], seed).plan()


class _Drawing:
    """Draws one plan."""

    def __init__(self, source: random.Random, mix: Mix, seed: int) -> None:
        self.random = source
        self.mix = mix
        self.seed = seed

    def plan(self) -> Plan:
        r, c = self.random, self.mix.cluster
        nodes = r.randint(*c["nodes"])
        token_ms = r.choice(c.get("token_ms", [300, 1000]))
        run_ns = int(r.uniform(*c["run_ms"]) * MS)
        skew, slow = c.get("skew", 0.0), c.get("slow", 0.0)
        skewed = r.random() < skew
        skews = tuple(r.randint(-50, 50) if skewed else 0 for _ in range(nodes))
        costs = tuple(r.choice([200, 1000]) * US if r.random() < slow else 0 for _ in range(nodes))
        sealed = r.random() < c.get("sealed", 0.0)
        faults = self._wire(nodes, token_ms)
        if not sealed:
            faults = replace(faults, replay=0.0)
        actions = [*self._faults(nodes, run_ns, token_ms), *self._work(nodes, run_ns)]
        if "at_faults" in self.mix.work:
            actions += list(self._work_at_faults(nodes, actions))
        actions.sort()
        return Plan(
            self.seed,
            self.mix.name,
            nodes,
            run_ns,
            self._parameters(token_ms),
            faults,
            sealed,
            r.random() < c.get("late", 0.3),
            skews,
            costs,
            tuple(actions),
            tuple(self._triggers(token_ms)),
        )

    def _chance(self, section: dict[str, Any], key: str) -> float | None:
        """Return how strong something is this time; None: there is none of it."""
        r = self.random
        if key not in section:
            return None
        chance, low, high = section[key]
        dice, strength = r.random(), r.random()
        return low + (high - low) * strength**2 if dice < chance else None

    def _wire(self, nodes: int, token_ms: int) -> Faults:
        r, w = self.random, self.mix.wire
        f = Faults(loss=self._chance(w, "loss") or 0.0)
        links = self._chance(w, "link_loss")
        if links is not None:
            f.link_loss = {
                (a, b): r.uniform(0, links)
                for a in range(1, nodes + 1)
                for b in range(1, nodes + 1)
                if a != b
            }
        f.duplicate = self._chance(w, "duplicate") or 0.0
        f.corrupt = self._chance(w, "corrupt") or 0.0
        f.replay = self._chance(w, "replay") or 0.0
        tail = self._chance(w, "tail")
        if tail is not None:
            f.tail, f.tail_ns = tail, int(r.choice([1, 10, token_ms / 2, 2 * token_ms]) * MS)
        f.multicast_late_ns = int((self._chance(w, "multicast_late") or 0.0) * MS)
        large = self._chance(w, "large")
        if large is not None:
            f.large_loss = large
        f.delay_min_ns, f.delay_max_ns = r.choice([(50, 150), (20, 400), (100, 120), (20, 2000)])
        f.delay_min_ns, f.delay_max_ns = f.delay_min_ns * US, f.delay_max_ns * US
        return f

    def _parameters(self, token_ms: int) -> RingParameters:
        r, c = self.random, self.mix.cluster
        token = token_ms * MS
        values: dict[str, Any] = {
            "token_ns": token,
            "token_retransmit_ns": int(token / 4.2),
            "hold_ns": max(14 * MS, int(token / 4.2 * 0.8) - 10 * MS),
            "join_ns": max(30 * MS, token // 20),
            "consensus_ns": token * 12 // 10,
            "silent_fail_ns": token * 3 // 10 if r.random() < 0.85 else 0,
            "startup_wait_ns": 2 * max(30 * MS, token // 20),
            "merge_ns": token // 5,
            "fail_recv_ns": token,
            "fail_recv_count": r.choice([20, 50, 2500]),
            "flap_max_ns": r.choice(c.get("flap_max", [0, 4, 4])) * token,
            "seq_base": r.choice(SEQ_BASES) if r.random() < 0.2 else 0,
            "miss_count": r.choice([1, 1, 1, 5]),
        }
        if r.random() < 0.5:
            values["accelerated_window_messages"] = r.choice([1, 5, 17])
            values["accel_min"] = r.choice([0, 1, 4])
            values["accel_priority"] = r.choice(list(AccelPriority))
        if r.random() < 0.2:
            values["flow"] = Flow.BACKLOG
        if r.random() < 0.2:
            values["heartbeat_failures_allowed"] = 1
            values["max_network_delay_ns"] = token // 4
        if r.random() < 0.3:
            values["request_limit"] = RequestLimit.CURRENT
        if r.random() < 0.2:
            values["send_join_ns"] = r.choice([1, 5, 20]) * MS
        if r.random() < c.get("small_windows", 0.2):
            values["max_messages"] = r.choice([1, 3])
            values["window_messages"] = r.choice([3, 10])
            values["max_gap_messages"] = r.choice([8, 64])
        if "sync_ms" in c:
            values["sync_timeout_ns"] = r.choice(c["sync_ms"]) * MS
        return RingParameters(**values)

    def _faults(self, nodes: int, run_ns: int, token_ms: int) -> Iterator[Action]:
        r = self.random
        for fault in self.mix.faults:
            if r.random() >= fault["chance"]:
                continue
            low, high = fault.get("tokens", [0.02, 3.0])  # of its duration, in token timeouts
            for _ in range(r.randint(*fault.get("count", [1, 2]))):
                duration = int(token_ms * MS * low * (high / low) ** r.random())
                yield self._fault(fault["kind"], nodes, int(r.random() * run_ns), duration)

    def _fault(self, kind: str, nodes: int, at_ns: int, duration_ns: int) -> Action:
        r = self.random
        node = r.randint(1, nodes)
        peer = r.randint(1, nodes)
        return Action(
            at_ns,
            kind,
            node,
            peer if peer != node and kind in ("one_way", "pair") else 0,
            duration_ns,
            _sides(r, nodes) if kind in ("partition", "flapping") else (),
            r.choice([0.3, 0.7, 0.9]),
            (),
            r.getrandbits(20),
        )

    def _triggers(self, token_ms: int) -> Iterator[Trigger]:
        r = self.random
        for trigger in self.mix.triggers:
            if r.random() < trigger["chance"]:
                duration = int(token_ms * MS * r.choice([0.05, 0.3, 1.2, 2.5]))
                yield Trigger(
                    State(trigger["state"]),
                    trigger["kind"],
                    r.uniform(0.1, 0.25),
                    r.randint(1, trigger.get("budget", 4)),
                    duration,
                )

    def _work(self, nodes: int, run_ns: int) -> Iterator[Action]:
        r, w = self.random, self.mix.work
        safe = w.get("safe", 0.4)
        for node in range(1, nodes + 1):
            yield Action(int(r.random() * run_ns * 0.3), "join", node, number=r.getrandbits(20))
        for _ in range(r.randint(*w.get("bursts", [20, 60]))):
            count = r.randint(1, w.get("burst_max", 20))
            sizes = tuple(self._size(w.get("huge", 0.01)) for _ in range(count))
            yield Action(
                int(r.random() * run_ns),
                "send",
                r.randint(1, nodes),
                value=safe,
                sizes=sizes,
                number=r.getrandbits(20),
            )
        for _ in range(r.randint(*w.get("processes", [0, 8]))):
            kind = r.choice(["join", "exit", "leave_group", "join"])
            at_ns = int(r.random() * run_ns)
            yield Action(at_ns, kind, r.randint(1, nodes), number=r.getrandbits(20))

    def _work_at_faults(self, nodes: int, actions: list[Action]) -> Iterator[Action]:
        """Have messages under way when something breaks."""
        r, w = self.random, self.mix.work
        for action in actions:
            if action.kind not in AT_FAULTS or r.random() >= w["at_faults"]:
                continue
            for _ in range(r.randint(1, 3)):
                yield Action(
                    max(0, action.at_ns - int(r.random() ** 2 * 4 * MS)),
                    "send",
                    r.randint(1, nodes),
                    value=w.get("safe", 0.4),
                    sizes=tuple(self._size(0.0) for _ in range(r.randint(3, 20))),
                    number=r.getrandbits(20),
                )

    def _size(self, huge: float) -> int:
        r = self.random
        dice = r.random()
        if dice < huge:
            return r.choice([16, 64]) * FRAME
        if dice < 0.6:
            return r.randint(0, 200)
        if dice < 0.8:
            return FRAME - 60 + r.randint(0, 60)
        return r.randint(200, 3 * FRAME)


def _sides(r: random.Random, nodes: int) -> tuple[tuple[int, ...], ...]:
    """Return a partition into 2 to 4 sides."""
    count = r.randint(2, 4)
    sides: list[list[int]] = [[] for _ in range(count)]
    for node in range(1, nodes + 1):
        r.choice(sides).append(node)
    return tuple(tuple(side) for side in sides if side)
