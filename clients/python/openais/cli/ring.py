"""``openais ring``: what an operator may order of the ring."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from openais import status as ask
from openais.cli import totemd
from openais.wire import port

FAILED: Final = 1
CANNOT_CONNECT: Final = 3
POLL_S: Final = 0.1


def gather(options: argparse.Namespace) -> int:
    """Have the ring formed anew; wait until it is."""
    run_dir = totemd.run_dir(options)
    before = totemd.status(run_dir, "ring gather")
    if before is None:
        return CANNOT_CONNECT
    if not totemd.order(run_dir, port.RingGather(1), "ring gather"):
        return FAILED
    end = time.monotonic() + options.wait
    while time.monotonic() < end:
        now = ask.query(run_dir, ask.TOTEMD)
        if now is not None and ask.ready(now) and now["ring"]["seq"] > before["ring"]["seq"]:
            ring, members = now["ring"], " ".join(map(str, now["members"]))
            sys.stdout.write(f"ring {ring['seq']}.{ring['representative']}, members {members}\n")
            return 0
        time.sleep(POLL_S)
    sys.stderr.write(f"openais ring gather: no new ring after {options.wait:g} s; see the log\n")
    return FAILED


def clear_hold_offs(options: argparse.Namespace) -> int:
    """Let a node merge at once with those it holds off because they came and went."""
    run_dir = totemd.run_dir(options)
    before = totemd.status(run_dir, "ring clear-hold-offs")
    if before is None:
        return CANNOT_CONNECT
    if not totemd.order(run_dir, port.HoldOffsClear(1), "ring clear-hold-offs"):
        return FAILED
    held = " ".join(map(str, before["held_off"])) or "nobody"
    sys.stdout.write(f"held off until now: {held}\n")
    return 0
