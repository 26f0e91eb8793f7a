"""The openais command, as a person uses it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from openais import ckpt, evs
from tests.integration.cluster import Cluster, short_directory, wait_for

ROOT = Path(__file__).resolve().parents[2]


def openais(*arguments: str, run_dir: Path | None = None) -> tuple[int, str, str]:
    """Run the command; return (status, output, errors)."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENAIS_RUN_DIR"}
    if run_dir is not None:
        environment["OPENAIS_RUN_DIR"] = str(run_dir)
    done = subprocess.run(
        [sys.executable, "-m", "openais.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    return done.returncode, done.stdout, done.stderr


def test_status_shows_every_process_of_every_node(cluster: Cluster) -> None:
    status, output, _ = openais("cluster", "status", "--dir", str(cluster.directory))
    assert status == 0
    assert output.count("operational") == 3
    assert output.count("live") == 6
    assert output.count("1 2 3") == 9


def test_status_as_json(cluster: Cluster) -> None:
    status, output, _ = openais("cluster", "status", "--json", run_dir=cluster.run_dir(1))
    assert status == 0
    (node,) = json.loads(output).values()
    assert node["totemd"]["members"] == [1, 2, 3]
    assert node["totemd"]["gate"] == "open"
    assert node["ckpt"]["state"] == node["clm"]["state"] == "live"


def test_status_of_a_node_that_is_down_says_what_to_do() -> None:
    with short_directory() as directory:
        status, _, errors = openais("cluster", "status", run_dir=directory)
    assert status == 3
    assert "start the node" in errors


def test_status_tells_a_stopped_service(cluster: Cluster) -> None:
    cluster.supervisorctl(3, "stop", "ckpt")
    status, output, _ = openais("cluster", "status", "--dir", str(cluster.directory))
    cluster.supervisorctl(3, "start", "ckpt")
    cluster.wait_live(3, "ckpt")
    assert status == 1
    assert "down" in output


def test_ckpt_list_show_and_dump(cluster: Cluster) -> None:
    run_dir = cluster.run_dir(2)
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("shown") as shown:
        shown["plain"] = b"text"
        shown[b"\xff"] = b"\0\1"
        _, listed, _ = openais("ckpt", "list", run_dir=run_dir)
        assert "shown" in listed
        _, listed, _ = openais("ckpt", "list", "--json", run_dir=run_dir)
        assert [c["sections"] for c in json.loads(listed) if c["name"] == "shown"] == [2]
        _, text, _ = openais("ckpt", "show", "shown", run_dir=run_dir)
        assert "plain" in text
        assert "\\xff" in text
        _, dumped, _ = openais("ckpt", "dump", "shown", run_dir=run_dir)
        lines = [json.loads(line) for line in dumped.splitlines()]
        assert [base64.b64decode(line["data"]) for line in lines[1:-1]] == [b"text", b"\0\1"]
        assert lines[-1]["sections"] == 2
        client.unlink("shown")


def test_ckpt_dump_and_restore(cluster: Cluster) -> None:
    run_dir = cluster.run_dir(2)
    with (
        short_directory() as directory,
        ckpt.Client(run_dir=cluster.run_dir(1)) as client,
        client.open("dumped") as dumped,
    ):
        dumped["a"] = b"1"
        file = directory / "dump"
        file.write_text("of before")
        command = ("ckpt", "restore", "--name", "copy", "--keep", str(file))
        status, _, errors = openais(*command, run_dir=run_dir)
        assert (status, "line 1" in errors) == (1, True)
        assert openais("ckpt", "dump", "-o", str(file), "unknown", run_dir=run_dir)[0] == 1
        assert [p.name for p in directory.iterdir()] == ["dump"], "nothing is left behind"
        assert openais("ckpt", "dump", "-o", str(file), "dumped", run_dir=run_dir)[0] == 0
        status, told, _ = openais(*command, run_dir=run_dir)
        assert (status, told.split(";")[0]) == (0, "restored 1 sections, 1 bytes")
        status, _, errors = openais(*command, run_dir=run_dir)
        assert (status, "ERR_EXIST" in errors) == (1, True)
        assert openais(*command, "--replace", run_dir=run_dir)[0] == 0
        with client.open("copy") as copy:
            assert copy["a"] == b"1"
        assert openais("ckpt", "unlink", "copy", run_dir=run_dir)[0] == 0
        assert list(client.names("copy")) == []
        status, _, errors = openais("ckpt", "restore", str(directory / "none"), run_dir=run_dir)
        assert (status, "No such file" in errors) == (1, True)


def test_ckpt_watch_shows_changes_until_interrupted(cluster: Cluster) -> None:
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("looked-at") as c:
        command = [sys.executable, "-m", "openais.cli", "ckpt", "watch", "looked-at"]
        watcher = subprocess.Popen(
            [*command, "--run-dir", str(cluster.run_dir(2)), "--prefix", "a"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for(lambda: cluster.wait_live(1, "ckpt")["machine"]["watches"], "it watches")
            c["b"] = b"not shown"
            c["a"] = b"text"
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == "created     a offset=0 size=4 'text'\n"
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(30) == 0
        finally:
            watcher.kill()
            watcher.communicate()


def test_ckpt_of_an_unknown_name_says_so(cluster: Cluster) -> None:
    for command in ("show", "dump", "unlink", "watch"):
        status, _, errors = openais("ckpt", command, "nothing", run_dir=cluster.run_dir(1))
        assert status == 1
        assert 'no checkpoint "nothing"' in errors


def test_ckpt_without_a_service_says_where_it_looked() -> None:
    with short_directory() as directory:
        status, _, errors = openais("ckpt", "list", "--run-dir", str(directory))
    assert status == 3
    assert "ckpt.sock" in errors


def test_a_cluster_directory_that_is_too_long_is_refused() -> None:
    with short_directory() as directory:
        long = directory / ("d" * 80)
        status, _, errors = openais("cluster", "up", "--dir", str(long))
    assert status == 1
    assert "use a shorter --dir" in errors


def test_down_without_a_cluster_says_so() -> None:
    with short_directory() as directory:
        status, _, errors = openais("cluster", "down", "--dir", str(directory))
    assert status == 1
    assert "no cluster here" in errors


def test_the_ring_is_formed_anew_by_a_command_and_nobody_is_lost(cluster: Cluster) -> None:
    before = cluster.wait_live(1, "totemd")["ring"]["seq"]
    status, output, errors = openais("ring", "gather", run_dir=cluster.run_dir(2))
    assert (status, errors) == (0, "")
    assert output.startswith("ring ")
    assert cluster.wait_live(2, "totemd")["ring"]["seq"] > before
    assert cluster.wait_live(2, "totemd")["members"] == [1, 2, 3]
    assert "order=RingGather" in cluster.log(2, "totemd")
    status, output, errors = openais("ring", "clear-hold-offs", run_dir=cluster.run_dir(2))
    assert (status, output, errors) == (0, "held off until now: nobody\n", "")


def test_an_order_for_the_ring_without_a_node_says_where_it_looked() -> None:
    for command in ("gather", "clear-hold-offs"):
        with short_directory() as directory:
            status, _, errors = openais("ring", command, run_dir=directory)
        assert status == 3
        assert f"openais ring {command}: totemd does not answer in {directory}" in errors


def test_status_shows_the_clients_and_groups_of_evs(cluster: Cluster) -> None:
    run_dir = cluster.run_dir(1)
    with evs.Evs(run_dir=run_dir) as one, evs.Evs(run_dir=run_dir):
        one.join(["weather", b"\xff"])
        document = cluster.wait_live(1, "totemd")
        me = {"node_id": 1, "pid": os.getpid()}
        assert [g for g in document["groups"] if g["space"] == "evs"] == [
            {"group": "weather", "space": "evs", "members": [me]},
            {"group": "\\xff", "space": "evs", "members": [me]},
        ]
        clients = sorted(document["evs_clients"], key=lambda client: len(client["groups"]))
        assert clients == [
            {"pid": os.getpid(), "groups": []},
            {"pid": os.getpid(), "groups": ["weather", "\\xff"]},
        ]
    assert cluster.wait_live(2, "totemd")["evs_clients"] == []


def test_nodes_are_listed_locked_and_unlocked(cluster: Cluster) -> None:
    run_dir = cluster.run_dir(1)
    for name, outcome in (("lock", "done"), ("lock", "so already"), ("unlock", "done")):
        status, output, _ = openais("clm", name, "node3", run_dir=run_dir)
        assert (status, outcome in output) == (0, True)
        _, listed, _ = openais("clm", "list", "--json", run_dir=run_dir)
        nodes = {node["name"]: node["state"] for node in json.loads(listed)["nodes"]}
        assert nodes["node3"] == ("locked" if name == "lock" else "unlocked")
    _, listed, _ = openais("clm", "list", run_dir=run_dir)
    assert listed.count("yes") == 3
    _, watched, _ = openais("clm", "watch", "--seconds", "0", "--json", run_dir=run_dir)
    assert watched == ""
    _, watched, _ = openais("clm", "watch", "--seconds", "1", run_dir=run_dir)
    assert "members 3: 1 no_change, 2 no_change, 3 no_change" in watched
    status, _, errors = openais("clm", "lock", "nobody", run_dir=run_dir)
    assert (status, "no node" in errors) == (1, True)
