"""What local connections of a node may do and what they are told."""

from __future__ import annotations

import pytest

from tests.sim.cluster import Cluster
from tests.sim.network import MS
from totemd.protocol import packing
from totemd.protocol.local import (
    Accepted,
    Attached,
    CaughtUp,
    ConnectionId,
    Delivered,
    Drop,
    Event,
    GroupKey,
    Reason,
    Refusal,
    Refused,
    RingChanged,
    SnapshotWanted,
    Space,
    Tell,
    View,
)
from totemd.protocol.node import WINDOW_MESSAGES, Effect, Node
from totemd.protocol.seats import Seat, SeatLimits

LIMITS = SeatLimits(log_bytes_max=10_000, grace_ns=5_000 * MS)


class Single:
    """One node alone, with its connections' streams."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.cluster.wait(self.cluster.one_ring, 1_000 * MS)
        self.node: Node = self.cluster.node(1)
        self.streams = self.cluster.running[1].life.streams
        self.dropped: list[ConnectionId] = []

    def do(self, effects: list[Effect]) -> None:
        self.dropped += [e.connection for e in effects if isinstance(e, Drop)]
        self.cluster.perform(1, effects)
        self.cluster.run(20 * MS)

    def seat(self, number: int, history: bytes = b"", index: int = 0) -> list[Event]:
        connection = ConnectionId(number)
        self.do(self.node.attach_seat(connection, b"ckpt", history, index, self.cluster.now_ns))
        return self.streams[connection]

    def send(self, number: int, payload: bytes, request: int = 1) -> None:
        now_ns = self.cluster.now_ns
        self.do(self.node.multicast(ConnectionId(number), request, 2, payload, now_ns))


def indexes(stream: list[Event]) -> list[int]:
    return [e.index for e in stream if isinstance(e, Delivered | View)]


def test_a_new_seat_begins_with_the_view_that_lists_it() -> None:
    single = Single()
    stream = single.seat(1)
    assert isinstance(stream[0], Attached)
    assert not stream[0].resumed
    assert isinstance(stream[1], View)
    assert [c.reason for c in stream[1].joined] == [Reason.JOIN]
    assert stream[1].index == 1


def test_a_process_that_died_takes_its_seat_up_from_its_position() -> None:
    single = Single()
    first = single.seat(1)
    single.send(1, b"one")
    single.do(single.node.disconnected(ConnectionId(1), single.cluster.now_ns))
    attached = first[0]
    assert isinstance(attached, Attached)
    second = single.seat(2, attached.history, 1)
    assert second[0] == Attached(attached.history, 1, resumed=True)
    assert [e.payload for e in second if isinstance(e, Delivered)] == [b"one"]
    assert second[-1] == CaughtUp(2)


def test_a_process_without_memory_is_replayed_everything_if_the_log_has_it() -> None:
    single = Single()
    single.seat(1)
    single.send(1, b"one")
    single.do(single.node.disconnected(ConnectionId(1), single.cluster.now_ns))
    assert indexes(single.seat(2)) == [1, 2]


def test_a_log_that_began_with_a_memory_does_not_serve_a_process_without_one() -> None:
    single = Single()
    single.seat(1, b"of an earlier totemd", 7)
    single.do(single.node.disconnected(ConnectionId(1), single.cluster.now_ns))
    again = single.seat(2)[0]
    assert isinstance(again, Attached)
    assert not again.resumed


def test_a_position_that_the_log_no_longer_has_makes_a_new_membership() -> None:
    single = Single()
    first = single.seat(1)
    for request in (1, 2):
        single.send(1, b"x", request)
    attached = first[0]
    assert isinstance(attached, Attached)
    single.do(single.node.snapshotted(ConnectionId(1), 3, single.cluster.now_ns))
    single.do(single.node.disconnected(ConnectionId(1), single.cluster.now_ns))
    again = single.seat(2, attached.history, 1)
    assert isinstance(again[0], Attached)
    assert not again[0].resumed
    assert again[0].history != attached.history
    last = again[-1]
    assert isinstance(last, View)
    assert len(last.members) == 1


def test_a_seat_without_a_process_is_given_up_after_the_grace_where_others_have_the_state() -> None:
    cluster = Cluster(2)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    for node_id in (1, 2):
        effects = cluster.node(node_id).attach_seat(
            ConnectionId(1), b"ckpt", b"", 0, cluster.now_ns
        )
        cluster.perform(node_id, effects)
        cluster.run(100 * MS)
    cluster.perform(1, cluster.node(1).disconnected(ConnectionId(1), cluster.now_ns))
    cluster.run(5_200 * MS)
    assert cluster.node(1).seats == {}
    ((_, members),) = cluster.node(2).groups.groups.items()
    assert [key.node_id for key in members] == [2]


def test_the_only_seat_of_a_group_waits_for_its_process_as_long_as_it_takes() -> None:
    # The danger: a service that starts slowly loses what nobody else remembers.
    single = Single()
    first = single.seat(1)[0]
    single.send(1, b"acknowledged")
    single.do(single.node.disconnected(ConnectionId(1), single.cluster.now_ns))
    single.cluster.run(60_000 * MS)
    assert isinstance(first, Attached)
    again = single.seat(2, first.history, 1)
    assert isinstance(again[0], Attached)
    assert again[0].resumed
    assert indexes(again) == [2]


def test_the_second_process_of_a_service_takes_the_seat_from_the_first() -> None:
    single = Single()
    single.seat(1)
    single.seat(2)
    assert single.dropped == [1]


def test_the_log_asks_for_a_snapshot_at_its_bound_and_is_dropped_at_twice_it() -> None:
    seat = Seat(GroupKey(Space.SERVICE, b"ckpt"), 1, b"h" * 16, LIMITS)
    seat.vacate(0)
    told = [e for k in range(1, 11) for e in seat.append(Delivered(k, 1, 0, bytes(1_000)))]
    assert [type(e) for e in told].count(SnapshotWanted) == 1
    for k in range(11, 30):
        seat.append(Delivered(k, 1, 0, bytes(1_000)))
    assert seat.logs_dropped == 1
    assert not seat.can_resume(b"h" * 16, 5)
    assert seat.can_resume(b"h" * 16, seat.index)
    seat.check()


def test_a_snapshot_that_comes_after_its_log_was_dropped_is_asked_for_again() -> None:
    # The danger: the late snapshot is taken for an error, and the service ends.
    seat = Seat(GroupKey(Space.SERVICE, b"ckpt"), 1, b"h" * 16, LIMITS)
    told = [e for k in range(1, 19) for e in seat.append(Delivered(k, 1, 0, bytes(1_000)))]
    assert (seat.logs_dropped, type(told[-1])) == (1, SnapshotWanted)
    assert [type(event) for event in seat.snapshotted(9)] == [SnapshotWanted]
    assert seat.snapshotted(18) == []
    assert seat.can_resume(b"h" * 16, 18)
    assert [type(event) for event in seat.snapshotted(19)] == [Refused], "not told yet"


def test_a_join_is_refused_while_another_is_open() -> None:
    single = Single()
    connection = single.cluster.attach(1)
    single.do(single.node.join(connection, 2, b"other", single.cluster.now_ns))
    refused = [e for e in single.streams[connection] if isinstance(e, Refused)]
    assert [r.refusal for r in refused] == [Refusal.EXIST]


@pytest.mark.parametrize(
    ("name", "refusal"), [(b"", Refusal.INVALID_PARAM), (b"n" * 129, Refusal.NAME_TOO_LONG)]
)
def test_a_bad_group_name_is_refused_with_its_rule(name: bytes, refusal: Refusal) -> None:
    single = Single()
    connection = ConnectionId(9)
    single.do(single.node.attach_process(connection, 1, single.cluster.now_ns))
    single.do(single.node.join(connection, 1, name, single.cluster.now_ns))
    refused = [e for e in single.streams[connection] if isinstance(e, Refused)]
    assert [r.refusal for r in refused] == [refusal]


def test_a_multicast_without_a_group_is_refused() -> None:
    single = Single()
    single.do(single.node.attach_process(ConnectionId(9), 1, single.cluster.now_ns))
    single.send(9, b"x")
    assert [type(e) for e in single.streams[ConnectionId(9)]] == [Attached, RingChanged, Refused]


def test_multicasts_over_the_window_are_refused_and_the_others_accepted() -> None:
    cluster = Cluster(2)  # cut from its peer, so that no token comes
    cluster.wait(cluster.one_ring, 1_000 * MS)
    connection = cluster.attach(1)
    cluster.run(20 * MS)
    cluster.wire.partition({1}, {2})
    cluster.run(500 * MS)
    for k in range(WINDOW_MESSAGES + 60):
        cluster.multicast(1, connection, b"%d" % k)
    stream = cluster.running[1].life.streams[connection]
    refused = [e for e in stream if isinstance(e, Refused)]
    assert {e.refusal for e in refused} == {Refusal.TRY_AGAIN}
    cluster.run(5_000 * MS)
    delivered = [e for e in stream if isinstance(e, Delivered)]
    assert len(delivered) == WINDOW_MESSAGES + 60 - len(refused)
    assert [e for e in stream if isinstance(e, Accepted)]


def test_leaving_ends_with_the_view_that_lists_the_caller() -> None:
    single = Single()
    connection = single.cluster.attach(1)
    single.cluster.run(20 * MS)
    single.do(single.node.leave_group(connection, 2, b"simulated", single.cluster.now_ns))
    last = single.streams[connection][-1]
    assert isinstance(last, View)
    assert [c.reason for c in last.left] == [Reason.LEAVE]
    single.do(single.node.join(connection, 3, b"again", single.cluster.now_ns))
    assert isinstance(single.streams[connection][-1], View)


def test_effects_name_the_connection_they_are_for() -> None:
    single = Single()
    effects = single.node.attach_process(ConnectionId(5), 1, single.cluster.now_ns)
    assert {e.connection for e in effects if isinstance(e, Tell)} == {5}


def test_a_full_node_refuses_applications_and_never_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    single = Single()
    seat = single.seat(50)
    application = single.cluster.attach(1)
    single.cluster.run(20 * MS)
    monkeypatch.setattr(packing, "QUEUE_SIZE_MAX", 0)
    single.send(50, b"of a service")
    single.do(single.node.multicast(application, 7, 2, b"x", single.cluster.now_ns))
    assert [e.payload for e in seat if isinstance(e, Delivered)] == [b"of a service"]
    refused = [e for e in single.streams[application] if isinstance(e, Refused)]
    assert [(e.request, e.refusal) for e in refused] == [(7, Refusal.TRY_AGAIN)]
