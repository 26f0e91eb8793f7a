"""SAI-AIS-CKPT: active replicas, synchronize, nodes that come and go. Ids: docs/conformance.md."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from openais import ckpt, errors
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, TIME_END
from tests.conformance.checkpoints import (
    AC,
    RW,
    RWC,
    SHORT,
    A,
    D,
    R,
    changed,
    exists,
    info,
    refused,
)
from tests.integration.cluster import Cluster, wait_for

MIB = 1 << 20
BIG = changed(D, max_sections=1, max_section_size=64 * MIB, checkpoint_size=0)


def test_ck_087_nothing_to_synchronize_where_all_writes_are(client: ckpt.Client, name: str) -> None:
    refused(errors.BadOperationError, client.open(name, D, RWC).synchronize)


def test_ck_088_synchronize(client: ckpt.Client, name: str) -> None:
    c = client.open(name, A, RWC)
    c["a"] = b"x"
    c.synchronize(5 * ONE_SECOND_NS)


def test_ck_089_synchronize_without_time(client: ckpt.Client, name: str) -> None:
    c = client.open(name, A, RWC)
    refused(errors.AisTimeoutError, lambda: c.synchronize(0))
    refused(errors.InvalidParamError, lambda: c.synchronize(-1))


def test_ck_090_synchronize_by_callback(client: ckpt.Client, cluster: Cluster, name: str) -> None:
    refused(errors.InitError, lambda: client.open(name, A, RWC).synchronize_async(1))
    seen: list[tuple[int, str]] = []
    with ckpt.Client(
        None, lambda i, s: seen.append((i, s.name)), run_dir=cluster.run_dir(1)
    ) as able:
        able.open(name, None, RW).synchronize_async(9)
        wait_for(lambda: able.dispatch() is not None and seen, "the callback")
    assert seen == [(9, "OK")]


def test_ck_091_synchronize_needs_write(client: ckpt.Client, name: str) -> None:
    client.open(name, A, RWC)
    refused(errors.AccessError, client.open(name, None, R).synchronize)


def test_ck_092_others_have_no_active_replica_to_set(client: ckpt.Client, name: str) -> None:
    refused(errors.BadOperationError, client.open(f"{name}-d", D, RWC).active_replica_set)
    refused(errors.BadOperationError, client.open(name, A, RWC).active_replica_set)


def test_ck_093_without_an_active_replica_nothing_can_be_done(
    client: ckpt.Client, name: str
) -> None:
    c = client.open(name, AC, RWC)
    for call in (
        lambda: c.write([("a", 0, b"x")]),
        lambda: c.overwrite("a", b"x"),
        lambda: c.read([("a", 0, 1)]),
        c.status,
        lambda: c.section_create("a"),
        lambda: c.section_delete("a"),
        lambda: c.section_expiration_time_set("a", 1),
        c.iterate,
        c.synchronize,
    ):
        refused(errors.NotExistError, call)
    c.retention_duration_set(7)  # goes on working, as do open, close and unlink
    client.open(name, None, RW).close()


def test_ck_094_with_an_active_replica_all_works(client: ckpt.Client, name: str) -> None:
    c = client.open(name, AC, RWC)
    c.active_replica_set()
    c.active_replica_set()
    c.section_create("a", b"x")
    c.write([("a", 0, b"y")])
    assert c["a"] == b"y"
    assert c.status().number_of_sections == 1
    c.close()
    refused(errors.NotExistError, client.open(name, None, RW).status)  # its last open went


def _refuses(checkpoint: ckpt.Checkpoint) -> bool:
    try:
        checkpoint.status()
    except errors.NotExistError:
        return True
    return False


def test_ck_095_the_node_of_the_active_replica_goes(
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


def test_ck_096_active_replica_set_needs_write(client: ckpt.Client, name: str) -> None:
    client.open(name, AC, RWC)
    refused(errors.AccessError, client.open(name, None, R).active_replica_set)


def test_ck_099_a_read_anywhere_sees_every_acknowledged_write(
    client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    here, there = client.open(name, A, RWC), other.open(name, None, RW)
    for k in range(1_000):
        here["a"] = b"%d" % k
        assert there["a"] == b"%d" % k


def test_ck_100_a_joining_node_has_it_all_and_what_is_timed_104_105(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    c["plain"] = bytes(range(256))
    soon = time.time_ns() + 20 * ONE_SECOND_NS
    c.section_create("timed", b"x", soon)
    retained = changed(D, retention_duration=20 * ONE_SECOND_NS)
    client.open(f"{name}-retained", retained, RWC).close()
    before = list(c.iterate())
    deadline_ns = info(client, f"{name}-retained").deadline_ns
    cluster.supervisorctl(3, "restart", "cluster")
    cluster.up()
    with ckpt.Client(run_dir=cluster.run_dir(3)) as third:
        copy = third.open(name, None, RW)
        assert info(third, f"{name}-retained").deadline_ns == deadline_ns
        assert list(copy.iterate()) == before
        assert copy["plain"] == bytes(range(256))
        wait_for(lambda: "timed" not in copy, "it expires after the join too")
        assert time.time_ns() >= soon
        wait_for(lambda: not exists(third, f"{name}-retained"), "the retention ends")
        assert time.time_ns() >= deadline_ns
    cluster.wait_equal("ckpt")


def test_ck_101_a_section_larger_than_a_message_anywhere(
    cluster: Cluster, client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    data = os.urandom(MIB) * 20
    c = client.open(name, BIG, RWC)
    c.overwrite(b"", data)
    assert other.open(name, None, R).read([(b"", 0, None)]) == (data,)
    cluster.supervisorctl(3, "restart", "cluster")
    cluster.up()
    with ckpt.Client(run_dir=cluster.run_dir(3)) as third:
        copy = third.open(name, None, RW)
        assert copy.read([(b"", 0, None)], local=True) == (data,)
        copy.write([(b"", 20 * MIB + 5, b"end"), (b"", MIB, b"middle")])
        assert c.read([(b"", 20 * MIB - 1, None), (b"", MIB, 6)]) == (
            data[-1:] + bytes(5) + b"end",
            b"middle",
        )
    client.unlink(name)


def test_ck_102_a_node_dies_and_its_opens_end(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    third = ckpt.Client(run_dir=cluster.run_dir(3))
    third.open(name, SHORT, RWC)
    cluster.kill_node(3)
    wait_for(lambda: not exists(client, name), "it is deleted")
    third.close()
    cluster.up()


def test_ck_103_a_killed_process_releases_its_opens(
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
    wait_for(lambda: not names & {i.name for i in client.checkpoints()}, "both are deleted", 2.0)
    client.open(f"{name}-unlinked", D, RWC)


def test_ck_106_a_name_created_again_when_the_retention_is_over(
    client: ckpt.Client, name: str
) -> None:
    instant = changed(D, retention_duration=ONE_MILLISECOND_NS)
    for _ in range(30):
        client.open(name, instant, RWC).close()
        again = client.open(name, instant, RWC)
        again["a"] = b"x"
        assert again["a"] == b"x"
        again.close()


class _Writer(threading.Thread):
    """Adds to its own section until told to stop; keeps what went wrong."""

    def __init__(self, run_dir: Path, name: str, section: str) -> None:
        super().__init__(daemon=True)
        self.written = 0
        self.failures: list[errors.AisError] = []
        self._section = section
        self._stopping = threading.Event()
        self._client = ckpt.Client(run_dir=run_dir)
        self._checkpoint = self._client.open(name, None, RW)

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._checkpoint[self._section] = b"%d" % (self.written + 1)
                self.written += 1
        except errors.AisError as error:
            self.failures.append(error)

    def finish(self) -> int:
        self._stopping.set()
        self.join(30)
        self._client.close()
        return self.written


def test_ck_107_writers_everywhere_during_joins_and_kills_leave_equal_replicas(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, changed(D, retention_duration=TIME_END), RWC)
    writers = [_Writer(cluster.run_dir(n), name, f"w{n}") for n in (1, 2)]
    for writer in writers:
        writer.start()
    cluster.kill(1, "ckpt")
    cluster.kill_node(3)
    cluster.up()
    cluster.kill(3, "ckpt")
    cluster.up()
    counts = [w.finish() for w in writers]
    assert [w.failures for w in writers] == [[], []]
    assert [int(c[f"w{n}"]) for n in (1, 2)] == counts
    cluster.wait_equal("ckpt")
    client.unlink(name)


def test_ck_113_a_large_write_of_a_dying_node_happens_wholly_or_not_at_all(
    cluster: Cluster, client: ckpt.Client, other: ckpt.Client, name: str
) -> None:
    c = client.open(name, changed(BIG, retention_duration=TIME_END), RWC)
    c.overwrite(b"", b"old")
    child = os.fork()
    if child == 0:
        own = ckpt.Client(run_dir=cluster.run_dir(3)).open(name, None, RW)
        os.kill(os.getpid(), signal.SIGSTOP)
        own.overwrite(b"", b"n" * (60 * MIB))
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    before = _delivered(cluster)
    os.kill(child, signal.SIGCONT)
    wait_for(lambda: _delivered(cluster) > before, "the write is on its way")
    cluster.kill_node(3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for(lambda: info(client, name).opens == 1, "the node's opens are gone")
    here, there = c.status().memory_used, other.open(name, None, R).status().memory_used
    assert here == there
    assert here in (3, 60 * MIB)
    cluster.up()
    client.unlink(name)
    cluster.wait_equal("ckpt")


def _delivered(cluster: Cluster) -> int:
    document = cluster.status(1, "ckpt")
    return 0 if document is None else int(document["index"])


def test_ck_114_calls_during_a_synchronisation_end_well(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, changed(D, retention_duration=TIME_END), RWC)
    writer = _Writer(cluster.run_dir(1), name, "w")
    writer.start()
    cluster.supervisorctl(3, "restart", "cluster")
    cluster.up()
    count = writer.finish()
    assert writer.failures == []
    assert int(c["w"]) == count
    client.unlink(name)


def test_ck_120_opens_and_iterations_leave_nothing_behind(
    cluster: Cluster, client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    c.section_create("a")

    def rounds(count: int) -> None:
        for _ in range(count):
            client.open(name, None, RW).close()
            list(c.iterate())

    rounds(300)
    files = len(list(Path("/proc/self/fd").iterdir()))
    before = cluster.wait_live(1, "ckpt")["machine"]
    rounds(1_000)
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert info(client, name).opens == 1
    assert cluster.wait_live(1, "ckpt")["machine"]["memory_bytes"] == before["memory_bytes"]
