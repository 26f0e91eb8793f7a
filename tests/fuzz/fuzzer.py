"""Feed seeded inputs to the decoders and watch: what they answer, how long, how much memory."""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutation import make
from tests.fuzz.targets import Target

CORPUS = Path(__file__).parent / "corpus"
INPUT_TIME_MAX_S = 0.05  # of CPU time
SUSPECT_RUNS = 5  # a slow input is measured again: another may have left its garbage
MEMORY_GROWTH_MAX_BYTES = 64 << 20  # of one target
MEMORY_LOOKED_AT = 500  # inputs
OUTCOMES_MAX = 300  # kept of one target
_PAGE = os.sysconf("SC_PAGE_SIZE")


class FuzzError(AssertionError):
    """An input broke a decoder: says which, and the input in hex."""


@dataclass
class Findings:
    """What one target did."""

    inputs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    growth_bytes: int = 0
    outcomes: dict[str, bytes] = field(default_factory=dict)  # -> the shortest input


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def feed(target: Target, data: bytes) -> tuple[str, float]:
    """Feed one input; return the outcome and the CPU seconds it took.

    Raises:
        FuzzError: the decoder did what it never may.
    """
    before = time.thread_time()
    try:
        outcome = target.feed(data)
    except Exception as error:
        raise FuzzError(f"{target.name}: {type(error).__name__}: {error}: {data.hex()}") from error
    return outcome, time.thread_time() - before


def _check_time(target: Target, data: bytes) -> None:
    fastest = min(feed(target, data)[1] for _ in range(SUSPECT_RUNS))
    if fastest > INPUT_TIME_MAX_S:
        raise FuzzError(f"{target.name}: {fastest * 1e3:.0f} ms for {len(data)} B: {data.hex()}")


def run(target: Target, seed: int, inputs: int) -> Findings:
    """Feed so many inputs to one target.

    Raises:
        FuzzError: see `feed`; or an input takes too long, or memory grows.
    """
    rng = random.Random(f"{seed} {target.name}")
    found = Findings()
    for data in target.samples:
        feed(target, data)
    memory = resident_bytes()
    began = time.perf_counter()
    for number in range(inputs):
        data = make(rng, target.samples)
        outcome, seconds = feed(target, data)
        if seconds > found.slowest_s:
            found.slowest_s = seconds
            if seconds > INPUT_TIME_MAX_S:
                _check_time(target, data)
        shortest = found.outcomes.get(outcome)
        if (shortest is None and len(found.outcomes) < OUTCOMES_MAX) or (
            shortest is not None and len(data) < len(shortest)
        ):
            found.outcomes[outcome] = data
        if number % MEMORY_LOOKED_AT == 0:
            found.growth_bytes = max(found.growth_bytes, resident_bytes() - memory)
    found.inputs = inputs
    found.seconds = time.perf_counter() - began
    if found.growth_bytes > MEMORY_GROWTH_MAX_BYTES:
        raise FuzzError(f"{target.name}: memory grew by {found.growth_bytes >> 20} MiB")
    return found


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of one target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def keep(name: str, found: Findings) -> None:
    """Write the shortest input of each outcome to the corpus; what was there goes."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for data in found.outcomes.values():
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
