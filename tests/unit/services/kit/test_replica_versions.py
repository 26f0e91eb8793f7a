"""Two releases of a service in one group: they agree on what they speak, and hold one state."""

from __future__ import annotations

import pytest

from openais.wire.codec import DecodeError, Table
from openais.wire.status import Status
from services.kit import entries, stream
from services.kit.machine import Machine
from tests.sim.replicas import Stage
from tests.unit.services.kit.releases import NEW, OLD, Add, Clear, New, Next, Old, OldAdd
from tests.unit.services.kit.test_replica import session


class Cluster(Stage):
    """Three nodes, each with its release."""

    def __init__(self, *releases: type[Old]) -> None:
        self.releases: dict[int, type[Old]] = dict(enumerate(releases, 1))
        self.numbers = dict.fromkeys(self.releases, 0)
        super().__init__(self._made)
        for node in self.releases:
            self.join(node, [1] if node > 1 else None)
            self.run()
            self.send(node, entries.SessionOpened(session(node)))
            self.run()

    def _made(self, node: int) -> Machine:
        return self.releases[node]()

    def ask(self, node: int, table: Table, operation: object) -> tuple[Status, bytes]:
        """Let a client of this release do one operation; return the answer."""
        self.numbers[node] += 1
        body = table.encode(operation)
        request = entries.Operation(0, session(node), self.numbers[node], 0, body)
        self.send(node, request)
        self.run()
        reply = self.hosts[node].replies[-1]
        assert reply.number == self.numbers[node]
        return reply.status, reply.body

    def upgrade(self, node: int, release: type[Old]) -> None:
        """Restart a service within its grace; what cannot go on from the seat joins anew."""
        assert self.take_snapshot(node)
        self.kill(node)
        self.releases[node] = release
        try:
            self.restart(node)
        except DecodeError:  # the state is of a version that the process does not speak
            self.rejoin(node)
        self.run()

    def spoken(self) -> set[int]:
        return {h.replica.versions.spoken.service for h in self.hosts.values() if not h.down}

    def counters(self) -> list[dict[bytes, int]]:
        return [h.replica.machine.counters for h in self.hosts.values()]  # type: ignore[attr-defined]


def test_one_old_member_keeps_the_group_at_the_old_version() -> None:
    made = Cluster(New, Old, New)
    assert made.spoken() == {1}
    answer = made.ask(1, NEW, Add(b"n", 5))
    assert answer == (Status.OK, OLD.encode(OLD.decode(answer[1]))), "answered as the old one does"
    assert made.counters() == [{b"n": 1}] * 3, "the amount does not exist in version 1"
    assert len(made.digests()) == 1


def test_an_operation_of_the_new_version_is_unknown_to_all_alike() -> None:
    # Danger: the new replicas apply it, the old one does not, and they differ for ever.
    made = Cluster(New, Old)
    assert made.ask(1, NEW, Clear(b"n"))[0] is Status.ERR_INVALID_PARAM
    assert len(made.digests()) == 1


def test_the_group_goes_up_when_the_last_old_process_is_replaced_in_its_seat() -> None:
    made = Cluster(Old, Old, Old)
    made.ask(1, OLD, OldAdd(b"n"))
    for node in (1, 2, 3):
        assert made.spoken() == {1}
        made.upgrade(node, New)
        made.ask(node, OLD, OldAdd(b"n"))
        assert len(made.digests()) == 1
    assert made.spoken() == {2}
    made.ask(2, NEW, Add(b"n", 5))
    made.ask(3, NEW, Clear(b"m"))
    assert made.counters() == [{b"n": 9, b"m": 0}] * 3
    assert len(made.digests()) == 1


def test_the_group_goes_down_again_when_a_process_is_rolled_back() -> None:
    made = Cluster(New, New, New)
    made.ask(1, NEW, Add(b"n", 5))
    assert made.spoken() == {2}
    made.upgrade(2, Old)
    assert made.live()
    assert made.spoken() == {1}
    made.ask(1, OLD, OldAdd(b"n"))
    assert made.counters() == [{b"n": 6}] * 3
    assert len(made.digests()) == 1


def test_the_group_goes_up_at_the_view_without_the_old_member() -> None:
    made = Cluster(New, New, Old)
    made.leave(3)
    made.run()
    assert made.spoken() == {2}
    made.ask(1, NEW, Add(b"n", 5))
    assert len(made.digests()) == 1


def test_a_process_that_forgot_the_old_version_is_left_out_and_says_why() -> None:
    made = Cluster(Old, New)
    made.releases[3] = Next
    made.join(3, [1])
    made.run()
    assert made.hosts[3].left_out == [
        "the group speaks version 1 of the protocol of its service, this process 2 to 2"
    ]
    made.leave(3)
    made.run()
    assert made.live()
    assert made.hosts[1].replica.view is not None
    assert made.hosts[1].replica.view.members == (1, 2)
    made.ask(1, OLD, OldAdd(b"n"))
    assert len(made.digests()) == 1


def test_a_successor_that_cannot_speak_the_version_does_not_take_the_seat_up() -> None:
    made = Cluster(Old, Old)
    assert made.take_snapshot(2)
    data, _ = made.hosts[2].snapshot or (b"", 0)
    made.releases[2] = Next
    replica = made.fresh(2)
    with pytest.raises(DecodeError, match="the group speaks version 1"):
        stream.restore(replica, memoryview(data), 0)
