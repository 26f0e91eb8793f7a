"""SAI-AIS-CKPT: write, overwrite, read. Ids as in docs/conformance.md."""

from __future__ import annotations

import pytest

from openais import ckpt, errors
from openais.wire.ckpt import Erroneous
from openais.wire.status import TIME_END
from tests.conformance.checkpoints import NOTHING, RWC, D, R, S, W, changed, refused


@pytest.fixture
def c(client: ckpt.Client, name: str) -> ckpt.Checkpoint:
    """A checkpoint with one section of ten bytes."""
    opened = client.open(name, D, RWC)
    opened.section_create("a", b"0123456789")
    return opened


def test_ck_058_two_elements_in_two_sections(c: ckpt.Checkpoint) -> None:
    c.section_create("b", b"....")
    c.write([("a", 2, b"xy"), ("b", 0, b"zz")])
    assert c.read([("b", 0, None), ("a", 0, None)]) == (b"zz..", b"01xy456789")


def test_ck_059_a_gap_is_filled_with_zeros(c: ckpt.Checkpoint) -> None:
    c.write([("a", 13, b"far")])
    assert c["a"] == b"0123456789\0\0\0far"
    assert c.status().memory_used == 16


def test_ck_060_a_short_write_keeps_the_rest(c: ckpt.Checkpoint) -> None:
    c.write([("a", 0, b"xy"), ("a", 1, b"z")])  # in order: later elements win
    assert c["a"] == b"xz23456789"


@pytest.mark.parametrize("mode", [1, 2, 4])
def test_ck_061_a_write_is_all_or_nothing(client: ckpt.Client, name: str, mode: int) -> None:
    c = client.open(name, changed(D, creation_flags=mode), RWC)
    c.section_create("a", b"old")
    elements = [("a", 0, b"new"), ("z", 0, b"x")]
    error = refused(errors.NotExistError, lambda: c.write(elements))
    assert error.detail == Erroneous(1)
    assert c["a"] == b"old"


def test_ck_062_the_index_is_told_with_the_error_and_nowhere_else(c: ckpt.Checkpoint) -> None:
    error = refused(errors.NotExistError, lambda: c.write([("z", 0, b"x"), ("y", 0, b"x")]))
    assert error.detail == Erroneous(0), "the first that is wrong"


def test_ck_063_a_write_that_succeeds_says_nothing_more(c: ckpt.Checkpoint) -> None:
    c.write([("a", 0, b"x")])
    refused(errors.NotExistError, lambda: c.overwrite("z", b""))
    error = refused(errors.NotExistError, lambda: c.overwrite("z", b""))
    assert not isinstance(error.detail, Erroneous), "one section has no index"


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 2_001), (1_500, 600), ((1 << 64) - 1, 1), (1 << 64, 1), (-1, 1)],
)
def test_ck_064_a_write_out_of_bounds(c: ckpt.Checkpoint, offset: int, size: int) -> None:
    refused(errors.InvalidParamError, lambda: c.write([("a", offset, bytes(size))]))
    c.write([("a", 2_000 - 1, b"x")])
    assert len(c["a"]) == 2_000


def test_ck_065_nothing_to_write(c: ckpt.Checkpoint) -> None:
    refused(errors.InvalidParamError, lambda: c.write([]))
    refused(errors.InvalidParamError, lambda: c.write(NOTHING))
    refused(errors.InvalidParamError, lambda: c.write([("a", 0, b"")]))
    refused(errors.InvalidParamError, lambda: c.write([("a", 0, NOTHING)]))
    refused(errors.InvalidParamError, lambda: c.write([(NOTHING, 0, b"x")]))
    many = [("a", 0, b"x")] * 65_536
    refused(errors.InvalidParamError, lambda: c.write(many))
    c.write(many[1:])


def test_ck_066_write_needs_write(client: ckpt.Client, c: ckpt.Checkpoint, name: str) -> None:
    read_only = client.open(name, None, R)
    refused(errors.AccessError, lambda: read_only.write([("a", 0, b"x")]))
    refused(errors.InvalidParamError, lambda: read_only.write([]))  # values come first


def test_ck_067_overwrite_replaces_the_whole(c: ckpt.Checkpoint) -> None:
    c.section_create("timed", b"longer", far := TIME_END - 1)
    c.overwrite("timed", b"short")
    assert c["timed"] == b"short"
    c.overwrite("timed", b"")
    assert c["timed"] == b""
    assert [s.expiration_time for s in c.iterate()] == [TIME_END, far], "expiry stays"


def test_ck_068_overwrite_with_too_much_or_nothing(c: ckpt.Checkpoint) -> None:
    refused(errors.InvalidParamError, lambda: c.overwrite("a", bytes(2_001)))
    refused(errors.InvalidParamError, lambda: c.overwrite("a", NOTHING))
    refused(errors.InvalidParamError, lambda: c.overwrite(NOTHING, b"x"))
    assert c["a"] == b"0123456789"


def test_ck_069_overwrite_of_an_unknown_section_and_without_access(
    client: ckpt.Client, c: ckpt.Checkpoint, name: str
) -> None:
    refused(errors.NotExistError, lambda: c.overwrite("b", b""))
    refused(errors.NotExistError, lambda: c.overwrite(b"", b""))
    refused(errors.AccessError, lambda: client.open(name, None, R).overwrite("a", b""))
    single = client.open(f"{name}-s", S, RWC)
    refused(errors.NotExistError, lambda: single.overwrite("a", b""))
    single.overwrite(b"", b"the default section")


def test_ck_070_a_read_without_a_size_gives_the_rest(c: ckpt.Checkpoint) -> None:
    assert c.read([("a", 0, None), ("a", 4, None)]) == (b"0123456789", b"456789")


def test_ck_071_a_read_inside_a_section(c: ckpt.Checkpoint) -> None:
    assert c.read([("a", 4, 3), ("a", 8, 100), ("a", 0, 0)]) == (b"456", b"89", b"")


def test_ck_072_a_read_at_the_end_is_empty(c: ckpt.Checkpoint) -> None:
    assert c.read([("a", 10, None), ("a", 10, 5)]) == (b"", b"")


@pytest.mark.parametrize("offset", [11, (1 << 64) - 1, 1 << 64, -1])
def test_ck_073_a_read_beyond_the_end(c: ckpt.Checkpoint, offset: int) -> None:
    refused(errors.InvalidParamError, lambda: c.read([("a", offset, None)]))


def test_ck_074_a_read_of_more_than_a_section_can_hold(c: ckpt.Checkpoint) -> None:
    refused(errors.InvalidParamError, lambda: c.read([("a", 0, 2_001)]))
    refused(errors.InvalidParamError, lambda: c.read([]))
    assert c.read([("a", 0, 2_000)]) == (b"0123456789",)


def test_ck_075_read_needs_read(client: ckpt.Client, c: ckpt.Checkpoint, name: str) -> None:
    write_only = client.open(name, None, W)
    refused(errors.AccessError, lambda: write_only.read([("a", 0, 1)]))
    write_only.overwrite("a", b"but writes")
    assert c["a"] == b"but writes"


def test_ck_076_the_element_that_cannot_be_read_is_named(c: ckpt.Checkpoint) -> None:
    error = refused(errors.NotExistError, lambda: c.read([("a", 0, 1), ("z", 0, 1)]))
    assert error.detail == Erroneous(1)
    error = refused(errors.InvalidParamError, lambda: c.read([("a", 0, 1), ("a", 11, 1)]))
    assert error.detail == Erroneous(1)
    assert "the section ends at 10" in error.reason
