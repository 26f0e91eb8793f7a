"""Bytes that are almost right: what a fuzzer feeds to decoders. Seeded, so every run repeats."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

SIZE_MAX = 20_000  # bytes of an input
RUN_MAX = 4_000  # bytes of a piece that is repeated
LENGTHS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1)
# Heads of msgpack that claim much: arrays, maps, strings, extensions, deep nesting.
HEADS = (b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff")
PIECES = (
    *HEADS,
    b"\x91",
    b"\xc0",
    b"\xc1",
    b"\xc7\xff\x01",
    b"\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\0" * 64,
)

_Mutate = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def _flip(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _bit in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_byte(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]


def _cut(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def _remove(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 8) :]


def _set_number(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Overwrite what may be the field of a length or a count."""
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - size + 1))
    number = rng.choice(LENGTHS) if rng.random() < 0.7 else rng.randrange(len(data) + 2)
    value = (number & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("big", "little")))
    return data[:at] + value + data[at + size :]


def _splice(data: bytes, rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Join the head of one sample and the tail of another."""
    other = rng.choice(samples)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    piece = rng.choice(PIECES) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 9))
    return data[:at] + piece + data[at:]


def _repeat(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Repeat a piece: deep nesting, long lists."""
    at = rng.randrange(len(data))
    piece = rng.choice(HEADS) if rng.random() < 0.3 else data[at : at + rng.randint(1, 16)]
    times = rng.choice((2, 3, 17, 300, 1100))
    return data[:at] + (piece * times)[:RUN_MAX] + data[at:]


MUTATIONS: tuple[_Mutate, ...] = (
    *(_flip, _set_byte, _set_byte, _cut, _remove, _set_number, _set_number),
    *(_splice, _insert, _repeat),
)


def make(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Return one input: mostly a sample with one to three changes, sometimes only noise."""
    chance = rng.random()
    if chance < 0.05:
        return rng.randbytes(rng.choice((0, 1, 3, 16, 40, 100, 1_000)))
    data = rng.choice(samples)
    if chance < 0.1:
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            data = rng.choice(MUTATIONS)(data, rng, samples)
    return data[:SIZE_MAX]
