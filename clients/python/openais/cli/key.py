"""``openais key``: change the key of a running cluster."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

from openais.cli import table, totemd
from openais.wire import port

FAILED: Final = 1
CANNOT_CONNECT: Final = 3
POLL_S: Final = 0.1


def status(options: argparse.Namespace) -> int:
    """Show which keys a node sends under and accepts."""
    document = _keys(totemd.run_dir(options), "status")
    if document is None:
        return CANNOT_CONNECT
    rows = [
        [found, "in use" if found == document["sending"] else "accepted"]
        for found in document["accepted"]
    ]
    table.show(["key", ""], rows)
    if document["waiting_for"]:
        sys.stdout.write(f"a change of the key waits for node {_ids(document)}\n")
    return 0


def rotate(options: argparse.Namespace) -> int:
    """Change the key on all nodes; wait until all use the new one."""
    return _change(options, "rotate", port.KeyRotate(1))


def retire(options: argparse.Namespace) -> int:
    """Stop accepting old keys on all nodes."""
    return _change(options, "retire", port.KeyRetire(1))


def _change(options: argparse.Namespace, command: str, request: object) -> int:
    run_dir = totemd.run_dir(options)
    before = _keys(run_dir, command)
    if before is None:
        return CANNOT_CONNECT
    if not totemd.order(run_dir, request, f"key {command}"):
        return FAILED
    end = time.monotonic() + options.wait
    while time.monotonic() < end:
        now = _keys(run_dir, command)
        if now is not None and _done(command, before, now):
            return _report(command, now)
        time.sleep(POLL_S)
    now = _keys(run_dir, command)
    if now is not None and command == "rotate" and now["sending"] != before["sending"]:
        return _report(command, now)
    waiting = "" if now is None else f" for node {_ids(now)}"
    rule = "the same command goes on with it"
    sys.stderr.write(f"openais key {command}: not finished, waits{waiting}; {rule}\n")
    return FAILED


def _done(command: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    if command == "retire":
        return len(now["accepted"]) == 1
    return bool(now["sending"] != before["sending"] and not now["waiting_for"])


def _report(command: str, now: dict[str, Any]) -> int:
    sys.stdout.write(f"in use: {now['sending']}\n")
    if len(now["accepted"]) > 1:
        sys.stdout.write(
            "old keys are still accepted: nodes that are away can come back; "
            "end that by: openais key retire\n"
        )
    if command == "rotate":
        sys.stdout.write(
            "a new node needs the new key: ais-keygen --export STATE_DIR -k FILE on any node\n"
        )
    return 0


def _keys(run_dir: Path, command: str) -> dict[str, Any] | None:
    document = totemd.status(run_dir, f"key {command}")
    if document is None:
        return None
    keys: dict[str, Any] | None = document["keys"]
    if keys is None:
        sys.stderr.write(f"openais key {command}: secauth is off: there is no key\n")
    return keys


def _ids(document: dict[str, Any]) -> str:
    return ", ".join(map(str, document["waiting_for"])) or "the order"
