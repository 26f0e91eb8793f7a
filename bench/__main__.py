"""Run measurements: ``./run bench [--quick] [--keep] [NAME ...]``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import Final

from bench import (
    checkpoints,
    core,
    failover,
    idle,
    latency,
    network,
    oversubscribed,
    restart,
    ring,
    seal,
)
from bench.client import ClientError
from bench.network import NetworkError
from bench.options import Options
from bench.process import ProcessError
from bench.report import say

MEASUREMENTS: Final[dict[str, Callable[[Options], None]]] = {
    "ring": ring.main,
    "latency": latency.main,
    "failover": failover.main,
    "idle": idle.main,
    "oversubscribed": oversubscribed.main,
    "checkpoints": checkpoints.main,
    "seal": seal.main,
    "restart": restart.main,
    "core": core.main,
}
NEED_NAMESPACES: Final = frozenset({"ring", "latency", "failover", "oversubscribed"})


def main() -> int:
    """Run what is asked for; return the exit status: 0, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--keep", action="store_true", help="write bench/results/NAME.txt")
    parser.add_argument("--sizes", type=int, nargs="+", default=(), help="bytes of a message")
    parser.add_argument("--repeat", type=int, default=0, help="times, of each event of failover")
    parser.add_argument("--minutes", type=float, default=0, help="of each case of oversubscribed")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"{unknown[0]}: no such measurement; there are {', '.join(MEASUREMENTS)}")
    options = Options(
        arguments.quick,
        arguments.keep,
        max(0, arguments.repeat),
        max(0.0, arguments.minutes),
        tuple(arguments.sizes),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is taken down
    for name in arguments.names or MEASUREMENTS:
        missing = network.unavailable() if name in NEED_NAMESPACES else None
        if missing is not None:
            say(f"{name}: skipped: {missing}")
            continue
        try:
            MEASUREMENTS[name](options)
        except (NetworkError, ProcessError, ClientError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 1
        say()
    return 0


if __name__ == "__main__":
    sys.exit(main())
