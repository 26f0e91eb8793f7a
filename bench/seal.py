"""How long do sealing and opening take? Prints microseconds per call, best of several rounds.

A block is what is sealed by one call and sent as several datagrams; "one by one" is its opening
when the system hands the datagrams over singly (no UDP_GRO).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from totemd.seal import ALGORITHMS, ClusterKey, Opener, Sealer, block_size_max

DATAGRAM_SIZE = 1_472  # an MTU of 1500 over IPv4
MESSAGES_OF_ONE_DATAGRAM = (96, 1_428)
BLOCKS = (2, 4, 8, 16, 44)  # datagrams
KEY = bytes(range(128))


def best_us(work: Callable[[], object], calls: int, rounds: int) -> float:
    """Return the time of one call of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        before = time.perf_counter_ns()
        work()
        best = min(best, (time.perf_counter_ns() - before) / calls)
    return best / 1_000


def measure(algorithm: int, message: bytes, calls: int, rounds: int) -> tuple[float, ...]:
    """Return the microseconds to seal, to open at once, and to open one by one."""
    key = ClusterKey(KEY, "bench") if algorithm else None
    sealer = Sealer(key, algorithm, 1, (1, b"0000"), DATAGRAM_SIZE)

    def seal() -> None:
        for _ in range(calls):
            sealer.seal(message)

    def opening(*, singly: bool) -> float:
        best = float("inf")
        for _ in range(rounds):
            sealed = [sealer.seal(message) for _ in range(calls)]
            opener = Opener([key] if key else [], algorithm, 2)
            trains = [[b"".join(block)] if not singly else block for block in sealed]
            size = len(sealed[0][0])

            def work() -> None:
                count = 0
                for block in trains:  # noqa: B023 - called in the same round
                    for train in block:
                        count += len(opener.open_train(train, size, "peer", 0))  # noqa: B023
                assert count == calls

            best = min(best, best_us(work, calls, 1))
        return best

    return best_us(seal, calls, rounds), opening(singly=False), opening(singly=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.seal", description=__doc__)
    parser.add_argument("--calls", type=int, default=500, help="of one round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    sizes = [(1, size) for size in MESSAGES_OF_ONE_DATAGRAM]
    sizes += [(count, block_size_max(DATAGRAM_SIZE, count)) for count in BLOCKS]
    print(f"us per message, datagrams of at most {DATAGRAM_SIZE} B")
    print(f"{'':>18} {'message':>9} {'datagrams':>9} {'seal':>7} {'open':>7} {'one by one':>10}")
    for name, algorithm in ALGORITHMS.items():
        for count, size in sizes:
            sealing, opening, singly = measure(
                algorithm, bytes(size), options.calls, options.rounds
            )
            print(
                f"{name:>18} {size:>7} B {count:>9} {sealing:>7.2f} {opening:>7.2f} {singly:>10.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
