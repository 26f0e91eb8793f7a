"""The key of a running cluster is changed under load, with nodes away, killed and coming back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openais import ckpt, status
from openais.node.exits import Exit
from openais.wire import port
from tests.integration.cluster import Cluster, daemon, running, short_directory, wait_for
from tests.integration.trio import config, document, laid_out, starting, together

OPERATIONS_MIN = 200
NODELIST = "".join(
    f"\nnode {{\n ring0_addr: 127.0.0.{n}\n nodeid: {n}\n name: node{n}\n}}" for n in (1, 2, 3)
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(3) as made:
        yield made


def openais(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openais.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def key(cluster: Cluster, node: int, command: str) -> subprocess.CompletedProcess[str]:
    return openais("key", command, "--run-dir", str(cluster.run_dir(node)))


def keys(cluster: Cluster, node: int) -> dict[str, Any]:
    document = cluster.wait_live(node, "totemd")
    found: dict[str, Any] = document["keys"]
    return found


def sending(cluster: Cluster) -> set[str]:
    return {keys(cluster, node.node_id)["sending"] for node in cluster.nodes}


def accepted(cluster: Cluster) -> set[tuple[str, ...]]:
    return {tuple(keys(cluster, node.node_id)["accepted"]) for node in cluster.nodes}


class Load:
    """Writes one section after the other, each acknowledged before the next."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self.done = 0
        self.error: BaseException | None = None
        self._run_dir, self._name = run_dir, name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with ckpt.Client(run_dir=self._run_dir) as client, client.open(self._name) as c:
                while not self._stopping.is_set():
                    c["k"] = b"%d" % self.done
                    assert c["k"] == b"%d" % self.done
                    self.done += 1
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def go_on(self) -> None:
        """Wait until the load has done a good deal more."""
        aim = self.done + OPERATIONS_MIN
        wait_for(lambda: self.done >= aim or self.error, "the load goes on")
        assert self.error is None, self.error


def tokens_lost(cluster: Cluster) -> int:
    return sum(
        int(cluster.wait_live(n.node_id, "totemd")["counters"]["tokens_lost"])
        for n in cluster.nodes
    )


def test_the_key_is_changed_under_load_without_a_pause(cluster: Cluster) -> None:
    before = sending(cluster)
    lost = tokens_lost(cluster)
    with contextlib.ExitStack() as stack:
        loads = [
            stack.enter_context(Load(cluster.run_dir(n.node_id), f"load{n.node_id}"))
            for n in cluster.nodes
        ]
        for load in loads:
            load.go_on()
        rings = {cluster.wait_live(n.node_id, "totemd")["ring"]["seq"] for n in cluster.nodes}
        for _ in range(3):
            done = key(cluster, 2, "rotate")
            assert done.returncode == 0, done.stderr
            after = sending(cluster)
            assert len(after) == 1
            assert not after & before
            before |= after
            for load in loads:
                load.go_on()
    assert tokens_lost(cluster) == lost
    assert rings == {cluster.wait_live(n.node_id, "totemd")["ring"]["seq"] for n in cluster.nodes}
    cluster.wait_equal("ckpt")


def test_what_is_left_of_the_old_key_is_shown_and_dropped(cluster: Cluster) -> None:
    assert key(cluster, 1, "rotate").returncode == 0
    shown = key(cluster, 3, "status")
    assert shown.returncode == 0
    assert keys(cluster, 3)["sending"] in shown.stdout
    if len(keys(cluster, 1)["accepted"]) > 1:
        assert key(cluster, 3, "retire").returncode == 0
    wait_for(lambda: all(len(found) == 1 for found in accepted(cluster)), "one key is left")
    refused = key(cluster, 3, "retire")
    assert refused.returncode == 1
    assert "only one key" in refused.stderr


