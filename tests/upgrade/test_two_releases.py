"""The release before this one and this one in one cluster, under load, both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import layout, release, renew
from openais import ckpt
from openais.errors import LibraryError
from tests.integration import load
from tests.integration.cluster import Cluster, short_directory, wait_for
from tests.upgrade import releases
from tests.upgrade.releases import NoBaselineError

PROGRAMS = ("ckpt", "clm", "totemd")
LIVE_S = 40.0
GRACE = "service_memory {\n    service_grace: 30s\n}\n"  # a loaded machine starts Python slowly


class Writer(load.Writer):
    """Goes on with a new handle when a restart took longer than a session is kept."""

    def _write(self, number: int) -> None:
        try:
            super()._write(number)
        except LibraryError:
            self._client.close()
            self._client = ckpt.Client(run_dir=self._run_dir)
            self._checkpoint = self._client.open("load", load.ATTRIBUTES)
            super()._write(number)


def pair(directory: Path) -> tuple[Path, Path]:
    """Return the release before this one, and this one."""
    try:
        old = releases.extract(releases.baseline(), directory / "old")
    except NoBaselineError as error:
        pytest.skip(f"no release to upgrade from: {error}")
    new = releases.present(directory / "new")
    if not releases.meet(old, new):
        pytest.skip(
            f"{releases.baseline()[:12]} has no protocol version in common with this release: "
            "not a pair that is supported"
        )
    return old, new


def move(cluster: Cluster, node: int, to: Path) -> None:
    """Upgrade every program of a node, one after the other, as an operator does."""
    lines: list[str] = []
    member = renew.Member(f"node{node}", cluster.run_dir(node))
    renewal = renew.Renewal(member, LIVE_S, lines.append)
    for program in PROGRAMS:
        renewal.upgrade(program, to)
        link = release.links_of(cluster.run_dir(node)) / program
        assert link.readlink() == to, lines


def test_no_acknowledged_write_is_lost_while_nodes_change_release_both_ways() -> None:
    # Danger: an upgrade loses what was acknowledged, or the replicas of two releases differ.
    with short_directory() as directory:
        old, new = pair(directory)
        nodes = layout.make(directory / "c", 3)
        for node in nodes:
            config = node.directory / "conf" / "openais.conf"
            config.write_text(config.read_text() + GRACE)
        for node in nodes[1:]:
            for program in PROGRAMS:
                release.point(release.links_of(node.run_dir), program, old)
        cluster = Cluster(directory / "c", 3)
        try:
            writers: list[load.Writer] = [
                Writer(node.run_dir, f"s{node.node_id}") for node in cluster.nodes
            ]
            for writer in writers:
                writer.start()
            wait_for(lambda: all(w.acknowledged > 5 for w in writers), "all write")
            move(cluster, 2, new)
            move(cluster, 1, old)
            for writer in writers:
                writer.finish()
            for service in layout.SERVICES:
                cluster.wait_equal(service)
            load.check(cluster.run_dir(3), writers)
        finally:
            cluster.down()
