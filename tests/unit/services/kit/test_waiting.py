"""Requests whose answers come later: through every fault, withdrawn, and out of time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from openais.wire.status import Status
from services.kit import entries
from services.kit.machine import SessionId
from tests.sim.replicas import SECOND, Client, Stage
from tests.sim.toy import TABLE, Add, Toy, Value, Wait
from tests.unit.services.kit.test_replica import random_step, session, settle, stage


def clients(made: Stage) -> list[Client]:
    for host in made.hosts.values():
        host.client = Client(host, session(host.node_id))
    return [host.client for host in made.hosts.values() if host.client is not None]


def ask(made: Stage, client: Client, operation: object) -> int:
    return client.ask(made.now().wall_ns, TABLE.encode(operation))


def cancel(made: Stage, node_id: int, number: int, status: Status) -> None:
    now_ns = made.now().wall_ns
    made.send(node_id, entries.Cancelled(now_ns, session(node_id), number, status))


def kill_service(made: Stage) -> None:
    made.kill(1)
    made.restart(1)


def restart_ring_process(made: Stage) -> None:
    made.restart_ring_process(1)


def part_and_meet(made: Stage) -> None:
    made.split([1], [2, 3])
    made.run()
    made.merge()


def both(made: Stage) -> None:
    made.restart_ring_process(1)
    made.run()
    kill_service(made)


@pytest.mark.parametrize("fault", [kill_service, restart_ring_process, part_and_meet, both])
def test_a_request_that_waits_is_answered_once_after(fault: Callable[[Stage], None]) -> None:
    made = stage(3)
    waiter, other, _ = clients(made)
    number = ask(made, waiter, Wait(b"n"))
    made.run()
    fault(made)
    made.run()
    assert made.live()
    assert not waiter.answered
    ask(made, other, Add(b"n"))
    made.run()
    assert TABLE.decode(waiter.answered[number].body) == Value(1)
    assert len(made.digests()) == 1
    assert len([r for r in made.hosts[1].replies if r.number == number]) == 1


def test_a_request_that_waits_does_not_hold_up_those_after_it() -> None:
    made = stage(2)
    waiter, other = clients(made)
    first = ask(made, waiter, Wait(b"n"))
    later = [ask(made, waiter, Add(b"m")) for _ in range(3000)]
    made.run()
    assert set(waiter.answered) == set(later)
    ask(made, other, Add(b"n"))
    made.run()
    assert waiter.answered[first].status is Status.OK


@pytest.mark.parametrize("status", [Status.ERR_TIMEOUT, Status.ERR_INTERRUPT])
def test_a_withdrawn_request_is_answered_so_and_waits_no_more(status: Status) -> None:
    made = stage(2)
    waiter, other = clients(made)
    number = ask(made, waiter, Wait(b"n"))
    made.run()
    cancel(made, 1, number, status)
    ask(made, other, Add(b"n"))
    made.run()
    assert waiter.answered[number].status is status
    assert [toy.waiting for toy in machines(made)] == [[], []]


def test_an_answer_that_was_ordered_before_the_withdrawal_stands() -> None:
    made = stage(2)
    waiter, other = clients(made)
    number = ask(made, waiter, Wait(b"n"))
    made.run()
    ask(made, other, Add(b"n"))
    made.step(2)
    cancel(made, 1, number, Status.ERR_TIMEOUT)
    made.run()
    assert waiter.answered[number].status is Status.OK


def test_a_request_of_a_session_that_ends_waits_no_more() -> None:
    made = stage(2)
    waiter, _ = clients(made)
    ask(made, waiter, Wait(b"n"))
    made.run()
    made.send(1, entries.SessionClosed(made.now().wall_ns, session(1)))
    made.run()
    assert [toy.waiting for toy in machines(made)] == [[], []]
    assert len(made.digests()) == 1


def machines(made: Stage) -> list[Toy]:
    found = [host.replica.machine for host in made.hosts.values()]
    return [machine for machine in found if isinstance(machine, Toy)]


def test_a_machine_that_forgets_an_answer_is_found_out() -> None:
    own = {k: v for k, v in vars(Toy).items() if k not in ("cancelled", "__dict__", "__weakref__")}
    mute = type("Mute", (), own | {"apply": lambda *_: []})
    made = Stage(lambda _node: mute())
    made.join(1)
    made.run()
    made.send(1, entries.SessionOpened(session(1)))
    made.run()
    (client,) = clients(made)
    number = ask(made, client, Add(b"n"))
    made.run()
    assert client.answered[number].status is Status.ERR_LIBRARY


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_a_request_that_waits_is_answered_once(seed: int) -> None:
    rng = random.Random(seed)
    made = stage(rng.randint(2, 4))
    asking = clients(made)
    waited: list[tuple[Client, int]] = []
    for step in range(80):
        host = made.hosts[rng.choice(sorted(made.hosts))]
        dice = rng.random()
        if host.down or host.client is None or dice > 0.3:
            random_step(made, rng, None)
        elif dice < 0.2:
            waited.append((host.client, ask(made, host.client, Wait(b"%d" % step))))
        elif dice < 0.26:
            ask(made, host.client, Add(b"a"))
        else:
            made.restart_ring_process(host.node_id)
    settle(made)
    for name in range(80):
        ask(made, asking[name % len(asking)], Add(b"%d" % name))
    settle(made)
    for client, number in waited:
        assert client.answered[number].status is Status.OK
    assert {len(toy.waiting) for toy in machines(made)} == {0}


def test_a_session_whose_node_lost_its_memory_is_taken_up_with_what_it_had() -> None:
    # Danger: its service starts too slowly, its seat expires, its clients live and wait.
    made = stage(3)
    waiter, other, _ = clients(made)
    ask(made, waiter, Add(b"n"))
    number = ask(made, waiter, Wait(b"m"))
    made.run()
    made.leave(1)
    made.run()
    assert session(1) not in made.hosts[2].replica.sessions.open
    made.join(1, [2])
    made.run()
    made.send(1, entries.SessionResumed(made.now().wall_ns, session(1), 0))
    made.run()
    made.hosts[1].client = waiter
    waiter.moved(made.hosts[1])
    waiter.connected()
    made.run()
    ask(made, other, Add(b"m"))
    ask(made, waiter, Add(b"n"))
    made.wait(SECOND)
    assert waiter.answered[number].status is Status.OK
    assert {toy.counters[b"n"] for toy in machines(made)} == {2}
    assert [toy.owners[session(1)] for toy in machines(made)] == [2, 2, 2]


def test_a_session_that_nobody_remembers_is_not_taken_up() -> None:
    made = stage(2)
    unknown = SessionId(b"0123456789abcdef")
    made.send(1, entries.SessionResumed(made.now().wall_ns, unknown, 0))
    made.run()
    assert unknown not in made.hosts[2].replica.sessions.open
    assert made.hosts[1].ended == [unknown]
    assert made.hosts[2].ended == []
