"""How long do sealing and opening take? Prints microseconds per call, best of several rounds.

A block is what is sealed by one call and sent as several datagrams; "one by one" is its opening
when the system hands the datagrams over singly (no UDP_GRO).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.options import Options
from bench.report import Report
from totemd.seal import ALGORITHMS, ClusterKey, Opener, Sealer, block_size_max

DATAGRAM_SIZE = 1_472  # an MTU of 1500 over IPv4
MESSAGES_OF_ONE_DATAGRAM = (96, 1_428)
BLOCKS = (2, 4, 8, 16, 44)  # datagrams
KEY = bytes(range(128))
CALLS = 500  # of one round
ROUNDS = 15
ROUNDS_QUICK = 2
WIDTHS = (18, 10, 9, 8, 8, 10)


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


def main(options: Options) -> None:
    """Measure and print."""
    title = f"microseconds per message, datagrams of at most {DATAGRAM_SIZE} B"
    report = Report("seal", title, keep=options.keep)
    report.row(["", "message", "datagrams", "seal", "open", "one by one"], WIDTHS)
    sizes = [(1, size) for size in MESSAGES_OF_ONE_DATAGRAM]
    sizes += [(count, block_size_max(DATAGRAM_SIZE, count)) for count in BLOCKS]
    rounds = ROUNDS_QUICK if options.quick else ROUNDS
    for name, algorithm in ALGORITHMS.items():
        for count, size in sizes:
            times = measure(algorithm, bytes(size), CALLS, rounds)
            cells = [name, f"{size:,} B", str(count), *(f"{us:.2f}" for us in times)]
            report.row(cells, WIDTHS)
    report.close()
