"""Every decoder of the ring refuses what is not a message, and nothing else happens."""

from __future__ import annotations

import dataclasses
import random

import pytest

from totemd.protocol import groups, messages
from totemd.protocol.local import GroupKey, Reason, Space
from totemd.protocol.messages import RingId

RING = RingId(9, 1)
SAMPLES: list[messages.Message] = [
    messages.Data(RING, 5, 2, 3, 0, 7, b"payload"),
    messages.Token(RING, 8, 5, 4, 2, 3, 1, 0, (messages.Request(3, 2, 1),)),
    messages.MergeDetect(RING, (1, 2, 3)),
    messages.Join(RING, 4, 12, (1, 2), (3,)),
    messages.Leave(RING, 4, 12, (1, 2), ()),
    messages.HoldCancel(RING),
    messages.Commit(
        RING,
        1,
        1,
        (
            messages.Entry(1, RingId(5, 1), 10, 9, received=True, obligations=(1, 2)),
            messages.Entry(2),
        ),
    ),
]
GROUP = GroupKey(Space.PROCESS, b"g")
GROUP_SAMPLES = [
    groups.encode_join(groups.GroupJoin(GROUP, 7, 100)),
    groups.encode_leave(groups.GroupLeave(GROUP, 7, Reason.LEAVE)),
    groups.encode_multicast(groups.GroupMulticast(GROUP, 7, 3, b"payload")),
    groups.encode_list(groups.ProcessList(RING, 3, ((GROUP, 7, 100, 2),))),
    groups.encode_list(groups.ProcessList(RING, 3, ((GROUP, 7, 100, 2),), 8, newcomer=True)),
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_survives_the_wire(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_cut_message_is_refused(message: messages.Message) -> None:
    data = messages.encode(message)
    fixed = 36 if isinstance(message, messages.Data) else len(data)
    for size in range(fixed):
        with pytest.raises(messages.DecodeError):
            messages.decode(data[:size])


@pytest.mark.parametrize("seed", range(5))
def test_damaged_messages_are_decoded_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(2_000):
        data = bytearray(messages.encode(rng.choice(SAMPLES)))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            messages.decode(bytes(data))
        except messages.DecodeError:
            continue


PROBES = [
    messages.Probe(messages.ProbeKind.PING, 0, messages.PROBE_SIZE_MIN, 7, 0),
    messages.Probe(messages.ProbeKind.MULTICAST_PONG, 7, 1428, 9, 7),
]


@pytest.mark.parametrize("probe", PROBES, ids=["short", "long"])
def test_a_probe_survives_the_wire_and_has_its_size(probe: messages.Probe) -> None:
    data = messages.encode_probe(probe)
    assert len(data) == probe.size
    assert messages.decode_probe(data) == probe


def test_a_probe_that_breaks_a_rule_is_refused() -> None:
    probe = PROBES[0]
    whole = messages.encode_probe(probe)
    broken = [
        whole[:-1],
        whole + b"\0",
        bytes([messages.TYPE_TOKEN]) + whole[1:],
        messages.encode_probe(dataclasses.replace(probe, link=messages.LINKS_MAX)),
        messages.encode_probe(dataclasses.replace(probe, t_ns=messages.SEQ_MAX + 1)),
        messages.encode_probe(dataclasses.replace(probe, echo_ns=messages.SEQ_MAX + 1)),
        *(whole[:16] + bytes([kind]) + whole[17:] for kind in (0, 5, 255)),
        *(whole[:size] for size in range(messages.PROBE_SIZE_MIN)),
    ]
    for data in broken:
        with pytest.raises(messages.DecodeError):
            messages.decode_probe(data)
    with pytest.raises(messages.DecodeError, match="unknown message type"):
        messages.decode(whole)


def again(message: groups.GroupMessage) -> bytes:
    if isinstance(message, groups.GroupJoin):
        return groups.encode_join(message)
    if isinstance(message, groups.GroupLeave):
        return groups.encode_leave(message)
    if isinstance(message, groups.GroupMulticast):
        return groups.encode_multicast(message)
    return groups.encode_list(message)


@pytest.mark.parametrize(
    "data", GROUP_SAMPLES, ids=["join", "leave", "multicast", "list", "version"]
)
def test_a_group_message_survives_the_wire(data: bytes) -> None:
    assert again(groups.decode(data)) == data


@pytest.mark.parametrize("seed", range(5))
def test_damaged_group_messages_are_decoded_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(2_000):
        data = bytearray(rng.choice(GROUP_SAMPLES))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            groups.decode(bytes(data[: rng.randint(1, len(data))]))
        except groups.GroupDecodeError:
            continue


def test_an_empty_group_message_is_refused() -> None:
    with pytest.raises(groups.GroupDecodeError):
        groups.decode(b"")
