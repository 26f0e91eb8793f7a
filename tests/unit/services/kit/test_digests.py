"""Replicas compare digests while they work; who differs is found, told and healed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from openais.wire.codec import Buffer
from services.kit.digests import EVERY_NS, Comparison, Pace
from services.kit.effects import State
from services.kit.machine import Context, Effect, SessionId
from tests.sim.replicas import SECOND, Stage
from tests.sim.toy import TABLE, Add, Toy


class Wrong(Toy):
    """A machine with a bug that shows on one replica: it counts one counter twice."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = True

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        effects = super().apply(operation, context)
        if self.broken and isinstance(operation, Add) and operation.name == b"bad":
            self.counters[b"bad"] += 1
        return effects

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        super().load(changes)
        self.broken = False


def session(node_id: int) -> SessionId:
    return SessionId(b"session of node%2d" % node_id)


def bench(nodes: int, *wrong: int) -> Stage:
    made = Stage(lambda node: Wrong() if node in wrong else Toy())
    for node_id in range(1, nodes + 1):
        made.join(node_id, [1] if node_id > 1 else None)
        made.run()
        made.open(node_id, session(node_id))
    for node_id in wrong:
        machine = made.hosts[node_id].replica.machine
        assert isinstance(machine, Wrong)
        machine.broken = True
    return made


def add(made: Stage, node_id: int, number: int, name: bytes) -> None:
    assert made.request(node_id, TABLE.encode(Add(name))) == number
    made.run()


def counters(made: Stage, node_id: int) -> dict[bytes, int]:
    machine = made.hosts[node_id].replica.machine
    assert isinstance(machine, Toy)
    return machine.counters


def test_replicas_that_agree_are_left_alone() -> None:
    made = bench(3)
    add(made, 1, 1, b"n")
    made.wait(2 * EVERY_NS)
    for host in made.hosts.values():
        assert host.replica.stats.digests_compared > 0
        assert host.replica.stats.divergences == 0


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_a_replica_that_differs_is_told_of_by_all_and_healed(wrong: int) -> None:
    made = bench(3, wrong)
    add(made, 2, 1, b"bad")
    add(made, 2, 2, b"good")
    assert len(made.digests()) == 2
    made.wait(2 * EVERY_NS)
    right = tuple(n for n in (1, 2, 3) if n != wrong)
    for host in made.hosts.values():
        assert [(d.nodes, d.majority) for d in host.divergences] == [((wrong,), right)]
        assert not host.replica.diverged, "it is healed"
        assert not host.replica.incomplete
    assert made.live()
    assert len(made.digests()) == 1
    assert counters(made, wrong) == {b"bad": 1, b"good": 1}


def test_the_sessions_of_a_replica_that_is_healed_live_on() -> None:
    made = bench(3, 3)
    add(made, 3, 1, b"bad")
    made.wait(2 * EVERY_NS)
    add(made, 3, 2, b"good")
    assert [r.number for r in made.hosts[3].replies] == [1, 2]
    assert made.hosts[3].rejoins == []


def test_of_two_replicas_the_older_is_right() -> None:
    made = bench(2, 2)
    add(made, 1, 1, b"bad")
    made.wait(2 * EVERY_NS)
    assert counters(made, 2) == {b"bad": 1}


def test_others_go_on_while_one_is_healed() -> None:
    made = bench(3, 3)
    add(made, 1, 1, b"bad")
    made.now_ns += 2 * EVERY_NS
    made.perform(made.hosts[1], made.hosts[1].replica.expire(made.now()))
    for _ in range(20):
        if made.hosts[3].replica.state is State.MERGING:
            break
        for node_id in (1, 2, 3):
            made.step(node_id)
    assert made.hosts[1].replica.diverged == {3}
    assert made.hosts[1].replica.serving
    add(made, 1, 2, b"good")
    assert counters(made, 3) == {b"bad": 1, b"good": 1}


@pytest.mark.parametrize("moment", range(1, 12))
@pytest.mark.parametrize("victim", [1, 3])
def test_a_service_killed_at_any_step_of_healing_is_healed(moment: int, victim: int) -> None:
    made = bench(3, 3)
    add(made, 1, 1, b"bad")
    made.now_ns += 2 * EVERY_NS
    made.perform(made.hosts[1], made.hosts[1].replica.expire(made.now()))
    for count in range(moment):
        made.step(count % 3 + 1)
    made.kill(victim)
    for count in range(4):
        made.step(count % 3 + 1)
    made.restart(victim)
    made.run()
    made.wait(4 * EVERY_NS)
    made.wait(4 * EVERY_NS)
    assert made.live()
    assert len(made.digests()) == 1


def test_memory_that_rots_is_found_although_nobody_touched_it() -> None:
    made = bench(3)
    add(made, 1, 1, b"n")
    made.wait(2 * EVERY_NS)
    machine = made.hosts[2].replica.machine
    assert isinstance(machine, Toy)
    machine.counters[b"n"] = 7
    for number in range(2, 6):
        add(made, 1, number, b"other")
        made.wait(2 * EVERY_NS)
    assert made.hosts[1].replica.stats.divergences == 1
    assert counters(made, 2) == counters(made, 1)


def test_digests_cost_a_small_part_of_the_time() -> None:
    pace = Pace()
    pace.compared(0, 5, cost_ns=SECOND)
    assert pace.due_ns(6) == 100 * SECOND
    pace.compared(0, 5, cost_ns=0)
    assert pace.due_ns(6) == EVERY_NS
    assert pace.due_ns(5) > EVERY_NS


def test_a_comparison_waits_for_all_and_takes_no_digest_of_others() -> None:
    c = Comparison(1, 1, frozenset((1, 2, 3)))
    assert c.take(4, b"x") is None
    assert c.take(1, b"a") is None
    assert c.take(2, b"b") is None
    assert c.take(3, b"b") == (1,)
