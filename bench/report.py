"""Tables of results: printed at once, and kept in bench/results/."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "results"


def say(text: str = "") -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine() -> str:
    """Say what the numbers were measured on."""
    cpu = "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.*)$", info.read_text(encoding="utf-8"), re.M)
        cpu = found[1] if found else cpu
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load at the start {load:.1f}"
    )


class Report:
    """The lines of one measurement.

    Args:
        name: of the measurement; its file is results/NAME.txt.
        title: first line.
        keep: write the file.
    """

    def __init__(self, name: str, title: str, *, keep: bool) -> None:
        self._path: Final = RESULTS / f"{name}.txt"
        self._keep: Final = keep
        self._lines: Final[list[str]] = []
        self.line(f"{name}: {title}")
        self.line(time.strftime("%Y-%m-%d, ", time.gmtime()) + machine())

    def line(self, text: str = "") -> None:
        """Add a line."""
        self._lines.append(text.rstrip())
        say(text.rstrip())

    def row(self, cells: Sequence[str], widths: Sequence[int]) -> None:
        """Add a row of a table: the first column is flush left, the others right."""
        first = f"{cells[0]:<{widths[0]}}"
        pairs = zip(cells[1:], widths[1:], strict=True)
        self.line(first + "".join(f"  {cell:>{width}}" for cell, width in pairs))

    def close(self) -> None:
        """Keep the result."""
        if self._keep:
            RESULTS.mkdir(exist_ok=True)
            self._path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")


def median(values: Sequence[float]) -> float | None:
    """Return the median; None: no values."""
    return statistics.median(values) if values else None


def ratio(ours: float | None, theirs: float | None) -> str:
    """Return how many times theirs ours is."""
    if ours is None or not theirs:
        return "-"
    return f"{ours / theirs:.2f}"
