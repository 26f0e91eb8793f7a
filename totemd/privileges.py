"""What makes totemd run in time on a busy machine, as far as the system allows it."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from openais.node.config import SystemConfig
from openais.node.logs import EventLog

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
NICE_FALLBACK: Final = -10  # for "max", where real-time scheduling is not had

_LOG = EventLog(__name__)


def apply(system: SystemConfig) -> None:
    """Ask for real-time scheduling or a nice value, and for locked memory; a refusal is logged."""
    if not (system.sched_rr and _real_time(system.priority)):
        _nice(system.priority)
    if system.mlock and ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE):
        _LOG.info("not_locked_in_memory", reason=os.strerror(ctypes.get_errno()))


def _real_time(priority: str) -> bool:
    lowest, highest = (
        os.sched_get_priority_min(os.SCHED_RR),
        os.sched_get_priority_max(os.SCHED_RR),
    )
    level = highest if priority == "max" else lowest
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(level))
    except OSError as error:
        _LOG.info("not_real_time", reason=error.strerror or str(error))
        return False
    return True


def _nice(priority: str) -> None:
    value = {"max": NICE_FALLBACK, "min": 19}.get(priority)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, int(priority) if value is None else value)
    except OSError as error:
        _LOG.info("not_prioritised", priority=priority, reason=error.strerror or str(error))
