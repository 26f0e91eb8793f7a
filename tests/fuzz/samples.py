"""Valid messages of every kind, to begin from. Seeded."""

from __future__ import annotations

import dataclasses
import random
import types
import typing
from enum import IntEnum
from typing import Any

from openais.wire.codec import Buffer, Table
from totemd.protocol import evs, groups, messages, packing
from totemd.protocol.local import GroupKey, Reason, Space

BYTES_SIZES = (0, 1, 7, 16, 128, 300, 5_000)


def value(kind: Any, rng: random.Random) -> Any:
    """Return a value of a type that may stand on the wire."""
    kind = bytes if kind == Buffer else getattr(kind, "__supertype__", kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        present = next(arm for arm in typing.get_args(kind) if arm is not type(None))
        return None if rng.random() < 0.3 else value(present, rng)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return tuple(value(item, rng) for _ in range(rng.choice((0, 1, 2, 5))))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        return kind(*[value(hints[f.name], rng) for f in fields])  # type: ignore[operator]
    if issubclass(kind, IntEnum):
        return rng.choice(list(kind))
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.choice(
            (0, 1, 127, 128, 65_536, (1 << 32) - 1, (1 << 64) - 1, rng.getrandbits(48))
        )
    if kind is bytes:
        return rng.randbytes(rng.choice(BYTES_SIZES))
    assert kind is str, kind
    return "".join(rng.choice("abc é\u20ac") for _ in range(rng.randrange(20)))


def of_table(table: Table, rng: random.Random, each: int = 4) -> list[bytes]:
    """Return encoded messages of each class of a table."""
    kinds = table.messages.values()
    return [table.encode(value(kind, rng)) for kind in kinds for _ in range(each)]


def _ids(rng: random.Random, low: int = 1) -> tuple[int, ...]:
    return tuple(sorted(rng.sample(range(1, 700), rng.randint(low, 9))))


def ring_messages(rng: random.Random) -> list[bytes]:
    """Return encoded messages of the ring."""
    made: list[messages.Message] = []
    for _ in range(8):
        ring = messages.RingId(rng.getrandbits(40), rng.getrandbits(32))
        payload = rng.randbytes(rng.choice((0, 1, 60, 1_300)))
        flags = rng.choice((0, messages.ENCAPSULATED))
        requests = tuple(
            messages.Request(900 + 300 * n, rng.randint(1, 16), rng.choice((0, 7)))
            for n in range(rng.choice((0, 1, 5, 60)))
        )
        seq = rng.randint(1 << 20, 1 << 40)
        proc, fail = _ids(rng, 2), _ids(rng, 0)
        old = messages.RingId(5, 1)
        entries = (
            messages.Entry(1, old, 100, 120, received=True, obligations=_ids(rng)),
            messages.Entry(4, messages.RingId(9, 4), 7, 3),
            messages.Entry(9),
        )
        made += (
            messages.Data(ring, seq, 7, rng.randint(0, 3), flags, rng.getrandbits(20), payload),
            messages.Token(ring, seq, seq, seq - 9, 3, 17, 400, rng.choice((0, 1)), requests),
            messages.MergeDetect(ring, _ids(rng)),
            messages.Join(ring, rng.getrandbits(50), seq, proc, fail),
            messages.Leave(ring, rng.getrandbits(50), seq, proc, fail),
            messages.Commit(ring, 7, 2, entries),
            messages.HoldCancel(ring),
        )
    return [messages.encode(one) for one in made]


def group_messages(rng: random.Random) -> list[bytes]:
    """Return encoded messages between totemds."""
    made = []
    for _ in range(12):
        key = GroupKey(rng.choice(list(Space)), rng.randbytes(rng.choice((1, 9, 128))))
        entries = tuple((key, rng.getrandbits(16), n, n) for n in range(rng.choice((0, 1, 30))))
        ring = messages.RingId(rng.getrandbits(40), 3)
        made += [
            groups.encode_join(groups.GroupJoin(key, 3, rng.getrandbits(20))),
            groups.encode_leave(groups.GroupLeave(key, 3, rng.choice(list(Reason)))),
            groups.encode_multicast(groups.GroupMulticast(key, 3, 9, rng.randbytes(200))),
            groups.encode_list(groups.ProcessList(ring, 77, entries)),
        ]
    return made


def frames(rng: random.Random) -> list[bytes]:
    """Return the payloads of data messages: packed, cut and whole."""
    packer = packing.Packer(1_300)
    packer.gate_open = True
    for _ in range(60):
        packer.submit(rng.randbytes(rng.choice((0, 1, 60, 300, 1_200, 6_000))), packing.AGREED)
    made = []
    while (frame := packer.next_frame()) is not None:
        made.append(frame[1])
    return made


def evs_messages(rng: random.Random) -> list[bytes]:
    """Return encoded messages of EVS between totemds."""
    return [
        evs.encode(evs.EvsMulticast(2, rng.randbytes(evs.KEY_SIZE * count), rng.randbytes(size)))
        for count in (1, 2, evs.GROUPS_PER_MESSAGE_MAX)
        for size in (0, 1, 300)
    ]


def probes(rng: random.Random) -> list[bytes]:
    """Return encoded probes of links."""
    return [
        messages.encode_probe(messages.Probe(kind, rng.randint(0, 1), size, size, 1 << 40))
        for kind in messages.ProbeKind
        for size in (messages.PROBE_SIZE_MIN, 1_400)
    ]
