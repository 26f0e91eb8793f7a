"""SAI-AIS-CKPT, statement by statement, by the ids of the project's conformance list.

Statements about the C interface (null pointers, structure layouts) have no counterpart here. D are
attributes with several sections, S with the default section only, A asynchronous, AC collocated.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openais import ckpt, errors
from openais.ckpt import Attributes, CreationFlags, OpenFlags, SectionsChosen, SectionState
from openais.wire.ckpt import Erroneous
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, TIME_END
from tests.integration.cluster import Cluster, wait_for

R, W, C = OpenFlags.READ, OpenFlags.WRITE, OpenFlags.CREATE
RW, RWC = R | W, R | W | C
D = Attributes(CreationFlags.WR_ALL_REPLICAS, 10_000, 5 * ONE_SECOND_NS, 5, 2_000, 20)
S = dataclasses.replace(D, max_sections=1, checkpoint_size=2_000)
A = dataclasses.replace(D, creation_flags=CreationFlags.WR_ACTIVE_REPLICA)
AC = dataclasses.replace(
    D, creation_flags=CreationFlags.WR_ACTIVE_REPLICA | CreationFlags.COLLOCATED
)
SHORT = dataclasses.replace(D, retention_duration=200 * ONE_MILLISECOND_NS)
_serial = itertools.count()


@pytest.fixture
def name() -> str:
    return f"conformance-{next(_serial)}"


@pytest.fixture
def client(cluster: Cluster) -> Iterator[ckpt.Client]:
    """A handle of level B.01 at node 1."""
    with ckpt.Client(run_dir=cluster.run_dir(1), level="B.01") as opened:
        yield opened


@pytest.fixture
def newer(cluster: Cluster) -> Iterator[ckpt.Client]:
    """A handle of level B.02 at node 1."""
    with ckpt.Client(run_dir=cluster.run_dir(1), level="B.02") as opened:
        yield opened


@pytest.fixture
def other(cluster: Cluster) -> Iterator[ckpt.Client]:
    """A handle at node 2."""
    with ckpt.Client(run_dir=cluster.run_dir(2)) as opened:
        yield opened


def exists(client: ckpt.Client, name: str) -> bool:
    return name.encode() in [i.name for i in client.checkpoints() if i.linked]


def refused(kind: type[errors.AisError], call: Callable[[], Any]) -> errors.AisError:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


# Opening


def test_ck_01_02_03_open_new_existing_and_with_equal_attributes(
    client: ckpt.Client, name: str
) -> None:
    first = client.open(name, D, RWC)
    second = client.open(name, None, RW)
    third = client.open(name, D, RWC)
    first["a"] = b"x"
    assert second["a"] == third["a"] == b"x"


def test_ck_04_unknown_name(client: ckpt.Client, name: str) -> None:
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_05_06_07_attributes_and_create_belong_together(client: ckpt.Client, name: str) -> None:
    refused(errors.InvalidParamError, lambda: client.open(name, None, RWC))
    refused(errors.InvalidParamError, lambda: client.open(name, D, RW))
    refused(errors.InvalidParamError, lambda: client.open("", D, RWC))
    refused(errors.InvalidParamError, lambda: client.open("n" * 257, D, RWC))


@pytest.mark.parametrize("flags", [0, 0x8])
def test_ck_08_bad_flags(client: ckpt.Client, name: str, flags: int) -> None:
    refused(errors.BadFlagsError, lambda: client.open(name, D, flags))


@pytest.mark.parametrize(
    "change",
    [
        *({"creation_flags": flags} for flags in (0, 3, 6, 8, 0x10)),  # CK-09
        {"checkpoint_size": 10_001},  # CK-10
        {"retention_duration": -1},  # CK-12
        {"max_sections": 0},
        {"max_section_size": 0},
        {"max_section_id_size": 0},
    ],
)
def test_ck_09_10_12_bad_attributes(client: ckpt.Client, name: str, change: dict[str, int]) -> None:
    attributes = dataclasses.replace(D, **change)
    refused(errors.InvalidParamError, lambda: client.open(name, attributes, RWC))


def test_ck_11_sizes_do_not_overflow(client: ckpt.Client, name: str) -> None:
    big = dataclasses.replace(
        D, max_sections=1 << 31, max_section_size=1 << 40, checkpoint_size=1 << 50
    )
    assert client.open(name, big, RWC).status().attributes == big


@pytest.mark.parametrize(
    "change", [{"max_section_size": 1_999}, {"creation_flags": 2}, {"max_sections": 6}]
)
def test_ck_13_other_attributes(client: ckpt.Client, name: str, change: dict[str, int]) -> None:
    client.open(name, D, RWC)
    attributes = dataclasses.replace(D, checkpoint_size=100, **change)
    refused(errors.ExistError, lambda: client.open(name, attributes, RWC))


def test_ck_14_another_retention_duration_is_ignored(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)
    second = client.open(name, dataclasses.replace(D, retention_duration=0), RWC)
    assert second.status().attributes == D


def test_ck_15_16_a_timeout_of_zero(client: ckpt.Client, newer: ckpt.Client, name: str) -> None:
    refused(errors.AisTimeoutError, lambda: newer.open(name, D, RWC, timeout_ns=0))
    assert not exists(client, name)
    client.open(name, D, RWC, timeout_ns=0)


def test_ck_17_19_opening_by_callback(cluster: Cluster, name: str) -> None:
    seen: list[tuple[int, ckpt.Checkpoint | None, str]] = []
    with ckpt.Client(
        lambda i, c, s: seen.append((i, c, s.name)), run_dir=cluster.run_dir(1)
    ) as client:
        client.open_async(7, name, D, RWC)
        client.open_async(8, f"{name}-unknown", None, RW)
        wait_for(lambda: client.dispatch() is not None and len(seen) == 2, "both callbacks")
        assert [(i, s) for i, _, s in seen] == [(7, "OK"), (8, "ERR_NOT_EXIST")]
        opened = seen[0][1]
        assert opened is not None
        opened["a"] = b"usable"
        assert seen[1][1] is None


def test_ck_18_20_opening_by_callback_is_refused_at_once(
    client: ckpt.Client, cluster: Cluster, name: str
) -> None:
    refused(errors.InitError, lambda: client.open_async(1, name, D, RWC))
    with ckpt.Client(lambda *_: None, run_dir=cluster.run_dir(1)) as able:
        refused(errors.BadFlagsError, lambda: able.open_async(1, name, D, 0x10))


def test_ck_21_finalize_undoes_an_open_whose_callback_was_not_run(
    client: ckpt.Client, cluster: Cluster, name: str
) -> None:
    able = ckpt.Client(lambda *_: None, run_dir=cluster.run_dir(1))
    able.open_async(1, name, dataclasses.replace(D, retention_duration=TIME_END), RWC)
    wait_for(lambda: exists(client, name), "it is created")
    able.close()
    wait_for(lambda: _info(client, name).opens == 0, "no opens are left")
    client.unlink(name)


def _info(client: ckpt.Client, name: str) -> Any:
    return next(i for i in client.checkpoints() if i.name == name.encode() and i.linked)


# Closing, retention, unlinking


def test_ck_22_23_close(client: ckpt.Client, name: str) -> None:
    first, second = client.open(name, D, RWC), client.open(name, D, RWC)
    first["a"] = b"x"
    first.close()
    refused(errors.BadHandleError, lambda: first["a"])
    assert second["a"] == b"x"
    client.close()
    refused(errors.BadHandleError, lambda: second["a"])


def test_ck_24_25_retention(client: ckpt.Client, name: str) -> None:
    with client.open(name, SHORT, RWC) as first:
        first["a"] = b"kept"
    with client.open(name, None, RW) as again:
        assert again["a"] == b"kept"
    closed = time.monotonic()
    wait_for(lambda: not exists(client, name), "it is deleted")
    assert time.monotonic() - closed > 0.15
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_26_opening_again_stops_the_timer(client: ckpt.Client, name: str) -> None:
    client.open(name, SHORT, RWC).close()
    again = client.open(name, None, RW)
    assert _info(client, name).deadline_ns == 0
    marker = f"{name}-marker"
    client.open(marker, SHORT, RWC).close()
    wait_for(lambda: not exists(client, marker), "a timer that began later is over")
    assert again.status().attributes == SHORT


def test_ck_27_no_retention(client: ckpt.Client, name: str) -> None:
    client.open(name, dataclasses.replace(D, retention_duration=0), RWC).close()
    assert not exists(client, name)


def test_ck_28_for_ever(client: ckpt.Client, name: str) -> None:
    client.open(name, dataclasses.replace(D, retention_duration=TIME_END), RWC).close()
    assert _info(client, name).deadline_ns == 0
    client.unlink(name)


def test_ck_29_to_33_unlink(client: ckpt.Client, name: str) -> None:
    old = client.open(name, D, RWC)
    old["a"] = b"old"
    client.unlink(name)
    refused(errors.NotExistError, lambda: client.open(name, None, RW))
    refused(errors.NotExistError, lambda: client.unlink(name))
    new = client.open(name, D, RWC)
    assert len(new) == 0
    new["a"] = b"new"
    assert old["a"] == b"old"
    old.close()
    assert new["a"] == b"new"


def test_ck_34_35_unlink_without_a_name_and_in_the_retention_time(
    client: ckpt.Client, name: str
) -> None:
    refused(errors.InvalidParamError, lambda: client.unlink(""))
    client.open(name, D, RWC).close()
    client.unlink(name)
    refused(errors.NotExistError, lambda: client.open(name, None, RW))


def test_ck_36_37_38_39_retention_duration_set(
    client: ckpt.Client, newer: ckpt.Client, name: str
) -> None:
    checkpoint = client.open(name, D, RWC)
    refused(errors.InvalidParamError, lambda: checkpoint.retention_duration_set(-1))
    read_only = newer.open(name, None, R)
    refused(errors.AccessError, lambda: read_only.retention_duration_set(1))
    read_only.close()
    client.open(name, None, R).retention_duration_set(100 * ONE_MILLISECOND_NS)
    assert checkpoint.status().attributes.retention_duration == 100 * ONE_MILLISECOND_NS
    client.close()


def test_ck_36_retention_of_an_unlinked_one(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    client.unlink(name)
    refused(errors.BadOperationError, lambda: checkpoint.retention_duration_set(1))


# Sections


def test_ck_40_41_section_create(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    checkpoint.section_create("full", b"data")
    checkpoint.section_create("empty")
    assert checkpoint.read([("full", 0, None), ("empty", 0, None)]) == (b"data", b"")
    status = checkpoint.status()
    assert (status.number_of_sections, status.memory_used) == (2, 4)


def test_ck_43_44_45_section_create_refused(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    refused(errors.InvalidParamError, lambda: checkpoint.section_create("a", bytes(2_001)))
    refused(errors.InvalidParamError, lambda: checkpoint.section_create("i" * 21))
    refused(errors.InvalidParamError, lambda: checkpoint.section_create("a", b"", -1))
    for k in range(5):
        checkpoint.section_create(str(k))
    refused(errors.ExistError, lambda: checkpoint.section_create("0"))
    refused(errors.NoSpaceError, lambda: checkpoint.section_create("6th"))


def test_ck_46_47_section_create_on_the_default_section_and_without_access(
    client: ckpt.Client, name: str
) -> None:
    single = client.open(name, S, RWC)
    refused(errors.ExistError, lambda: single.section_create("a"))
    refused(errors.AccessError, lambda: client.open(name, None, R).section_create("a"))


def test_ck_48_generated_ids(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    first, second = checkpoint.section_create(None, b"1"), checkpoint.section_create(None, b"2")
    assert first != second
    assert 0 < len(first) <= 20
    assert (checkpoint[first], checkpoint[second]) == (b"1", b"2")


def test_ck_49_50_51_52_section_delete(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    checkpoint.section_create("a")
    refused(errors.AccessError, lambda: client.open(name, None, R).section_delete("a"))
    checkpoint.section_delete("a")
    refused(errors.NotExistError, lambda: checkpoint.read([("a", 0, None)]))
    refused(errors.NotExistError, lambda: checkpoint.section_delete("a"))
    single = client.open(f"{name}-s", S, RWC)
    refused(errors.InvalidParamError, lambda: single.section_delete(b""))


def test_ck_53_54_expiration(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    soon = time.time_ns() + 300 * ONE_MILLISECOND_NS
    checkpoint.section_create("dies", b"x", soon)
    checkpoint.section_create("lives", b"x", soon)
    checkpoint.section_expiration_time_set("lives", TIME_END)
    assert "dies" in checkpoint
    wait_for(lambda: "dies" not in checkpoint, "it expires", 3.0)
    assert time.time_ns() >= soon, "never early"
    assert "lives" in checkpoint


def test_ck_55_56_expiration_refused(client: ckpt.Client, name: str) -> None:
    checkpoint = client.open(name, D, RWC)
    checkpoint.section_create("a")
    single = client.open(f"{name}-s", S, RWC)
    refused(errors.InvalidParamError, lambda: single.section_expiration_time_set(b"", 1))
    refused(errors.InvalidParamError, lambda: checkpoint.section_expiration_time_set("a", -1))
    refused(errors.NotExistError, lambda: checkpoint.section_expiration_time_set("b", 1))
    read_only = client.open(name, None, R)
    refused(errors.AccessError, lambda: read_only.section_expiration_time_set("a", 1))


def test_ck_57_the_default_section(client: ckpt.Client, name: str) -> None:
    single = client.open(name, S, RWC)
    assert single.read([(b"", 0, None)]) == (b"",)
    assert single.status().number_of_sections == 1


# Writing and reading


def test_ck_58_59_60_write(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a", b"0123456789")
    c.section_create("b")
    c.write([("a", 0, b"xy"), ("b", 3, b"far")])
    assert c.read([("a", 0, None), ("b", 0, None)]) == (b"xy23456789", b"\0\0\0far")


@pytest.mark.parametrize("flags", [1, 2, 4])
def test_ck_61_62_63_a_write_is_all_or_nothing(client: ckpt.Client, name: str, flags: int) -> None:
    c = client.open(name, dataclasses.replace(D, creation_flags=flags), RWC)
    c.section_create("a", b"old")
    error = refused(errors.NotExistError, lambda: c.write([("a", 0, b"new"), ("z", 0, b"x")]))
    assert error.detail == Erroneous(1)
    assert c["a"] == b"old"


@pytest.mark.parametrize(("offset", "size"), [(0, 2_001), (1_500, 600), ((1 << 64) - 1, 1), (0, 0)])
def test_ck_64_65_write_out_of_bounds(
    client: ckpt.Client, name: str, offset: int, size: int
) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a", b"old")
    refused(errors.InvalidParamError, lambda: c.write([("a", offset, bytes(size))]))
    refused(errors.InvalidParamError, lambda: c.write([]))
    assert c["a"] == b"old"


def test_ck_66_to_69_access_and_overwrite(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a", b"longer")
    c.overwrite("a", b"short")
    assert c["a"] == b"short"
    refused(errors.InvalidParamError, lambda: c.overwrite("a", bytes(2_001)))
    refused(errors.NotExistError, lambda: c.overwrite("b", b""))
    read_only = client.open(name, None, R)
    refused(errors.AccessError, lambda: read_only.overwrite("a", b""))
    refused(errors.AccessError, lambda: read_only.write([("a", 0, b"x")]))


def test_ck_70_to_76_read(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a", b"0123456789")
    assert c.read([("a", 4, None), ("a", 4, 3), ("a", 8, 100), ("a", 10, 5)]) == (
        b"456789",
        b"456",
        b"89",
        b"",
    )
    refused(errors.InvalidParamError, lambda: c.read([("a", 11, None)]))
    refused(errors.InvalidParamError, lambda: c.read([("a", 0, 2_001)]))
    refused(errors.InvalidParamError, lambda: c.read([]))
    error = refused(errors.NotExistError, lambda: c.read([("a", 0, 1), ("z", 0, 1)]))
    assert error.detail == Erroneous(1)
    refused(errors.AccessError, lambda: client.open(name, None, W).read([("a", 0, 1)]))


# Iteration and status


def test_ck_77_78_79_80_iteration(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    far = time.time_ns() + 3_600 * ONE_SECOND_NS
    c.section_create("never", b"1")
    c.section_create("far", b"22", far)
    c.section_create("farther", b"333", far + 1)
    found = list(c.iterate())
    assert [(s.section_id, s.size) for s in found] == [
        (b"never", 1),
        (b"far", 2),
        (b"farther", 3),
    ]
    assert all(s.state is SectionState.VALID and s.last_update for s in found)

    def ids(chosen: SectionsChosen, at: int = 0) -> list[bytes]:
        return [s.section_id for s in c.iterate(chosen, at)]

    assert ids(SectionsChosen.FOREVER) == [b"never"]
    assert ids(SectionsChosen.LEQ_EXPIRATION_TIME, far) == [b"far"]
    assert ids(SectionsChosen.GEQ_EXPIRATION_TIME, far + 1) == [b"never", b"farther"]
    assert ids(SectionsChosen.CORRUPTED) == []
    for chosen in (0, 6):
        with pytest.raises(ValueError, match="SectionsChosen"):
            c.iterate(chosen)  # type: ignore[arg-type]
    refused(errors.InvalidParamError, lambda: c.iterate(SectionsChosen.LEQ_EXPIRATION_TIME, -1))


def test_ck_81_82_a_section_deleted_during_an_iteration_is_skipped(
    client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    for section_id in ("a", "b", "c"):
        c.section_create(section_id)
    iteration = c.iterate()
    assert next(iteration).section_id == b"a"
    c.section_delete("b")
    assert [s.section_id for s in iteration] == [b"c"]
    iteration = c.iterate()
    c.close()
    refused(errors.BadHandleError, lambda: next(iteration))


def test_ck_85_86_status(client: ckpt.Client, newer: ckpt.Client, name: str) -> None:
    single = client.open(name, S, RWC)
    assert single.status() == ckpt.Descriptor(S, 1, 0)
    refused(errors.AccessError, newer.open(name, None, W).status)
    assert client.open(name, None, W).status().number_of_sections == 1


# Asynchronous and collocated checkpoints


def test_ck_87_88_89_91_synchronize(client: ckpt.Client, name: str) -> None:
    refused(errors.BadOperationError, client.open(f"{name}-d", D, RWC).synchronize)
    c = client.open(name, A, RWC)
    c["a"] = b"x"
    c.synchronize(5 * ONE_SECOND_NS)
    refused(errors.AisTimeoutError, lambda: c.synchronize(0))
    refused(errors.InvalidParamError, lambda: c.synchronize(-1))
    refused(errors.AccessError, client.open(name, None, R).synchronize)


def test_ck_90_synchronize_by_callback(client: ckpt.Client, cluster: Cluster, name: str) -> None:
    refused(errors.InitError, lambda: client.open(name, A, RWC).synchronize_async(1))
    seen: list[tuple[int, str]] = []
    with ckpt.Client(
        None, lambda i, s: seen.append((i, s.name)), run_dir=cluster.run_dir(1)
    ) as able:
        able.open(name, None, RW).synchronize_async(9)
        wait_for(lambda: able.dispatch() is not None and seen, "the callback")
    assert seen == [(9, "OK")]


def test_ck_92_active_replica_of_others(client: ckpt.Client, name: str) -> None:
    refused(errors.BadOperationError, client.open(f"{name}-d", D, RWC).active_replica_set)
    refused(errors.BadOperationError, client.open(name, A, RWC).active_replica_set)


def test_ck_93_94_96_active_replica(client: ckpt.Client, name: str) -> None:
    c = client.open(name, AC, RWC)
    refused(errors.AccessError, client.open(name, None, R).active_replica_set)
    for call in (
        lambda: c.write([("a", 0, b"x")]),
        lambda: c.read([("a", 0, 1)]),
        c.status,
        lambda: c.section_create("a"),
        c.iterate,
        c.synchronize,
    ):
        refused(errors.NotExistError, call)
    c.active_replica_set()
    c.active_replica_set()
    c.section_create("a", b"x")
    assert c["a"] == b"x"


def test_ck_95_the_node_of_the_active_replica_goes(
    cluster: Cluster, other: ckpt.Client, name: str
) -> None:
    with ckpt.Client(run_dir=cluster.run_dir(3)) as third:
        c = third.open(name, AC, RWC)
        c.active_replica_set()
        c.section_create("a", b"kept")
        mine = other.open(name, None, RW)
        assert mine["a"] == b"kept"
        cluster.supervisorctl(3, "stop", "cluster")
        wait_for(lambda: _refuses(mine), "there is no active replica")
        mine.active_replica_set()
        assert mine["a"] == b"kept"
        cluster.up()


def _refuses(checkpoint: ckpt.Checkpoint) -> bool:
    try:
        checkpoint.status()
    except errors.NotExistError:
        return True
    return False


# Names, nodes, deaths


def test_ck_97_98_names_and_ids_are_bytes(client: ckpt.Client, name: str) -> None:
    short, long = client.open(name, D, RWC), client.open(name + "x", D, RWC)
    strange = b"\0\xff\0"
    short[strange] = b"1"
    assert list(long) == []
    assert short[strange] == b"1"


def test_ck_99_a_read_anywhere_sees_every_acknowledged_write(
    client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    here, there = client.open(name, D, RWC), other.open(name, None, RW)
    for k in range(300):
        here["a"] = b"%d" % k
        assert there["a"] == b"%d" % k


def test_ck_100_104_105_a_joining_node_has_sections_and_timers(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    soon = time.time_ns() + 6 * ONE_SECOND_NS
    c.section_create("timed", b"x", soon)
    cluster.supervisorctl(3, "restart", "cluster")
    cluster.up()
    with ckpt.Client(run_dir=cluster.run_dir(3)) as third:
        copy = third.open(name, None, RW)
        assert [s.expiration_time for s in copy.iterate()] == [soon]
        wait_for(lambda: "timed" not in copy, "it expires after the join too")
    assert time.time_ns() >= soon
    cluster.wait_equal("ckpt")


def test_ck_101_a_section_larger_than_a_message(
    client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    big = dataclasses.replace(D, max_sections=1, max_section_size=32 << 20, retention_duration=0)
    data = os.urandom(1 << 20) * 20
    c = client.open(name, big, RWC)
    c.overwrite(b"", data)
    assert other.open(name, None, R).read([(b"", 0, None)]) == (data,)


def test_ck_102_103_a_killed_process_releases_its_opens(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    child = os.fork()
    if child == 0:
        own = ckpt.Client(run_dir=cluster.run_dir(2))
        own.open(name, SHORT, RWC)
        own.open(f"{name}-unlinked", D, RWC)
        own.unlink(f"{name}-unlinked")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    names = {name.encode(), f"{name}-unlinked".encode()}
    assert names <= {i.name for i in client.checkpoints()}
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for(lambda: not names & {i.name for i in client.checkpoints()}, "both are deleted")


def test_ck_106_a_name_created_again_when_the_retention_is_over_survives(
    client: ckpt.Client, name: str
) -> None:
    instant = dataclasses.replace(D, retention_duration=ONE_MILLISECOND_NS)
    for _ in range(30):
        client.open(name, instant, RWC).close()
        again = client.open(name, instant, RWC)
        again["a"] = b"x"
        assert again["a"] == b"x"
        again.close()


def test_ck_120_opens_and_iterations_leave_nothing_behind(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(200):
        client.open(name, None, RW).close()
        list(c.iterate())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert _info(client, name).opens == 1


# Extensions


def test_an_extension_overwrite_may_create(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c.overwrite("a", b"1", create=True)
    c.overwrite("a", b"2", create=True)
    assert c["a"] == b"2"


def test_an_extension_a_checkpoint_is_a_mapping(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    c["a"], c["b"] = b"1", b"2"
    del c["a"]
    assert (list(c), len(c), "a" in c, "b" in c) == ([b"b"], 1, False, True)
    for access in (lambda: c["a"], lambda: c.__delitem__("a")):
        with pytest.raises(KeyError):
            access()
