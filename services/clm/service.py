"""The membership service on one node: its own data, its log."""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from openais.wire import clm as wire
from services.clm.api import OPERATIONS
from services.clm.state import Membership, OwnNode
from services.kit.machine import Context, Effect, NodeId, Report, View
from services.kit.run import run

NAME: Final = "clm"
BOOT_FILE: Final = "clm.boot"  # in the run directory: boot id and boot time
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_BOOT_FILE_SIZE_MAX: Final = 128  # bytes
_INCARNATION_BITS: Final = 63

_LOG = EventLog(__name__)


class LoggedMembership(Membership):
    """The state machine, and a line in the log for each change of the membership."""

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        """Install a view and log what changed with it."""
        before = {node.node_id: node for node in self.nodes()}
        effects = super().view_changed(view, reports, context)
        self._log_change(before)
        return effects

    def _log_change(self, before: dict[int, wire.Node]) -> None:
        after = {node.node_id: node for node in self.nodes()}
        members = {n: node for n, node in after.items() if node.member}
        were = {n: node for n, node in before.items() if node.member}
        _LOG.info(
            "membership",
            view=self.describe()["view"],
            members=tuple(members),
            joined=tuple(
                n
                for n, node in members.items()
                if n not in were or were[n].initial_view != node.initial_view
            ),
            left=tuple(
                n
                for n, node in were.items()
                if n not in members or members[n].initial_view != node.initial_view
            ),
        )
        for node_id, node in after.items():
            if not node.member and before.get(node_id) != node:
                _LOG.error("duplicate_node_name", node=node_id, name=node.name)


def own_node(config: NodeConfig, boot_timestamp_ns: int) -> OwnNode:
    """Return what this node tells the others of itself."""
    address = config.interfaces[0].bind_address
    name = config.totem.node_name
    full = f"safNode={name},safCluster={config.clm.cluster_name}"
    form = config.clm.node_name_form
    return OwnNode(
        node_id=NodeId(config.totem.node_id),
        name=full if form == "dn" else name,
        distinguished_name=name if form == "plain" else full,
        family=(
            wire.AddressFamily.INET
            if ipaddress.ip_address(address).version == 4
            else wire.AddressFamily.INET6
        ),
        address=address,
        boot_timestamp_ns=boot_timestamp_ns,
        incarnation=secrets.randbits(_INCARNATION_BITS),
    )


def boot_timestamp_ns(run_dir: Path, boot_id_file: Path = BOOT_ID) -> int:
    """Return the wall clock time of the boot, the same until the next boot.

    Computed by the first process that asks after a boot and kept in the run directory: later
    steps of the clock must not move it.

    Raises:
        ExitError: status 16, the run directory cannot be written.
    """
    boot_id = boot_id_file.read_text(encoding="ascii").strip()
    path = run_dir / BOOT_FILE
    kept = _kept_timestamp_ns(path, boot_id)
    if kept is not None:
        return kept
    now = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(f"{boot_id} {now}\n", encoding="ascii")
        temporary.rename(path)
    except OSError as error:
        raise ExitError(Exit.DIRECTORY, f"{path}: {error.strerror}") from error
    return now


def _kept_timestamp_ns(path: Path, boot_id: str) -> int | None:
    try:
        with path.open("rb") as file:
            text = file.read(_BOOT_FILE_SIZE_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    kept_id, _, number = text.strip().partition(" ")
    if kept_id != boot_id or not number.isdigit():
        return None
    return int(number)


def main() -> int:
    """Be the membership service of this node; return the exit status."""

    def machine(config: NodeConfig) -> LoggedMembership:
        return LoggedMembership(own_node(config, boot_timestamp_ns(config.system.run_dir)))

    return run(NAME, machine, OPERATIONS, needs_quorum=False)
