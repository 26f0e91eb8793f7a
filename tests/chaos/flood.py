"""Clients that send as fast as they can, a program of its own: ``python -m tests.chaos.flood``.

Each client has one session and many calls under way. It says ``ready``, works until there is a
line of input, writes down what it did, and says ``done``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from openais.aio import ckpt
from openais.errors import AisError
from openais.wire.ckpt import CreationFlags
from tests.chaos.client import attributes, say

CLIENTS: Final = 3
CALLS_AT_A_TIME: Final = 32  # of each client
DATA_SIZE: Final = 512  # bytes of each write
READ_EVERY: Final = 4  # of so many calls one is a read
CHECKPOINT: Final = "flood"
REFUSED_S: Final = 0.01  # before the next attempt: so the interface demands it
FILE_SUFFIX: Final = ".flood"


@dataclass(slots=True)
class Progress:
    """What one client did.

    Attributes:
        name: of the client.
        done: calls that were answered.
        refused: calls that were to be tried again.
        lost: calls of which nobody knows what came.
        wrong: sections that have not the newest acknowledged content in the end.
        longest_s: call.
    """

    name: str
    done: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    longest_s: float = 0.0


class Flood:
    """One client."""

    def __init__(self, name: str, checkpoint: ckpt.Checkpoint) -> None:
        self.progress: Final = Progress(name)
        self.stopping = False
        self._checkpoint: Final = checkpoint

    async def work(self) -> None:
        """Keep so many calls under way until told to stop; then check what is there."""
        await asyncio.gather(*(self._one(number) for number in range(CALLS_AT_A_TIME)))

    async def _one(self, lane: int) -> None:
        section = f"{self.progress.name} {lane}"
        acknowledged = number = 0
        certain = True
        while not self.stopping:
            number += 1
            begin = time.monotonic()
            try:
                if number % READ_EVERY:
                    data = f"{number}".encode().ljust(DATA_SIZE, b".")
                    await self._checkpoint.overwrite(section, data, create=True)
                    acknowledged, certain = number, True
                else:
                    await self._checkpoint.read([(section, 0, None)])
                self.progress.done += 1
            except AisError as error:
                self.progress.refused += error.definite
                self.progress.lost += not error.definite
                certain = certain and error.definite
                await asyncio.sleep(REFUSED_S)
            self.progress.longest_s = max(self.progress.longest_s, time.monotonic() - begin)
        if certain and acknowledged:
            data = (await self._checkpoint.read([(section, 0, None)]))[0]
            self.progress.wrong += int(data.rstrip(b".")) != acknowledged


async def flood(node: int, run_dir: Path, directory: Path) -> None:
    """Run the clients of one node."""
    clients = [ckpt.Client(run_dir=run_dir) for _ in range(CLIENTS)]
    floods = []
    for number, client in enumerate(clients):
        await client.__aenter__()
        opened = await client.open(CHECKPOINT, attributes(CreationFlags.WR_ACTIVE_REPLICA))
        floods.append(Flood(f"n{node}c{number}", opened))
    say("ready")
    work = asyncio.gather(*(one.work() for one in floods))
    await asyncio.to_thread(sys.stdin.readline)
    for one in floods:
        one.stopping = True
    await work
    path = directory / f"n{node}{FILE_SUFFIX}"
    path.write_text(json.dumps([asdict(one.progress) for one in floods]), encoding="utf-8")
    for client in clients:
        client.close()
    say("done")


def read(directory: Path) -> list[Progress]:
    """Return what the clients of all nodes did."""
    paths = sorted(directory.glob(f"*{FILE_SUFFIX}"))
    return [Progress(**one) for path in paths for one in json.loads(path.read_text("utf-8"))]


def main() -> None:
    """Run the clients of one node."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.flood", description=__doc__)
    parser.add_argument("--node", type=int, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(flood(options.node, options.run_dir, options.directory))


if __name__ == "__main__":
    main()
