"""How many checkpoint writes and reads per second? Prints a table."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.options import Options
from bench.report import Report
from deploy import layout, local
from openais.aio import ckpt
from openais.ckpt import Attributes, CreationFlags

NODES = 3
SIZE = 256
SECONDS = 3.0
SECONDS_QUICK = 1.0
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


async def play(report: Report, seconds: float) -> None:
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
        report.line(f"{f'{SIZE} B':<26}{'1 at a time':>14}{'64 at a time':>14}{'ratio':>8}")
        for title, operation in rows.items():
            one = await measure(operation, checkpoint, 1, seconds)
            many = await measure(operation, checkpoint, 64, seconds)
            report.line(f"{title:<26}{one:>12,.0f}/s{many:>12,.0f}/s{many / max(one, 1):>8.1f}")


def main(options: Options) -> None:
    """Measure and print."""
    report = Report(
        "checkpoints", f"{NODES} nodes on loopback, one client, {SIZE} B", keep=options.keep
    )
    directory = Path(tempfile.mkdtemp(prefix="aisbench-"))
    progress = local.Progress(quiet=True)
    before = os.environ.get("OPENAIS_RUN_DIR")
    try:
        local.up(directory, NODES, progress)
        os.environ["OPENAIS_RUN_DIR"] = str(layout.nodes(directory)[0].run_dir)
        asyncio.run(play(report, SECONDS_QUICK if options.quick else SECONDS))
    finally:
        if before is None:
            os.environ.pop("OPENAIS_RUN_DIR", None)
        if layout.nodes(directory):
            local.down(directory, progress)
        shutil.rmtree(directory, ignore_errors=True)
    report.close()
