"""``openais clm list | watch | lock | unlock | shutdown | remove | reset``."""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from openais import clm, errors
from openais.cli import table
from openais.clm import AdminOperation, KnownNode, NotificationBuffer, TrackFlags

NOT_FOUND: Final = 1
_KEYS: Final = ("node", "name", "state", "member", "address", "initial_view", "operation")


def _fields(known: KnownNode) -> dict[str, Any]:
    node = known.node
    return {
        "node": known.node_id,
        "name": known.name,
        "state": known.state.name.lower(),
        "connected": known.connected,
        "member": node is not None and node.member,
        "address": node.address if node is not None else "",
        "boot_timestamp": node.boot_timestamp_ns if node is not None else 0,
        "initial_view": node.initial_view if node is not None else 0,
        "operation": known.operation.name.lower() if known.operation is not None else "",
        "lock_callback_timeout_ns": known.lock_timeout_ns,
        "resets": known.resets,
    }


def list_all(options: argparse.Namespace) -> int:
    """Show every known node."""
    with clm.Client(run_dir=options.run_dir) as client:
        nodes = client.nodes()
    found = [_fields(known) for known in nodes.nodes]
    if options.json:
        document = {"view": nodes.view, "quorate": nodes.quorate, "nodes": found}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    words = {True: "yes", False: "no"}
    rows = [[words[row[k]] if k == "member" else row[k] for k in _KEYS] for row in found]
    table.show(_KEYS, rows)
    sys.stdout.write(f"\nview {nodes.view}{'' if nodes.quorate else ', no quorum'}\n")
    return 0


def watch(options: argparse.Namespace) -> int:
    """Write a line for each view, until interrupted or for so many seconds."""

    def told(buffer: NotificationBuffer, members: int, _: clm.Status) -> None:
        changes = {
            item.cluster_node.node_id: item.cluster_change.name.lower()
            for item in buffer.notification
        }
        if options.json:
            line = json.dumps({"view": buffer.view_number, "members": members, "nodes": changes})
        else:
            listed = ", ".join(f"{node} {change}" for node, change in changes.items())
            line = f"view {buffer.view_number}, members {members}: {listed or 'as before'}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    end = time.monotonic() + options.seconds if options.seconds is not None else None
    with clm.Client(None, told, run_dir=options.run_dir) as client:
        client.track(TrackFlags.CURRENT | TrackFlags.CHANGES_ONLY, callback=True)
        while end is None or time.monotonic() < end:
            left = None if end is None else max(0.0, end - time.monotonic())
            select.select([client], [], [], left)
            client.dispatch()
    return 0


def operation(kind: AdminOperation) -> Callable[[argparse.Namespace], int]:
    """Return the command of an administrative operation."""

    def run(options: argparse.Namespace) -> int:
        with clm.Client(run_dir=options.run_dir) as client:
            node_id = _node_id(client, options.node)
            if node_id is None:
                sys.stderr.write(f'openais clm: no node "{options.node}"; see: openais clm list\n')
                return NOT_FOUND
            try:
                client.administer(kind, node_id, int(options.wait * 1e9))
            except errors.NoOpError:
                sys.stdout.write(f"node {node_id}: it is so already\n")
                return 0
            except errors.RepairPendingError:
                sys.stdout.write(f"node {node_id}: done, though not every client was ready\n")
                return 0
        sys.stdout.write(f"node {node_id}: done\n")
        return 0

    return run


def _node_id(client: clm.Client, wanted: str) -> int | None:
    known = client.nodes().nodes
    by_name = [one.node_id for one in known if one.name == wanted]
    by_id = [one.node_id for one in known if str(one.node_id) == wanted]
    return next(iter(by_name + by_id), None)
