"""Fuzz every decoder: ``./run fuzz --inputs 1000000``."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz import fuzzer
from tests.fuzz.targets import shares, targets


def main() -> int:
    """Run and print a table; return the exit status: 0, 1 a decoder broke, 2 usage."""
    parser = argparse.ArgumentParser(prog="./run fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all decoders together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--keep", action="store_true", help="rewrite tests/fuzz/corpus")
    options = parser.parse_args()
    all_targets = targets(options.seed)
    counts = shares(all_targets, options.inputs)
    if options.target is not None:
        if options.target not in counts:
            parser.error(f"--target {options.target}: there are {', '.join(counts)}")
        all_targets = [target for target in all_targets if target.name == options.target]
        counts = {options.target: options.inputs}
    sys.stdout.write(f"{'decoder':<16}{'inputs':>10}{'inputs/s':>10}{'outcomes':>10}")
    sys.stdout.write(f"{'slowest':>12}{'memory':>12}\n")
    broken = 0
    for target in all_targets:
        try:
            found = fuzzer.run(target, options.seed, counts[target.name])
        except fuzzer.FuzzError as error:
            sys.stdout.write(f"{str(error)[:2_000]}\n")
            broken += 1
            continue
        sys.stdout.write(
            f"{target.name:<16}{found.inputs:>10,}{found.inputs / found.seconds:>10,.0f}"
            f"{len(found.outcomes):>10}{found.slowest_s * 1e3:>9,.1f} ms"
            f"{found.growth_bytes / (1 << 20):>+8,.1f} MiB\n"
        )
        sys.stdout.flush()
        if options.keep:
            fuzzer.keep(target.name, found)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
