"""Text tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def show(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table to standard output; numbers to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
    right = [bool(rows) and all(isinstance(row[k], int) for row in rows) for k in range(len(head))]
    for number, line in enumerate(cells):
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        sys.stdout.write("  ".join(parts).rstrip() + "\n")
        if number == 0:
            sys.stdout.write("  ".join("-" * width for width in widths) + "\n")
