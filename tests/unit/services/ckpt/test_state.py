"""The state of the checkpoint service: snapshots, time, returning nodes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from openais.checkpoints import Paging
from openais.errors import TryAgainError
from openais.wire import ckpt as wire
from openais.wire.port import RingId
from openais.wire.status import TIME_END, Status
from services.ckpt import objects
from services.ckpt.state import Checkpoints
from services.ckpt.watches import TRACK
from services.kit.machine import Context, NodeId, Notify, Report, SessionId, View
from tests.unit.services.ckpt.bench import MANY, RWC, VIEW, Bench, create


def whole(machine: Checkpoints) -> dict[bytes, bytes | None]:
    return {name: b"".join(machine.dump(name)) for name in machine.names()}


def test_a_handle_belongs_to_its_session() -> None:
    bench = Bench()
    bench.opened()
    assert bench.do(create(1, b"a"), session=b"other").status is Status.ERR_BAD_HANDLE


def test_a_handle_is_used_once_at_a_time() -> None:
    bench = Bench()
    bench.opened()
    again = wire.Open(1, b"n", RWC, MANY, wire.Level.B_02)
    assert bench.do(again).status is Status.ERR_INVALID_PARAM


def test_the_end_of_a_session_closes_all_it_had_open() -> None:
    bench = Bench()
    bench.opened(1, b"a")
    bench.opened(2, b"b")
    bench.machine.session_closed(SessionId(b"s1"), bench.context())
    bench.machine.check()
    assert bench.machine.describe()["opens"] == 0
    assert bench.machine.deadline_ns() == bench.now_ns + 1_000


def test_a_retention_that_was_proposed_before_an_open_deletes_nothing() -> None:
    bench = Bench()
    bench.opened()
    bench.do(wire.Close(1))
    bench.now_ns += 2_000
    proposed = bench.machine.expired(bench.now_ns)
    bench.opened(2)
    for operation in proposed:
        bench.machine.apply(operation, Context(bench.now_ns, NodeId(1), None, VIEW))
    assert bench.machine.describe()["checkpoints"] == 1
    bench.do(wire.Close(2))
    for operation in proposed:
        bench.machine.apply(operation, Context(bench.now_ns, NodeId(1), None, VIEW))
    assert bench.machine.describe()["checkpoints"] == 1, "a new retention has a new generation"


def test_what_is_proposed_stays_due_until_it_is_delivered() -> None:
    bench = Bench()
    bench.opened()
    bench.do(create(1, b"a", bench.now_ns + 10))
    bench.now_ns += 20
    assert len(bench.machine.expired(bench.now_ns)) == 1
    assert bench.expire() == 1
    assert bench.expire() == 0
    assert bench.machine.describe()["sections"] == 0


def test_a_new_expiration_time_makes_the_old_one_void() -> None:
    bench = Bench()
    bench.opened()
    bench.do(create(1, b"a", bench.now_ns + 10))
    proposed = wire.SectionExpire(_uid(bench), b"a", bench.now_ns + 9)
    bench.do(wire.SectionExpirationTimeSet(1, b"a", TIME_END))
    bench.machine.apply(proposed, Context(bench.now_ns, NodeId(1), None, VIEW))
    assert bench.machine.deadline_ns() is None
    assert bench.machine.describe()["sections"] == 1


def _uid(bench: Bench) -> bytes:
    told = wire.TABLE.decode(bench.machine.report((SessionId(b"s1"),)))
    uid: bytes = told.opens[0].uid
    return uid


def test_what_a_returning_node_had_open_is_opened_again() -> None:
    bench = Bench()
    bench.opened(1)
    bench.opened(1, session=b"s2", node=2)
    report = bench.machine.report((SessionId(b"s2"),))
    bench.machine.session_closed(SessionId(b"s2"), bench.context())
    joined = View(RingId(8, 1), VIEW.members, (NodeId(2),), ())
    bench.machine.view_changed(joined, {NodeId(2): Report(NodeId(2), report)}, bench.context())
    bench.machine.check()
    assert bench.do(create(1, b"a"), session=b"s2", node=2).status is Status.OK


def test_an_active_replica_leaves_with_its_node() -> None:
    bench = Bench()
    attributes = wire.Attributes(2 | 8, 0, 0, 8, 100, 8)
    bench.do(wire.Open(1, b"n", RWC, attributes, wire.Level.B_02), node=2)
    bench.do(wire.ActiveReplicaSet(1), node=2)
    assert bench.ask(wire.StatusGet(1)).status is Status.OK
    alone = View(RingId(8, 1), (NodeId(1),), (), ())
    bench.machine.view_changed(alone, {}, bench.context())
    assert bench.ask(wire.StatusGet(1)).status is Status.ERR_NOT_EXIST


def test_a_dump_comes_in_parts_of_limited_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CALL_SIZE_MAX", 8)
    bench = Bench()
    bench.opened()
    for k in range(5):
        bench.do(create(1, b"%d" % k))
    seen: list[bytes] = []
    more = True
    while more:
        part = bench.ask(wire.CheckpointDump(b"n", len(seen))).result
        seen += [s.section.section_id for s in part.sections]
        more = part.more
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_every_change_is_counted_and_a_refused_or_repeated_look_is_not() -> None:
    bench = Bench()
    bench.opened()

    def mutations() -> int:
        (info,) = bench.ask(wire.CheckpointsGet()).result.checkpoints
        count: int = info.mutations
        return count

    before = mutations()
    changes = [
        create(1, b"a"),
        wire.SectionOverwrite(1, b"a", b"x"),
        wire.Write(1, (wire.WriteElement(b"a", 0, b"y"),)),
        wire.SectionExpirationTimeSet(1, b"a", bench.now_ns + 1_000),
        wire.RetentionDurationSet(1, 5),
        wire.SectionDelete(1, b"a"),
        wire.Unlink(b"n"),
    ]
    for count, change in enumerate(changes, 1):
        assert bench.do(change).status is Status.OK
        assert mutations() == before + count
    assert bench.do(wire.SectionDelete(1, b"a")).status is Status.ERR_NOT_EXIST
    bench.ask(wire.StatusGet(1))
    assert mutations() == before + len(changes)


def test_a_deleted_checkpoint_leaves_a_tombstone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "TOMBSTONES_MAX", 3)
    bench = Bench()

    def live_and_die(name: bytes) -> None:
        bench.opened(1, name)
        bench.do(wire.Unlink(name))
        bench.do(wire.Close(1))

    for k in range(5):
        live_and_die(b"%d" % k)
    assert bench.machine.describe()["tombstones"] == 3
    bench.now_ns += objects.TOMBSTONE_NS
    live_and_die(b"late")
    assert bench.machine.describe()["tombstones"] == 1


def test_wrong_values_come_before_the_open_mode_and_that_before_what_is_there() -> None:
    bench = Bench()
    bench.opened(1)
    bench.do(wire.Open(2, b"n", 1, None, wire.Level.B_02))
    for operation, status in (
        (wire.SectionDelete(2, b""), Status.ERR_INVALID_PARAM),
        (wire.SectionDelete(2, b"unknown"), Status.ERR_ACCESS),
        (wire.SectionDelete(1, b"unknown"), Status.ERR_NOT_EXIST),
        (wire.RetentionDurationSet(2, -1), Status.ERR_INVALID_PARAM),
        (wire.SectionOverwrite(2, b"a", bytes(101)), Status.ERR_INVALID_PARAM),
        (wire.Write(2, ()), Status.ERR_INVALID_PARAM),
        (wire.Synchronize(2), Status.ERR_ACCESS),
    ):
        assert bench.do(operation).status is status, operation


def test_a_refusal_tells_the_rule_and_the_element() -> None:
    bench = Bench()
    bench.opened()
    bench.do(create(1, b"a"))
    elements = (wire.WriteElement(b"a", 0, b"x"), wire.WriteElement(b"a", 99, b"xyz"))
    answer = bench.do(wire.Write(1, elements))
    assert str(answer.result) == "element 1: bytes 99..102, max_section_size is 100"
    assert str(bench.do(create(1, b"a")).result) == "there is a section with this id"


def test_memory_has_a_limit_and_a_refused_change_takes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    huge = wire.Attributes(1, 0, 1_000, 8, 1 << 40, 8)
    bench.do(wire.Open(1, b"n", RWC, huge, wire.Level.B_02))
    bench.do(create(1, b"a"))
    before = bench.machine.describe()
    gap = wire.Write(1, (wire.WriteElement(b"a", 1 << 39, b"x"),))
    assert bench.do(gap).status is Status.ERR_NO_MEMORY
    assert bench.machine.describe() == before
    monkeypatch.setattr(wire, "MEMORY_MAX", before["memory_bytes"] + 10)
    assert bench.do(wire.SectionOverwrite(1, b"a", bytes(14))).status is Status.OK
    assert bench.do(wire.SectionOverwrite(1, b"a", bytes(15))).status is Status.ERR_NO_MEMORY
    assert bench.do(create(1, b"b")).status is Status.ERR_NO_MEMORY
    assert bench.do(wire.SectionCreate(1, None, TIME_END, b"")).status is Status.ERR_NO_MEMORY
    other = wire.Open(2, b"other", RWC, huge, wire.Level.B_02)
    assert bench.do(other).status is Status.ERR_NO_MEMORY
    bench.do(wire.SectionDelete(1, b"a"))
    assert bench.do(create(1, b"b")).status is Status.OK
    bench.do(wire.Close(1))
    bench.do(wire.Unlink(b"n"))
    assert bench.machine.describe()["memory_bytes"] == 0


def test_a_read_that_no_answer_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CALL_SIZE_MAX", 6)
    bench = Bench()
    bench.opened()
    bench.do(create(1, b"a"))
    two = (wire.ReadElement(b"a", 0, None), wire.ReadElement(b"a", 0, 3))
    assert bench.ask(wire.Read(1, two)).status is Status.ERR_NO_RESOURCES
    assert bench.ask(wire.Read(1, two[:1])).result == wire.ReadData((b"data",))


def test_a_section_larger_than_an_answer_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CALL_SIZE_MAX", 600)
    bench = Bench()
    large = wire.Attributes(1, 0, 1_000, 8, 5_000, 8)
    bench.opened(attributes=large)
    contents = {b"a": b"small", b"b": bytes(range(200)) * 7, b"c": b"", b"d": b"x" * 600}
    for section_id, data in contents.items():
        bench.do(wire.SectionCreate(1, section_id, TIME_END, data))
    paging = Paging("test")
    found: dict[bytes, bytes] = {}
    parts = 0
    while paging.more:
        part = bench.ask(wire.ItemsGet(1, b"", paging.after, paging.offset)).result
        assert sum(len(s.data) for s in part.sections) <= 600
        found |= {section.section_id: data for section, data in paging.take(part)}
        parts += 1
    assert found == contents
    assert parts > 3
    part = bench.ask(wire.CheckpointDump(b"n")).result
    bench.do(wire.SectionDelete(1, b"c"))
    paging = Paging("test")
    paging.take(part)
    with pytest.raises(TryAgainError):
        paging.take(bench.ask(wire.CheckpointDump(b"n", 1)).result)


def test_a_watch_is_of_one_open_and_ends_with_it() -> None:
    bench = Bench()
    bench.opened(1)
    bench.opened(2, session=b"s2")
    assert bench.do(wire.Watch(1, 1, None, b"a", 3)).status is Status.OK
    assert bench.do(wire.Watch(1, 1, None, b"", 3)).status is Status.ERR_EXIST
    assert bench.do(wire.Watch(1, 0, None, b"", 3)).status is Status.ERR_INVALID_PARAM
    bench.do(create(2, b"b"), session=b"s2")
    assert bench.told == []
    bench.do(create(2, b"a"), session=b"s2")
    ((told),) = bench.told
    assert told.session == b"s1"
    assert told.message.elements == (wire.ChangedElement(b"a", 0, 4, None),), "over 3 bytes"
    bench.do(wire.Close(1))
    bench.do(wire.SectionDelete(2, b"a"), session=b"s2")
    assert len(bench.told) == 1
    assert bench.machine.describe()["watches"] == 0


def test_watches_of_one_open_have_a_bound() -> None:
    bench = Bench()
    bench.opened()
    for watch in range(1, wire.WATCHES_PER_OPEN_MAX + 1):
        assert bench.do(wire.Watch(1, watch, None, b"", 0)).status is Status.OK
    too_many = wire.Watch(1, wire.WATCHES_PER_OPEN_MAX + 1, None, b"", 0)
    assert bench.do(too_many).status is Status.ERR_NO_RESOURCES


def test_a_node_that_comes_back_has_its_watches_and_is_told_to_read_again() -> None:
    bench = Bench()
    bench.opened(1, session=b"s2", node=2)
    bench.do(wire.Watch(1, 5, b"a", b"", 9), session=b"s2", node=2)
    bench.do(wire.Track(), session=b"s2", node=2)
    report = bench.machine.report((SessionId(b"s2"),))
    bench.machine.session_closed(SessionId(b"s2"), bench.context())
    joined = View(RingId(8, 1), VIEW.members, (NodeId(2),), ())
    reports = {NodeId(2): Report(NodeId(2), report)}
    told = bench.machine.view_changed(joined, reports, bench.context())
    assert [(e.message.watch, e.message.kind) for e in told if isinstance(e, Notify)] == [
        (TRACK, wire.ChangeKind.REPLACED),
        (5, wire.ChangeKind.REPLACED),
    ]
    bench.opened(2, b"another", session=b"s2", node=2)
    assert bench.machine.describe()["watches"] == 3, "it tracks what it opens"


def test_names_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "NAMES_MAX", 2)
    bench = Bench()
    for handle, name in enumerate((b"xa", b"y", b"xc", b"xb"), 1):
        bench.opened(handle, name)
    first = bench.ask(wire.NamesGet(b"x")).result
    assert first == wire.Names((b"xa", b"xb"), more=True)
    assert bench.ask(wire.NamesGet(b"x", b"xb")).result == wire.Names((b"xc",), more=False)


def test_results_of_other_classes_are_no_operations() -> None:
    bench = Bench()
    assert bench.do(wire.Erroneous(1)).status is Status.ERR_INVALID_PARAM
    assert bench.ask(wire.Close(1)).status is Status.ERR_INVALID_PARAM


@pytest.mark.parametrize("seed", range(20))
def test_a_snapshot_restores_a_random_history_exactly(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench()
    for _ in range(150):
        handle, section = rng.randint(1, 4), b"%d" % rng.randint(0, 5)
        operation: Any = rng.choice(
            [
                wire.Open(handle, b"n%d" % rng.randint(0, 2), RWC, MANY, wire.Level.B_02),
                wire.Close(handle),
                wire.Unlink(b"n%d" % rng.randint(0, 2)),
                create(handle, section, bench.now_ns + rng.randint(0, 50)),
                wire.SectionOverwrite(handle, section, rng.randbytes(9), rng.random() < 0.5),
                wire.Write(handle, (wire.WriteElement(section, rng.randint(0, 50), b"xyz"),)),
                wire.SectionDelete(handle, section),
                wire.SectionCreate(handle, None, TIME_END, b""),
                wire.SectionPut(handle, section, b"put", None, rng.choice([None, 20])),
                wire.SectionTtlSet(handle, section, rng.randint(0, 50)),
                wire.Watch(handle, rng.randint(1, 3), None, b"", rng.choice([0, 9])),
                wire.Unwatch(handle, rng.randint(1, 3)),
                rng.choice([wire.Track(), wire.TrackStop()]),
            ]
        )
        bench.do(operation, session=rng.choice([b"s1", b"s2"]))
        if rng.random() < 0.1:
            bench.expire()
    copy = Checkpoints()
    copy.load(whole(bench.machine))
    copy.check()
    assert whole(copy) == whole(bench.machine)
    assert copy.deadline_ns() == bench.machine.deadline_ns()
    assert copy.describe() == bench.machine.describe()
    other = Bench()
    other.machine = copy
    other.now_ns = bench.now_ns
    bench.told.clear()
    for handle in range(1, 5):
        for session in (b"s1", b"s2"):
            put = wire.SectionPut(handle, b"0", b"last")
            assert other.do(put, session=session) == bench.do(put, session=session)
    assert other.told == bench.told, "a copy tells the same to the same"
