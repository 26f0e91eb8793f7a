"""SAI-AIS-CKPT: opening, closing, retention, unlinking. Ids as in docs/conformance.md."""

from __future__ import annotations

import time

import pytest

from openais import ckpt, errors
from openais.wire.status import ONE_MILLISECOND_NS, TIME_END, Status
from tests.conformance.checkpoints import (
    NOTHING,
    RW,
    RWC,
    SHORT,
    D,
    R,
    changed,
    exists,
    info,
    refused,
)
from tests.integration.cluster import Cluster, wait_for

Seen = list[tuple[int, ckpt.Checkpoint | None, Status]]


def test_ck_001_a_new_name_is_created(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)
    assert exists(client, name)


def test_ck_002_an_existing_one_is_opened_without_attributes(
    client: ckpt.Client, name: str
) -> None:
    client.open(name, D, RWC)["a"] = b"x"
    assert client.open(name, None, RW)["a"] == b"x"


def test_ck_003_an_existing_one_is_opened_with_equal_attributes(
    client: ckpt.Client, name: str
) -> None:
    first, second = client.open(name, D, RWC), client.open(name, D, RWC)
    first.close()
    second["a"] = b"the other handle lives on"


def test_ck_004_an_unknown_name(client: ckpt.Client, name: str) -> None:
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_005_create_without_attributes(client: ckpt.Client, name: str) -> None:
    refused(errors.InvalidParamError, lambda: client.open(name, None, RWC))


def test_ck_006_attributes_without_create(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)
    refused(errors.InvalidParamError, lambda: client.open(name, D, RW))


@pytest.mark.parametrize("bad", ["", b"", "n" * 257, NOTHING])
def test_ck_007_no_name_or_one_that_is_too_long(client: ckpt.Client, bad: str) -> None:
    refused(errors.InvalidParamError, lambda: client.open(bad, D, RWC))


@pytest.mark.parametrize("flags", [0, 0x8, 0x1_0000_0000])
def test_ck_008_bad_flags(client: ckpt.Client, name: str, flags: int) -> None:
    refused(errors.BadFlagsError, lambda: client.open(name, D, flags))


@pytest.mark.parametrize("flags", [0, 3, 6, 8, 0x10, 1 << 32])
def test_ck_009_not_exactly_one_write_mode(client: ckpt.Client, name: str, flags: int) -> None:
    attributes = changed(D, creation_flags=flags)
    refused(errors.InvalidParamError, lambda: client.open(name, attributes, RWC))


def test_ck_010_a_size_that_the_sections_cannot_reach(client: ckpt.Client, name: str) -> None:
    attributes = changed(D, checkpoint_size=5 * 2_000 + 1)
    refused(errors.InvalidParamError, lambda: client.open(name, attributes, RWC))


def test_ck_011_sizes_do_not_overflow(client: ckpt.Client, name: str) -> None:
    big = changed(D, max_sections=1 << 31, max_section_size=1 << 40, checkpoint_size=1 << 50)
    assert client.open(name, big, RWC).status().attributes == big


@pytest.mark.parametrize("duration", [-1, TIME_END + 1])
def test_ck_012_a_retention_duration_that_is_none(
    client: ckpt.Client, name: str, duration: int
) -> None:
    attributes = changed(D, retention_duration=duration)
    refused(errors.InvalidParamError, lambda: client.open(name, attributes, RWC))


@pytest.mark.parametrize(
    "change",
    [
        {"max_section_size": 1_999},
        {"creation_flags": 2},
        {"max_sections": 6},
        {"max_section_id_size": 21},
        {"checkpoint_size": 99},
    ],
)
def test_ck_013_other_attributes(client: ckpt.Client, name: str, change: dict[str, int]) -> None:
    small = changed(D, checkpoint_size=100)
    client.open(name, small, RWC)
    refused(errors.ExistError, lambda: client.open(name, changed(small, **change), RWC))


def test_ck_014_another_retention_duration_is_ignored(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)
    second = client.open(name, changed(D, retention_duration=0), RWC)
    assert second.status().attributes == D


def test_ck_015_at_level_b_01_a_timeout_of_zero_is_the_default(
    client: ckpt.Client, name: str
) -> None:
    client.open(name, D, RWC, timeout_ns=0)


def test_ck_016_at_level_b_02_a_timeout_of_zero_does_nothing(newer: ckpt.Client, name: str) -> None:
    refused(errors.AisTimeoutError, lambda: newer.open(name, D, RWC, timeout_ns=0))
    assert not exists(newer, name)


def opener(cluster: Cluster, seen: Seen) -> ckpt.Client:
    return ckpt.Client(lambda *told: seen.append(told), run_dir=cluster.run_dir(1))


def test_ck_017_an_open_by_callback_gives_a_handle(cluster: Cluster, name: str) -> None:
    seen: Seen = []
    with opener(cluster, seen) as client:
        client.open_async(7, name, D, RWC)
        wait_for(lambda: client.dispatch() is not None and seen, "the callback")
        ((invocation, opened, status),) = seen
        assert (invocation, status) == (7, Status.OK)
        assert opened is not None
        opened["a"] = b"usable"


def test_ck_018_an_open_by_callback_needs_a_callback(client: ckpt.Client, name: str) -> None:
    refused(errors.InitError, lambda: client.open_async(1, name, D, RWC))


def test_ck_019_an_unknown_name_is_told_by_the_callback(cluster: Cluster, name: str) -> None:
    seen: Seen = []
    with opener(cluster, seen) as client:
        client.open_async(8, name, None, RW)
        wait_for(lambda: client.dispatch() is not None and seen, "the callback")
    assert seen == [(8, None, Status.ERR_NOT_EXIST)]


