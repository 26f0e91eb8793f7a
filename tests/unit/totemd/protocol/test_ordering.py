"""The messages of one ring as one node holds them."""

from __future__ import annotations

from totemd.protocol.messages import REQUESTS_MAX, Data, Request, RingId
from totemd.protocol.ordering import Store

RING = RingId(8, 1)


def data(seq: int, payload: bytes = b"abc") -> Data:
    return Data(RING, seq, 1, 2, 0, 1, payload)


def store(*seqs: int, base: int = 0) -> Store:
    result = Store(RING, base, 100)
    for seq in seqs:
        assert result.add(data(seq))
    result.check()
    return result


def test_all_received_up_to_stops_before_the_first_gap_and_catches_up() -> None:
    s = store(1, 2, 4, 5)
    assert (s.aru, s.high) == (2, 5)
    s.add(data(3))
    assert (s.aru, s.high) == (5, 5)


def test_what_is_known_released_or_impossibly_far_is_refused() -> None:
    s = store(1, 2)
    s.delivered = 2
    s.release(1)
    assert not s.add(data(1))
    assert not s.add(data(2))
    assert not s.add(data(1 + 200 + 1))
    assert s.add(data(1 + 200))


def test_only_what_was_delivered_is_released_and_its_bytes_with_it() -> None:
    s = store(1, 2, 3)
    assert s.payload_bytes == 9
    s.delivered = 2
    s.release(3)
    assert (s.released, s.payload_bytes) == (2, 3)
    s.release(1)
    assert s.released == 2
    s.check()


def test_neighbours_are_asked_for_together() -> None:
    s = store(1, 4, 7)
    assert s.missing(8, (), 2, {}, 1) == (Request(2, 2, 2), Request(5, 2, 2), Request(8, 1, 2))


def test_what_is_asked_for_already_is_not_asked_for_twice() -> None:
    s = store(1, 4)
    assert s.missing(5, (Request(2, 2, 2),), 2, {}, 1) == (Request(2, 2, 2), Request(5, 1, 2))


def test_a_request_of_another_is_shared_only_by_who_lacks_the_message_too() -> None:
    asked = (Request(2, 2, 3), Request(4, 1, 3))
    assert store(1, 4).missing(4, asked, 2, {}, 1) == (Request(2, 2, 0), Request(4, 1, 3))


def test_requests_stay_within_the_token() -> None:
    s = store(*range(2, 200, 2))
    requests = s.missing(200, (), 2, {}, 1)
    assert len(requests) == REQUESTS_MAX
    long = Store(RING, 0, 5_000).missing(3_000, (), 2, {}, 1)
    assert sum(r.count for r in long) == 1024
    assert max(r.count for r in long) == 256
