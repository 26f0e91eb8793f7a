"""What the commands ask of the totemd of a node, and order it to do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from openais import status as ask
from openais.node import paths
from openais.wire import port


def run_dir(options: argparse.Namespace) -> Path:
    """Return the run directory that is meant."""
    given: Path | None = options.run_dir
    return paths.run_dir() if given is None else given


def status(where: Path, command: str) -> dict[str, Any] | None:
    """Return the status document; None: it does not answer, and the user was told."""
    document = ask.query(where, ask.TOTEMD)
    if document is None:
        sys.stderr.write(f"openais {command}: totemd does not answer in {where}\n")
    return document


def order(where: Path, request: object, command: str) -> bool:
    """Order something; False: it was refused, and the user was told why."""
    answer = ask.request(where, request)
    if isinstance(answer, port.Done):
        return True
    reason = answer.reason if isinstance(answer, port.Refused) else "totemd does not answer"
    sys.stderr.write(f"openais {command}: {reason}\n")
    return False
