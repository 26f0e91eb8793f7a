"""``openais config check | show``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Final

from openais.cli import table
from openais.node import checking, effective, program
from openais.node.config import load_with_origins
from openais.node.exits import ExitError, report

NODE_CHECKS_MODULE: Final = "totemd.configured"  # comes with the package openais-node


def check(options: argparse.Namespace) -> int:
    """Say what a start would find wrong; the exit status is the one it would have."""
    return program.test(
        checking.check(
            options.file,
            os.environ,
            more=node_checks(),
            lenient=options.lenient,
            key_file=options.key_file,
            amf_file=options.amf_file,
        )
    )


def node_checks() -> tuple[checking.Check, ...]:
    """Return what daemons check at their start, where they are installed."""
    try:
        found: tuple[checking.Check, ...] = importlib.import_module(NODE_CHECKS_MODULE).CHECKS
    except ImportError as error:
        sys.stderr.write(f"keys are not checked: needs the package openais-node ({error})\n")
        return ()
    return found


def show(options: argparse.Namespace) -> int:
    """Show what the sources say; with ``--effective`` every value that counts."""
    try:
        loaded = load_with_origins(
            options.file,
            os.environ,
            lenient=options.lenient,
            testing=True,
            key_file=options.key_file,
            amf_file=options.amf_file,
        )
    except ExitError as error:
        return report(error)
    rows = [row for row in effective.rows(loaded) if row.written or options.effective]
    if options.json:
        values = {row.name: {"value": row.value, "origin": row.origin} for row in rows}
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
    else:
        table.show(("directive", "value", "origin"), [(r.name, r.value, r.origin) for r in rows])
    for warning in loaded.config.warnings:
        sys.stderr.write(f"{warning}\n")
    return 0
