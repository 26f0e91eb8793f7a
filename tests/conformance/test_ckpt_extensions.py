"""What is beyond SAI-AIS-CKPT, with real nodes, and the tracking of its level B.02.03."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openais import ckpt, dumpfile, errors
from openais.aio import ckpt as aio_ckpt
from openais.checkpoints import DELETED_OFFSET
from openais.ckpt import ChangeKind, TrackElement
from openais.wire.ckpt import Differs
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, TIME_END
from tests.conformance.checkpoints import RW, RWC, D, R, S, changed, refused
from tests.integration.cluster import Cluster, wait_for

Told = list[tuple[ckpt.Checkpoint, tuple[TrackElement, ...]]]


# Tracking (B.02.03)


def tracker(cluster: Cluster, told: Told, level: str = "B.02") -> ckpt.Client:
    return ckpt.Client(
        track_callback=lambda *of: told.append(of), level=level, run_dir=cluster.run_dir(1)
    )


def test_ck_115_tracking_refused(cluster: Cluster, newer: ckpt.Client, name: str) -> None:
    refused(errors.InitError, newer.track)
    with tracker(cluster, [], level="B.01") as older:
        refused(errors.VersionError, older.track)
        refused(errors.VersionError, older.track_stop)
    with tracker(cluster, []) as able:
        refused(errors.NotExistError, able.track_stop)


def test_com_38_a_function_of_a_newer_level(cluster: Cluster) -> None:
    with tracker(cluster, [], level="B.01") as older:
        refused(errors.VersionError, older.track)


def test_ck_116_changes_elsewhere_are_told_without_data(
    cluster: Cluster, other: ckpt.Client, name: str
) -> None:
    told: Told = []
    with tracker(cluster, told) as client:
        before = client.open(name, D, RWC)
        client.track()
        late = client.open(f"{name}-late", D, RWC)
        there = other.open(name, None, RW)
        there.section_create("a", b"data")
        there.write([("a", 2, b"xyz"), ("a", 0, b"_")])
        before.overwrite("a", b"own changes too")
        there.section_delete("a")
        other.open(f"{name}-late", None, RW).section_create("b", b"1")
        wait_for(lambda: client.dispatch() is not None and len(told) == 5, "five callbacks")
        assert [c for c, _ in told] == [before] * 4 + [late]
        assert [elements for _, elements in told] == [
            (TrackElement(b"a", 0, 4),),
            (TrackElement(b"a", 2, 3), TrackElement(b"a", 0, 1)),
            (TrackElement(b"a", 0, 15),),
            (TrackElement(b"a", DELETED_OFFSET, 0),),
            (TrackElement(b"b", 0, 1),),
        ]
        client.track_stop()
        there.section_create("a", b"not told")
        assert client.dispatch() == 0
        refused(errors.NotExistError, client.track_stop)


# Watches


def test_a_watch_tells_every_change_with_data_in_order(
    client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    mine, there = client.open(name, D, RWC), other.open(name, None, RW)
    told: list[ckpt.Change] = []
    with mine.watch(told.append):
        there["a"] = b"1"
        there["a"] = b"2"
        there.write([("a", 1, b"3")])
        version = there.put("a", b"4", ttl_ns=50 * ONE_MILLISECOND_NS)
        wait_for(lambda: client.dispatch() is not None and len(told) == 5, "all changes")
    assert [(c.kind, c.elements[0].offset, c.elements[0].data) for c in told] == [
        (ChangeKind.CREATED, 0, b"1"),
        (ChangeKind.OVERWRITTEN, 0, b"2"),
        (ChangeKind.WRITTEN, 1, b"3"),
        (ChangeKind.OVERWRITTEN, 0, b"4"),
        (ChangeKind.EXPIRED, 0, None),
    ]
    assert told[3].version == version
    assert {c.lost for c in told} == {0}
    there["a"] = b"after the watch"
    assert client.dispatch() == 0


def test_a_watch_of_a_section_or_a_prefix_tells_no_others(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    one: list[bytes] = []
    some: list[bytes] = []
    c.watch(lambda change: one.extend(e.section_id for e in change.elements), section_id="ab")
    c.watch(lambda change: some.extend(e.section_id for e in change.elements), prefix="a")
    for section_id in ("a", "ab", "abc", "b"):
        c[section_id] = b"x"
    wait_for(lambda: client.dispatch() is not None and len(some) == 3, "the changes")
    assert (one, some) == ([b"ab"], [b"a", b"ab", b"abc"])


def test_large_data_are_not_told_and_can_be_read(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    told: list[ckpt.Change] = []
    c.watch(told.append, data_size_max=10)
    c["a"] = bytes(11)
    wait_for(lambda: client.dispatch() is not None and told, "the change")
    (element,) = told[0].elements
    assert (element.size, element.data) == (11, None)
    refused(errors.InvalidParamError, lambda: c.watch(told.append, data_size_max=1 << 20))


def test_a_watch_survives_the_death_of_its_service(
    cluster: Cluster, client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    c, there = client.open(name, D, RWC), other.open(name, None, RW)
    told: list[ckpt.Change] = []
    c.watch(told.append)
    there["a"] = b"0"
    pid = cluster.kill(1, "ckpt")
    for k in range(1, 20):
        there["a"] = b"%d" % k
    cluster.wait_restarted(1, "ckpt", pid)
    wait_for(lambda: client.dispatch() is not None and len(told) == 20, "all changes")
    assert [change.elements[0].data for change in told] == [b"%d" % k for k in range(20)]
    assert {change.lost for change in told} == {0}


# Versions, time to live, prefixes


def test_a_put_with_an_expected_version_happens_once(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    first = c.put("a", b"1", expected=b"")
    error = refused(errors.FailedOperationError, lambda: c.put("a", b"x", expected=b""))
    assert error.detail == Differs(first)
    second = c.put("a", b"2", expected=first)
    refused(errors.FailedOperationError, lambda: c.put("a", b"x", expected=first))
    refused(errors.FailedOperationError, lambda: c.section_delete("a", expected=first))
    assert c.read_version("a") == (b"2", second)
    assert [s.version for s in c.iterate()] == [second]
    c.section_delete("a", expected=second)
    assert c.put("a", b"3", expected=b"") not in (first, second), "a version never comes again"
    single = client.open(f"{name}-s", S, RWC)
    data, version = single.read_version(b"")
    assert single.put(b"", b"default", expected=version) != version
    assert data == b""


def test_counters_of_many_writers_lose_nothing(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)

    def count(node_id: int) -> None:
        with ckpt.Client(run_dir=cluster.run_dir(node_id)) as own:
            counters = own.open(name, None, RW).map()
            for _ in range(50):
                counters.change("n", lambda data: b"%d" % (int(data or b"0") + 1))

    threads = [threading.Thread(target=count, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert c["n"] == b"150"


def test_a_time_to_live_counts_from_the_write(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    begin = time.time_ns()
    c.put("long", b"x", ttl_ns=3_600 * ONE_SECOND_NS)
    c.put("long", b"y")  # keeps its expiry
    c.put("short", b"x", ttl_ns=100 * ONE_MILLISECOND_NS)
    c["plain"] = b"x"
    c.ttl_set("plain", 100 * ONE_MILLISECOND_NS)
    (until,) = [s.expiration_time for s in c.iterate() if s.section_id == b"long"]
    assert 0 <= until - begin - 3_600 * ONE_SECOND_NS < 60 * ONE_SECOND_NS
    wait_for(lambda: list(c) == [b"long"], "the others expire", 5.0)
    assert time.time_ns() - begin >= 100 * ONE_MILLISECOND_NS
    refused(errors.InvalidParamError, lambda: c.put("a", b"", ttl_ns=-1))
    single = client.open(f"{name}-s", S, RWC)
    refused(errors.InvalidParamError, lambda: single.put(b"", b"", ttl_ns=1))


def test_extensions_need_the_same_access(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)["a"] = b"x"
    read_only = client.open(name, None, R)
    refused(errors.AccessError, lambda: read_only.put("a", b""))
    refused(errors.AccessError, lambda: read_only.ttl_set("a", 1))
    assert list(read_only.items()) == [(b"a", b"x")]


def test_names_and_sections_are_listed_by_prefix(client: ckpt.Client, name: str) -> None:
    for end in ("b", "a", "ab"):
        client.open(f"{name}/{end}", D, RWC)
    start = f"{name}/".encode()
    assert list(client.names(start)) == [start + b"a", start + b"ab", start + b"b"]
    assert list(client.names(f"{name}/a")) == [start + b"a", start + b"ab"]
    c = client.open(f"{name}/a", None, RW)
    c["x1"], c["y"], c["x2"] = b"1", b"2", b"3"
    assert list(c.items("x")) == [(b"x1", b"1"), (b"x2", b"3")]
    assert list(c.items("z")) == []


# A dict


def test_a_map_is_a_dict_of_sections(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)
    m = c.map()
    m["a"] = b"1"
    m.update({"b": b"2", "c": b"3"})
    assert m == {b"a": b"1", b"b": b"2", b"c": b"3"}
    assert (list(m), len(m), "a" in m, "z" in m) == ([b"a", b"b", b"c"], 3, True, False)
    assert list(m.values()) == [b"1", b"2", b"3"]
    assert dict(m.items()) == {b"a": b"1", b"b": b"2", b"c": b"3"}
    assert (m.get("z"), m.get("a")) == (None, b"1")
    assert (m.setdefault("a", b"x"), m.setdefault("d", b"4")) == (b"1", b"4")
    assert (m.pop("a"), m.pop("a", None)) == (b"1", None)
    assert m.popitem() == (b"d", b"4")
    del m["b"]
    for call in (lambda: m["a"], lambda: m.pop("a"), lambda: m.__delitem__("a")):
        with pytest.raises(KeyError):
            call()
    m.clear()
    assert not m
    with pytest.raises(KeyError):
        m.popitem()


def test_what_a_map_with_a_time_to_live_sets_expires(client: ckpt.Client, name: str) -> None:
    m = client.open(name, D, RWC).map(ttl_ns=100 * ONE_MILLISECOND_NS)
    m["a"] = b"1"
    wait_for(lambda: "a" not in m, "it expires", 5.0)


# Dump and restore


def test_a_dump_is_restored_on_another_node(
    client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    attributes = changed(D, max_section_id_size=30)
    c = client.open(name, attributes, RWC)
    far = time.time_ns() + 3_600 * ONE_SECOND_NS
    c.section_create(b"\0\xff", bytes(range(256)), far)
    c.section_create("empty")
    c.put("over soon", b"x", ttl_ns=200 * ONE_MILLISECOND_NS)
    file = io.BytesIO()
    client.dump_to(name, file)
    refused(errors.ExistError, lambda: other.restore(file))
    wait_for(lambda: "over soon" not in c, "it expires", 5.0)
    copy = other.restore(file, f"{name}-copy")
    assert copy.status().attributes == attributes
    assert [(s.section_id, s.expiration_time) for s in copy.iterate()] == [
        (b"\0\xff", far),
        (b"empty", TIME_END),
    ]
    assert copy[b"\0\xff"] == bytes(range(256))
    c["empty"] = b"changed"
    restored = other.restore(file, replace=True)
    assert (restored["empty"], c["empty"]) == (b"", b"changed"), "the old one lives on unlinked"
    single = client.open(f"{name}-s", S, RWC)
    single.overwrite(b"", b"default")
    file = io.BytesIO()
    client.dump_to(f"{name}-s", file)
    assert other.restore(file, f"{name}-s-copy").read([(b"", 0, None)]) == (b"default",)


def test_a_damaged_dump_restores_nothing(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)["a"] = b"data"
    file = io.BytesIO()
    client.dump_to(name, file)
    whole = file.getvalue()
    for damaged in (whole.replace(b'"ZGF0YQ=="', b'"ZGF0YR=="'), whole[:-9], b"", b"{}\n"):
        with pytest.raises(dumpfile.DumpError):
            client.restore(io.BytesIO(damaged), f"{name}-copy")
    assert list(client.names(f"{name}-copy")) == []


# asyncio


def run(
    cluster: Cluster, work: Callable[[aio_ckpt.Client, aio_ckpt.Client], Awaitable[Any]]
) -> None:
    async def both() -> None:
        async with (
            aio_ckpt.Client(run_dir=cluster.run_dir(1)) as here,
            aio_ckpt.Client(run_dir=cluster.run_dir(2)) as there,
        ):
            await work(here, there)

    asyncio.run(asyncio.wait_for(both(), 60))


def test_with_asyncio_all_extensions_are_there(cluster: Cluster, name: str) -> None:
    async def work(here: aio_ckpt.Client, there: aio_ckpt.Client) -> None:
        c = await here.open(name, D, RWC)
        d = await there.open(name, None, RW)
        async with c.watch(prefix="a") as changes:
            version = await d.put("a", b"1", expected=b"", ttl_ns=3_600 * ONE_SECOND_NS)
            change = await anext(changes)
            assert (change.kind, change.version) == (ChangeKind.CREATED, version)
        with pytest.raises(errors.FailedOperationError):
            await c.put("a", b"x", expected=b"")
        assert await c.read_version("a") == (b"1", version)
        assert await c.change("n", lambda data: (data or b"") + b"x") == b"x"
        assert await c.change("n", lambda data: (data or b"") + b"x") == b"xx"
        await c.ttl_set("n", 3_600 * ONE_SECOND_NS)
        assert [i async for i in c.items("n")] == [(b"n", b"xx")]
        assert [n async for n in here.names(name)] == [name.encode()]
        file = io.BytesIO()
        await here.dump_to(name, file)
        copy = await there.restore(file, f"{name}-copy")
        assert [i async for i in copy.items()] == [(b"a", b"1"), (b"n", b"xx")]
        assert len([s async for s in here.dump(f"{name}-copy")]) == 2
        await c.section_delete("a", expected=version)
        assert name.encode() in [i.name for i in await here.checkpoints()]

    run(cluster, work)


def test_with_asyncio_a_watch_ends_with_its_checkpoint(cluster: Cluster, name: str) -> None:
    async def work(here: aio_ckpt.Client, _there: aio_ckpt.Client) -> None:
        c = await here.open(name, D, RWC)
        async with c.watch() as changes:
            await c.close()
            with pytest.raises(errors.LibraryError):
                await anext(changes)

    run(cluster, work)
