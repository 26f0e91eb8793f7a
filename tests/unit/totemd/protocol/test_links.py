"""The links of a few nodes, joined by networks whose every fault is a rule."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from totemd.protocol.links import (
    DEFECT_TIMEOUTS,
    FORGET_NS,
    LinkDown,
    LinkEffect,
    LinkMoved,
    LinkParameters,
    Links,
    LinkState,
    LinkUp,
    Mode,
    SendProbe,
)
from totemd.protocol.messages import PROBE_SIZE_MIN, Probe, ProbeKind
from totemd.protocol.parameters import MS

PARAMETERS = LinkParameters(mode=Mode.PASSIVE, priorities=(1, 1))
INTERVAL_NS = PARAMETERS.interval_ns
UP_ROUNDS = 2 * PARAMETERS.count + 1  # each size has every second round
DOWN_ROUNDS = PARAMETERS.timeout_ns // INTERVAL_NS + 2
DEFECT_ROUNDS = DEFECT_TIMEOUTS * PARAMETERS.timeout_ns // INTERVAL_NS + 2
LATENCY_NS = 1 * MS


@dataclass(frozen=True)
class Sent:
    """A probe on its way."""

    link: int
    source: int
    destination: int
    multicast: bool
    size: int


class Networks:
    """Nodes 1..n with the links of each; ``lost`` says what does not arrive."""

    def __init__(self, nodes: int, parameters: LinkParameters = PARAMETERS) -> None:
        self.now_ns = 1000 * MS
        self.lost: Callable[[Sent], bool] = lambda _: False
        ids = tuple(range(1, nodes + 1))
        self.nodes = {
            node: Links(parameters, tuple(n for n in ids if n != node), self.now_ns) for node in ids
        }
        for links in self.nodes.values():
            links.set_members(ids)
        self.events: dict[int, list[LinkEffect]] = {node: [] for node in ids}

    def rounds(self, count: int) -> None:
        for _ in range(count):
            for node, links in self.nodes.items():
                self._perform(node, links.expire(self.now_ns))
            self.now_ns += INTERVAL_NS

    def _perform(self, node: int, effects: list[LinkEffect]) -> None:
        for effect in effects:
            if not isinstance(effect, SendProbe):
                self.events[node].append(effect)
                continue
            to_all = [n for n in self.nodes if n != node]
            for other in to_all if effect.node_id is None else [effect.node_id]:
                sent = Sent(effect.link, node, other, effect.node_id is None, effect.probe.size)
                if not self.lost(sent):
                    later = self.now_ns + LATENCY_NS
                    answer = self.nodes[other].receive(effect.link, node, effect.probe, later)
                    self._perform(other, answer)

    def state(self, node: int, link: int, other: int) -> LinkState:
        return next(p.state for k, n, p in self.nodes[node].paths() if (k, n) == (link, other))

    def up(self) -> None:
        self.rounds(UP_ROUNDS)
        states = {p.state for links in self.nodes.values() for _, _, p in links.paths()}
        assert states == {LinkState.UP}
        for events in self.events.values():
            events.clear()


@pytest.fixture
def three() -> Networks:
    networks = Networks(3)
    networks.up()
    return networks


def test_before_anything_is_known_every_link_is_used() -> None:
    links = Links(PARAMETERS, (2,), 0)
    links.set_members((1, 2))
    assert links.multicast_links() == (0, 1)
    assert links.unicast_links(2) == (0, 1)
    assert links.unicast_links(9) == (0, 1), "a node never heard of"


def test_links_come_up_and_each_node_is_reported_once() -> None:
    networks = Networks(3)
    networks.rounds(UP_ROUNDS)
    events = networks.events[1]
    assert sorted(e.node_id for e in events if isinstance(e, LinkUp)) == [2, 3]
    moved = [e for e in events if isinstance(e, LinkMoved)]
    assert {(e.link, e.node_id, e.old, e.new) for e in moved} == {
        (link, node, LinkState.DOWN, LinkState.UP) for link in (0, 1) for node in (2, 3)
    }


def test_a_link_is_not_up_after_fewer_answers_than_count() -> None:
    networks = Networks(2, dataclasses.replace(PARAMETERS, count=4))
    networks.rounds(2 * 3)
    assert networks.state(1, 0, 2) is LinkState.DOWN
    networks.rounds(2)
    assert networks.state(1, 0, 2) is LinkState.UP


def test_passive_uses_one_link_and_the_other_when_it_dies_and_the_first_again(
    three: Networks,
) -> None:
    node = three.nodes[1]
    assert (node.multicast_links(), node.unicast_links(2)) == ((0,), (0,))
    three.lost = lambda sent: sent.link == 0
    three.rounds(DOWN_ROUNDS)
    assert (node.multicast_links(), node.unicast_links(2)) == ((1,), (1,))
    three.lost = lambda _: False
    three.rounds(UP_ROUNDS)
    assert (node.multicast_links(), node.unicast_links(2)) == ((0,), (0,))
    assert not [e for e in three.events[1] if isinstance(e, LinkUp | LinkDown)], "never cut off"


def test_the_link_with_the_highest_priority_is_preferred_and_zero_counts_as_one() -> None:
    networks = Networks(2, dataclasses.replace(PARAMETERS, priorities=(0, 1, 7)))
    networks.rounds(UP_ROUNDS)
    assert networks.nodes[1].multicast_links() == (2,)
    networks.lost = lambda sent: sent.link == 2
    networks.rounds(DOWN_ROUNDS)
    assert networks.nodes[1].multicast_links() == (0,)


def test_a_multicast_takes_all_links_when_no_single_one_reaches_all(three: Networks) -> None:
    three.lost = lambda sent: (sent.link, sent.destination) in ((0, 2), (1, 3))
    three.rounds(DOWN_ROUNDS)
    node = three.nodes[1]
    assert node.multicast_links() == (0, 1)
    assert (node.unicast_links(2), node.unicast_links(3)) == ((1,), (0,))


def test_a_node_outside_the_ring_does_not_decide_where_the_ring_talks(three: Networks) -> None:
    three.nodes[1].set_members((1, 2))
    three.lost = lambda sent: sent.link == 0 and 3 in (sent.source, sent.destination)
    three.rounds(DOWN_ROUNDS)
    assert three.nodes[1].multicast_links() == (0,)


def test_active_uses_every_link_that_answers() -> None:
    networks = Networks(3, dataclasses.replace(PARAMETERS, mode=Mode.ACTIVE))
    networks.up()
    node = networks.nodes[1]
    assert (node.multicast_links(), node.unicast_links(2)) == ((0, 1), (0, 1))
    networks.lost = lambda sent: sent.link == 1 and sent.destination == 2
    networks.rounds(DOWN_ROUNDS)
    assert (node.multicast_links(), node.unicast_links(2)) == ((0, 1), (0,))
    networks.lost = lambda sent: sent.link == 1
    networks.rounds(DOWN_ROUNDS)
    assert node.multicast_links() == (0,)


def test_when_all_links_die_all_are_used_and_the_ring_is_told(three: Networks) -> None:
    three.lost = lambda sent: 2 in (sent.source, sent.destination)
    three.rounds(DOWN_ROUNDS)
    node = three.nodes[1]
    assert node.unicast_links(2) == (0, 1)
    assert node.multicast_links() == (0, 1)
    assert [e for e in three.events[1] if isinstance(e, LinkDown)] == [LinkDown(2)]
    three.lost = lambda _: False
    three.rounds(UP_ROUNDS)
    assert [e for e in three.events[1] if isinstance(e, LinkUp)] == [LinkUp(2)]


def test_a_one_way_cut_takes_the_link_down_on_both_sides(three: Networks) -> None:
    three.lost = lambda sent: (sent.link, sent.source, sent.destination) == (0, 1, 2)
    three.rounds(DOWN_ROUNDS)
    assert three.state(1, 0, 2) is LinkState.DOWN
    assert three.state(2, 0, 1) is LinkState.DOWN
    assert three.state(2, 0, 3) is LinkState.UP


def test_a_black_hole_for_long_packets_is_named_and_the_link_left(three: Networks) -> None:
    three.lost = lambda sent: sent.link == 0 and sent.size > 1000 and sent.destination == 2
    three.rounds(DEFECT_ROUNDS)
    assert three.state(1, 0, 2) is LinkState.MTU_BAD
    node = three.nodes[1]
    assert (node.multicast_links(), node.unicast_links(2)) == ((1,), (1,))
    assert not [e for e in three.events[1] if isinstance(e, LinkDown)]
    three.lost = lambda _: False
    three.rounds(UP_ROUNDS)
    assert three.state(1, 0, 2) is LinkState.UP


def test_a_link_with_a_black_hole_from_the_start_never_counts_as_up() -> None:
    networks = Networks(2)
    networks.lost = lambda sent: sent.link == 0 and sent.size > 1000
    networks.rounds(UP_ROUNDS)
    assert networks.state(1, 0, 2) is LinkState.DOWN, "not all sizes had their turn"
    networks.rounds(DEFECT_ROUNDS)
    assert networks.state(1, 0, 2) is LinkState.MTU_BAD


def test_a_link_that_only_loses_multicast_is_named(three: Networks) -> None:
    three.lost = lambda sent: sent.link == 0 and sent.multicast and sent.destination == 3
    three.rounds(DEFECT_ROUNDS)
    assert three.state(1, 0, 3) is LinkState.MULTICAST_BAD
    assert three.nodes[1].multicast_links() == (1,)


def test_a_defective_link_carries_unicast_when_it_is_the_only_one_that_answers(
    three: Networks,
) -> None:
    three.lost = lambda sent: sent.link == 1 or sent.size > 1000
    three.rounds(DEFECT_ROUNDS)
    assert three.nodes[1].unicast_links(2) == (0,)
    assert three.nodes[1].multicast_links() == (0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_sporadic_loss_takes_no_link_down(three: Networks, seed: int) -> None:
    numbers = random.Random(seed)
    three.lost = lambda _: numbers.random() < 0.03
    three.rounds(500)
    assert not three.events[1]


def test_a_flapping_link_never_cuts_a_node_off(three: Networks) -> None:
    for _ in range(10):
        three.lost = lambda sent: sent.link == 0
        three.rounds(DOWN_ROUNDS)
        three.lost = lambda _: False
        three.rounds(UP_ROUNDS)
    assert not [e for e in three.events[1] if isinstance(e, LinkUp | LinkDown)]
    moves = [e for e in three.events[1] if isinstance(e, LinkMoved)]
    assert len(moves) == 2 * 2 * 10


def test_a_pause_of_this_process_takes_no_link_down(three: Networks) -> None:
    three.now_ns += 100 * PARAMETERS.timeout_ns
    three.rounds(1)
    assert not [e for events in three.events.values() for e in events]


def test_a_node_that_is_not_configured_is_found_by_its_multicast_and_forgotten_again() -> None:
    links = Links(PARAMETERS, (), 0)
    links.set_members((1,))
    ping = Probe(ProbeKind.MULTICAST_PING, 1, PROBE_SIZE_MIN, 5, 0)
    answer = links.receive(1, 7, ping, 1000)
    assert answer == [SendProbe(1, 7, Probe(ProbeKind.MULTICAST_PONG, 1, PROBE_SIZE_MIN, 1000, 5))]
    assert [(link, node) for link, node, _ in links.paths()] == [(0, 7), (1, 7)]
    links.expire(FORGET_NS)
    assert links.paths()
    links.expire(FORGET_NS + INTERVAL_NS)
    assert not links.paths()


def test_a_probe_on_another_link_than_its_own_is_counted_and_not_answered() -> None:
    links = Links(PARAMETERS, (2,), 0)
    assert links.receive(0, 2, Probe(ProbeKind.PING, 1, PROBE_SIZE_MIN, 5, 0), 10) == []
    assert links.stats.probes_crossed == 1


def test_an_answer_to_another_question_changes_nothing() -> None:
    links = Links(PARAMETERS, (2,), 0)
    links.expire(10)
    for echo_ns in (0, 9, 11):
        assert links.receive(0, 2, Probe(ProbeKind.PONG, 0, 64, 20, echo_ns), 30) == []
    assert links.stats.probes_answered == 0


def test_with_one_link_nothing_is_probed_and_questions_are_answered() -> None:
    links = Links(LinkParameters(), (2,), 0)
    assert links.deadline_ns() is None
    assert links.expire(10**12) == []
    assert links.multicast_links() == links.unicast_links(2) == (0,)
    ping = Probe(ProbeKind.PING, 0, PROBE_SIZE_MIN, 5, 0)
    assert links.receive(0, 2, ping, 10) == [
        SendProbe(0, 2, Probe(ProbeKind.PONG, 0, PROBE_SIZE_MIN, 10, 5))
    ]


def test_without_multicast_only_unicast_is_probed() -> None:
    networks = Networks(2, dataclasses.replace(PARAMETERS, multicast=False))
    probes = networks.nodes[1].expire(networks.now_ns)
    assert {e.node_id for e in probes if isinstance(e, SendProbe)} == {2}
    networks.up()


def test_latency_is_the_mean_of_question_and_answer(three: Networks) -> None:
    path = three.nodes[1].paths()[0][2]
    assert path.latency_ns() == LATENCY_NS
