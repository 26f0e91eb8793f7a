"""Large messages cut into parts and put together again (docs/cpg.md, clause 7.2)."""

from __future__ import annotations

import os

import pytest

from openais.parts import ASSEMBLED_BYTES_MAX, LARGE_SIZE_MAX, Assembly, TooMuchError, cut
from openais.wire.parts import PART_OVERHEAD, TABLE, Part, Position

SIZE = 1_000
STEP = SIZE - PART_OVERHEAD


def parts(payload: bytes, number: int = 1) -> list[Part]:
    encoded = list(cut(number, payload, SIZE))
    assert all(len(part) <= SIZE for part in encoded)
    return [TABLE.decode(part) for part in encoded]


def put(assembly: Assembly, sender: str, some: list[Part]) -> list[bytes]:
    """Return the messages that the parts complete."""
    found = [assembly.take(sender, part) for part in some]
    return [message for message in found if message is not None]


@pytest.mark.parametrize("size", [STEP + 1, 2 * STEP - 1, 2 * STEP, 2 * STEP + 1, 5 * STEP, 9_999])
def test_a_message_comes_out_as_it_went_in(size: int) -> None:
    payload = os.urandom(size)
    some = parts(payload)
    assert [p.position for p in (some[0], some[-1])] == [Position.FIRST, Position.LAST]
    assert all(p.position is Position.MIDDLE for p in some[1:-1])
    assert all(p.data for p in some), "no part is empty, the last one at a boundary least of all"
    assembly = Assembly()
    assert put(assembly, "a", some) == [payload]
    assert assembly.size == 0


def test_senders_are_told_apart() -> None:
    assembly = Assembly()
    a, b = parts(b"a" * 3_000), parts(b"b" * 3_000)
    mixed = [assembly.take(s, p) for pair in zip(a, b, strict=True) for s, p in zip("ab", pair)]  # noqa: B905
    assert [m for m in mixed if m] == [b"a" * 3_000, b"b" * 3_000]


def test_a_change_of_the_group_drops_what_is_unfinished_and_tells_whose() -> None:
    assembly = Assembly()
    some = parts(bytes(3_000), number=7)
    put(assembly, "me", some[:2])
    put(assembly, "other", some[:1])
    assert assembly.changed("me") == 7
    assert assembly.changed("me") is None
    assert assembly.size == 0
    assert put(assembly, "me", some[2:]) == []
    assert put(assembly, "other", some[1:]) == []


def test_a_first_part_drops_an_unfinished_message() -> None:
    assembly = Assembly()
    put(assembly, "a", parts(b"x" * 3_000)[:2])
    assert put(assembly, "a", parts(b"y" * 3_000, number=2)) == [b"y" * 3_000]
    assert assembly.size == 0


def test_parts_without_the_first_or_of_another_message_are_skipped() -> None:
    assembly = Assembly()
    some = parts(bytes(3_000))
    assert put(assembly, "a", some[1:]) == []
    assembly.take("a", some[0])
    assert put(assembly, "a", parts(bytes(3_000), number=2)[1:]) == []
    assert put(assembly, "a", some[1:]) == []
    assert assembly.size == 0
    assert assembly.parts_skipped > 0


def test_what_does_not_add_up_is_not_delivered() -> None:
    assembly = Assembly()
    first = Part(1, 10, Position.FIRST, bytes(5))
    for last in (Part(1, 10, Position.LAST, bytes(6)), Part(1, 10, Position.LAST, bytes(4))):
        assert put(assembly, "a", [first, last]) == []
    too_large = Part(1, LARGE_SIZE_MAX + 1, Position.FIRST, b"x")
    assert put(assembly, "a", [too_large]) == []
    assert assembly.size == 0


def test_unfinished_messages_have_a_bound_together() -> None:
    assembly = Assembly()
    data = bytes(1 << 20)
    first, middle = (Part(1, LARGE_SIZE_MAX, p, data) for p in (Position.FIRST, Position.MIDDLE))
    for sender in range(ASSEMBLED_BYTES_MAX // LARGE_SIZE_MAX):
        put(assembly, str(sender), [first] + [middle] * (LARGE_SIZE_MAX // len(data) - 1))
    assert assembly.size == ASSEMBLED_BYTES_MAX
    with pytest.raises(TooMuchError):
        assembly.take("one more", first)
