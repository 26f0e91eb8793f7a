"""What makes totemd run in time on a busy machine, as far as the system allows it.

And without wasting its time: large buffers come and go with every frame, so the allocator keeps
its memory instead of asking the kernel for fresh pages each time (measured: half of the time spent
per frame), and the garbage collector looks seldom, for what the hot path makes has no cycles.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Final

from openais.node.config import SystemConfig
from openais.node.logs import EventLog

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4  # lock what is used; without it all of every library is read in, 25 MiB more
LOCKED: Final = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 16 << 20  # free memory at the top of the heap that is not given back
ALLOCATION_MAPPED_BYTES: Final = 4 << 20  # only larger allocations get pages of their own
COLLECT_AFTER: Final = 50_000  # container objects
NICE_FALLBACK: Final = -10  # for "max", where real-time scheduling is not had

_LOG = EventLog(__name__)


def apply(system: SystemConfig) -> None:
    """Ask for real-time scheduling or a nice value, and for locked memory; a refusal is logged."""
    if not (system.sched_rr and _real_time(system.priority)):
        _nice(system.priority)
    if system.mlock and ctypes.CDLL(None, use_errno=True).mlockall(LOCKED):
        _LOG.info("not_locked_in_memory", reason=os.strerror(ctypes.get_errno()))


def keep_memory() -> None:
    """Let the allocator and the collector suit a process that moves buffers all the time."""
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):  # glibc
        allocator.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        allocator.mallopt(M_MMAP_THRESHOLD, ALLOCATION_MAPPED_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


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
