"""A process of clients of the measurement of checkpoints, each with one call at a time.

Prints ``ready``, waits for a line, and prints operations per second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from openais import ckpt
from openais.aio import ckpt as aio
from openais.ckpt import Attributes, CreationFlags

SIZE: Final = 256  # bytes of a section
ATTRIBUTES: Final = Attributes(CreationFlags.WR_ALL_REPLICAS, 0, 0, 1024, 4096, 32)
NAME: Final = "bench"
WRITE: Final = "write"
FENCED: Final = "fenced"
LOCAL: Final = "local"

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


def _wait() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def one(kind: str, section: str, seconds: float) -> float:
    """Return operations per second of one client, in the calls that wait."""
    data = os.urandom(SIZE)
    with ckpt.Client() as client:
        checkpoint = client.open(NAME, ATTRIBUTES)
        checkpoint.overwrite(section, data, create=True)
        calls: dict[str, Call] = {
            WRITE: lambda: checkpoint.overwrite(section, data),
            FENCED: lambda: checkpoint.read([(section, 0, None)]),
            LOCAL: lambda: checkpoint.read([(section, 0, None)], local=True),
        }
        call = calls[kind]
        _wait()
        begun = time.monotonic()
        done = 0
        while time.monotonic() < begun + seconds:
            call()
            done += 1
        return done / (time.monotonic() - begun)


async def many(kind: str, prefix: str, clients: int, seconds: float) -> float:
    """Return operations per second of several clients."""
    data = os.urandom(SIZE)
    async with contextlib.AsyncExitStack() as stack:
        calls: list[AsyncCall] = []
        for number in range(clients):
            client = await stack.enter_async_context(aio.Client())
            checkpoint = await client.open(NAME, ATTRIBUTES)
            section = f"{prefix}.{number}"
            await checkpoint.overwrite(section, data, create=True)
            calls.append(_call(kind, checkpoint, section, data))
        _wait()
        begun = time.monotonic()

        async def work(call: AsyncCall) -> int:
            done = 0
            while time.monotonic() < begun + seconds:
                await call()
                done += 1
            return done

        done = sum(await asyncio.gather(*map(work, calls)))
        return done / (time.monotonic() - begun)


def _call(kind: str, checkpoint: aio.Checkpoint, section: str, data: bytes) -> AsyncCall:
    if kind == WRITE:
        return lambda: checkpoint.overwrite(section, data)
    return lambda: checkpoint.read([(section, 0, None)], local=kind == LOCAL)


def main() -> None:
    """Run: KIND PREFIX CLIENTS SECONDS; the node is that of OPENAIS_RUN_DIR."""
    kind, prefix, clients, seconds = sys.argv[1:]
    if clients == "1":
        rate = one(kind, prefix, float(seconds))
    else:
        rate = asyncio.run(many(kind, prefix, int(clients), float(seconds)))
    sys.stdout.write(f"{rate}\n")


if __name__ == "__main__":
    main()
