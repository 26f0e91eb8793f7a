"""A node that may not be a member, as its services learn it: a file in the run directory.

The membership service knows; the others must not depend on it to run. What it knew last stays in
force while it is away, and goes with the run directory at a boot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE: Final = "outside"  # holds the reason in one line
REASON_SIZE_MAX: Final = 200  # bytes
LOOK_AGAIN_NS: Final = 100_000_000


class Outside:
    """Looks at the file now and then.

    Args:
        run_dir: of the node.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir: Final = run_dir
        self._looked_ns = -LOOK_AGAIN_NS
        self._reason = ""

    def reason(self, now_ns: int) -> str:
        """Return why the node may not be a member, as it was at most LOOK_AGAIN_NS ago."""
        if now_ns - self._looked_ns >= LOOK_AGAIN_NS:
            self._looked_ns = now_ns
            self._reason = outside(self._run_dir)
        return self._reason


def outside(run_dir: Path) -> str:
    """Return why the node may not be a member; "": it may."""
    try:
        with (run_dir / FILE).open("rb") as file:
            return file.read(REASON_SIZE_MAX).decode("utf-8", "replace").strip() or "unknown"
    except FileNotFoundError:
        return ""


def put_outside(run_dir: Path, reason: str) -> None:
    """Tell the services of this node why it may not be a member; "": that it may.

    Raises:
        OSError: the run directory cannot be written.
    """
    path = run_dir / FILE
    if not reason:
        path.unlink(missing_ok=True)
    elif outside(run_dir) != reason:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(reason + "\n", encoding="utf-8")
        temporary.rename(path)
