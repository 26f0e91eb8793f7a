"""SAI-AIS-CKPT: sides that were apart. Ids as in docs/conformance.md.

The replicas and the state machine are the real ones; the ring under them is simulated, so that
both sides of a split do exactly what a test says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from openais.wire import ckpt as wire
from openais.wire.status import ONE_SECOND_NS, TIME_END, Status
from services.ckpt.state import Checkpoints
from services.kit import entries
from services.kit.machine import Caller, Context, NodeId, SessionId
from services.kit.quorum import Ballot
from tests.conformance.checkpoints import RW, RWC, D
from tests.sim.replicas import Stage

KEPT = dataclasses.replace(D, retention_duration=TIME_END)
LEVEL = wire.Level.B_02


class Nodes:
    """Replicas of the checkpoint service, a session at each.

    Args:
        count: how many.
        quorum: more than half of them are needed.
        first_level: nodes whose session is of level B.01.
    """

    def __init__(
        self, count: int, *, quorum: bool = False, first_level: tuple[int, ...] = ()
    ) -> None:
        ballot = (Ballot(1, count),) if quorum else ()
        self.stage = Stage(lambda _node: Checkpoints(), *ballot)
        self._numbers = dict.fromkeys(range(1, count + 1), 0)
        for node_id in self._numbers:
            self.stage.join(node_id, [1] if node_id > 1 else None)
            self.stage.run()
        for node_id in self._numbers:
            opened = entries.SessionOpened(self.session(node_id), node_id in first_level)
            self.stage.send(node_id, opened)
        self.stage.run()

    @staticmethod
    def session(node_id: int) -> SessionId:
        return SessionId(b"session of node%2d" % node_id)

    def send(self, node_id: int, operation: Any) -> None:
        self._numbers[node_id] += 1
        number, body = self._numbers[node_id], wire.TABLE.encode(operation)
        now_ns = self.stage.now().wall_ns
        self.stage.send(node_id, entries.Operation(now_ns, self.session(node_id), number, 0, body))

    def do(self, node_id: int, operation: Any) -> Status:
        self.send(node_id, operation)
        self.stage.run()
        return self.stage.hosts[node_id].replies[-1].status

    def open(self, node_id: int, handle: int = 1, name: bytes = b"n") -> None:
        operation = wire.Open(handle, name, int(RWC), KEPT, LEVEL)
        assert self.do(node_id, operation) is Status.OK

    def write(self, node_id: int, section: bytes, data: bytes, handle: int = 1) -> Status:
        return self.do(node_id, wire.SectionOverwrite(handle, section, data, create=True))

    def machine(self, node_id: int) -> Checkpoints:
        machine = self.stage.hosts[node_id].replica.machine
        assert isinstance(machine, Checkpoints)
        return machine

    def ask(self, node_id: int, operation: Any) -> Any:
        view = self.stage.hosts[node_id].replica.view
        assert view is not None
        caller = Caller(NodeId(node_id), self.session(node_id), 0)
        context = Context(self.stage.now().wall_ns, NodeId(node_id), caller, view)
        return self.machine(node_id).read(operation, context)

    def content(self, node_id: int, name: bytes = b"n") -> dict[bytes, bytes]:
        answer = self.ask(node_id, wire.CheckpointDump(name))
        assert answer.status is Status.OK, answer
        return {s.section.section_id: s.data for s in answer.result.sections}

    def linked(self, node_id: int) -> list[bytes]:
        told = self.ask(node_id, wire.CheckpointsGet()).result.checkpoints
        return [i.name for i in told if i.linked]

    def merge(self) -> None:
        self.stage.merge()
        self.stage.run()
        assert self.stage.live()
        assert len(self.stage.digests()) == 1
        for node_id in self._numbers:
            self.machine(node_id).check()


@pytest.mark.parametrize("late_writer", [1, 3])
def test_ck_108_after_a_split_one_side_s_content_is_everywhere_and_complete(
    late_writer: int,
) -> None:
    nodes = Nodes(3)
    for node_id in (1, 2, 3):
        nodes.open(node_id)
    nodes.write(1, b"before", b"0")
    nodes.stage.split([1, 2], [3])
    nodes.stage.run()
    nodes.write(1, b"both", b"large")
    nodes.write(2, b"large only", b"1")
    nodes.write(3, b"both", b"small")
    nodes.write(3, b"small only", b"1")
    for k in range(9):  # more changes do not make a side larger
        nodes.write(late_writer, b"last", b"%d" % k)
    nodes.merge()
    expected = {b"before": b"0", b"both": b"large", b"large only": b"1"}
    if late_writer == 1:
        expected[b"last"] = b"8"
    assert [nodes.content(n) for n in (1, 2, 3)] == [expected] * 3
    assert nodes.write(3, b"after", b"the handle of the smaller side lives on") is Status.OK


def test_ck_109_a_name_created_on_both_sides_belongs_to_one_afterwards() -> None:
    nodes = Nodes(3)
    nodes.stage.split([1, 2], [3])
    nodes.stage.run()
    nodes.open(1)
    nodes.open(3)
    nodes.write(1, b"a", b"large")
    nodes.write(3, b"a", b"small")
    nodes.merge()
    assert [nodes.linked(n) for n in (1, 2, 3)] == [[b"n"]] * 3
    assert nodes.content(3) == {b"a": b"large"}
    assert nodes.write(3, b"a", b"detached, and still mine") is Status.OK
    read = nodes.ask(3, wire.Read(1, (wire.ReadElement(b"a", 0, None),)))
    assert read.result == wire.ReadData((b"detached, and still mine",))
    assert nodes.content(3) == {b"a": b"large"}
    assert nodes.do(3, wire.Close(1)) is Status.OK
    assert nodes.machine(1).describe()["checkpoints"] == 1


def test_ck_110_what_the_winning_side_deleted_and_nobody_uses_stays_deleted() -> None:
    nodes = Nodes(3)
    nodes.open(1)
    nodes.do(1, wire.Close(1))
    nodes.stage.split([1, 2], [3])
    nodes.stage.run()
    assert nodes.do(1, wire.Unlink(b"n")) is Status.OK
    assert nodes.linked(3) == [b"n"]
    nodes.merge()
    assert [nodes.linked(n) for n in (1, 2, 3)] == [[]] * 3
    assert nodes.do(3, wire.Open(5, b"n", int(RW), None, LEVEL)) is Status.ERR_NOT_EXIST


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_ck_112_a_change_during_a_synchronisation_leaves_nothing_half_done(steps: int) -> None:
    nodes = Nodes(3)
    nodes.open(1)
    big = bytes(range(256)) * 1_024
    large = dataclasses.replace(KEPT, max_section_size=1 << 20, checkpoint_size=0)
    nodes.do(1, wire.Open(2, b"big", int(RWC), large, LEVEL))
    for k in range(4):
        nodes.write(1, b"%d" % k, big, handle=2)
    nodes.stage.join(4, [1])
    nodes._numbers[4] = 0
    for step in range(steps):
        nodes.stage.step(1 + step % 4)
    nodes.stage.leave(2)
    nodes.stage.run()
    nodes.stage.wait(40 * ONE_SECOND_NS)
    assert nodes.stage.live()
    assert len(nodes.stage.digests(1, 3, 4)) == 1
    assert nodes.content(4, b"big") == {b"%d" % k: big for k in range(4)}


@pytest.mark.parametrize("delivered", [False, True])
def test_ck_113_a_write_of_a_dying_node_is_applied_by_all_or_by_none(delivered: bool) -> None:  # noqa: FBT001
    nodes = Nodes(3)
    for node_id in (1, 3):
        nodes.open(node_id)
    nodes.write(1, b"a", b"old")
    nodes.send(3, wire.SectionOverwrite(1, b"a", b"new"))
    if delivered:
        nodes.stage.step(3)
    nodes.stage.leave(3)
    nodes.stage.run()
    expected = {b"a": b"new" if delivered else b"old"}
    assert [nodes.content(n) for n in (1, 2)] == [expected] * 2
    assert len(nodes.stage.digests(1, 2)) == 1


def test_ck_111_a_minority_s_handle_stays_refused_and_a_new_one_sees_the_majority_s_data() -> None:
    nodes = Nodes(3, quorum=True)
    for node_id in (1, 3):
        nodes.open(node_id)
    nodes.stage.split([1, 2], [3])
    nodes.stage.run()
    nodes.write(1, b"a", b"majority")
    nodes.write(3, b"a", b"minority")
    assert nodes.stage.hosts[3].stale == [nodes.session(3)]
    nodes.stage.merge()
    nodes.stage.run()
    assert nodes.session(3) not in nodes.stage.hosts[3].replica.sessions.open
    nodes.stage.send(3, entries.SessionOpened(SessionId(b"a new session 3.")))
    nodes.stage.run()
    assert nodes.content(3) == {b"a": b"majority"}
    assert len(nodes.stage.digests()) == 1


def test_com_42_43_44_what_is_on_its_way_is_refused_and_old_handles_stay_so() -> None:
    nodes = Nodes(3, quorum=True)
    nodes.open(3)
    nodes.send(3, wire.SectionOverwrite(1, b"a", b"late", create=True))
    nodes.stage.split([1, 2], [3])
    nodes.stage.run()
    assert nodes.stage.hosts[3].replies[-1].status is Status.ERR_UNAVAILABLE
    nodes.stage.merge()
    nodes.stage.run()
    assert nodes.session(3) not in nodes.stage.hosts[1].replica.sessions.open, "refused for good"
    later = SessionId(b"a new session 3.")
    nodes.stage.send(3, entries.SessionOpened(later))
    nodes.stage.run()
    assert later in nodes.stage.hosts[1].replica.sessions.open


def test_com_45_a_handle_of_level_b_01_is_told_to_try_again_and_lives_on() -> None:
    nodes = Nodes(3, quorum=True, first_level=(3,))
    nodes.open(3)
    nodes.stage.split([1, 2], [3])
    nodes.stage.run()
    assert nodes.write(3, b"a", b"x") is Status.ERR_TRY_AGAIN
    nodes.stage.merge()
    nodes.stage.run()
    assert nodes.write(3, b"a", b"x") is Status.OK
