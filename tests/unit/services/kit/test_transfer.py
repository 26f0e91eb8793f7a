"""A state reaches who lacks it: of one position, only what is missing, whoever dies on the way."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from openais.wire.codec import Buffer
from openais.wire.port import Reason
from services.kit import transfer
from services.kit.effects import State
from services.kit.machine import SessionId
from services.kit.transfer import ATTEMPTS_MAX, STEP_NS
from tests.sim.replicas import SECOND, Host, Stage
from tests.sim.toy import TABLE, Add, Toy

COUNTERS = 20


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "OBJECTS_PER_PIECE_MAX", 3)


def session(node_id: int) -> SessionId:
    return SessionId(b"session of node%2d" % node_id)


class Bench(Stage):
    """Replicas with a state of many pieces."""

    def __init__(self, nodes: int, forgetful: int = 0) -> None:
        super().__init__(lambda node: Forgetful() if node == forgetful else Toy())
        self.numbers: dict[int, int] = {}
        for node_id in range(1, nodes + 1):
            self.arrive(node_id)
        for number in range(COUNTERS):
            self.add(1, b"counter %d" % number)
        self.run()

    def arrive(self, node_id: int) -> None:
        self.join(node_id, [1] if node_id > 1 else None)
        self.run()
        self.open(node_id, session(node_id))

    def add(self, node_id: int, name: bytes) -> None:
        self.numbers[node_id] = self.request(node_id, TABLE.encode(Add(name)))

    def newcomer(self, node_id: int, *, give: int) -> Host:
        """Let a node join; stop after some pieces of the state were delivered to it."""
        host = self.join(node_id, [1])
        for _ in range(100):
            if self.pieces() >= give:
                return host
            for member in self.rings[0]:
                if self.pieces() < give:
                    self.step(member)
        raise AssertionError("no state is on its way")

    def pieces(self) -> int:
        return sum(h.replica.stats.state_bytes_sent > 0 for h in self.hosts.values()) and sum(
            1 for event in self.hosts[max(self.hosts)].log if b"counter" in _payload(event)
        )

    def one_state(self) -> Toy:
        assert self.live()
        assert len(self.digests()) == 1
        machine = self.hosts[max(self.hosts)].replica.machine
        assert isinstance(machine, Toy)
        return machine


def _payload(event: object) -> bytes:
    return bytes(getattr(event, "payload", b""))


def sent(bench: Bench, node_id: int) -> int:
    return bench.hosts[node_id].replica.stats.state_bytes_sent


def test_a_state_is_of_one_position_although_it_changes_while_it_is_sent() -> None:
    # Objects that change after the newcomer's question must come as they were, or be added twice.
    bench = Bench(2)
    host = bench.newcomer(3, give=2)
    for number in range(COUNTERS):
        bench.add(2, b"counter %d" % number)
        bench.step(2)
    assert host.replica.state is State.JOINING
    bench.run()
    assert set(bench.one_state().counters.values()) == {2}


def test_objects_that_come_and_go_while_a_state_is_sent_are_no_part_of_it() -> None:
    bench = Bench(2)
    bench.newcomer(3, give=2)
    bench.add(2, b"new")
    bench.add(2, b"short lived")
    bench.step(2)
    bench.step(2)
    bench.wait(5 * SECOND)
    machine = bench.one_state()
    assert machine.counters[b"new"] == 1
    assert b"short lived" not in machine.counters


def test_the_others_answer_while_a_state_is_on_its_way() -> None:
    bench = Bench(2)
    bench.newcomer(3, give=2)
    bench.add(2, b"n")
    bench.step(2)
    assert bench.hosts[2].replies[-1].number == bench.numbers[2]


def test_a_snapshot_can_be_taken_while_a_state_is_given() -> None:
    bench = Bench(2)
    bench.newcomer(3, give=2)
    assert bench.take_snapshot(1)
    assert not bench.take_snapshot(3)


def test_after_the_death_of_the_giver_the_next_sends_what_is_missing() -> None:
    bench = Bench(3)
    host = bench.newcomer(4, give=5)
    before = host.replica.stats.state_bytes_received
    bench.hosts[1].outbox.clear()
    bench.leave(1)
    bench.run()
    bench.one_state()
    assert before > 0
    assert 0 < sent(bench, 2) < sent(bench, 1) * 2
    whole = Bench(3)
    whole.newcomer(4, give=1)
    whole.run()
    assert sent(bench, 2) < sent(whole, 1)


@pytest.mark.parametrize("pieces", range(1, 9))
def test_a_giver_that_is_silent_is_replaced_and_goes_on_later(pieces: int) -> None:
    bench = Bench(3)
    bench.newcomer(4, give=pieces)
    bench.kill(1)  # its seat stays: no view tells
    bench.run()
    bench.wait(STEP_NS + 1)
    bench.wait(STEP_NS + 1)
    assert bench.hosts[4].replica.state is State.LIVE
    bench.restart(1)
    bench.run()
    bench.one_state()


@pytest.mark.parametrize("pieces", range(1, 9))
def test_a_giver_that_is_killed_goes_on_where_it_was(pieces: int) -> None:
    bench = Bench(2)
    bench.newcomer(3, give=pieces)
    bench.kill(1)
    bench.add(2, b"n")
    bench.step(2)
    bench.restart(1)
    bench.run()
    bench.one_state()
    assert bench.hosts[3].replica.stats.transfers_repeated == 0


@pytest.mark.parametrize("pieces", range(1, 9))
def test_a_receiver_that_is_killed_goes_on_where_it_was(pieces: int) -> None:
    bench = Bench(2)
    host = bench.newcomer(3, give=pieces)
    bench.kill(3)
    for _ in range(3):
        bench.step(1)
    bench.restart(3)
    bench.run()
    bench.one_state()
    assert host.replica.stats.state_bytes_received > 0


@pytest.mark.parametrize("pieces", range(1, 9))
def test_a_receiver_whose_ring_process_dies_keeps_what_came(pieces: int) -> None:
    bench = Bench(2)
    bench.newcomer(3, give=pieces)
    bench.restart_ring_process(3)
    bench.run()
    bench.one_state()


@pytest.mark.parametrize("pieces", range(1, 9))
def test_a_second_newcomer_in_the_middle_gets_the_state_too(pieces: int) -> None:
    bench = Bench(2)
    bench.newcomer(3, give=pieces)
    bench.join(4, [1])
    bench.run()
    bench.one_state()


@pytest.mark.parametrize("pieces", range(1, 9))
def test_the_death_of_a_bystander_does_not_lose_what_came(pieces: int) -> None:
    bench = Bench(3)
    bench.newcomer(4, give=pieces)
    bench.leave(3, Reason.PROCDOWN)
    bench.run()
    bench.one_state()


def test_who_was_apart_is_sent_what_changed_only() -> None:
    bench = Bench(3)
    bench.newcomer(4, give=1)
    bench.run()
    whole = sent(bench, 1)
    bench.split([1, 2, 3], [4])
    bench.run()
    bench.add(1, b"counter 7")
    bench.run()
    bench.merge()
    bench.run()
    assert bench.one_state().counters[b"counter 7"] == 2
    assert sent(bench, 1) - whole < whole


def test_what_waits_is_bounded_by_asking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kit.replica.DEFERRED_BYTES_MAX", 500)
    bench = Bench(2)
    host = bench.newcomer(3, give=2)
    for _ in range(20):
        bench.add(2, b"counter 1")
        bench.step(2)
    bench.run()
    assert host.replica.stats.transfers_repeated > 0
    assert bench.one_state().counters[b"counter 1"] == 21


def test_who_gets_no_state_joins_anew_in_the_end() -> None:
    bench = Bench(1)
    host = bench.newcomer(2, give=1)
    bench.kill(1)
    for _ in range(ATTEMPTS_MAX + 1):
        bench.wait(STEP_NS + 1)
    assert host.rejoins


class Forgetful(Toy):
    """Loads something else than it is given."""

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        super().load(changes)
        self.counters.pop(b"counter 7", None)


def test_a_state_that_is_not_what_was_promised_is_refused() -> None:
    bench = Bench(1, forgetful=2)
    host = bench.newcomer(2, give=1)
    bench.run()
    assert "digests" in host.rejoins[0]
    assert host.replica.state is State.JOINING
