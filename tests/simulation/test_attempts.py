"""S3 to S6, S14, S15, S23, S24, S28 to S30, S36: what goes wrong while a ring is formed."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster
from tests.sim.host import Host
from tests.sim.network import MS
from tests.sim.plan import SEQ_BASES
from tests.sim.trace import Originated
from totemd.protocol.effects import Moved, State
from totemd.protocol.messages import Data
from totemd.protocol.parameters import RingParameters

KEY = b"one key" * 8
OTHER_KEY = b"another" * 8
FORMING = (State.COMMIT, State.RECOVERY, State.OPERATIONAL)


def loaded(nodes: int, seed: int = 0, parameters: RingParameters | None = None) -> Cluster:
    """Return a ring whose members have just sent."""
    cluster = Cluster(nodes, seed, parameters=parameters)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    for n in sorted(cluster.running):
        connection = cluster.attach(n)
        cluster.run(5 * MS)
        for k in range(20):
            cluster.multicast(n, connection, b"%d:%d:%d:" % (n, n, k) + bytes(600), 2 + k % 2)
    return cluster


def settled(cluster: Cluster) -> None:
    cluster.on_moved = lambda _host, _moved: False
    cluster.wire.heal()
    cluster.wait(cluster.one_ring, 30_000 * MS)
    cluster.run(200 * MS)
    check_all(cluster)


@pytest.mark.parametrize("state", FORMING, ids=lambda s: s.value)
@pytest.mark.parametrize("node", [1, 2, 3])
def test_a_token_lost_at_any_hop_is_sent_again(node: int, state: State) -> None:
    cluster = loaded(4)
    lost: list[int] = []

    def lose(host: Host, moved: Moved) -> bool:
        if host.address == node and moved.new is state and not lost:
            lost.append(cluster.now_ns)
            host.tokens_to_drop += 1
        return False

    cluster.on_moved = lose
    cluster.crash(4)
    took_ns = cluster.wait(cluster.one_ring, 5_000 * MS)
    assert lost
    assert took_ns < 1_600 * MS  # token and silence; nobody waits for a second token timeout
    settled(cluster)


@pytest.mark.parametrize("state", State, ids=lambda s: s.value)
@pytest.mark.parametrize("node", [1, 2, 3])
def test_a_node_may_die_on_entry_to_any_state(node: int, state: State) -> None:
    cluster = loaded(4)
    died: list[int] = []

    def die(host: Host, moved: Moved) -> bool:
        if host.address == node and moved.new is state and not died:
            died.append(cluster.now_ns)
            return True
        return False

    cluster.on_moved = die
    cluster.crash(4)
    cluster.run(3_000 * MS)
    assert died
    cluster.boot(node)
    cluster.boot(4)
    settled(cluster)


@pytest.mark.parametrize("rotations", range(1, 7))
def test_the_token_may_be_lost_after_some_rotations_of_a_recovery(rotations: int) -> None:
    cluster = loaded(4)
    cuts: list[int] = []

    def cut(host: Host, moved: Moved) -> bool:
        if host.address == 1 and moved.new is State.RECOVERY and not cuts:
            cuts.append(cluster.now_ns)
            everybody = {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}

            def begin() -> None:
                number = cluster.wire.block(everybody, multicast=False)
                cluster.at(1_500 * MS, lambda: cluster.wire.unblock(number))

            cluster.at(rotations * 330_000, begin)
        return False

    cluster.on_moved = cut
    cluster.crash(4)
    cluster.run(6_000 * MS)
    assert cuts
    settled(cluster)


def test_a_ring_is_formed_after_five_recoveries_that_failed() -> None:
    cluster = loaded(5)
    failed: list[int] = []

    def fail(host: Host, moved: Moved) -> bool:
        if host.address == 2 and moved.new is State.RECOVERY and len(failed) < 5:
            failed.append(cluster.now_ns)
            number = cluster.wire.block({(2, 3), (3, 2)})
            cluster.at(1_100 * MS, lambda: cluster.wire.unblock(number))
        return False

    cluster.on_moved = fail
    cluster.crash(5)
    cluster.run(20_000 * MS)
    assert len(failed) == 5
    settled(cluster)


@pytest.mark.parametrize("node", [1, 3])
def test_a_node_may_restart_before_its_loss_is_noticed(node: int) -> None:
    cluster = loaded(3)
    cluster.crash(node)
    cluster.run(5 * MS)
    cluster.boot(node)
    settled(cluster)


def test_a_node_may_lose_the_file_of_ring_numbers() -> None:
    cluster = loaded(3)
    cluster.crash(1)
    cluster.lose_disk(1)
    cluster.run(20 * MS)
    cluster.boot(1)
    settled(cluster)


@pytest.mark.parametrize("pause_ms", [100, 700, 1_500, 5_000])
@pytest.mark.parametrize("at_work", [False, True], ids=["polling", "at_work"])
def test_all_nodes_may_sleep_at_once(pause_ms: int, at_work: bool) -> None:  # noqa: FBT001
    cluster = loaded(4)
    for n in (1, 2, 3, 4):
        cluster.pause(n, pause_ms * MS, at_work=at_work)
    cluster.run((pause_ms + 100) * MS)
    settled(cluster)


@pytest.mark.parametrize("base", SEQ_BASES)
def test_numbers_may_begin_anywhere(base: int) -> None:
    cluster = loaded(3, parameters=dataclasses.replace(RingParameters(), seq_base=base))
    cluster.crash(2)
    cluster.run(2_000 * MS)
    cluster.boot(2)
    settled(cluster)


def test_two_clusters_on_one_wire_do_not_notice_each_other() -> None:
    cluster = Cluster(0, key=KEY)
    for n in (1, 2, 3):
        cluster.boot(n)
        cluster.boot(n, address=100 + n, stranger=OTHER_KEY)
    cluster.run(1_000 * MS)
    assert all(host.node.ring.members == (1, 2, 3) for host in cluster.running.values())
    rings = [host.node.ring.stats.rings_installed for host in cluster.running.values()]
    cluster.crash(102)
    cluster.run(3_000 * MS)
    assert [cluster.node(n).ring.members for n in (1, 2, 3)] == [(1, 2, 3)] * 3
    assert [cluster.node(n).ring.members for n in (101, 103)] == [(1, 3)] * 2
    assert [cluster.node(n).ring.stats.rings_installed for n in (1, 2, 3)] == rings[::2]
    check_all(cluster)


def test_a_second_node_with_the_same_id_is_noticed_and_its_end_heals_the_cluster() -> None:
    cluster = Cluster(3, key=KEY)
    cluster.wait(cluster.one_ring, 1_000 * MS)
    cluster.boot(2, address=102)
    cluster.run(500 * MS)
    first = cluster.running[2].opener
    assert first is not None
    assert first.duplicates
    cluster.crash(102)
    cluster.wait(cluster.one_ring, 30_000 * MS)


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_member_that_denies_what_it_acknowledged_does_not_make_the_ring_form_without_pause(
    liar: int,
) -> None:
    # Who finds itself denied has nobody to leave out: the same nodes agree again at once.
    cluster = loaded(3)
    cluster.run(100 * MS)
    assert cluster.node(liar).ring.old.released > 0
    began = {n: cluster.node(n).ring.stats.commits for n in cluster.running}
    cluster.running[liar].lie_until_ns = cluster.now_ns + 10_000 * MS
    cluster.perform(liar, cluster.node(liar).force_gather(cluster.now_ns))
    cluster.run(10_000 * MS)
    for n in cluster.running:
        assert cluster.node(n).ring.stats.commits - began[n] < 30
    assert sum(host.node.ring.stats.protocol_errors for host in cluster.running.values())
    settled(cluster)


def test_a_commit_token_that_denies_its_own_reader_is_dropped() -> None:
    # Only this node has released what all have: no other finds the lie.
    cluster = loaded(3)
    cluster.run(100 * MS)
    for n in (1, 3):
        cluster.node(n).ring.old.released = 0
    commits = cluster.node(2).ring.stats.commits
    cluster.running[2].lie_until_ns = cluster.now_ns + 5_000 * MS
    cluster.perform(2, cluster.node(2).force_gather(cluster.now_ns))
    cluster.run(5_000 * MS)
    assert cluster.node(2).ring.stats.commits - commits < 10
    settled(cluster)


def test_a_late_message_of_an_old_ring_is_no_reason_to_gather() -> None:
    # It was sent before the change by a node that came along, and overtaken on the way.
    cluster = loaded(3)
    cluster.run(100 * MS)
    old = next(r for r in reversed(cluster.running[2].life.records) if isinstance(r, Originated))
    late = Data(old.ring, old.seq, 2, old.guarantee, 0, 1, old.payload)
    cluster.crash(3)
    cluster.wait(cluster.one_ring, 5_000 * MS)
    gathers = cluster.node(1).ring.stats.gathers
    order = (cluster.running[2].life.epoch, cluster.running[2].packets)
    cluster.perform(1, cluster.node(1).receive(late, 2, order, cluster.now_ns))
    cluster.run(100 * MS)
    assert cluster.node(1).ring.stats.gathers == gathers
    settled(cluster)
