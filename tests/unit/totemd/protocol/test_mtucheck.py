"""A path that loses long datagrams is named, on a node with one link."""

from __future__ import annotations

from collections.abc import Callable

from totemd.protocol.links import LinkEffect, LinkMoved, LinkState, SendProbe
from totemd.protocol.messages import PROBE_SIZE_MIN, Probe, ProbeKind
from totemd.protocol.mtucheck import AGAIN_NS, NODES_PER_STEP, TRIES, MtuCheck
from totemd.protocol.parameters import MS

SIZE_MAX = 1428
INTERVAL_NS = 500 * MS
BAD = LinkMoved(0, 2, LinkState.UP, LinkState.MTU_BAD)
MENDED = LinkMoved(0, 2, LinkState.MTU_BAD, LinkState.UP)


class Asking:
    """Node 1 asks; ``passes`` says which sizes a node answers."""

    def __init__(self, *members: int) -> None:
        self.check = MtuCheck(1, SIZE_MAX, INTERVAL_NS)
        self.passes: Callable[[int, int], bool] = lambda _node, _size: True
        self.now_ns = 1_000 * MS
        self.sent: list[SendProbe] = []
        self.said: list[LinkEffect] = []
        self.check.set_members(members)

    def run(self, duration_ns: int) -> None:
        end = self.now_ns + duration_ns
        while (due := self.check.deadline_ns()) is not None and due <= end:
            self.now_ns = max(self.now_ns, due)
            for effect in self.check.expire(self.now_ns):
                self._perform(effect)
        self.now_ns = end

    def _perform(self, effect: LinkEffect) -> None:
        if not isinstance(effect, SendProbe):
            self.said.append(effect)
            return
        self.sent.append(effect)
        node, probe = effect.node_id, effect.probe
        assert node is not None
        if self.passes(node, probe.size):
            answer = Probe(ProbeKind.PONG, 0, probe.size, self.now_ns, probe.t_ns)
            self.said += self.check.answered(node, answer)


def test_who_answers_in_full_length_is_asked_once() -> None:
    asking = Asking(1, 2, 3)
    asking.run(60_000 * MS)
    assert [s.node_id for s in asking.sent] == [2, 2, 3, 3]
    assert {s.probe.size for s in asking.sent} == {PROBE_SIZE_MIN, SIZE_MAX}
    assert asking.check.deadline_ns() is None
    assert asking.said == []


def test_who_gives_short_answers_only_is_named_once_and_again_when_it_is_mended() -> None:
    asking = Asking(1, 2)
    asking.passes = lambda _node, size: size == PROBE_SIZE_MIN
    asking.run((TRIES - 1) * INTERVAL_NS)
    assert asking.said == []
    asking.run(INTERVAL_NS + 5 * AGAIN_NS)
    assert asking.said == [BAD]
    asking.check.set_members((1, 2, 3))
    asking.run(5 * AGAIN_NS)
    assert [e for e in asking.said if e.node_id == 2] == [BAD], "a new ring says nothing new"
    asking.passes = lambda _node, _size: True
    asking.run(AGAIN_NS)
    assert [e for e in asking.said if e.node_id == 2] == [BAD, MENDED]


def test_who_does_not_answer_at_all_is_not_said_to_lose_long_datagrams() -> None:
    asking = Asking(1, 2)
    asking.passes = lambda _node, _size: False
    asking.run(60_000 * MS)
    assert asking.said == []


def test_a_few_lost_datagrams_do_not_make_a_path_bad() -> None:
    asking = Asking(1, 2)
    asking.passes = lambda _node, size: size == PROBE_SIZE_MIN or len(asking.sent) == 2 * TRIES
    asking.run(60_000 * MS)
    assert asking.said == []
    assert len(asking.sent) == 2 * TRIES


def test_the_members_of_a_large_ring_are_not_asked_all_at_once() -> None:
    asking = Asking(*range(1, 130))
    asking.run(0)
    assert len(asking.sent) <= 2 * NODES_PER_STEP
    asking.run(60_000 * MS)
    assert len(asking.sent) == 2 * 128


def test_an_answer_that_was_not_asked_for_means_nothing() -> None:
    asking = Asking(1, 2)
    stray = Probe(ProbeKind.PONG, 0, SIZE_MAX, 5, 77)
    assert asking.check.answered(2, stray) == []
    assert asking.check.answered(9, stray) == []
    assert asking.check.deadline_ns() is not None
