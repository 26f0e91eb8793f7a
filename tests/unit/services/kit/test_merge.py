"""Sides of a partition become one: of each object one version, whoever dies on the way."""

from __future__ import annotations

import pytest

from services.kit import entries, meeting, transfer
from services.kit.effects import Discarded
from services.kit.entries import RoundId
from services.kit.machine import SessionId, Summary
from services.kit.meeting import DELETED, Catalog, Lost, Side, SideId, Version
from services.kit.quorum import NO_QUORUM, Ballot
from services.kit.replica import ANNOUNCE_NS
from tests.sim.replicas import SECOND, Stage
from tests.sim.toy import TABLE, Add, Toy


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "OBJECTS_PER_PIECE_MAX", 2)


def session(node_id: int) -> SessionId:
    return SessionId(b"session of node%2d" % node_id)


class Bench(Stage):
    """Replicas whose clients add to counters."""

    def __init__(self, nodes: int, ballot: Ballot = NO_QUORUM) -> None:
        super().__init__(lambda _node: Toy(), ballot)
        self.numbers: dict[int, int] = {}
        for node_id in range(1, nodes + 1):
            self.join(node_id, [1] if node_id > 1 else None)
            self.run()
        for node_id in self.hosts:
            self.open(node_id, session(node_id))

    def add(self, node_id: int, *names: bytes) -> None:
        for name in names:
            self.numbers[node_id] = self.request(node_id, TABLE.encode(Add(name)))
        self.run()

    def heal(self) -> None:
        self.merge()
        self.run()

    def counters(self) -> dict[bytes, int]:
        assert self.live()
        assert len(self.digests()) == 1
        machine = next(h for h in self.hosts.values() if not h.down).replica.machine
        assert isinstance(machine, Toy)
        return machine.counters

    def discarded(self) -> dict[int, list[tuple[bytes, int, int | None]]]:
        return {
            n: [(d.name, d.counter, d.kept) for d in host.discarded]
            for n, host in self.hosts.items()
            if host.discarded
        }


def test_what_one_side_only_has_is_kept() -> None:
    bench = Bench(3)
    bench.split([1, 2], [3])
    bench.run()
    bench.add(1, b"a")
    bench.add(3, b"b", b"c", b"d", b"e")
    bench.heal()
    assert bench.counters() == dict.fromkeys((b"a", b"b", b"c", b"d", b"e"), 1)
    assert bench.discarded() == {}


def test_of_two_versions_that_of_the_larger_side_is_kept_and_the_other_handed_out() -> None:
    bench = Bench(3)
    bench.split([1, 2], [3])
    bench.run()
    bench.add(1, b"n")
    bench.add(3, b"n", b"n", b"n")
    bench.heal()
    assert bench.counters() == {b"n": 1}
    assert bench.discarded() == {3: [(b"n", 3, 1)]}
    assert bench.hosts[3].discarded[0] == Discarded(b"n", (b"\x92\x03\xc0",), 3, 1)


def test_between_equal_sides_each_object_is_of_who_changed_it_more() -> None:
    bench = Bench(2)
    bench.add(1, b"one", b"two")
    bench.split([1], [2])
    bench.run()
    bench.add(1, b"one", b"one")
    bench.add(2, b"one", b"two", b"two")
    bench.heal()
    assert bench.counters() == {b"one": 3, b"two": 3}
    assert bench.discarded() == {1: [(b"two", 1, 3)], 2: [(b"one", 2, 3)]}


def test_what_the_winning_side_deleted_is_not_brought_back() -> None:
    bench = Bench(3)
    bench.add(1, b"short 1", b"short 2")
    bench.split([1, 2], [3])
    bench.now_ns += 2 * SECOND
    for effects in (bench.hosts[1].replica.expire(bench.now()),):
        bench.perform(bench.hosts[1], effects)
    for node_id in (1, 2):
        while bench.step(node_id):
            pass
    bench.heal()
    assert bench.counters() == {}
    assert [d[0] for d in bench.discarded()[3]] == [b"short 1", b"short 2"]


def test_a_side_without_quorum_is_thrown_away_as_a_whole() -> None:
    bench = Bench(3, Ballot(1, 3))
    bench.split([1, 2], [3])
    bench.run()
    bench.add(1, b"large")
    machine = bench.hosts[3].replica.machine
    assert isinstance(machine, Toy)
    machine.objects.touch(b"small")
    machine.counters[b"small"] = 1
    bench.hosts[3].client = None  # its session went stale
    bench.heal()
    assert bench.counters() == {b"large": 1}


def test_three_sides_become_one() -> None:
    bench = Bench(5)
    bench.split([1, 2], [3, 4], [5])
    bench.run()
    bench.add(1, b"a", b"n")
    bench.add(3, b"b", b"n", b"n")
    bench.add(5, b"c", b"n", b"n", b"n")
    bench.heal()
    assert bench.counters() == {b"a": 1, b"b": 1, b"c": 1, b"n": 2}


def test_a_request_applied_on_the_other_side_is_not_applied_again() -> None:
    # The client of node 3 asks, node 2 applies it; node 3 learns of it from no one but the merge.
    bench = Bench(4)
    bench.restart_ring_process(3)
    bench.run()
    bench.split([2, 3], [1, 4])
    bench.run()
    bench.add(3, b"n")
    bench.hosts[3].replies.clear()
    bench.heal()
    number = bench.numbers[3]
    body = TABLE.encode(Add(b"n"))
    bench.send(3, entries.Operation(0, session(3), number, 0, body))
    bench.run()
    assert bench.counters() == {b"n": 1}
    assert [r.number for r in bench.hosts[3].replies] == [number]


