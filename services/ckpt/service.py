"""The checkpoint service on one node."""

from __future__ import annotations

from typing import Final

from openais.node.config import CkptConfig
from services.ckpt.api import OPERATIONS
from services.ckpt.conflicts import Conflicts
from services.ckpt.objects import Conflict, Policy
from services.ckpt.state import Checkpoints
from services.kit.run import run

NAME: Final = "ckpt"


def policy(config: CkptConfig) -> Policy:
    """Return how this node merges; the same on all nodes."""
    return Policy(Conflict(config.merge_policy), detaches=config.merge_conflict == "detach")


def main() -> int:
    """Be the checkpoint service of this node; return the exit status."""
    return run(
        NAME,
        lambda config: Checkpoints(policy(config.ckpt)),
        OPERATIONS,
        keeper=lambda config: Conflicts(config.ckpt.conflict_dir).discard,
    )
