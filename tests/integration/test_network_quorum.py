"""A cluster of three with a quorum: a network is split two to one, and mended again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from deploy import layout
from openais import ckpt, status
from openais.errors import AisError, UnavailableError
from openais.handle import DispatchFlags
from openais.wire.status import TIME_END
from tests.integration.cluster import short_directory, wait_for
from tests.net.namespaces import Laboratory, laboratory, missing
from tests.net.nodes import Member, Members, Shape, members

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
ATTRIBUTES = ckpt.Attributes(ckpt.CreationFlags.WR_ALL_REPLICAS, 0, TIME_END, 1 << 16, 64, 32)
SHAPE = Shape(nodelist=True, sections="quorum {\n    provider: majority\n}\n")


class Appender(threading.Thread):
    """Creates one section after the other; remembers which were acknowledged."""

    def __init__(self, member: Member) -> None:
        super().__init__(daemon=True)
        self.number = member.host.number
        self.acknowledged: list[bytes] = []
        self.refusal: AisError | None = None
        self._stopping = threading.Event()
        self._client = ckpt.Client(run_dir=member.run_dir)
        self._checkpoint = self._client.open("load", ATTRIBUTES)

    def run(self) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            name = b"%d.%d" % (self.number, count)
            try:
                self._checkpoint[name] = name
            except AisError as error:
                self.refusal = error
                return
            self.acknowledged.append(name)
            self._stopping.wait(0.01)

    def finish(self) -> list[bytes]:
        self._stopping.set()
        self.join(30)
        self._client.close()
        return self.acknowledged


@pytest.fixture
def nodes() -> Iterator[tuple[Laboratory, Members]]:
    with laboratory(3) as bed, short_directory() as path, members(bed, path, SHAPE) as made:
        for node in made.all:
            node.start_whole(layout.SERVICES)
        made.wait_ring(1, 2, 3)
        for service in layout.SERVICES:
            wait_together(made, service, 1, 2, 3)
        yield bed, made


def wait_together(nodes: Members, service: str, *numbers: int) -> None:
    def together() -> bool:
        documents = [nodes[n].status(service) for n in numbers]
        return all(
            status.ready(d) and d is not None and d["view"]["members"] == list(numbers)
            for d in documents
        )

    wait_for(together, f"{service} of {numbers} is one view")


def test_ck_111_a_minority_refuses_its_handles_are_stale_and_no_write_is_lost(
    nodes: tuple[Laboratory, Members],
) -> None:
    bed, made = nodes
    writers = [Appender(member) for member in made.all]
    watcher = ckpt.Client(run_dir=made[3].run_dir)
    for writer in writers:
        writer.start()
    wait_for(lambda: all(len(w.acknowledged) > 10 for w in writers), "all write")
    bed.partition([1, 2], [3])
    wait_together(made, "ckpt", 3)
    wait_together(made, "ckpt", 1, 2)
    wait_for(lambda: not writers[2].is_alive(), "the minority refuses")
    assert isinstance(writers[2].refusal, UnavailableError)
    document = made[3].status("ckpt") or {}
    assert document["quorum"]["quorate"] is False
    assert (document["quorum"]["votes"], document["quorum"]["needed"]) == (1, 2)
    assert "quorum_lost votes=1 needed=2 expected=3" in made[3].log("ckpt")
    with pytest.raises(UnavailableError):
        watcher.dispatch(DispatchFlags.ALL)
    with pytest.raises(UnavailableError):
        ckpt.Client(run_dir=made[3].run_dir).open("load", ATTRIBUTES)
    counts = [len(w.acknowledged) for w in writers[:2]]
    wait_for(
        lambda: all(len(w.acknowledged) > c + 10 for w, c in zip(writers, counts, strict=False)),
        "the majority goes on",
    )
    bed.heal()
    made.wait_ring(1, 2, 3)
    wait_together(made, "ckpt", 1, 2, 3)
    with pytest.raises(UnavailableError):
        watcher.open("load", ATTRIBUTES)  # also after the merge
    watcher.close()
    done = {name for writer in writers for name in writer.finish()}
    with (
        ckpt.Client(run_dir=made[3].run_dir) as client,
        client.open("load", ATTRIBUTES) as checkpoint,
    ):
        there = set(checkpoint)
    assert done <= there, f"acknowledged and lost: {sorted(done - there)}"
    assert not [w.refusal for w in writers[:2] if w.refusal], "the majority refused"
