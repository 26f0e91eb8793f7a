"""Any process may be killed and started again; no acknowledged operation is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy import supervisor
from openais import ckpt, clm, cpg, status
from openais.node import lock
from tests.integration.cluster import Cluster, running, wait_for
from tests.integration.load import ATTRIBUTES, Writer, check


@pytest.fixture
def writers(cluster: Cluster) -> Iterator[list[Writer]]:
    started = [Writer(cluster.run_dir(n.node_id), f"w{n.node_id}") for n in cluster.nodes]
    for writer in started:
        writer.start()
    yield started
    for writer in started:
        writer.finish()
    check(cluster.run_dir(1), started)


def progress(writers: list[Writer], count: int = 20) -> None:
    """Wait until every writer has gone on."""
    before = [w.acknowledged for w in writers]
    wait_for(
        lambda: all(
            w.failure or w.acknowledged >= b + count for w, b in zip(writers, before, strict=True)
        ),
        "every writer goes on",
    )


def test_kill_9_of_ckpt_again_and_again_under_load(cluster: Cluster, writers: list[Writer]) -> None:
    for node_id in (1, 2, 3, 1):
        progress(writers)
        pid = cluster.kill(node_id, "ckpt")
        cluster.wait_restarted(node_id, "ckpt", pid)
        cluster.wait_live(node_id, "ckpt")
    progress(writers)
    for writer in writers:
        writer.finish()
    cluster.wait_equal("ckpt")


def test_a_restart_of_ckpt_is_not_noticed_by_the_other_nodes(cluster: Cluster) -> None:
    before = cluster.status(2, "ckpt")
    cluster.supervisorctl(1, "restart", "ckpt")
    cluster.wait_live(1, "ckpt")
    after = cluster.status(2, "ckpt")
    assert before is not None
    assert after is not None
    assert before["view"] == after["view"]
    assert before["counters"]["meetings"] == after["counters"]["meetings"]


def test_kill_9_of_totemd_under_load(cluster: Cluster, writers: list[Writer]) -> None:
    progress(writers)
    pid = cluster.kill(3, "totemd")
    wait_for(lambda: cluster.pid(3, "totemd") != pid, "supervisord starts it")
    wait_for(lambda: (cluster.status(1, "totemd") or {}).get("members") == [1, 2, 3], "it is back")
    cluster.wait_live(3, "ckpt")
    progress(writers)


def test_kill_9_of_everything_of_a_node_and_its_return(cluster: Cluster) -> None:
    survivors = [Writer(cluster.run_dir(n), f"s{n}") for n in (1, 2)]
    for writer in survivors:
        writer.start()
    progress(survivors)
    cluster.kill_node(3)
    progress(survivors)
    cluster.up()
    progress(survivors)
    for writer in survivors:
        writer.finish()
    check(cluster.run_dir(3), survivors)
    cluster.wait_equal("ckpt")


def test_a_killed_cluster_program_comes_back_and_adopts_what_runs(cluster: Cluster) -> None:
    before = [cluster.pid(1, name) for name in ("totemd", "clm", "ckpt")]
    pid = cluster.kill(1, "cluster")
    wait_for(lambda: cluster.pid(1, "cluster") not in (pid, 0), "supervisord starts it")
    wait_for(lambda: cluster.log(1, "cluster").count("node_up") >= 2, "it adopts")
    assert [cluster.pid(1, name) for name in ("totemd", "clm", "ckpt")] == before


def test_stop_and_start_of_a_whole_node(cluster: Cluster) -> None:
    cluster.supervisorctl(2, "stop", "cluster")
    states = cluster.supervisor(2).states()
    assert {info["statename"] for info in states.values()} == {"STOPPED"}
    ended = [name for name in ("ckpt", "clm", "totemd") if states[name]["stop"]]
    assert sorted(ended, key=lambda name: states[name]["stop"]) == ended, "in reverse order"
    wait_for(
        lambda: (cluster.status(1, "totemd") or {}).get("members") == [1, 3], "the ring goes on"
    )
    assert "cluster: started" in cluster.supervisorctl(2, "start", "cluster")
    cluster.wait_live(2, "ckpt")


def test_a_dead_application_releases_what_it_had_open(cluster: Cluster) -> None:
    child = os.fork()
    if child == 0:
        client = ckpt.Client(run_dir=cluster.run_dir(1))
        client.open("orphan", ckpt.Attributes(1, 0, 0, 1, 100, 0), 7)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    with ckpt.Client(run_dir=cluster.run_dir(2)) as client:
        assert b"orphan" in [info.name for info in client.checkpoints()]
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wait_for(
            lambda: b"orphan" not in [info.name for info in client.checkpoints()],
            "retention 0: deleted with its last open",
            2.0,
        )


def test_a_dead_member_of_a_process_group_is_told_at_once(cluster: Cluster) -> None:
    changes: list[cpg.ConfigurationChange] = []
    with cpg.Cpg(confchg=changes.append, run_dir=cluster.run_dir(1)) as watcher:
        watcher.join("mortal")
        child = os.fork()
        if child == 0:
            cpg.Cpg(run_dir=cluster.run_dir(2)).join("mortal")
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        wait_for(lambda: watcher.dispatch() and len(changes[-1].members) == 2, "it joins")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wait_for(lambda: watcher.dispatch() and changes[-1].left, "it is told", 2.0)
    assert [(c.address.node_id, c.reason) for c in changes[-1].left] == [(2, cpg.Reason.PROCDOWN)]


def test_clm_tells_who_leaves_and_who_comes(cluster: Cluster) -> None:
    seen: list[tuple[int, str]] = []

    def changed(buffer: clm.NotificationBuffer, _members: int, _status: object) -> None:
        seen.extend((n.cluster_node.node_id, n.cluster_change.name) for n in buffer.notification)

    with clm.Client(track_callback=changed, run_dir=cluster.run_dir(1)) as client:
        client.track(clm.TrackFlags.CHANGES_ONLY)
        cluster.supervisorctl(3, "stop", "cluster")
        wait_for(lambda: client.dispatch() and (3, "LEFT") in seen, "node 3 leaves")
        cluster.up()
        wait_for(lambda: (3, "JOINED") in seen or client.dispatch() is None, "node 3 comes")


def test_one_node_alone_loses_nothing_when_its_processes_are_killed() -> None:
    with running(1) as alone:
        writer = Writer(alone.run_dir(1), "alone")
        writer.start()
        for program in ("ckpt", "totemd", "ckpt"):
            progress([writer])
            pid = alone.kill(1, program)
            alone.wait_restarted(1, program, pid)
            alone.wait_live(1, "ckpt")
        progress([writer])
        writer.finish()
        check(alone.run_dir(1), [writer])


def test_a_joining_node_gets_the_state_of_the_others(cluster: Cluster) -> None:
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client:
        big = client.open("state", ATTRIBUTES)
        for k in range(60):
            big[f"s{k}"] = bytes([k]) * 60_000
        cluster.kill_node(3)
        big["s0"] = b"changed meanwhile"
        cluster.up()
        with (
            ckpt.Client(run_dir=cluster.run_dir(3)) as other,
            other.open("state", ATTRIBUTES) as copy,
        ):
            assert copy["s0"] == b"changed meanwhile"
            assert copy["s59"] == bytes([59]) * 60_000
            assert list(copy) == list(big)
        client.unlink("state")
    cluster.wait_equal("ckpt")


def test_status_says_that_all_is_well(cluster: Cluster) -> None:
    for node in cluster.nodes:
        for process in ("totemd", "clm", "ckpt"):
            assert status.ready(cluster.status(node.node_id, process))


def test_a_killed_supervisord_is_started_again_and_takes_its_processes_over(
    cluster: Cluster,
) -> None:
    before = cluster.pid(2, "totemd")
    supervisord = cluster.supervisor(2).pid()
    assert supervisord is not None
    with ckpt.Client(run_dir=cluster.run_dir(2)) as client, client.open("kept", ATTRIBUTES) as c:
        c["a"] = b"before"
        os.kill(supervisord, signal.SIGKILL)
        cluster.up()
        assert cluster.pid(2, "totemd") != before
        assert c["a"] == b"before"
        client.unlink("kept")


def test_an_orphan_that_wins_the_race_for_the_lock_is_ended_and_the_program_started_again() -> None:
    # supervisord was killed just after it had started totemd: the orphan has no lock yet when the
    # next supervisord looks for one, and then has it before the totemd that is started anew.
    with running(1) as alone:
        node = alone.node(1)
        alone.supervisorctl(1, "stop", "cluster")
        alone.supervisor(1).shutdown()
        gate = node.run_dir / "gate"
        config = node.directory / "conf" / "supervisord.conf"
        text = config.read_text(encoding="utf-8")
        own = re.search("(?m)^command=(.*totemd.*)$", text)
        assert own is not None, text
        gated = node.run_dir / "gated.sh"
        waits = f"until test -e {gate}; do sleep 0.05; done\nexec {own[1]}\n"
        gated.write_text(waits, encoding="utf-8")
        text = text.replace(own[0], f"command=/bin/sh {gated}")
        config.write_text(text, encoding="utf-8")
        supervisor.launch(node.directory)
        alone.supervisor(1).start("cluster")
        wait_for(lambda: alone.supervisor(1).state("totemd") == "RUNNING", "it waits at the gate")
        orphan = subprocess.Popen(
            [sys.executable, "-m", "totemd", "-c", str(node.directory / "conf" / "openais.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            alone.wait_live(1, "totemd")
            gate.touch()
            orphan.wait(30)
        finally:
            orphan.kill()
            orphan.wait()
        alone.wait_live(1, "ckpt")
        assert lock.holder(node.run_dir, "totemd") == alone.pid(1, "totemd")
