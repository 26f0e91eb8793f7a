"""The EVS clients of one node: filters, limits, and what is told to whom."""

from __future__ import annotations

import random

import pytest

from totemd.protocol.effects import Configuration, ConfigurationKind
from totemd.protocol.evs import (
    GROUPS_PER_CALL_MAX,
    GROUPS_PER_CLIENT_MAX,
    GROUPS_PER_MESSAGE_MAX,
    KEY_SIZE,
    Evs,
    EvsDecodeError,
    EvsMulticast,
    decode,
    encode,
)
from totemd.protocol.local import ConnectionId, Done, EvsDelivered, Refusal, Refused, Tell
from totemd.protocol.messages import RingId
from totemd.protocol.packing import MESSAGE_SIZE_MAX

ONE, TWO = ConnectionId(1), ConnectionId(2)


def key(number: int) -> bytes:
    return b"%d" % number + bytes(KEY_SIZE - len(str(number)))


def keys(first: int, count: int) -> tuple[bytes, ...]:
    return tuple(key(n) for n in range(first, first + count))


def two_clients() -> Evs:
    evs = Evs()
    evs.attach(ONE)
    evs.attach(TWO)
    return evs


def delivered(evs: Evs, *groups: bytes) -> list[ConnectionId]:
    evs.check()
    told = evs.deliver(7, encode(EvsMulticast(2, b"".join(groups), b"payload")))
    assert all(tell.event == EvsDelivered(7, b"payload") for tell in told)
    return [tell.connection for tell in told]


def refusal(tell: Tell) -> Refusal | None:
    return tell.event.refusal if isinstance(tell.event, Refused) else None


def test_a_message_is_told_once_to_each_client_that_listens() -> None:
    evs = two_clients()
    assert evs.join(ONE, 1, keys(0, 3)) == Tell(ONE, Done(1))
    evs.join(TWO, 1, keys(2, 1))
    assert delivered(evs, key(0), key(1), key(2)) == [ONE, TWO]
    assert delivered(evs, key(0)) == [ONE]
    assert delivered(evs, key(9)) == []


def test_all_bytes_of_a_key_count() -> None:
    evs = two_clients()
    evs.join(ONE, 1, (bytes(31) + b"1",))
    assert delivered(evs, bytes(31) + b"2") == []
    assert delivered(evs, bytes(31) + b"1") == [ONE]


def test_a_leave_with_an_unknown_group_leaves_none() -> None:
    evs = two_clients()
    evs.join(ONE, 1, keys(0, 2))
    assert refusal(evs.leave(ONE, 2, (key(0), key(5)))) is Refusal.NOT_EXIST
    assert delivered(evs, key(0)) == [ONE]
    assert evs.leave(ONE, 3, (key(0), key(0))) == Tell(ONE, Done(3))
    assert delivered(evs, key(0)) == []
    assert delivered(evs, key(1)) == [ONE]


def test_fifty_groups_a_call_and_no_more() -> None:
    """V5."""
    evs = two_clients()
    too_many = keys(0, GROUPS_PER_CALL_MAX + 1)
    assert refusal(evs.join(ONE, 1, too_many)) is Refusal.TOO_MANY_GROUPS
    assert refusal(evs.leave(ONE, 1, too_many)) is Refusal.TOO_MANY_GROUPS
    assert delivered(evs, key(0)) == []
    assert refusal(evs.join(ONE, 2, too_many[:-1])) is None
    assert refusal(evs.leave(ONE, 3, too_many[:-1])) is None


def test_a_client_has_at_most_256_groups_and_those_it_has_count_once() -> None:
    evs = two_clients()
    for first in range(0, 250, 50):
        assert refusal(evs.join(ONE, 1, keys(first, 50))) is None
    assert refusal(evs.join(ONE, 1, keys(249, 8))) is Refusal.TOO_MANY_GROUPS
    assert delivered(evs, key(250)) == []
    assert refusal(evs.join(ONE, 1, keys(240, 16))) is None
    assert delivered(evs, key(GROUPS_PER_CLIENT_MAX - 1)) == [ONE]


