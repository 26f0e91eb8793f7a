"""``openais cluster status``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from openais import status as ask
from openais.cli import table
from openais.node import paths

PROCESSES: Final = ("totemd", "clm", "ckpt")
DEFAULT_DIRECTORY: Final = Path("var/cluster")
DOWN: Final = 1
CANNOT_CONNECT: Final = 3


def run_dirs(options: argparse.Namespace) -> list[Path]:
    """Return the run directories of the nodes that are meant."""
    if options.run_dir is not None:
        return [options.run_dir]
    directory = options.dir
    if directory is None and DEFAULT_DIRECTORY.is_dir():
        directory = DEFAULT_DIRECTORY
    if directory is None:
        return [paths.run_dir()]
    found = [p / "run" for p in directory.absolute().glob("n*") if p.name[1:].isdigit()]
    return sorted(found, key=lambda path: int(path.parent.name[1:]))


def status(options: argparse.Namespace) -> int:
    """Show the processes of one node or of a cluster on this machine."""
    found_dirs = run_dirs(options)
    if not found_dirs:
        sys.stderr.write(f"openais cluster status: no cluster in {options.dir}\n")
        return CANNOT_CONNECT
    documents = {
        run_dir: {name: ask.query(run_dir, name) for name in PROCESSES} for run_dir in found_dirs
    }
    if options.json:
        answer = {str(run_dir): found for run_dir, found in documents.items()}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        _show(documents)
    found = [document for node in documents.values() for document in node.values()]
    if not any(found):
        sys.stderr.write(
            f"openais cluster status: nothing answers in {found_dirs[0]}; "
            "start the node: supervisorctl start cluster, or openais cluster up\n"
        )
        return CANNOT_CONNECT
    views = {
        tuple(document["members"])
        for node in documents.values()
        if (document := node["totemd"]) is not None
    }
    if len(views) > 1:
        sys.stderr.write(
            "openais cluster status: the nodes are in different rings; "
            "see their logs, and compare keys: ais-keygen --fingerprint\n"
        )
    serves = all(ask.ready(document) and ask.quorate(document) for document in found)
    return 0 if len(views) == 1 and serves else DOWN


def _show(documents: dict[Path, dict[str, dict[str, Any] | None]]) -> None:
    rows: list[list[object]] = []
    for run_dir, processes in documents.items():
        totemd = processes["totemd"]
        label = str(run_dir) if totemd is None else f"{totemd['node_name']} ({totemd['node_id']})"
        for name, document in processes.items():
            rows.append([label, name, *_row(name, document)])
            label = ""
    table.show(["node", "process", "state", "pid", "members", "detail"], rows)


def _row(name: str, document: dict[str, Any] | None) -> list[object]:
    if document is None:
        return ["down", "", "", ""]
    pid = str(document["pid"])
    if name == "totemd":
        ring = document["ring"]
        state = document["state"] if ask.ready(document) else f"{document['state']}, gate closed"
        return [
            state,
            pid,
            _ids(document["members"]),
            f"ring {ring['seq']}.{ring['representative']}{_links(document)}",
        ]
    counts = ", ".join(f"{value} {key}" for key, value in document["machine"].items())
    detail = f"{_quorum(document)}{document['sessions']} sessions, {counts}"
    return [document["state"], pid, _ids(document["view"]["members"]), detail]


def _quorum(document: dict[str, Any]) -> str:
    """Return how many votes a side without quorum has, else nothing."""
    quorum = document["quorum"]
    if quorum["quorate"]:
        return ""
    return f"no quorum ({quorum['votes']} of {quorum['expected']} votes), "


def _links(document: dict[str, Any]) -> str:
    """Return what is wrong with the networks of a node, else how many there are."""
    links = document["links"]
    wrong = []
    for link in links:
        if link["interface"] is None:
            wrong.append(f"link {link['link']} has no interface")
        elif not link["running"]:
            wrong.append(f"link {link['link']} has no carrier")
        else:
            wrong += [
                f"link {link['link']} to {node['node_id']} {node['state']}"
                for node in link["nodes"]
                if node["state"] != "up"
            ]
    if not wrong and len(links) > 1:
        wrong = [f"{len(links)} links up"]
    return "".join(f", {text}" for text in wrong)


def _ids(members: list[int]) -> str:
    return " ".join(map(str, members))
