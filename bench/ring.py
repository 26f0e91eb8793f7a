"""How many ordered messages, how many megabytes, how soon? Prints a table.

Every message is encrypted, ordered and delivered to a client at every node. The figure is what
the slowest client received.
"""

from __future__ import annotations

import argparse
import sys

from bench.stage import Client, say, stage

SIZES = (64, 300, 1_024, 8_192, 65_536, 524_288)
LATENCY_SIZE = 300


def run(clients: list[Client], what: str, size: int, seconds: float, senders: int) -> list[float]:
    """Let the clients measure at the same time; return their figures."""
    for number, client in enumerate(clients):
        client.tell(
            what=what,
            size=size,
            seconds=seconds,
            send=number < senders,
            members=len(clients),
        )
    answers = [client.answer() for client in clients]
    if what == "latency":
        return [answers[0]["p50_us"], answers[0]["p99_us"]]
    return [min(answer["per_second"] for answer in answers)]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes")
    options = parser.parse_args()
    nodes = options.nodes
    with stage(nodes, "bench.ring_client") as clients:
        say(f"{nodes} nodes on one machine, encrypted, {options.seconds:g} s each")
        say(f"{'size':>8}  {'1 sender':>22}  {f'{nodes} senders':>22}  {'ratio':>6}")
        for size in options.sizes:
            one = run(clients, "throughput", size, options.seconds, 1)[0]
            many = run(clients, "throughput", size, options.seconds, nodes)[0]
            say(
                f"{size:>6} B  {one:>10,.0f}/s {one * size / 1e6:>6.1f} MB/s"
                f"  {many:>10,.0f}/s {many * size / 1e6:>6.1f} MB/s  {many / max(one, 1):>6.2f}"
            )
        p50, p99 = run(clients, "latency", LATENCY_SIZE, options.seconds, 1)
        say(f"latency, one at a time, {LATENCY_SIZE} B: p50 {p50:,.0f} us, p99 {p99:,.0f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
