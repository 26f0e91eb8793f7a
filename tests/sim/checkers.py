"""The judge of a simulated run: every axiom and every rule of groups, on the records alone."""

from __future__ import annotations

from collections.abc import Iterable

from tests.sim import axioms, group_axioms
from tests.sim.axioms import AxiomError, History, Violation
from tests.sim.cluster import Cluster
from tests.sim.trace import Life


def judge(lives: Iterable[Life]) -> list[Violation]:
    """Return what is broken; nothing, one hopes."""
    history = History(lives)
    found = [v for axiom in axioms.AXIOMS.values() for v in axiom(history)]
    return found + group_axioms.violations(history)


def check_all(cluster: Cluster) -> None:
    """Apply every judge to a cluster.

    Raises:
        AxiomError: names the axioms, nodes, rings and positions.
    """
    found = judge(life for life in cluster.lives if not life.stranger)
    found += judge(life for life in cluster.lives if life.stranger)
    if found:
        raise AxiomError(found)
