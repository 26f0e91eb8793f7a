"""``openais doctor``: examine nodes, say what is wrong and what to do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Final

from openais import status
from openais.cli import cluster
from openais.cli.config import node_checks
from openais.cli.findings import Examined, Finding, Level, findings
from openais.node import checking, effective
from openais.node.config import Loaded, load_with_origins
from openais.node.exits import ExitError

SOUND: Final = 0
ILL: Final = 1
CANNOT_CONNECT: Final = 3
CONFIG_OF_NODE: Final = Path("conf/openais.conf")  # in the directory of a node of `cluster up`


def run(options: argparse.Namespace) -> int:
    """Examine one node or a cluster on this machine; the exit status says whether all is well."""
    run_dirs = cluster.run_dirs(options)
    nodes = [examine(run_dir, options.config) for run_dir in run_dirs]
    found = findings(nodes)
    if options.json:
        sys.stdout.write(json.dumps([_plain(finding) for finding in found], indent=2) + "\n")
    else:
        _show(found, len(nodes))
    if not any(document for node in nodes for document in node.documents.values()):
        return CANNOT_CONNECT
    return ILL if any(finding.level is Level.ERROR for finding in found) else SOUND


def examine(run_dir: Path, config: Path | None) -> Examined:
    """Ask the processes of a node, read its configuration, look at its disk."""
    documents = {name: status.query(run_dir, name) for name in cluster.PROCESSES}
    totemd = documents[status.TOTEMD]
    name = str(run_dir) if totemd is None else str(totemd["node_name"])
    beside = run_dir.parent / CONFIG_OF_NODE
    path = config or (beside if beside.exists() else None)
    problems = checking.check(path, os.environ, more=node_checks()).problems
    loaded = _loaded(path)
    if loaded is None:
        return Examined(name, documents, problems)
    directives = {row.name: row.value for row in effective.rows(loaded)}
    free = _free_bytes(loaded.config.system.state_dir)
    return Examined(name, documents, problems, free, directives)


def _loaded(path: Path | None) -> Loaded | None:
    try:
        return load_with_origins(path, os.environ, testing=True)
    except ExitError:
        return None  # its problems are findings


def _free_bytes(directory: Path) -> int | None:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _plain(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level.value,
        "node": finding.node,
        "check": finding.check,
        "what": finding.what,
        "advice": finding.advice,
    }


def _show(found: list[Finding], nodes: int) -> None:
    for finding in found:
        sys.stdout.write(
            f"{finding.level.value}: {finding.node}: {finding.what}\n    {finding.advice}\n"
        )
    if not found:
        sys.stdout.write(f"{nodes} examined, nothing found\n")
