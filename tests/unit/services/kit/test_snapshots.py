"""Snapshots: whole or absent, written by a child while the service goes on, never of a dead one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from openais.node.poller import Poller
from openais.wire.codec import DecodeError
from services.kit.journal import AbandonedError, Journal
from services.kit.snapshots import SnapshotLimits, Snapshots

HISTORY = b"history"
DEADLINE_S = 20.0
FORK = SnapshotLimits(fork_bytes=0)


def journal(tmp_path: Path, node_id: int = 1) -> Journal:
    return Journal(tmp_path, "ckpt", node_id)


def written(tmp_path: Path, state: bytes = b"state", index: int = 7) -> Path:
    one = journal(tmp_path)
    descriptor = one.create()
    one.write(descriptor, HISTORY, index, (state[:2], state[2:]), lambda: True)
    os.close(descriptor)
    one.install()
    return one.path


class Service:
    """Snapshots, and the loop that waits for a child."""

    def __init__(self, tmp_path: Path, limits: SnapshotLimits) -> None:
        self.poller = Poller()
        self.journal = journal(tmp_path)
        self.snapshots = Snapshots(self.journal, limits, self.poller)

    def begin(self, parts: Iterable[bytes], index: int = 7) -> int | None:
        return self.snapshots.begin(HISTORY, index, lambda: parts, time.monotonic_ns())

    def collected(self) -> int | None:
        end = time.monotonic() + DEADLINE_S
        while self.snapshots.status()["snapshot_pid"]:
            assert time.monotonic() < end, "the child is not done"
            ready = {fd for fd in self.poller.poll(50) if isinstance(fd, int)}
            index = self.snapshots.collect(ready, time.monotonic_ns())
            if index is not None:
                return index
        return None


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(4096)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    found = journal(tmp_path).read()
    assert found is not None
    found.check()
    assert (found.history, found.index, bytes(found.state)) == (HISTORY, 7, b"state")


@pytest.mark.parametrize("position", [0, 20, 40, -40, -1])
def test_one_flipped_byte_makes_it_unusable(tmp_path: Path, position: int) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    found = journal(tmp_path).read()
    if found is not None:
        with pytest.raises(DecodeError):
            found.check()


@pytest.mark.parametrize("size", [0, 5, 18, 30, 60])
def test_a_cut_file_is_unusable(tmp_path: Path, size: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    found = journal(tmp_path).read()
    if found is not None:
        with pytest.raises(DecodeError):
            found.check()


def test_a_snapshot_of_another_node_is_not_taken_up(tmp_path: Path) -> None:
    written(tmp_path)
    assert journal(tmp_path, node_id=2).read() is None


def test_what_nobody_wants_any_more_is_given_up(tmp_path: Path) -> None:
    # The danger: a child whose parent was killed fills the disk.
    one = journal(tmp_path)
    descriptor = one.create()
    with pytest.raises(AbandonedError):
        one.write(descriptor, HISTORY, 1, endless(), lambda: False)
    os.close(descriptor)


def test_a_forked_child_writes_the_memory_of_the_moment_of_the_fork(tmp_path: Path) -> None:
    service = Service(tmp_path, FORK)
    state = [b"before"]
    assert service.begin(state) is None
    state[0] = b"after"
    assert service.collected() == 7
    found = service.journal.read()
    assert found is not None
    assert bytes(found.state) == b"before"


def test_a_small_state_is_durable_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path, SnapshotLimits())
    service.snapshots.loaded(5, 1)
    assert service.begin([b"small"]) == 7
    assert service.snapshots.stats.snapshots_forked == 0


def test_there_are_never_two_children(tmp_path: Path) -> None:
    service = Service(tmp_path, FORK)
    service.begin(endless())
    first = service.snapshots.status()["snapshot_pid"]
    service.begin(endless())
    assert service.snapshots.status()["snapshot_pid"] == first
    service.snapshots.wanted = True
    assert not service.snapshots.due(time.monotonic_ns())
    service.snapshots.abandon()


def test_a_child_that_takes_too_long_is_killed_and_the_old_snapshot_stays(tmp_path: Path) -> None:
    written(tmp_path)
    service = Service(tmp_path, FORK)
    service.begin(endless(), 9)
    late_ns = time.monotonic_ns() + FORK.timeout_ns
    assert service.snapshots.collect(set(), late_ns) is None
    assert service.snapshots.stats.snapshots_failed == 1
    found = service.journal.read()
    assert found is not None
    assert found.index == 7


def test_a_child_that_dies_is_a_failure_and_the_log_stays_due(tmp_path: Path) -> None:
    service = Service(tmp_path, FORK)
    service.snapshots.wanted = True
    service.begin(endless())
    os.kill(service.snapshots.status()["snapshot_pid"], signal.SIGKILL)
    assert service.collected() is None
    assert service.snapshots.stats.snapshots_failed == 1
    assert not service.snapshots.due(time.monotonic_ns())
    assert service.snapshots.due(time.monotonic_ns() + 10**10)


def broken() -> Iterator[bytes]:
    yield b"begin"
    raise ValueError("a bug in dump")


def test_an_exception_in_the_child_is_reported_and_ends_nothing_else(tmp_path: Path) -> None:
    service = Service(tmp_path, FORK)
    service.begin(broken())
    assert service.collected() is None
    assert service.snapshots.stats.snapshots_failed == 1


def descriptors() -> Iterator[bytes]:
    yield b",".join(sorted(os.fsencode(p) for p in Path("/proc/self/fd").iterdir()))


def test_a_child_holds_no_descriptor_of_the_service(tmp_path: Path) -> None:
    # The danger: clients and totemd do not see the end of a service whose child still writes.
    sockets = [os.eventfd(0) for _ in range(20)]
    service = Service(tmp_path, FORK)
    service.begin(descriptors())
    service.collected()
    for one in sockets:
        os.close(one)
    found = service.journal.read()
    assert found is not None
    assert len(bytes(found.state).split(b",")) <= 6, "standard ones, file, pipe, the listing"


def test_a_snapshot_is_due_by_bytes_by_entries_and_when_wanted(tmp_path: Path) -> None:
    now_ns = time.monotonic_ns()
    snapshots = Service(tmp_path, SnapshotLimits(log_bytes=100, log_entries=10)).snapshots
    assert not snapshots.due(now_ns)
    snapshots.log_bytes = 101
    assert snapshots.due(now_ns)
    snapshots.loaded(1000, 1)
    assert not snapshots.due(now_ns), "the state is larger"
    snapshots.log_entries = 11
    assert snapshots.due(now_ns)
    snapshots.log_entries = 0
    snapshots.wanted = True
    assert snapshots.due(now_ns)


def test_what_is_logged_while_a_child_writes_counts_for_the_next(tmp_path: Path) -> None:
    service = Service(tmp_path, FORK)
    service.snapshots.log_bytes = 100
    service.begin([b"state"])
    service.snapshots.log_bytes += 11
    assert service.collected() == 7
    assert service.snapshots.log_bytes == 11


def test_an_orderly_end_does_not_wait_longer_than_it_may(tmp_path: Path) -> None:
    service = Service(tmp_path, SnapshotLimits(fork_bytes=0, exit_ns=20_000_000))
    assert service.snapshots.last(HISTORY, 7, endless) is None
    assert service.snapshots.status()["snapshot_pid"] == 0
    assert service.journal.read() is None


def test_an_orderly_end_leaves_a_snapshot(tmp_path: Path) -> None:
    service = Service(tmp_path, FORK)
    assert service.snapshots.last(HISTORY, 7, lambda: [b"state"]) == 7
    assert service.journal.read() is not None


def test_a_full_disk_is_a_failure_and_not_the_end(tmp_path: Path) -> None:
    service = Service(tmp_path, SnapshotLimits())
    service.snapshots.loaded(1, 1)
    service.journal.path.mkdir()
    assert service.begin([b"state"]) is None
    assert service.snapshots.stats.snapshots_failed == 1