@pytest.mark.parametrize("bad", [(), (b"short",), (bytes(33),)])
def test_no_group_or_a_key_of_another_size_is_invalid(bad: tuple[bytes, ...]) -> None:
    evs = two_clients()
    for tell in (evs.join(ONE, 1, bad), evs.leave(ONE, 1, bad)):
        assert refusal(tell) is Refusal.INVALID_PARAM
    rule = evs.multicast_rule(ONE, b"".join(bad), b"")
    assert (rule and rule[0]) is Refusal.INVALID_PARAM


def test_a_connection_of_another_kind_is_refused() -> None:
    evs, stranger = two_clients(), ConnectionId(9)
    assert stranger not in evs
    assert refusal(evs.join(stranger, 1, keys(0, 1))) is Refusal.INVALID_PARAM
    rule = evs.multicast_rule(stranger, key(0), b"")
    assert (rule and rule[0]) is Refusal.INVALID_PARAM


def test_what_the_packer_could_not_take_is_refused_at_the_door() -> None:
    evs = two_clients()
    groups = b"".join(keys(0, GROUPS_PER_MESSAGE_MAX))
    room = MESSAGE_SIZE_MAX - len(encode(EvsMulticast(2, groups, b"")))
    assert evs.multicast_rule(ONE, groups, bytes(room)) is None
    rule = evs.multicast_rule(ONE, groups, bytes(room + 1))
    assert (rule and rule[0]) is Refusal.TOO_BIG
    rule = evs.multicast_rule(ONE, groups + key(99), b"")
    assert (rule and rule[0]) is Refusal.TOO_MANY_GROUPS


def test_a_new_client_is_told_the_last_regular_configuration_without_its_changes() -> None:
    """V1, E4."""
    evs = two_clients()
    ring = RingId(8, 1)
    trans = Configuration(ConfigurationKind.TRANSITIONAL, ring, (1,), RingId(4, 1), (2,), ())
    regular = Configuration(ConfigurationKind.REGULAR, ring, (1, 3), RingId(4, 1), (), (3,))
    assert evs.configuration(trans) == [Tell(ONE, trans), Tell(TWO, trans)]
    assert evs.configuration(regular) == [Tell(ONE, regular), Tell(TWO, regular)]
    late = ConnectionId(3)
    first = Configuration(ConfigurationKind.REGULAR, ring, (1, 3), None, (), ())
    assert evs.attach(late) == [Tell(late, first)]


def test_who_is_gone_is_told_nothing() -> None:
    evs = two_clients()
    evs.join(ONE, 1, keys(0, 2))
    evs.join(TWO, 1, keys(0, 1))
    evs.detach(ONE)
    evs.detach(ONE)
    assert delivered(evs, key(0), key(1)) == [TWO]


def test_what_is_encoded_is_decoded() -> None:
    message = EvsMulticast(3, b"".join(keys(0, 5)), b"payload")
    assert decode(encode(message)) == message
    assert decode(encode(message._replace(payload=b""))).payload == b""


def test_garbage_is_only_ever_refused() -> None:
    rng = random.Random(3)
    whole = encode(EvsMulticast(2, b"".join(keys(0, 3)), b"x"))
    for data in [whole[:n] for n in range(len(whole) - 1)]:
        with pytest.raises(EvsDecodeError):
            decode(data)
    for count in (0, GROUPS_PER_MESSAGE_MAX + 1, 255):
        with pytest.raises(EvsDecodeError):
            decode(bytes((4, 2, count, 0, 0)) + bytes(255 * KEY_SIZE))
    for _ in range(500):
        garbage = rng.randbytes(rng.randint(0, 40))
        if garbage[:1] != b"\x04":
            with pytest.raises(EvsDecodeError):
                decode(garbage)