def two_sides_that_meet() -> Bench:
    """Return four nodes of which two and two have worked apart; their meeting is to begin."""
    bench = Bench(4)
    bench.split([1, 2], [3, 4])
    bench.run()
    bench.add(1, b"a", b"b", b"c", b"n")
    bench.add(3, b"d", b"e", b"f", b"g", b"n", b"n")
    bench.merge()
    return bench


@pytest.mark.parametrize("moment", range(1, 26))
@pytest.mark.parametrize("victim", [1, 3])
def test_a_service_killed_at_any_step_of_a_merge_finishes_it(moment: int, victim: int) -> None:
    bench = two_sides_that_meet()
    for _ in range(moment):
        for node_id in (1, 2, 3, 4):
            if _ % 4 == node_id - 1:
                bench.step(node_id)
    bench.kill(victim)
    for _ in range(4):
        for node_id in (1, 2, 3, 4):
            bench.step(node_id)
    bench.restart(victim)
    bench.run()
    expected = dict.fromkeys((b"a", b"b", b"c", b"d", b"e", b"f", b"g"), 1)
    assert bench.counters() == expected | {b"n": 2}


@pytest.mark.parametrize("moment", range(1, 26))
@pytest.mark.parametrize("victim", [1, 3])
def test_a_node_that_dies_at_any_step_of_a_merge_leaves_no_mix(moment: int, victim: int) -> None:
    bench = two_sides_that_meet()
    for count in range(moment):
        bench.step(count % 4 + 1)
    bench.hosts[victim].outbox.clear()
    bench.leave(victim)
    bench.run()
    counters = bench.counters()
    assert set(counters) == {b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"n"}
    assert counters[b"n"] in (1, 2)


@pytest.mark.parametrize("moment", range(1, 26))
def test_who_is_silent_in_a_merge_is_replaced_by_another_of_its_side(moment: int) -> None:
    bench = Bench(4)
    bench.split([1, 2], [3, 4])
    bench.run()
    bench.add(1, b"a", b"n")
    bench.add(3, b"d", b"e", b"f", b"g", b"n", b"n")
    bench.merge()
    for count in range(moment):
        bench.step(count % 4 + 1)
    bench.kill(3)
    bench.run()
    for _ in range(4):
        bench.wait(ANNOUNCE_NS)
    assert all(bench.hosts[n].replica.serving for n in (1, 2, 4))
    machine = bench.hosts[4].replica.machine
    assert isinstance(machine, Toy)
    assert set(machine.counters) == {b"a", b"d", b"e", b"f", b"g", b"n"}
    bench.restart(3)
    if bench.hosts[3].rejoins:
        bench.hosts[3].client = None  # its session is lost
        bench.rejoin(3)
    bench.run()
    assert len(bench.digests()) == 1


def side(rank: int, *, size: int = 1) -> Side:
    side_id = SideId(has_state=True, stale=False, component=RoundId(rank, 0, 0), digest=b"")
    return Side(side_id, (10 + rank,), 0, size, 0)


def version(digest: bytes, counter: int, *, in_use: bool = False) -> Version:
    return Version(digest, Summary(counter, in_use))


GONE = version(DELETED, 0)


def decide(*held: Catalog, losers: bool = False, level: bool = True) -> meeting.Merge:
    sides = [side(rank, size=1 if level else 9 - rank) for rank in range(len(held))]
    return meeting.plan(sides, {s.id: c for s, c in zip(sides, held, strict=True)}, losers=losers)


def test_what_is_in_use_on_the_other_side_lives_although_it_was_deleted() -> None:
    plan = decide({b"n": GONE}, {b"n": version(b"1", 1, in_use=True)})
    assert plan.wanted == ((), (b"n",))
    plan = decide({b"n": GONE}, {b"n": version(b"1", 1)})
    assert plan.wanted == ((), ())
    assert plan.lost == ((), (Lost(b"n", 1, None),))


def test_what_the_losing_side_deleted_lives() -> None:
    plan = decide({b"n": version(b"1", 1)}, {b"n": GONE})
    assert plan == meeting.Merge((), ((), ()), ((), ()))


def test_between_equal_counters_the_lowest_node_wins() -> None:
    plan = decide({b"n": version(b"1", 5)}, {b"n": version(b"2", 5)})
    assert plan.lost == ((), (Lost(b"n", 5, 5),))


def test_the_counter_does_not_beat_the_larger_side() -> None:
    plan = decide({b"n": version(b"1", 5)}, {b"n": version(b"2", 6)}, level=False)
    assert plan.lost == ((), (Lost(b"n", 6, 5),))
    plan = decide({b"n": version(b"1", 5)}, {b"n": version(b"2", 6)})
    assert plan.lost == ((Lost(b"n", 5, 6),), ())
    assert plan.wanted == ((), (b"n",))


def test_versions_that_lose_are_sent_to_a_machine_that_wants_them() -> None:
    held = ({b"n": version(b"1", 5)}, {b"n": version(b"2", 4)}, {b"n": version(b"3", 3)})
    assert decide(*held).wanted == ((), (), ())
    plan = decide(*held, losers=True)
    assert plan.wanted == ((), (b"n",), (b"n",))
    assert [(rank, f.wins) for rank, f in plan.versions] == [(1, False), (2, False)]


def test_equal_versions_need_nothing() -> None:
    plan = decide({b"n": version(b"1", 5)}, {b"n": version(b"1", 5)})
    assert plan == meeting.Merge((), ((), ()), ((), ()))
