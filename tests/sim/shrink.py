"""Make a failing plan smaller: leave out actions and triggers while it still fails so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.sim.axioms import AxiomError
from tests.sim.plan import Plan, Trigger
from tests.sim.random_run import RandomRun

RUNS_MAX: Final = 400


def failure(plan: Plan) -> str | None:
    """Run a plan; return what kind of failure it shows."""
    try:
        RandomRun(plan.seed, plan=plan).run()
    except AxiomError as error:
        return error.violations[0].axiom
    except Exception as error:
        return type(error).__name__
    return None


def shrink(plan: Plan, say: Callable[[str], None]) -> Plan:
    """Return a smaller plan that fails in the same way; the plan itself if it does not fail."""
    wanted = failure(plan)
    if wanted is None:
        return plan
    kept = [position for position, _ in plan.happening()]
    triggers = plan.triggers
    runs = 0

    def holds(actions: list[int], some: tuple[Trigger, ...]) -> bool:
        nonlocal runs
        runs += 1
        smaller = plan.without(actions=frozenset(actions), triggers=some)
        return runs > RUNS_MAX or failure(smaller) != wanted

    size = max(1, len(kept) // 2)
    while size:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if holds(fewer, triggers):
                start += size
            else:
                kept = fewer
        size //= 2
    for trigger in triggers:
        others = tuple(t for t in triggers if t is not trigger)
        if not holds(kept, others):
            triggers = others
    left = f"{len(triggers)} of {len(plan.triggers)} triggers are left"
    say(f"{wanted}: {len(kept)} of {len(plan.actions)} actions, {left}")
    return plan.without(actions=frozenset(kept), triggers=triggers)