def test_ck_020_bad_flags_are_told_at_once(cluster: Cluster, name: str) -> None:
    with opener(cluster, []) as client:
        refused(errors.BadFlagsError, lambda: client.open_async(1, name, D, 0x10))


def test_ck_021_finalize_undoes_an_open_whose_callback_was_not_run(
    client: ckpt.Client, cluster: Cluster, name: str
) -> None:
    able = opener(cluster, [])
    able.open_async(1, name, changed(D, retention_duration=TIME_END), RWC)
    wait_for(lambda: exists(client, name), "it is created")
    able.close()
    wait_for(lambda: info(client, name).opens == 0, "no opens are left")
    client.unlink(name)


def test_ck_022_a_closed_handle_is_bad(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c["a"] = b"x"
    c.close()
    refused(errors.BadHandleError, lambda: c.read([("a", 0, None)]))
    refused(errors.BadHandleError, lambda: c.write([]))  # before what is wrong with it
    c.close()  # closing again is the one thing that may be repeated


def test_ck_023_two_opens_are_two_handles(client: ckpt.Client, name: str) -> None:
    first, second = client.open(name, D, RWC), client.open(name, D, RWC)
    first["a"] = b"x"
    first.close()
    assert second["a"] == b"x"


def test_ck_024_data_survive_within_the_retention_time(client: ckpt.Client, name: str) -> None:
    with client.open(name, D, RWC) as first:
        first["a"] = b"kept"
    assert info(client, name).deadline_ns > time.time_ns()
    assert client.open(name, None, RW)["a"] == b"kept"


def test_ck_025_gone_after_the_retention_time(client: ckpt.Client, name: str) -> None:
    client.open(name, SHORT, RWC).close()
    closed = time.monotonic()
    wait_for(lambda: not exists(client, name), "it is deleted")
    assert time.monotonic() - closed > 0.15
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_026_opening_again_stops_the_timer(client: ckpt.Client, name: str) -> None:
    client.open(name, SHORT, RWC).close()
    again = client.open(name, None, RW)
    assert info(client, name).deadline_ns == 0
    marker = f"{name}-marker"
    client.open(marker, SHORT, RWC).close()
    wait_for(lambda: not exists(client, marker), "a timer that began later is over")
    assert again.status().attributes == SHORT


def test_ck_027_no_retention(client: ckpt.Client, name: str) -> None:
    client.open(name, changed(D, retention_duration=0), RWC).close()
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_028_kept_for_ever(client: ckpt.Client, name: str) -> None:
    client.open(name, changed(D, retention_duration=TIME_END), RWC).close()
    assert info(client, name).deadline_ns == 0
    client.unlink(name)


def test_ck_029_an_unlinked_one_works_for_who_has_it_open(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    client.unlink(name)
    c["a"] = b"x"
    assert c["a"] == b"x"


def test_ck_030_an_unlinked_name_is_not_found(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)
    client.unlink(name)
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_031_a_name_created_again_is_another_checkpoint(client: ckpt.Client, name: str) -> None:
    old = client.open(name, D, RWC)
    old["a"] = b"old"
    client.unlink(name)
    new = client.open(name, changed(D, max_sections=7), RWC)
    assert len(new) == 0
    new["b"] = b"new"
    assert list(old) == [b"a"]


def test_ck_032_closing_the_unlinked_instance_leaves_the_new_one_alone(
    client: ckpt.Client, name: str
) -> None:
    old = client.open(name, changed(D, retention_duration=0), RWC)
    client.unlink(name)
    new = client.open(name, D, RWC)
    new["a"] = b"new"
    old.close()
    assert new["a"] == b"new"
    assert exists(client, name)


def test_ck_033_unlink_of_an_unknown_name_and_a_second_time(client: ckpt.Client, name: str) -> None:
    refused(errors.NotExistError, lambda: client.unlink(name))
    client.open(name, D, RWC)
    client.unlink(name)
    refused(errors.NotExistError, lambda: client.unlink(name))


@pytest.mark.parametrize("bad", ["", "n" * 257, NOTHING])
def test_ck_034_unlink_without_a_name(client: ckpt.Client, bad: str) -> None:
    refused(errors.InvalidParamError, lambda: client.unlink(bad))


def test_ck_035_unlink_in_the_retention_time_deletes_at_once(
    client: ckpt.Client, name: str
) -> None:
    client.open(name, D, RWC).close()
    client.unlink(name)
    assert name.encode() not in [i.name for i in client.checkpoints()]


def test_ck_036_no_retention_duration_for_an_unlinked_one(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    client.unlink(name)
    refused(errors.BadOperationError, lambda: c.retention_duration_set(1))


def test_ck_037_a_negative_retention_duration(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    refused(errors.InvalidParamError, lambda: c.retention_duration_set(-1))


def test_ck_038_a_retention_duration_that_was_set_counts(client: ckpt.Client, name: str) -> None:
    c = client.open(name, changed(D, retention_duration=TIME_END), RWC)
    c.retention_duration_set(100 * ONE_MILLISECOND_NS)
    assert c.status().attributes.retention_duration == 100 * ONE_MILLISECOND_NS
    c.close()
    wait_for(lambda: not exists(client, name), "it is deleted")


def test_ck_039_setting_the_retention_duration_needs_write_from_b_02_on(
    client: ckpt.Client, newer: ckpt.Client, name: str
) -> None:
    client.open(name, D, RWC)
    refused(errors.AccessError, lambda: newer.open(name, None, R).retention_duration_set(1))
    client.open(name, None, R).retention_duration_set(7)
    assert info(client, name).attributes.retention_duration == 7
