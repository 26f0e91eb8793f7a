"""The checkpoint service on one node."""

from __future__ import annotations

from typing import Final

from services.ckpt.api import OPERATIONS
from services.ckpt.state import Checkpoints
from services.kit.run import run

NAME: Final = "ckpt"


def main() -> int:
    """Be the checkpoint service of this node; return the exit status."""
    return run(NAME, lambda _config: Checkpoints(), OPERATIONS)
