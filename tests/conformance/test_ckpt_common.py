"""The programming model of all services, with checkpoints. Ids as in docs/conformance.md."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openais import ckpt, errors
from openais.ckpt import DispatchFlags
from openais.wire.status import ONE_SECOND_NS, TIME_END, TIME_UNKNOWN, Status
from tests.conformance.checkpoints import RW, RWC, A, D, changed, exists, info, refused
from tests.integration.cluster import Cluster, wait_for

CYCLES = 300


def readable(client: ckpt.Client) -> bool:
    return bool(select.select([client], [], [], 0)[0])


class Opener:
    """A handle whose opens come by callback."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: list[tuple[int, ckpt.Checkpoint | None, Status]] = []
        self.client = ckpt.Client(self._opened, run_dir=cluster.run_dir(1), level="B.01")
        self.inside: Callable[[], Any] = lambda: None

    def _opened(self, invocation: int, opened: ckpt.Checkpoint | None, status: Status) -> None:
        self.seen.append((invocation, opened, status))
        self.inside()

    def pend(self, name: str, *invocations: int) -> None:
        """Let callbacks wait."""
        for invocation in invocations:
            self.client.open_async(invocation, name, D, RWC)
        wait_for(lambda: len(self.client._queue) >= len(invocations), "all callbacks wait")


@pytest.fixture
def opener(cluster: Cluster) -> Any:
    made = Opener(cluster)
    yield made
    made.client.close()


def test_com_01_a_handle_with_all_callbacks(cluster: Cluster) -> None:
    with ckpt.Client(
        lambda *_: None, lambda *_: None, level="B.01", run_dir=cluster.run_dir(1)
    ) as client:
        assert client.fileno() >= 0


def test_com_02_a_handle_without_callbacks(client: ckpt.Client, name: str) -> None:
    client.open(name, D, RWC)


def test_com_03_each_callback_may_be_left_out(cluster: Cluster, name: str) -> None:
    with ckpt.Client(None, lambda *_: None, run_dir=cluster.run_dir(1)) as client:
        refused(errors.InitError, lambda: client.open_async(1, name, D, RWC))
        client.open(name, A, RWC).synchronize_async(1)


@pytest.mark.parametrize("level", ["A.01", "C.01", "Z.255.255"])
def test_com_06_07_another_release_is_told_the_one_that_is_served(
    cluster: Cluster, level: str
) -> None:
    error = refused(
        errors.VersionError, lambda: ckpt.Client(level=level, run_dir=cluster.run_dir(1))
    )
    assert str(error.detail) == "B.02.03"


def test_com_08_a_major_version_above_is_told_the_highest(cluster: Cluster) -> None:
    error = refused(
        errors.VersionError, lambda: ckpt.Client(level="B.03", run_dir=cluster.run_dir(1))
    )
    assert str(error.detail) == "B.02.03"


@pytest.mark.parametrize("level", ["B.01.00", "B.01.255", "B.1", "B.2.7"])
def test_com_09_the_minor_version_is_ignored(cluster: Cluster, level: str) -> None:
    with ckpt.Client(level=level, run_dir=cluster.run_dir(1)) as client:
        assert client.level == int(level.split(".")[1])


def test_com_10_the_version_answered_is_accepted(client: ckpt.Client, cluster: Cluster) -> None:
    with ckpt.Client(level=str(client.version), run_dir=cluster.run_dir(1)) as again:
        assert again.version == client.version


@pytest.mark.parametrize("level", ["B.00", "B.00.01", "", "B", "b.01", "B.01.01.01", "B.1000"])
def test_com_11_what_is_no_version(cluster: Cluster, level: str) -> None:
    refused(errors.VersionError, lambda: ckpt.Client(level=level, run_dir=cluster.run_dir(1)))


def test_com_12_two_handles_are_independent(client: ckpt.Client, cluster: Cluster) -> None:
    second = ckpt.Client(run_dir=cluster.run_dir(1))
    assert second.fileno() != client.fileno()
    second.close()
    assert isinstance(client.checkpoints(), tuple)


