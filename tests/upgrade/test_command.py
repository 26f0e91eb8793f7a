"""``openais upgrade`` and ``openais restart`` on real nodes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import release, renew
from openais.cli.main import main
from tests.integration import load
from tests.integration.cluster import Cluster, running
from tests.upgrade import releases

BROKEN = f"""\
#!/bin/sh
case " $* " in *" -v "*) echo "ckpt 9.9"; exit 0;; esac
case "$*" in *"-m services.ckpt"*) echo "cannot start"; exit 8;; esac
exec {sys.executable} "$@"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(2) as made:
        yield made


def linked(cluster: Cluster, node: int, program: str = "ckpt") -> Path:
    return release.target(release.links_of(cluster.run_dir(node)), program)


def test_a_release_that_does_not_start_is_taken_back_and_no_write_is_lost(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    before = linked(cluster, 1)
    broken = releases.script(cluster.directory / "broken", BROKEN)
    writer = load.Writer(cluster.run_dir(1), "broken")
    writer.start()
    run_dir = str(cluster.run_dir(1))
    arguments = ["upgrade", "ckpt", "--release", str(broken), "--run-dir", run_dir]
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert "ckpt ended with status 8" in told.err
    assert f"ckpt runs from {before} again" in told.err
    assert f"going back to {before}" in told.out
    assert linked(cluster, 1) == before
    cluster.wait_live(1, "ckpt")
    writer.finish()
    load.check(cluster.run_dir(2), [writer])


def test_what_is_no_release_is_refused_before_anything_stops(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = cluster.pid(1, "ckpt")
    run_dir = str(cluster.run_dir(1))
    assert main(["upgrade", "ckpt", "--release", "/usr/share", "--run-dir", run_dir]) == 1
    assert "/usr/share: no release, bin/python3 is not there" in capsys.readouterr().err
    assert cluster.pid(1, "ckpt") == pid


def test_every_program_of_every_node_moves_to_a_release(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    good = releases.present(cluster.directory / "good")
    pids = {n: cluster.pid(n, "ckpt") for n in (1, 2)}
    where = str(cluster.directory)
    assert main(["upgrade", "all", "--release", str(good), "--dir", where]) == 0
    for node in (1, 2):
        assert [linked(cluster, node, p) for p in ("totemd", "clm", "ckpt")] == [good] * 3
        assert cluster.pid(node, "ckpt") != pids[node]
    assert capsys.readouterr().out.count("is live again") == 6


def test_the_doctor_finds_what_an_operator_broke(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["doctor", "--json", "--dir", str(cluster.directory)]
    assert main(where) == 0, capsys.readouterr()
    key = cluster.node(2).directory / "conf" / "authkey"
    key.chmod(0o644)
    cluster.supervisorctl(2, "stop", "ckpt")
    capsys.readouterr()
    try:
        assert main(where) == 1
        found = {(f["node"], f["check"], f["what"]) for f in json.loads(capsys.readouterr().out)}
    finally:
        key.chmod(0o400)
        cluster.supervisorctl(2, "start", "ckpt")
    assert ("node2", "process", "ckpt does not answer") in found
    assert any("permissions too open" in what for _, _, what in found)
    cluster.wait_live(2, "ckpt")


def test_restart_names_what_does_not_run(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restart", "evt", "--run-dir", str(cluster.run_dir(1))]) == 1
    assert "evt does not run; running: ('totemd', 'ckpt', 'clm')" in capsys.readouterr().err


def test_a_node_without_links_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(release.ReleaseError, match="must start ckpt from a link"):
        release.target(tmp_path, "ckpt")
    assert renew.nodes(None, tmp_path)[0].run_dir == tmp_path
