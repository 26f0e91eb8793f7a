"""`./run chaos`: real nodes, random faults, and what the clients saw is judged."""

from __future__ import annotations

import argparse
import random
import sys
from typing import Final

from tests.chaos import overload
from tests.chaos.run import Settings, run
from tests.net.namespaces import UnavailableError, remove_leftovers

SECONDS_PER_MINUTE: Final = 60


def main() -> int:
    """Run; return the exit status: 0, 1 something is wrong, 3 not possible here."""
    options = _options()
    if options.overload:
        overloaded = overload.run(options.minutes * SECONDS_PER_MINUTE, options.nodes)
        wrong = bool(overloaded.problems)
        text = overloaded.report() if wrong else overloaded.summary()
    else:
        seed = options.seed
        if seed is None:
            seed = random.SystemRandom().randrange(1 << 32)
        sys.stdout.write(f"seed {seed}\n")
        sys.stdout.flush()
        settings = Settings(
            seed,
            int(options.minutes * SECONDS_PER_MINUTE * 1000),
            options.nodes,
            cuts=options.partitions,
            quorum=not options.no_quorum,
        )
        try:
            if options.partitions:
                remove_leftovers()
            result = run(settings)
        except UnavailableError as error:
            sys.stderr.write(f"run chaos: {error}\n")
            return 3
        wrong = result.failed
        text = result.report() if wrong else result.summary()
    sys.stdout.write(f"{text}\n")
    return int(wrong)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults; default: 1")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--nodes", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--partitions", action="store_true", help="in network namespaces, cut too; needs root"
    )
    parser.add_argument(
        "--no-quorum", action="store_true", help="sides that are apart all work on; weaker rules"
    )
    parser.add_argument(
        "--overload", action="store_true", help="no faults; clients send as fast as they can"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