def test_com_13_one_descriptor_and_idle_it_is_not_readable(client: ckpt.Client) -> None:
    assert client.fileno() == client.fileno()
    assert not readable(client)


def test_com_15_no_descriptor_of_a_closed_handle(client: ckpt.Client) -> None:
    client.close()
    refused(errors.BadHandleError, client.fileno)


@pytest.mark.parametrize("flags", [DispatchFlags.ONE, DispatchFlags.ALL])
def test_com_16_17_dispatch_with_nothing_pending_returns_at_once(
    client: ckpt.Client, flags: DispatchFlags
) -> None:
    begin = time.monotonic()
    assert client.dispatch(flags) == 0
    assert time.monotonic() - begin < 5, "it does not wait"


def test_com_18_one_runs_one(opener: Opener, name: str) -> None:
    opener.pend(name, 1, 2)
    assert opener.client.dispatch(DispatchFlags.ONE) == 1
    assert readable(opener.client)
    assert opener.client.dispatch(DispatchFlags.ONE) == 1
    assert not readable(opener.client)
    assert [i for i, _, _ in opener.seen] == [1, 2]


def test_com_19_all_runs_all_in_order(opener: Opener, name: str) -> None:
    opener.pend(name, 5, 3, 4)
    assert opener.client.dispatch(DispatchFlags.ALL) == 3
    assert [i for i, _, _ in opener.seen] == [5, 3, 4]


@pytest.mark.parametrize("flags", [0, 4, 5, -1])
def test_com_20_unknown_dispatch_flags(client: ckpt.Client, flags: int) -> None:
    refused(errors.InvalidParamError, lambda: client.dispatch(flags))


def test_com_21_dispatch_on_a_closed_handle(client: ckpt.Client) -> None:
    client.close()
    refused(errors.BadHandleError, client.dispatch)


def test_com_22_finalize_wakes_a_blocked_dispatch(opener: Opener) -> None:
    ended: list[int] = []
    thread = threading.Thread(
        target=lambda: ended.append(opener.client.dispatch(DispatchFlags.BLOCKING))
    )
    thread.start()
    opener.client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert ended in ([0], [])  # []: it began after the close, and was refused


def test_com_23_finalize_may_be_repeated_and_the_handle_stays_bad(client: ckpt.Client) -> None:
    client.close()
    client.close()
    refused(errors.BadHandleError, client.checkpoints)


def test_com_24_finalize_inside_a_callback_drops_the_rest(opener: Opener, name: str) -> None:
    opener.pend(name, 1, 2, 3)
    opener.inside = opener.client.close
    assert opener.client.dispatch(DispatchFlags.ALL) == 1
    assert [i for i, _, _ in opener.seen] == [1]


def test_com_25_a_callback_may_call_what_blocks(opener: Opener, name: str) -> None:
    opener.pend(name, 1)
    found: list[int] = []

    def inside() -> None:
        opened = opener.seen[-1][1]
        assert opened is not None
        opened["a"] = b"x"
        found.append(opened.status().number_of_sections)

    opener.inside = inside
    opener.client.dispatch()
    assert found == [1]


def test_com_26_every_call_after_finalize(client: ckpt.Client, name: str) -> None:
    c = client.open(name, A, RWC)
    iteration = c.iterate()
    c["a"] = b"x"
    client.close()
    calls: list[Callable[[], Any]] = [
        lambda: client.open(name, NOTHING_VALID, 0, -1),
        lambda: client.open_async(1, name, D, RWC),
        lambda: client.unlink(name),
        client.checkpoints,
        client.fileno,
        client.dispatch,
        c.status,
        c.iterate,
        lambda: c.retention_duration_set(-1),
        c.active_replica_set,
        lambda: c.section_create("i" * 99),
        lambda: c.section_delete(""),
        lambda: c.section_expiration_time_set("a", -1),
        lambda: c.write([]),
        lambda: c.overwrite("a", b""),
        lambda: c.read([]),
        lambda: c.synchronize(-1),
        lambda: c.synchronize_async(1),
    ]
    for call in calls:
        refused(errors.BadHandleError, call)
    assert list(iteration) == [], "it was empty when it began"


