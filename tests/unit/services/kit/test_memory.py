"""What replicas share, as objects with digests, computed for what was touched."""

from __future__ import annotations

import random

import pytest

from openais.wire.port import RingId
from services.kit.machine import Caller, Context, NodeId, SessionId, View
from services.kit.memory import Memory
from services.kit.sessions import Sessions
from tests.sim.toy import Add, Expire, Toy

VIEW = View(RingId(4, 1), (NodeId(1),), (), ())


def session(number: int) -> SessionId:
    return SessionId(b"session number%2d" % number)


class Bench:
    """A toy and its sessions, without a replica."""

    def __init__(self) -> None:
        self.toy = Toy()
        self.sessions = Sessions()
        self.head = b"head"
        self.memory = Memory(self.toy, self.sessions, lambda: self.head)

    def add(self, name: bytes, by: int = 1) -> None:
        caller = Caller(NodeId(1), session(by), 1)
        self.toy.apply(Add(name), Context(1, NodeId(1), caller, VIEW))

    def copy(self) -> Bench:
        other = Bench()
        other.head = self.head
        names = self.memory.names()
        other.memory.load({n: b"".join(self.memory.dump(n)) for n in names})
        return other


@pytest.mark.parametrize("seed", range(20))
def test_digests_kept_from_change_to_change_are_those_of_a_fresh_copy(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench()
    for _ in range(100):
        name, number = b"n%d" % rng.randint(0, 5), rng.randint(0, 5)
        match rng.randint(0, 5):
            case 0:
                bench.toy.apply(Expire(name), Context(1, NodeId(1), None, VIEW))
            case 1:
                bench.sessions.opened(session(number), NodeId(1))
            case 2 if session(number) in bench.sessions.open:
                bench.sessions.park(session(number), None)
            case 3:
                bench.sessions.closed(session(number))
            case 4:
                bench.memory.root()
            case _:
                bench.add(name, number)
    assert bench.memory.root() == bench.copy().memory.root()
    assert bench.memory.digests() == bench.copy().memory.digests()


def test_only_what_was_touched_is_hashed() -> None:
    bench = Bench()
    for number in range(1000):
        bench.add(b"n%d" % number)
    bench.memory.root()
    before = bench.memory.hashed_parts
    bench.add(b"n7")
    bench.memory.root()
    assert bench.memory.hashed_parts - before == 2  # the counter, and what belongs to no other


def test_the_head_is_part_of_the_digest() -> None:
    bench = Bench()
    before = bench.memory.root()
    bench.head = b"another"
    assert bench.memory.root() != before


def test_a_keeper_sees_an_object_as_it_was_before_the_change() -> None:
    bench = Bench()
    bench.add(b"n")
    seen: list[tuple[bytes, list[bytes]]] = []
    end = bench.memory.keep(lambda name: seen.append((name, bench.memory.dump(name))))
    before = bench.memory.dump(b"mn")
    bench.add(b"n")
    assert (b"mn", before) in seen
    end()
    seen.clear()
    bench.add(b"n")
    assert not seen


def test_a_change_that_was_not_announced_is_found_by_scrubbing() -> None:
    bench = Bench()
    for name in (b"a", b"b", b"c"):
        bench.add(name)
    root = bench.memory.root()
    assert not any(bench.memory.scrub(1) for _ in range(10))
    bench.toy.counters[b"b"] += 1
    assert bench.memory.root() == root
    assert sum(bench.memory.scrub(1) for _ in range(4)) == 1
    assert bench.memory.root() != root
