"""SAI-AIS-CLM on a node that is not in the quorate part of its cluster, with real nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy import layout
from openais import clm, errors
from openais.clm import AdminOperation, TrackFlags
from tests.conformance.clm_handles import items
from tests.integration.cluster import Cluster, short_directory, wait_for

_QUORUM = "quorum {\n    provider: majority\n    expected_votes: 3\n}\n"


@pytest.fixture(scope="module")
def quorate() -> Iterator[Cluster]:
    """Three nodes of which two are a quorum."""
    with short_directory() as directory:
        for node in layout.make(directory, 3):
            path = node.directory / "conf" / "openais.conf"
            path.write_text(path.read_text(encoding="utf-8") + _QUORUM, encoding="utf-8")
        cluster = Cluster(directory, 3)
        try:
            yield cluster
        finally:
            cluster.down()


def test_clm_49_50_51_a_node_without_quorum_and_its_return(quorate: Cluster) -> None:
    told: list[clm.NotificationBuffer] = []
    with clm.Client(
        None, lambda buffer, *_: told.append(buffer), run_dir=quorate.run_dir(3)
    ) as old:
        old.track(TrackFlags.CHANGES)
        for node_id in (1, 2):
            quorate.kill_node(node_id)

        def left() -> bool:
            old.dispatch()
            return bool(told) and items(told[-1]) == [(3, "LEFT")]

        wait_for(left, "node 3 is no member any more")
        assert told[-1].number_of_members == 0
        with pytest.raises(errors.UnavailableError):
            old.node_get()
        with pytest.raises(errors.UnavailableError):
            old.administer(AdminOperation.LOCK, 3)
        with clm.Client(level="B.01", run_dir=quorate.run_dir(3)) as first:
            assert first.node_get().member is False
        with clm.Client(run_dir=quorate.run_dir(3)) as new:
            buffer = new.track(TrackFlags.CURRENT)
            assert buffer is not None
            assert items(buffer) == [(3, "LEFT")]
        quorate.up()

        def joined() -> bool:
            old.dispatch()
            return any((3, "JOINED") in items(buffer) for buffer in told)

        wait_for(joined, "node 3 is a member again")
        wait_for(lambda: old.node_get().member, "and knows it")
