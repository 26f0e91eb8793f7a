"""The liveness axioms, once the faults are over: one ring of all, quick delivery, a calm idle."""

from __future__ import annotations

from typing import Final

from tests.sim.axioms import AxiomError, Violation
from tests.sim.cluster import Cluster
from tests.sim.network import MS
from tests.sim.trace import SAFE, Ended, Got, Installed, Life, Originated, Record
from totemd.protocol.parameters import RingParameters

DELAY_NS: Final = 150_000  # of the healed network, at most
TURN_NS: Final = 3 * MS  # until the token is called back, if it is held
SLACK_NS: Final = 2 * MS
IDLE_HOLDS: Final = 10  # the idle ring is watched for so many
AGREED_ROTATIONS: Final = 2
SAFE_ROTATIONS: Final = 5


def settle(cluster: Cluster, late_ns: int) -> None:
    """Wait for the bound of L1; then all running nodes must be in one ring.

    Args:
        cluster: without faults.
        late_ns: how long datagrams of the time before may still be on their way.

    Raises:
        AxiomError: L1.
    """
    leaving = [h for h in cluster.running.values() if h.node.ring.leave_copies is not None]
    if leaving:
        cluster.run(1_000 * MS)
        for host in leaving:
            if host.life.ended is not Ended.RUNNING:
                cluster.boot(host.address)
    cluster.run(bound_ns(cluster) + late_ns)
    held_off_ns = _held_off_ns(cluster)
    if held_off_ns:  # by a ring that was formed while the faults were ending
        cluster.run(held_off_ns + bound_ns(cluster))
    members = tuple(sorted(cluster.running))
    found = []
    for host in cluster.running.values():
        last = _last(host.life)
        if last.members != members or host.node.ring.state.value != "operational":
            state = host.node.ring.state.value
            what = f"{state}, {last.members}, should be {members}"
            found.append(Violation("L1", host.life.node_id, last.ring, 0, what))
        elif host.node.groups.ring != last.ring:
            found.append(Violation("Y6", host.life.node_id, last.ring, 0, "round not finished"))
    if found:
        raise AxiomError(found)


def bound_ns(cluster: Cluster) -> int:
    """Return how long a healed cluster may take to be one ring, when nobody is held off."""
    p = cluster.parameters
    token_ns = p.token_loss_ns(len(cluster.running))
    rotation_ns = len(cluster.running) * DELAY_NS
    total = 2 * token_ns + 2 * p.consensus_ns + p.merge_ns + 40 * rotation_ns
    return (total + 1_000 * MS) * 21 // 20  # clocks may be 5 % slow


def _held_off_ns(cluster: Cluster) -> int:
    """Return how long the nodes still begin no merge with who came and went too often."""
    return max(
        0,
        *(
            h.until_ns - host.clock.local_ns(cluster.now_ns)
            for host in cluster.running.values()
            for h in host.node.ring.hold_offs._nodes.values()
        ),
        0,
    )


def _last(life: Life) -> Installed:
    return next(r for r in reversed(life.records) if isinstance(r, Installed))


def turn_ns(cluster: Cluster) -> int:
    """Return how soon a node of an idle ring has its message back, be it safe."""
    return TURN_NS + (SAFE_ROTATIONS + 2) * len(cluster.running) * DELAY_NS


def stay_quiet(cluster: Cluster, since_ns: int) -> None:
    """Watch the idle ring, and judge what was sent since it settled.

    Raises:
        AxiomError: L1 (it did not stay), L2 or L3.
    """
    cluster.run(50 * MS)
    before, idle_from = cluster.datagrams, cluster.now_ns
    hold_ns = cluster.parameters.hold_ns
    cluster.run(IDLE_HOLDS * hold_ns)
    found = [*_idle(cluster, cluster.datagrams - before, cluster.now_ns - idle_from)]
    for host in cluster.running.values():
        last = _last(host.life)
        if last.at_ns > since_ns:
            found.append(Violation("L1", host.life.node_id, last.ring, 0, "did not stay"))
    found += _prompt(cluster, since_ns)
    if found:
        raise AxiomError(found)


def _idle(cluster: Cluster, datagrams: int, span_ns: int) -> list[Violation]:
    p: RingParameters = cluster.parameters
    nodes = len(cluster.running)
    if nodes == 1:
        allowed = 2 + 2 * span_ns // p.merge_ns
    else:
        allowed = 2 * (nodes * (1 + span_ns // p.hold_ns) + span_ns // p.merge_ns) + 2
    if datagrams <= allowed:
        return []
    what = f"{datagrams} datagrams in {span_ns // MS} idle ms, at most {allowed}"
    return [Violation("L3", 0, None, 0, what)]


def _since(life: Life, since_ns: int) -> list[Record]:
    records = life.records
    begin = len(records)
    while begin and records[begin - 1].at_ns >= since_ns:
        begin -= 1
    return records[begin:]


def _prompt(cluster: Cluster, since_ns: int) -> list[Violation]:
    """L2: delivered everywhere within a few rotations of its origination."""
    lives = [host.life for host in cluster.running.values()]
    sent = {
        (r.ring, r.seq): r
        for life in lives
        for r in _since(life, since_ns)
        if isinstance(r, Originated)
    }
    rotation_ns = len(lives) * DELAY_NS
    found = []
    for life in lives:
        got = {(r.ring, r.seq): r for r in _since(life, since_ns) if isinstance(r, Got)}
        for (ring, seq), origin in sent.items():
            record = got.get((ring, seq))
            if record is None:
                found.append(Violation("L2", life.node_id, ring, seq, "not delivered"))
                continue
            rotations = SAFE_ROTATIONS if record.guarantee == SAFE else AGREED_ROTATIONS
            took = record.at_ns - origin.at_ns
            if took > rotations * rotation_ns + SLACK_NS:
                what = f"delivered after {took / MS:.1f} ms"
                found.append(Violation("L2", life.node_id, ring, seq, what))
    return found