def test_a_killed_totemd_comes_back_with_the_new_key(cluster: Cluster) -> None:
    assert key(cluster, 1, "rotate").returncode == 0
    now = sending(cluster)
    before = cluster.kill(2, "totemd")
    cluster.wait_restarted(2, "totemd", before)
    wait_for(lambda: keys(cluster, 2)["sending"] in now, "it uses the new key")
    wait_for(
        lambda: cluster.wait_live(2, "totemd")["members"] == [1, 2, 3], "it is back in the ring"
    )
    secret = cluster.node(2).directory / "state" / "keyring"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_new_node_gets_the_key_by_export(cluster: Cluster, tmp_path: Path) -> None:
    assert key(cluster, 1, "rotate").returncode == 0
    state = cluster.node(1).directory / "state"
    out = tmp_path / "authkey"
    command = [sys.executable, "-m", "totemd.keygen", "--export", str(state), "-k", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert out.stat().st_mode & 0o777 == 0o400
    command = [sys.executable, "-m", "totemd.keygen", "--fingerprint", "-k", str(out)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert shown in sending(cluster)


def test_a_node_that_was_away_is_given_the_new_key(cluster: Cluster) -> None:
    cluster.supervisorctl(3, "stop", "totemd")
    wait_for(
        lambda: cluster.wait_live(1, "totemd")["members"] == [1, 2], "the others are without it"
    )
    before = keys(cluster, 1)["sending"]
    done = key(cluster, 1, "rotate")
    assert done.returncode == 0, done.stderr
    assert "still accepted" in done.stdout
    cluster.supervisorctl(3, "start", "totemd")
    wait_for(
        lambda: (cluster.status(3, "totemd") or {}).get("members") == [1, 2, 3],
        "it is back in the ring",
    )
    wait_for(lambda: before not in sending(cluster), "it uses the new key too")
    assert key(cluster, 3, "retire").returncode == 0
    wait_for(lambda: accepted(cluster) == {tuple(sending(cluster))}, "one key is left everywhere")


def test_a_second_node_with_the_same_id_ends_and_the_first_goes_on(
    cluster: Cluster,
) -> None:
    assert key(cluster, 1, "rotate").returncode == 0
    text = (cluster.node(2).directory / "conf" / "openais.conf").read_text()
    with short_directory() as directory:
        for name in ("run", "state", "log"):
            (directory / name).mkdir()
        conf = directory / "openais.conf"
        text = text.replace(str(cluster.node(2).directory), str(directory))
        text = text.replace("127.0.0.2", "127.0.0.9")
        exported = [sys.executable, "-m", "totemd.keygen", "--force", "-k"]
        exported += [str(directory / "conf" / "authkey"), "--export"]
        exported += [str(cluster.node(1).directory / "state")]
        subprocess.run(exported, check=True, capture_output=True)
        conf.write_text(text)
        with daemon("totemd", conf) as second:
            code, output = second.wait()
    assert code == Exit.DUPLICATE_NODE, output
    assert "another node with this node id sends from 127.0.0.2" in output
    wait_for(
        lambda: all(
            (cluster.status(n.node_id, "totemd") or {}).get("members") == [1, 2, 3]
            for n in cluster.nodes
        ),
        "the first is in the ring",
    )
    assert "duplicate_node_id" in cluster.log(2, "totemd")


def test_with_a_nodelist_the_old_key_goes_by_itself_and_nobody_is_cut_off() -> None:
    with laid_out(3) as nodes, starting() as start:
        for node in nodes:
            text = config(node).read_text()
            config(node).write_text(f"{text}\nnodelist {{{NODELIST}\n}}\n")
        one, two, three = nodes
        start(one)
        start(two)
        together(one, two)
        answer = status.request(one.run_dir, port.KeyRotate(1))
        assert isinstance(answer, port.Refused)
        assert "not all configured nodes are here: 3" in answer.reason
        third = start(three)
        together(*nodes)
        before = document(one)["keys"]
        assert isinstance(status.request(one.run_dir, port.KeyRotate(1)), port.Done)
        wait_for(
            lambda: all(
                len(document(n)["keys"]["accepted"]) == 1
                and document(n)["keys"]["sending"] != before["sending"]
                for n in nodes
            ),
            "the old key is gone everywhere",
        )
        third.process.kill()
        together(one, two)
        start(three)
        together(*nodes)


def test_a_key_is_changed_by_hand_with_key_accept() -> None:
    with laid_out(2) as nodes, starting() as start:
        one, two = nodes
        old, new = one.directory / "conf" / "authkey", one.directory / "conf" / "new"
        command = [sys.executable, "-m", "totemd.keygen", "-k", str(new)]
        subprocess.run(command, check=True, capture_output=True)
        for node, key_file, accepted_file in ((one, old, new), (two, new, old)):
            lines = f"version: 2\n    keyfile: {key_file}\n    key_accept: {accepted_file}"
            text = "\n".join(
                line for line in config(node).read_text().splitlines() if "keyfile" not in line
            )
            config(node).write_text(text.replace("version: 2", lines) + "\n")
            start(node)
        together(one, two)
        assert document(one)["keys"]["sending"] != document(two)["keys"]["sending"]


def test_a_node_that_was_away_is_given_the_new_key_where_sessions_must_be_proved() -> None:
    with laid_out(3, "replay_protection: strict") as nodes, starting() as start:
        one, two, three = nodes
        start(one)
        start(two)
        third = start(three)
        together(*nodes)
        third.process.kill()
        together(one, two)
        before = document(one)["keys"]["sending"]
        assert isinstance(status.request(two.run_dir, port.KeyRotate(1)), port.Done)
        wait_for(
            lambda: all(document(n)["keys"]["sending"] != before for n in (one, two)),
            "the others use the new key",
        )
        start(three)
        together(*nodes)
        wait_for(
            lambda: len({document(n)["keys"]["sending"] for n in nodes}) == 1, "so does the third"
        )
