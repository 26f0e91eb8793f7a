"""Checkpoints of two sides of a partition become one: whole, linked once, open where they were."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from openais.wire import ckpt as wire
from openais.wire.ckpt import CreationFlags, SectionState
from openais.wire.status import TIME_END, Status
from services.ckpt.conflicts import Conflicts
from services.ckpt.objects import DEFAULT, Conflict, Policy
from services.ckpt.state import Checkpoints
from services.kit.machine import Caller, Context, NodeId, SessionId
from tests.sim.replicas import SECOND, Stage

RWC = 7
ASYNC = CreationFlags.WR_ACTIVE_REPLICA | CreationFlags.COLLOCATED


def attributes(retention_ns: int = TIME_END, flags: int = 1) -> wire.Attributes:
    return wire.Attributes(flags, 0, retention_ns, 8, 100, 8)


def session(node_id: int) -> SessionId:
    return SessionId(b"session of node%2d" % node_id)


class Bench(Stage):
    """Replicas of the checkpoint service, a client at each node."""

    def __init__(self, nodes: int, policy: Policy = DEFAULT) -> None:
        super().__init__(lambda _node: Checkpoints(policy))
        for node_id in range(1, nodes + 1):
            self.join(node_id, [1] if node_id > 1 else None)
            self.run()
        for node_id in self.hosts:
            self.open(node_id, session(node_id))

    def do(self, node_id: int, operation: Any) -> Status:
        number = self.request(node_id, wire.TABLE.encode(operation))
        self.run()
        client = self.hosts[node_id].client
        assert client is not None
        return client.answered[number].status

    def opened(self, node_id: int, handle: int, name: bytes, how: wire.Attributes) -> None:
        operation = wire.Open(handle, name, RWC, how, wire.Level.B_02)
        assert self.do(node_id, operation) is Status.OK

    def put(self, node_id: int, handle: int, section: bytes, data: bytes) -> None:
        operation = wire.SectionOverwrite(handle, section, data, create=True)
        assert self.do(node_id, operation) is Status.OK

    def read(self, node_id: int, handle: int, section: bytes) -> bytes | Status:
        replica = self.hosts[node_id].replica
        assert replica.view is not None
        caller = Caller(NodeId(node_id), session(node_id), 0)
        context = Context(self.now().wall_ns, NodeId(node_id), caller, replica.view)
        element = wire.ReadElement(section, 0, None)
        answer = replica.machine.read(wire.Read(handle, (element,)), context)
        return answer.result.parts[0] if answer.status is Status.OK else answer.status

    def infos(self) -> list[wire.CheckpointInfo]:
        assert self.live()
        assert len(self.digests()) == 1
        replica = self.hosts[1].replica
        assert replica.view is not None
        context = Context(0, NodeId(1), Caller(NodeId(1), session(1), 0), replica.view)
        found = replica.machine.read(wire.CheckpointsGet(), context).result
        return list(found.checkpoints)

    def heal(self) -> None:
        self.merge()
        self.run()

    def part(self, *sides: list[int]) -> None:
        self.split(*sides)
        self.run()


def test_ck_108_one_side_s_content_is_complete_on_all_nodes_and_never_a_mix() -> None:
    bench = Bench(3)
    for node_id in (1, 2, 3):
        bench.opened(node_id, 1, b"n", attributes())
    bench.part([1, 2], [3])
    bench.put(1, 1, b"a", b"large")
    for section in (b"a", b"b", b"c"):
        bench.put(3, 1, section, b"small")
    bench.heal()
    assert [bench.read(n, 1, b"a") for n in (1, 2, 3)] == [b"large"] * 3
    assert bench.read(3, 1, b"b") is Status.ERR_NOT_EXIST
    assert len(bench.hosts[3].discarded) == 1


def test_ck_109_of_two_checkpoints_with_one_name_one_is_linked_and_both_handles_work() -> None:
    bench = Bench(3)
    bench.part([1, 2], [3])
    bench.opened(1, 1, b"n", attributes())
    bench.put(1, 1, b"a", b"large")
    bench.opened(3, 1, b"n", attributes())
    bench.put(3, 1, b"a", b"small")
    bench.heal()
    assert sorted(i.linked for i in bench.infos()) == [False, True]
    assert bench.read(1, 1, b"a") == b"large"
    assert bench.read(3, 1, b"a") == b"small"
    bench.opened(3, 2, b"n", attributes())
    assert bench.read(3, 2, b"a") == b"large"
    assert bench.do(3, wire.Close(1)) is Status.OK
    assert [i.linked for i in bench.infos()] == [True]


def test_a_name_that_is_invalidated_makes_the_handles_bad() -> None:
    bench = Bench(3, Policy(detaches=False))
    bench.part([1, 2], [3])
    bench.opened(1, 1, b"n", attributes())
    bench.opened(3, 1, b"n", attributes())
    bench.heal()
    assert [i.linked for i in bench.infos()] == [True]
    assert bench.read(3, 1, b"a") is Status.ERR_BAD_HANDLE


def test_between_equal_sides_the_name_is_of_who_changed_more() -> None:
    bench = Bench(2)
    bench.part([1], [2])
    bench.opened(1, 1, b"n", attributes())
    bench.opened(2, 1, b"n", attributes())
    for _ in range(5):
        bench.put(2, 1, b"a", b"two")
    bench.heal()
    bench.opened(1, 2, b"n", attributes())
    assert bench.read(1, 2, b"a") == b"two"
    assert bench.read(1, 1, b"a") is Status.ERR_NOT_EXIST  # its own goes on, empty


def test_ck_110_what_the_winning_side_deleted_and_nobody_uses_is_gone() -> None:
    bench = Bench(3)
    bench.opened(1, 1, b"n", attributes())
    bench.do(1, wire.Close(1))
    bench.part([1, 2], [3])
    assert bench.do(1, wire.Unlink(b"n")) is Status.OK
    bench.heal()
    assert bench.infos() == []


def test_what_the_winning_side_deleted_lives_while_the_other_side_has_it_open() -> None:
    bench = Bench(3)
    bench.opened(3, 1, b"n", attributes(0))
    bench.put(3, 1, b"a", b"kept")
    bench.part([1, 2], [3])  # the last close on this side: it is deleted there
    bench.heal()
    assert bench.read(3, 1, b"a") == b"kept"
    assert [i.opens for i in bench.infos()] == [1]
    bench.do(3, wire.Close(1))
    assert bench.infos() == []


def test_the_retention_of_what_came_from_the_other_side_goes_on() -> None:
    bench = Bench(3)
    bench.part([1, 2], [3])
    bench.opened(3, 1, b"n", attributes(10 * SECOND))
    bench.do(3, wire.Close(1))
    bench.heal()
    (info,) = bench.infos()
    assert info.deadline_ns > 0
    bench.wait(11 * SECOND)
    bench.wait(2 * SECOND)
    assert bench.infos() == []


def test_the_active_replica_is_none_where_its_node_has_it_not_open_any_more() -> None:
    bench = Bench(3)
    bench.opened(3, 1, b"n", attributes(flags=ASYNC))
    bench.opened(1, 1, b"n", attributes(flags=ASYNC))
    assert bench.do(3, wire.ActiveReplicaSet(1)) is Status.OK
    bench.part([1, 2], [3])
    bench.heal()
    assert [i.active_node for i in bench.infos()] == [0]


def test_sections_that_differ_are_marked_corrupted_where_the_policy_says_so() -> None:
    bench = Bench(3, Policy(Conflict.MARK_CORRUPTED))
    for node_id in (1, 3):
        bench.opened(node_id, 1, b"n", attributes())
    bench.put(1, 1, b"same", b"same")
    bench.put(1, 1, b"a", b"before")
    bench.part([1, 2], [3])
    bench.put(1, 1, b"a", b"large")
    bench.put(3, 1, b"a", b"small")
    bench.heal()
    machine = bench.hosts[2].replica.machine
    assert isinstance(machine, Checkpoints)
    (c,) = machine._checkpoints.values()
    assert c.sections[b"a"].state is SectionState.CORRUPTED
    assert c.sections[b"same"].state is SectionState.VALID
    assert c.sections[b"a"].data == b"large"


def test_sections_of_both_sides_are_united_where_the_policy_says_so() -> None:
    bench = Bench(3, Policy(Conflict.UNION))
    for node_id in (1, 3):
        bench.opened(node_id, 1, b"n", attributes())
    bench.part([1, 2], [3])
    bench.put(1, 1, b"a", b"large")
    bench.put(3, 1, b"a", b"small")
    bench.put(3, 1, b"b", b"small")
    bench.heal()
    assert bench.read(2, 1, b"a") is Status.ERR_BAD_HANDLE
    assert bench.read(1, 1, b"a") == b"large"
    assert bench.read(1, 1, b"b") == b"small"
    assert bench.infos()


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_discarded_is_kept_in_a_file_as_dump_shows_it(tmp_path: Path, kept: bool) -> None:  # noqa: FBT001
    bench = Bench(3)
    for node_id in (1, 3):
        bench.opened(node_id, 1, b"a/name", attributes())
    bench.part([1, 2], [3])
    bench.put(1, 1, b"a", b"large")
    bench.put(3, 1, b"a", b"small")
    bench.heal()
    (version,) = bench.hosts[3].discarded
    directory = tmp_path / "conflicts"
    said = Conflicts(directory if kept else None).discard(version)
    assert said["name"] == "a/name"
    if not kept:
        assert "file" not in said
        return
    (path,) = directory.iterdir()
    assert said["file"] == str(path)
    assert path.name.startswith("a%2Fname.")
    (line,) = map(json.loads, path.read_text(encoding="ascii").splitlines())
    assert base64.b64decode(line["data"]) == b"small"
