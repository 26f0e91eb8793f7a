"""Records of sessions: numbers, answers, notifications and their bounds."""

from __future__ import annotations

import pytest

from openais.wire.status import Status
from services.kit import entries
from services.kit.machine import NodeId, Notifications, Overflow
from services.kit.replica import Replica
from services.kit.sessions import ANSWERS_MAX, Place, Record
from tests.sim.replicas import Host, Stage
from tests.sim.toy import TABLE, Add, Toy
from tests.unit.services.kit.test_replica import session

BODY = bytes(100)


def record() -> Record:
    return Record(NodeId(1))


def test_a_request_is_applied_only_after_the_one_before_it() -> None:
    one = record()
    assert one.place(3, 2) is Place.EARLY
    one.begin(2)
    assert one.place(3, 2) is Place.NEXT
    assert one.place(2, 0) is Place.KNOWN
    assert one.place(1, 0) is Place.KNOWN, "passed over for good"


def test_an_answer_that_waits_long_survives_many_others() -> None:
    one = record()
    one.begin(1)
    for number in range(2, 2 * ANSWERS_MAX):
        one.begin(number)
        assert one.answer(number, (Status.OK, b""))
    assert len(one.answers) == ANSWERS_MAX
    assert one.answer(1, (Status.OK, b"late"))
    assert one.answers[1] == (Status.OK, b"late")
    assert not one.answer(1, (Status.OK, b"again")), "a request is answered once"


def notified(rule: Notifications, count: int) -> Record:
    one = record()
    for _ in range(count):
        one.notify(BODY, rule)
    return one


def serials(one: Record) -> list[int]:
    return [serial for serial, _ in one.kept]


def test_the_oldest_notifications_are_dropped_where_that_is_the_rule() -> None:
    one = notified(Notifications(kept_max=4, overflow=Overflow.OLDEST), 6)
    assert serials(one) == [3, 4, 5, 6]


def test_the_newest_are_dropped_until_half_of_those_kept_was_taken() -> None:
    rule = Notifications(kept_max=4, overflow=Overflow.NEWEST)
    one = notified(rule, 6)
    assert serials(one) == [1, 2, 3, 4]
    one.trim(1, rule)
    assert not one.notify(BODY, rule)
    one.trim(2, rule)
    assert one.notify(BODY, rule)
    assert serials(one) == [3, 4, 8], "the gap tells the client that three were dropped"


@pytest.mark.parametrize("overflow", [Overflow.OLDEST, Overflow.NEWEST])
def test_notifications_are_bounded_in_bytes_too(overflow: Overflow) -> None:
    one = notified(Notifications(bytes_max=250, overflow=overflow), 5)
    assert len(one.kept) == 2


class Overflowing(Stage):
    """Replicas of which a session that does not take its notifications is ended."""

    def fresh(self, node_id: int) -> Replica:
        return Replica(
            node_id, Toy(), notifications=Notifications(kept_max=2, overflow=Overflow.END)
        )


def test_a_session_that_takes_nothing_is_ended_on_all_replicas_where_that_is_the_rule() -> None:
    made = Overflowing(lambda _node: Toy())
    for node_id in (1, 2):
        made.join(node_id, [1] if node_id > 1 else None)
        made.run()
        made.send(node_id, entries.SessionOpened(session(node_id)))
        made.run()
    add(made, 1, 1)
    for number in range(1, 5):
        add(made, 2, number)
    made.run()
    host: Host = made.hosts[1]
    assert host.ended == [session(1)]
    assert made.hosts[2].ended == []
    assert [session(1) in h.replica.sessions.open for h in made.hosts.values()] == [False, False]
    assert len(made.digests()) == 1


def add(made: Stage, node_id: int, number: int) -> None:
    body = TABLE.encode(Add(b"n"))
    now_ns = made.now().wall_ns
    made.send(node_id, entries.Operation(now_ns, session(node_id), number, 0, body))
