"""The membership service on one node: its own data, its log."""

from __future__ import annotations

import ipaddress
import os
import secrets
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from openais.wire import clm as wire
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, Status
from services.clm.api import OPERATIONS
from services.clm.disk import AdminFile
from services.clm.state import Membership, Ordered, OwnNode
from services.kit.machine import Answer, Context, Effect, NodeId, Report, SessionId, View
from services.kit.outside import put_outside
from services.kit.run import run

NAME: Final = "clm"
RESET_AGE_MAX_NS: Final = 10 * ONE_SECOND_NS  # older ones come from a replay of the log
BOOT_FILE: Final = "clm.boot"  # in the run directory: boot id and boot time
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_BOOT_FILE_SIZE_MAX: Final = 128  # bytes
_INCARNATION_BITS: Final = 63

_LOG = EventLog(__name__)


class LocalMembership(Membership):
    """The state machine, and what it means for this node: log, disk, reset command.

    Args:
        own: the data of this node.
        file: where administrative states are kept.
        run_dir: where the node's other services look whether it may be a member.
        reset_command: reboots this node; empty: there is none.
    """

    def __init__(
        self, own: OwnNode, file: AdminFile, run_dir: Path, reset_command: tuple[str, ...] = ()
    ) -> None:
        super().__init__(own)
        self._run_dir: Final = run_dir
        self._file: Final = file
        self._reset_command: Final = reset_command

    def apply(self, operation: Ordered, context: Context) -> list[Effect]:
        """Apply one ordered operation; administrative states are on disk before it is answered."""
        before = self.nodes()
        effects = super().apply(operation, context)
        self._changed(before)
        if isinstance(operation, wire.Administer):
            self._log_administration(operation, effects, context)
        return effects

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        """End a session; it may have been the last one that an operation waited for."""
        before = self.nodes()
        effects = super().session_closed(session, context)
        self._changed(before)
        return effects

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        """Install a view and log what changed with it."""
        before = self.nodes()
        effects = super().view_changed(view, reports, context)
        self._changed(before)
        return effects

    def _changed(self, before: tuple[wire.Node, ...]) -> None:
        records = self.records()
        if records:  # none: of a replica that knows nothing yet
            self._file.write(records)
        put_outside(self._run_dir, self.excluded())
        if self.nodes() != before:
            self._log_change({node.node_id: node for node in before})

    def _log_administration(
        self, operation: wire.Administer, effects: list[Effect], context: Context
    ) -> None:
        caller = context.caller
        assert caller is not None, "administration has a caller"
        answers = [e for e in effects if isinstance(e, Answer) and e.caller == caller]
        status = answers[0].status if answers else Status.OK
        node_id = operation.node_id
        if node_id == wire.LOCAL_NODE_ID:
            node_id = caller.node_id
        _LOG.info(
            "administered",
            node=node_id,
            op=operation.operation.name.lower(),
            by=caller.node_id,
            status=status.name,
            waits=not answers,
        )
        fresh = time.time_ns() - context.now_ns < RESET_AGE_MAX_NS
        resets = operation.operation is wire.AdminOperation.RESET and status is Status.OK
        if resets and fresh and node_id == self.own_node_id and self._reset_command:
            self._reset()

    def _reset(self) -> None:
        command = self._reset_command[0]
        _LOG.warning("reset", command=command)
        try:
            os.posix_spawnp(command, self._reset_command, os.environ, setpgroup=0)
        except OSError as error:
            reason = error.strerror or str(error)
            _LOG.error("reset_failed", command=command, reason=reason)

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
        names = {node.name for node in members.values()}
        for node_id, node in after.items():
            if not node.member and before.get(node_id) != node and node.name in names:
                _LOG.error("duplicate_node_name", node=node_id, name=node.name)


def own_node(
    config: NodeConfig, boot_timestamp_ns: int, records: tuple[wire.AdminRecord, ...] = ()
) -> OwnNode:
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
        configured=not config.clm.nodes or name in config.clm.nodes,
        resets=bool(config.clm.reset_command),
        lock_timeout_ns=config.clm.lock_callback_timeout_ms * ONE_MILLISECOND_NS,
        records=records,
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

    def machine(config: NodeConfig) -> LocalMembership:
        file = AdminFile(config.system.state_dir / NAME)
        own = own_node(config, boot_timestamp_ns(config.system.run_dir), file.records)
        command = tuple(shlex.split(config.clm.reset_command))
        return LocalMembership(own, file, config.system.run_dir, command)

    return run(NAME, machine, OPERATIONS, needs_quorum=False)
