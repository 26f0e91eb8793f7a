"""Make a failing plan smaller: leave out actions and triggers while it still fails so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.sim.axioms import AxiomError
from tests.sim.plan import Plan
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
    size = max(1, len(kept) // 2)
    while size and runs < RUNS_MAX:
        smaller = False
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            runs += 1
            if failure(plan.without(actions=frozenset(fewer), triggers=triggers)) == wanted:
                kept, smaller = fewer, True
                break
        if not smaller:
            size //= 2
    for trigger in triggers:
        fewer_triggers = tuple(t for t in triggers if t is not trigger)
        if failure(plan.without(actions=frozenset(kept), triggers=fewer_triggers)) == wanted:
            triggers = fewer_triggers
    say(f"{wanted}: {len(kept)} of {len(plan.actions)} actions, {len(triggers)} triggers are left")
    return plan.without(actions=frozenset(kept), triggers=triggers)
