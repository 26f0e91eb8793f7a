"""How many checkpoint writes and reads per second? Prints a table."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.stage import say
from deploy import layout, local
from openais.aio import ckpt
from openais.ckpt import Attributes, CreationFlags

SIZE = 256
ATTRIBUTES = Attributes(CreationFlags.WR_ALL_REPLICAS, 0, 0, 1024, 4096, 32)
Operation = Callable[[ckpt.Checkpoint, str], Awaitable[object]]


async def measure(
    operation: Operation, checkpoint: ckpt.Checkpoint, tasks: int, seconds: float
) -> float:
    """Return operations per second of several tasks of one client."""
    end = time.monotonic() + seconds

    async def worker(number: int) -> int:
        done = 0
        while time.monotonic() < end:
            await operation(checkpoint, f"s{number}")
            done += 1
        return done

    return sum(await asyncio.gather(*(worker(n) for n in range(tasks)))) / seconds


async def play(seconds: float) -> None:
    """Run all measurements at one node."""
    data = os.urandom(SIZE)
    async with ckpt.Client() as client:
        checkpoint = await client.open("bench", ATTRIBUTES)
        for n in range(64):
            await checkpoint.overwrite(f"s{n}", data, create=True)
        rows: dict[str, Operation] = {
            "overwrite, all replicas": lambda c, s: c.overwrite(s, data),
            "read, fenced": lambda c, s: c.read([(s, 0, None)]),
            "read, local": lambda c, s: c.read([(s, 0, None)], local=True),
        }
        say(f"{f'{SIZE} B':<26}{'1 at a time':>14}{'64 at a time':>14}{'ratio':>8}")
        for title, operation in rows.items():
            one = await measure(operation, checkpoint, 1, seconds)
            many = await measure(operation, checkpoint, 64, seconds)
            say(f"{title:<26}{one:>12,.0f}/s{many:>12,.0f}/s{many / max(one, 1):>8.1f}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="./run bench-ckpt", description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ais-bench-"))
    progress = local.Progress(quiet=True)
    try:
        local.up(directory, options.nodes, progress)
        os.environ["OPENAIS_RUN_DIR"] = str(layout.nodes(directory)[0].run_dir)
        asyncio.run(play(options.seconds))
    finally:
        local.down(directory, progress)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
