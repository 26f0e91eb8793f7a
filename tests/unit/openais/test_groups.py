"""The library's idea of a membership, fed with what totemd says; no socket is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openais import errors
from openais.configurations import Delivery, EvsConnection
from openais.groups import Address, Event, GroupConnection, Membership
from openais.portconnection import QUEUED_MESSAGES_MAX
from openais.wire import port as wire
from openais.wire.codec import Buffer, pack_bundle
from openais.wire.port import ConfigurationKind, Guarantee, Reason, RingId
from openais.wire.status import Status

NODE = 4
ME = wire.Member(NODE, os.getpid(), 1)
RING = RingId(8, 1)


class Told:
    """A connection and what it told, or lost."""

    def __init__(
        self,
        directory: Path,
        kind: type[Any] = GroupConnection,
        version: int = wire.VERSION,
    ) -> None:
        self.events: list[Any] = []
        self.lost = 0
        self.connection: Any = kind(directory, self._take, self._gone, rejoin=False)
        self.connection.connected()
        self.say(wire.Attached(NODE, b"", 0, False, 8, 1 << 20, version))  # noqa: FBT003

    def _take(self, events: Sequence[Event], _size: int) -> None:
        self.events += events

    def _gone(self) -> None:
        self.lost += 1

    def say(self, *messages: Any) -> None:
        elements: list[Buffer] = []
        for message in messages:
            wire.TABLE.put(message, elements)
        self.connection.received(elements)

    def sent(self) -> list[Any]:
        return list(wire.TABLE.take(self.connection.outgoing()))

    def ask_to_join(self, name: bytes) -> int:
        """Return the number of the request, as `Cpg.join` sends it."""
        connection = self.connection
        connection.joining(name)
        number: int = connection.ask(
            "cpg.join", lambda n: connection.join_message(n, name), lambda *_: None
        )
        return number

    def state(self) -> Membership:
        membership: Membership = self.connection.membership
        return membership

    def join(self, name: bytes = b"g") -> None:
        self.say(wire.Done(self.ask_to_join(name)), view(joined=Reason.JOIN))


def view(*, joined: Reason | None = None, left: Reason | None = None) -> wire.View:
    members = (ME,) if joined else ()
    return wire.View(
        1,
        b"g",
        RING,
        5,
        members,
        (wire.Change(ME, left),) if left else (),
        (wire.Change(ME, joined),) if joined else (),
    )


def test_a_join_that_totemd_took_before_the_own_leave_was_told_is_a_join(tmp_path: Path) -> None:
    # totemd's answer says that it knows the leave; the view of it is read only now.
    told = Told(tmp_path)
    told.join()
    told.connection.leaving()
    number = told.ask_to_join(b"g")
    assert told.state() is Membership.LEAVING
    told.say(view(left=Reason.LEAVE), wire.Done(number))
    assert told.state() is Membership.JOINING
    told.connection.multicast(Guarantee.AGREED, b"x")
    told.say(view(joined=Reason.JOIN))
    assert told.state() is Membership.JOINED


def test_a_second_join_that_is_refused_does_not_forget_the_first(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.ask_to_join(b"g")
    assert not told.connection.joining(b"other")
    told.say(view(joined=Reason.JOIN))
    assert told.state() is Membership.JOINED


def test_nothing_is_sent_once_a_leave_has_begun(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.join()
    assert told.connection.leaving()
    with pytest.raises(errors.NotExistError):
        told.connection.multicast(Guarantee.AGREED, b"x")
    told.connection.not_leaving()
    told.connection.multicast(Guarantee.AGREED, b"x")
    assert not Told(tmp_path).connection.leaving()


def test_what_waits_is_bundled_by_its_guarantee_in_order(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.join()
    told.sent()
    for guarantee, payload in (
        (Guarantee.AGREED, b"1"),
        (Guarantee.AGREED, b"2"),
        (Guarantee.SAFE, b"3"),
        (Guarantee.AGREED, b"4"),
    ):
        told.connection.multicast(guarantee, payload)
    sent = told.sent()
    requests = [m.request for m in sent]
    assert [(m.guarantee, bytes(m.payload)) for m in sent] == [
        (Guarantee.AGREED, pack_bundle([b"1", b"2"])),
        (Guarantee.SAFE, pack_bundle([b"3"])),
    ]
    told.say(*[wire.DeliveredOwn(1, n) for n in requests], wire.Accepted(requests[-1]))
    assert [e.payload for e in told.events[-3:]] == [b"1", b"2", b"3"]
    assert told.events[-1].sender == Address(NODE, os.getpid())
    assert [bytes(m.payload) for m in told.sent()] == [pack_bundle([b"4"])]


def test_evs_bundles_by_guarantee_and_groups(tmp_path: Path) -> None:
    told = Told(tmp_path, EvsConnection)
    first = wire.Configuration(ConfigurationKind.REGULAR, RING, (NODE,), (), ())
    told.say(first)
    assert told.connection.membership(None).members == (NODE,)
    for groups, payload in ((["a"], b"1"), ([b"a" + bytes(31)], b"2"), (["a", "b"], b"3")):
        told.connection.multicast_groups(Guarantee.AGREED, groups, payload)
    _attach, *sent = told.sent()
    assert [(len(m.keys), bytes(m.payload)) for m in sent] == [
        (32, pack_bundle([b"1", b"2"])),
        (64, pack_bundle([b"3"])),
    ]


def test_a_process_knows_itself_by_the_pid_that_totemd_sees(tmp_path: Path) -> None:
    # In a pid namespace of its own it is another pid for itself.
    told = Told(tmp_path)
    told.say(wire.Attached(NODE, b"", 0, False, 8, 1 << 20, wire.VERSION, 77_777))  # noqa: FBT003
    assert told.connection.address == Address(NODE, 77_777)
    told.ask_to_join(b"g")
    seen = wire.Member(NODE, 77_777, 1)
    change = wire.Change(seen, Reason.JOIN)
    told.say(wire.View(1, b"g", RING, 5, (seen,), (), (change,)))
    assert told.state() is Membership.JOINED


def test_a_totemd_that_tells_no_pid_is_believed_to_see_the_same(tmp_path: Path) -> None:
    assert Told(tmp_path).connection.address == Address(NODE, os.getpid())


def evs_told(tmp_path: Path, version: int) -> Told:
    told = Told(tmp_path, EvsConnection, version)
    told.say(wire.Configuration(ConfigurationKind.REGULAR, RING, (NODE,), (), ()))
    for guarantee in (Guarantee.AGREED, Guarantee.SAFE, Guarantee.AGREED):
        told.connection.multicast_groups(guarantee, ["a"], b"%d" % guarantee)
    return told


def test_evs_takes_its_own_messages_from_what_it_kept(tmp_path: Path) -> None:
    told = evs_told(tmp_path, wire.VERSION)
    _attach, *sent = told.sent()
    first, second = (m.request for m in sent)
    told.say(wire.EvsDeliveredOwn(first), wire.EvsPassed(second), wire.Accepted(second))
    assert told.events[1:] == [Delivery(NODE, b"2")]
    (third,) = told.sent()
    told.say(wire.EvsDeliveredOwn(third.request))
    assert told.events[1:] == [Delivery(NODE, b"2"), Delivery(NODE, b"2")]
    assert not told.connection._unordered


def test_evs_keeps_nothing_for_a_totemd_that_sends_everything_back(tmp_path: Path) -> None:
    told = evs_told(tmp_path, wire.VERSION_EVS_KEEPS - 1)
    _attach, first, _second = told.sent()
    assert not told.connection._unordered
    told.say(wire.EvsDelivered(NODE, first.payload))
    assert told.events[1:] == [Delivery(NODE, b"2")]


def test_a_refused_multicast_ends_the_connection_with_the_reason(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.join()
    told.sent()
    told.connection.multicast(Guarantee.AGREED, b"x")
    (multicast,) = told.sent()
    told.say(wire.Refused(multicast.request, Status.ERR_TRY_AGAIN, "full"))
    assert told.lost == 1
    with pytest.raises(errors.LibraryError, match="a multicast was refused: full"):
        told.connection.multicast(Guarantee.AGREED, b"y")


def test_a_refused_request_that_nobody_waits_for_ends_nothing(tmp_path: Path) -> None:
    told = Told(tmp_path)
    number = told.ask_to_join(b"g")
    told.connection.forget(number)
    told.say(wire.Refused(number, Status.ERR_EXIST, "late"))
    assert told.lost == 0
    told.connection.check("cpg.open")


def test_a_full_queue_says_whether_dispatching_would_help(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.join()
    for _ in range(QUEUED_MESSAGES_MAX):
        told.connection.multicast(Guarantee.AGREED, b"")
    assert told.connection.full
    with pytest.raises(errors.TryAgainError) as caught:
        told.connection.multicast(Guarantee.AGREED, b"")
    assert "dispatch" not in str(caught.value)
    told.connection.link.pause()
    with pytest.raises(errors.TryAgainError, match="events wait for dispatch"):
        told.connection.multicast(Guarantee.AGREED, b"")


def test_the_present_ring_is_told_only_on_demand(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.say(wire.RingChanged(RING, (NODE,), current=True))
    told.join()
    assert len(told.events) == 1
    told.say(wire.RingChanged(RingId(12, 1), (NODE,)))
    assert len(told.events) == 2