NOTHING_VALID = changed(D, max_sections=0)


def in_child(function: Callable[[], bool]) -> bool:
    """Run a function in a forked child; return what it returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if function() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def is_bad(call: Callable[[], Any]) -> bool:
    try:
        call()
    except errors.BadHandleError:
        return True
    return False


def test_com_27_a_forked_child_cannot_use_its_parent_s_handle(
    client: ckpt.Client, name: str
) -> None:
    c = client.open(name, D, RWC)
    calls: list[Callable[[], Any]] = [
        client.checkpoints,
        client.dispatch,
        client.fileno,
        c.status,
        c.iterate,
    ]
    assert in_child(lambda: all(is_bad(call) for call in calls))
    c["a"] = b"the parent goes on"


def test_com_28_finalize_in_a_child_leaves_the_parent_alone(client: ckpt.Client, name: str) -> None:
    c = client.open(name, D, RWC)

    def finalize() -> bool:
        client.close()
        return True

    assert in_child(finalize)
    c["a"] = b"x"
    assert c["a"] == b"x"
    assert info(client, name).opens == 1


def test_com_29_a_child_may_have_a_handle_of_its_own(
    client: ckpt.Client, cluster: Cluster, name: str
) -> None:
    c = client.open(name, D, RWC)

    def own() -> bool:
        with ckpt.Client(run_dir=cluster.run_dir(1)) as mine, mine.open(name, None, RW) as opened:
            opened["child"] = b"x"
        return True

    assert in_child(own)
    assert "child" in c


def test_com_30_many_threads_share_a_handle_and_get_their_own_answers(
    client: ckpt.Client, name: str
) -> None:
    c = client.open(name, changed(D, max_sections=8, checkpoint_size=0), RWC)
    wrong: list[tuple[int, int]] = []

    def work(mine: int) -> None:
        key = str(mine)
        for k in range(625):
            c[key] = b"%d/%d" % (mine, k)
            if c[key] != b"%d/%d" % (mine, k):
                wrong.append((mine, k))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(t.is_alive() for t in threads)
    assert wrong == []
    assert {bytes(c[str(n)]) for n in range(8)} == {b"%d/624" % n for n in range(8)}


def test_com_31_two_threads_dispatch_and_each_callback_runs_once(opener: Opener, name: str) -> None:
    invocations = list(range(200))
    opener.pend(name, *invocations)
    threads = [threading.Thread(target=opener.client.dispatch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(i for i, _, _ in opener.seen) == invocations


def test_com_32_a_call_that_needs_a_callback(client: ckpt.Client, name: str) -> None:
    refused(errors.InitError, lambda: client.open_async(1, name, D, RWC))
    c = client.open(name, A, RWC)
    refused(errors.InitError, lambda: c.synchronize_async(1))


@pytest.mark.parametrize("timeout_ns", [-1, TIME_UNKNOWN])
def test_com_33_a_negative_timeout(client: ckpt.Client, name: str, timeout_ns: int) -> None:
    refused(errors.InvalidParamError, lambda: client.open(name, D, RWC, timeout_ns))
    c = client.open(name, A, RWC)
    refused(errors.InvalidParamError, lambda: c.synchronize(timeout_ns))


def test_com_34_the_longest_timeout_does_not_overflow(client: ckpt.Client, name: str) -> None:
    client.open(name, A, RWC, TIME_END).synchronize(TIME_END)


@pytest.mark.parametrize("length", [257, 65_535])
def test_com_35_a_name_that_is_too_long(client: ckpt.Client, length: int) -> None:
    refused(errors.InvalidParamError, lambda: client.open("n" * length, D, RWC))


def test_com_36_a_name_of_256_bytes(client: ckpt.Client, name: str) -> None:
    longest = name.ljust(256, "x")
    client.open(longest, changed(D, retention_duration=0), RWC)["a"] = b"x"
    assert client.open(longest, None, RW)["a"] == b"x"


def test_com_37_equal_bytes_are_one_name_whatever_type_they_have(
    client: ckpt.Client, name: str
) -> None:
    client.open(f"{name}-\u00e4\udcff", D, RWC)["a"] = b"x"
    same = f"{name}-\u00e4".encode() + b"\xff"
    assert client.open(same, None, RW)["a"] == b"x"


def test_com_39_a_killed_process_is_noticed(
    client: ckpt.Client, cluster: Cluster, name: str
) -> None:
    child = os.fork()
    if child == 0:
        ckpt.Client(run_dir=cluster.run_dir(1)).open(name, changed(D, retention_duration=0), RWC)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    assert exists(client, name)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for(lambda: not exists(client, name), "its open is released", 2.0)


@pytest.mark.parametrize("invocation", [0, (1 << 64) - 1])
def test_com_41_an_invocation_comes_back_unchanged(
    opener: Opener, name: str, invocation: int
) -> None:
    opener.pend(name, invocation, invocation)
    opener.client.dispatch()
    assert [i for i, _, _ in opener.seen] == [invocation, invocation]


def test_com_46_a_service_that_is_killed_is_a_pause_and_one_that_forgot_everything_an_error(
    cluster: Cluster, name: str
) -> None:
    with ckpt.Client(run_dir=cluster.run_dir(3)) as handle:
        c = handle.open(name, D, RWC)
        pid = cluster.kill(3, "ckpt")
        c["a"] = b"after the pause"
        cluster.wait_restarted(3, "ckpt", pid)
        assert c["a"] == b"after the pause"
        cluster.supervisorctl(3, "stop", "ckpt")
        try:
            wait_for(lambda: 3 not in _members(cluster), "the others go on without it")
        finally:
            cluster.supervisorctl(3, "start", "ckpt")
        assert c["a"] == b"after the pause"
        for node_id in (1, 2, 3):
            cluster.supervisorctl(node_id, "stop", "ckpt")
            (cluster.node(node_id).directory / "state" / "ckpt" / "snapshot").unlink()
        for node_id in (1, 2, 3):
            cluster.supervisorctl(node_id, "start", "ckpt")
        wait_for(lambda: readable(handle), "the descriptor tells of the loss")
        refused(errors.LibraryError, handle.dispatch)
        refused(errors.LibraryError, c.status)
    for node_id in (1, 2, 3):
        cluster.wait_live(node_id, "ckpt")
    with ckpt.Client(run_dir=cluster.run_dir(3)) as handle:
        handle.open(name, D, RWC)["b"] = b"a new handle works"


def _members(cluster: Cluster) -> list[int]:
    document = cluster.status(1, "ckpt")
    return [] if document is None else list(document["view"]["members"])


def test_com_48_a_signal_does_not_end_a_call(cluster: Cluster, name: str) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: seen.append(number))
    try:
        with ckpt.Client(run_dir=cluster.run_dir(2)) as handle:
            c = handle.open(name, D, RWC)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            for k in range(300):
                c["a"] = b"%d" % k
            wait_for(lambda: seen, "signals came")
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert c["a"] == b"299"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_com_49_handles_come_and_go_and_leave_no_descriptor(cluster: Cluster) -> None:
    def cycle(count: int) -> None:
        for _ in range(count):
            ckpt.Client(run_dir=cluster.run_dir(1)).close()

    cycle(10)
    files = _files()
    cycle(CYCLES)
    wait_for(lambda: _files() <= files, "every descriptor is closed")
    wait_for(lambda: _sessions(cluster) <= 1, "the service has forgotten them")


def _files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _sessions(cluster: Cluster) -> int:
    document = cluster.status(1, "ckpt")
    return 99 if document is None else int(document["sessions"])


def test_com_50_finalize_while_the_service_is_stopped_returns(cluster: Cluster, name: str) -> None:
    handle = ckpt.Client(run_dir=cluster.run_dir(2))
    handle.open(name, D, RWC)
    pid = cluster.pid(2, "ckpt")
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic_ns()
        handle.close()
        assert time.monotonic_ns() - begin < 10 * ONE_SECOND_NS
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.wait_live(2, "ckpt")
