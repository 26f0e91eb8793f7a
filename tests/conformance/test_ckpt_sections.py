"""SAI-AIS-CKPT: sections, iteration, status. Ids as in docs/conformance.md."""

from __future__ import annotations

import functools
import time

import pytest

from openais import ckpt, errors
from openais.ckpt import SectionsChosen, SectionState
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, TIME_END
from tests.conformance.checkpoints import NOTHING, RW, RWC, D, R, S, W, changed, refused
from tests.integration.cluster import wait_for


def test_ck_040_a_section_with_data(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    assert c.section_create("full", b"data") == b"full"
    assert c.read([("full", 0, None)]) == (b"data",)
    status = c.status()
    assert (status.number_of_sections, status.memory_used) == (1, 4)


def test_ck_041_an_empty_section(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("empty")
    assert c["empty"] == b""


def test_ck_042_no_data_and_no_id_where_they_are_needed(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    refused(errors.InvalidParamError, lambda: c.section_create("a", NOTHING))
    refused(errors.InvalidParamError, lambda: c.section_create(b""))


def test_ck_043_too_much_data_too_long_an_id_a_negative_time(
    client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    error = refused(errors.InvalidParamError, lambda: c.section_create("a", bytes(2_001)))
    assert error.reason == "2001 bytes, max_section_size is 2000"
    refused(errors.InvalidParamError, lambda: c.section_create("i" * 21))
    refused(errors.InvalidParamError, lambda: c.section_create("i" * 65_536))
    refused(errors.InvalidParamError, lambda: c.section_create("a", b"", -1))
    c.section_create("i" * 20, bytes(2_000))


def test_ck_044_an_id_twice(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a")
    refused(errors.ExistError, lambda: c.section_create("a"))


def test_ck_045_one_section_too_many(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    for k in range(5):
        c.section_create(str(k))
    refused(errors.NoSpaceError, lambda: c.section_create("6th"))
    c.section_delete("0")
    c.section_create("6th")


def test_ck_046_the_default_section_is_the_only_one(client: ckpt.Client, name: str) -> None:
    c = client.open(name, S, RWC)
    refused(errors.ExistError, lambda: c.section_create("a"))
    refused(errors.ExistError, lambda: c.section_create(None))


def test_ck_047_section_create_needs_write(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)
    refused(errors.AccessError, lambda: client.open(name, None, R).section_create("a"))


def test_ck_048_generated_ids(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    first, second = c.section_create(None, b"1"), c.section_create(None, b"2")
    assert first != second
    assert 0 < len(first) <= 20
    assert (c[first], c[second]) == (b"1", b"2")
    refused(errors.ExistError, lambda: c.section_create(first))


def test_ck_049_a_deleted_section_is_not_there(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a")
    c.section_delete("a")
    refused(errors.NotExistError, lambda: c.read([("a", 0, None)]))


def test_ck_050_deleting_an_unknown_section(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    refused(errors.NotExistError, lambda: c.section_delete("a"))


def test_ck_051_the_default_section_is_not_deleted(client: ckpt.Client, name: str) -> None:
    c = client.open(name, S, RWC)
    refused(errors.InvalidParamError, lambda: c.section_delete(b""))
    refused(errors.InvalidParamError, lambda: c.section_delete(NOTHING))


def test_ck_052_section_delete_needs_write(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC).section_create("a")
    refused(errors.AccessError, lambda: client.open(name, None, R).section_delete("a"))


def test_ck_053_a_section_expires_and_never_early(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    soon = time.time_ns() + 300 * ONE_MILLISECOND_NS
    c.section_create("dies", b"x", soon)
    assert "dies" in c
    wait_for(lambda: "dies" not in c, "it expires", 3.0)
    assert time.time_ns() >= soon
    c.section_create("past", b"x", 1)
    wait_for(lambda: "past" not in c, "what is over expires at once", 3.0)


def test_ck_054_expiry_is_cancelled(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    soon = time.time_ns() + 200 * ONE_MILLISECOND_NS
    c.section_create("lives", b"x", soon)
    c.section_expiration_time_set("lives", TIME_END)
    c.section_create("marker", b"x", soon)
    wait_for(lambda: "marker" not in c, "what had the same time expires", 3.0)
    assert c["lives"] == b"x"


def test_ck_055_expiration_of_the_default_section_and_a_negative_one(
    client: ckpt.Client, name: str
) -> None:
    single, c = client.open(f"{name}-s", S, RWC), client.open(name, D, RWC)
    c.section_create("a")
    refused(errors.InvalidParamError, lambda: single.section_expiration_time_set(b"", 1))
    refused(errors.InvalidParamError, lambda: c.section_expiration_time_set(NOTHING, 1))
    refused(errors.InvalidParamError, lambda: c.section_expiration_time_set("a", -1))


def test_ck_056_expiration_of_an_unknown_section_and_without_access(
    client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a")
    refused(errors.NotExistError, lambda: c.section_expiration_time_set("b", 1))
    read_only = client.open(name, None, R)
    refused(errors.AccessError, lambda: read_only.section_expiration_time_set("a", 1))


def test_ck_057_the_default_section_is_there_from_the_begin(client: ckpt.Client, name: str) -> None:
    assert client.open(name, S, RWC).read([(b"", 0, None)]) == (b"",)


def ids(c: ckpt.Checkpoint, chosen: SectionsChosen, at_ns: int = 0) -> list[bytes]:
    return [s.section_id for s in c.iterate(chosen, at_ns)]


def timed(client: ckpt.Client, name: str) -> tuple[ckpt.Checkpoint, int]:
    """Return a checkpoint with three sections, and when the first of them expires."""
    c = client.open(name, D, RWC)
    far = time.time_ns() + 3_600 * ONE_SECOND_NS
    c.section_create("never", b"1")
    c.section_create("far", b"22", far)
    c.section_create("farther", b"333", far + 1)
    return c, far


def test_ck_077_an_iteration_shows_every_section_and_ends(client: ckpt.Client, name: str) -> None:
    before = time.time_ns()
    c, far = timed(client, name)
    iteration = c.iterate()
    found = list(iteration)
    assert [(s.section_id, s.size, s.expiration_time) for s in found] == [
        (b"never", 1, TIME_END),
        (b"far", 2, far),
        (b"farther", 3, far + 1),
    ]
    assert {s.state for s in found} == {SectionState.VALID}
    assert all(before - ONE_SECOND_NS <= s.last_update <= time.time_ns() for s in found)
    assert list(iteration) == [], "the end is the end, again and again"
    empty = client.open(f"{name}-empty", D, RWC)
    assert list(empty.iterate()) == []


def test_ck_078_sections_are_chosen_by_expiration_time(client: ckpt.Client, name: str) -> None:
    c, far = timed(client, name)
    assert ids(c, SectionsChosen.FOREVER) == [b"never"]
    assert ids(c, SectionsChosen.LEQ_EXPIRATION_TIME, far) == [b"far"]
    assert ids(c, SectionsChosen.GEQ_EXPIRATION_TIME, far + 1) == [b"never", b"farther"]
    assert len(ids(c, SectionsChosen.ANY, -1)) == 3, "elsewhere the time is ignored"


def test_ck_079_nothing_is_corrupted(client: ckpt.Client, name: str) -> None:
    c, _ = timed(client, name)
    assert ids(c, SectionsChosen.CORRUPTED) == []


def test_ck_080_an_unknown_choice_or_a_negative_time(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    for chosen in (0, 6, NOTHING):
        refused(errors.InvalidParamError, functools.partial(c.iterate, chosen))
    refused(errors.InvalidParamError, lambda: c.iterate(SectionsChosen.LEQ_EXPIRATION_TIME, -1))


def test_ck_081_a_section_deleted_meanwhile_is_skipped(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    for section_id in ("a", "b", "c"):
        c.section_create(section_id)
    iteration = c.iterate()
    assert next(iteration).section_id == b"a"
    c.section_delete("a")
    c.section_delete("b")
    assert [s.section_id for s in iteration] == [b"c"]


def test_ck_082_an_iteration_ends_with_its_checkpoint(client: ckpt.Client, name: str) -> None:
    c, _ = timed(client, name)
    iteration = c.iterate()
    next(iteration)
    c.close()
    refused(errors.BadHandleError, lambda: next(iteration))


def test_ck_083_what_was_shown_first_stays_as_it_was(client: ckpt.Client, name: str) -> None:
    c, _ = timed(client, name)
    iteration = c.iterate()
    first = next(iteration)
    list(iteration)
    assert (first.section_id, first.size) == (b"never", 1)


def test_ck_085_the_status_needs_read_from_b_02_on(
    client: ckpt.Client, newer: ckpt.Client, name: str
) -> None:
    client.open(name, D, RWC)
    refused(errors.AccessError, newer.open(name, None, W).status)
    refused(errors.AccessError, newer.open(name, None, W).iterate)
    assert client.open(name, None, W).status().attributes == D
    assert list(client.open(name, None, W).iterate()) == []


def test_ck_086_the_status_tells_the_attributes_and_the_use(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a", b"12345")
    assert c.status() == ckpt.Descriptor(D, 1, 5)
    single = client.open(f"{name}-s", S, RWC)
    assert single.status() == ckpt.Descriptor(S, 1, 0)


@pytest.mark.parametrize("level", ["B.01", "B.02"])
def test_ck_097_names_are_compared_whole(
    client: ckpt.Client, newer: ckpt.Client, name: str, level: str
) -> None:
    at = client if level == "B.01" else newer
    short, long = at.open(name, D, RWC), at.open(name + "x", D, RWC)
    short["a"] = b"1"
    assert list(long) == []


def test_ck_098_section_ids_are_bytes(client: ckpt.Client, name: str) -> None:
    c = client.open(name, changed(D, max_sections=6), RWC)
    strange = [b"\0", b"\0\0", b"\xff", b"a\0b", b"a\0c"]
    for section_id in strange:
        c[section_id] = section_id
    assert client.open(name, None, RW).read([(i, 0, None) for i in strange]) == tuple(strange)
