"""What a node tells of itself, and what is logged."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from openais.node.config import load
from openais.node.logs import configure
from openais.node.model import LoggingConfig
from openais.wire import clm as wire
from openais.wire.clm import AdminOperation
from openais.wire.port import RingId
from services.clm.disk import FILE, AdminFile
from services.clm.service import BOOT_FILE, LocalMembership, boot_timestamp_ns, own_node
from services.clm.state import Membership
from services.kit.machine import Caller, Context, Effect, NodeId, Report, SessionId, View
from services.kit.outside import outside
from tests.integration.cluster import wait_for
from tests.unit.openais.node.configs import MACHINE, MINIMAL
from tests.unit.services.clm.group import own


def test_clm_05_the_boot_time_is_the_same_for_every_process_of_one_boot(tmp_path: Path) -> None:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("first-boot\n")
    first = boot_timestamp_ns(tmp_path, boot_id)
    assert first > 0
    assert boot_timestamp_ns(tmp_path, boot_id) == first
    (tmp_path / BOOT_FILE).write_text("first-boot 12345\n")
    assert boot_timestamp_ns(tmp_path, boot_id) == 12345


@pytest.mark.parametrize("kept", ["other-boot 12345\n", "first-boot x\n", "", "\xff\xff"])
def test_a_boot_time_of_another_boot_or_a_damaged_file_is_replaced(
    tmp_path: Path, kept: str
) -> None:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("first-boot\n")
    (tmp_path / BOOT_FILE).write_text(kept)
    assert boot_timestamp_ns(tmp_path, boot_id) != 12345
    assert (tmp_path / BOOT_FILE).read_text().startswith("first-boot ")


@pytest.mark.parametrize(
    ("form", "plain", "full"),
    [
        ("auto", "alpha", "safNode=alpha,safCluster=shop"),
        ("plain", "alpha", "alpha"),
        ("dn", "safNode=alpha,safCluster=shop", "safNode=alpha,safCluster=shop"),
    ],
)
def test_names_and_address_come_from_the_configuration(
    tmp_path: Path, form: str, plain: str, full: str
) -> None:
    path = tmp_path / "openais.conf"
    path.write_text(MINIMAL + f"clm {{\ncluster_name: shop\nnode_name_form: {form}\n}}\n")
    node = own_node(load(path, {}, machine=MACHINE), 7)
    assert (node.name, node.distinguished_name) == (plain, full)
    assert (node.family, node.address) == (wire.AddressFamily.INET, "192.168.1.7")
    assert node.boot_timestamp_ns == 7
    assert node.incarnation != own_node(load(path, {}, machine=MACHINE), 7).incarnation


def started(
    directory: Path, *node_ids: int, reset_command: tuple[str, ...] = ()
) -> LocalMembership:
    file = AdminFile(directory)
    mine = dataclasses.replace(own(1), records=file.records, resets=bool(reset_command))
    machine = LocalMembership(mine, file, directory, reset_command)
    members = tuple(NodeId(n) for n in node_ids)
    view = View(RingId(4, 1), members, members, ())
    others = {n: Report(n, Membership(own(n)).report(())) for n in members[1:]}
    reports = {NodeId(1): Report(NodeId(1), machine.report(())), **others}
    machine.view_changed(view, reports, Context(1, NodeId(1), None, view))
    return machine


def administer(machine: LocalMembership, operation: AdminOperation, now_ns: int) -> list[Effect]:
    view = View(RingId(4, 1), (NodeId(1),), (), ())
    caller = Caller(NodeId(1), SessionId(b"s"), 1)
    context = Context(now_ns, NodeId(1), caller, view)
    return machine.apply(wire.Administer(operation, 1), context)


def test_a_locked_node_stays_locked_when_the_whole_cluster_was_down(tmp_path: Path) -> None:
    administer(started(tmp_path, 1), AdminOperation.LOCK, 1)
    assert outside(tmp_path).startswith("the node is locked")
    again = started(tmp_path, 1, 2)
    assert [(n.node_id, n.member) for n in again.nodes()] == [(1, False), (2, True)]
    administer(again, AdminOperation.UNLOCK, 1)
    assert outside(tmp_path) == ""
    assert all(n.member for n in started(tmp_path, 1).nodes())


def test_damaged_administrative_states_are_logged_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LoggingConfig(timestamp="off"), "clm")
    (tmp_path / FILE).write_bytes(b"\x92\x01\x01")
    assert AdminFile(tmp_path).records == ()
    configure(LoggingConfig(to_stderr=False), "clm")
    assert "administration_unusable" in capsys.readouterr().err


def test_a_reset_runs_the_command_unless_it_comes_from_the_log_of_long_ago(tmp_path: Path) -> None:
    done = tmp_path / "reset"
    machine = started(tmp_path, 1, reset_command=("touch", str(done)))
    administer(machine, AdminOperation.RESET, 1)
    assert not done.exists()
    administer(machine, AdminOperation.RESET, time.time_ns())
    wait_for(done.exists, "the command has run")


def test_a_change_of_the_membership_is_one_line_and_a_duplicate_name_an_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingConfig(timestamp="off"), "clm")
    machine = LocalMembership(own(1), AdminFile(tmp_path), tmp_path)
    members = (NodeId(1), NodeId(2))
    view = View(RingId(4, 1), members, members, ())
    reports = {
        NodeId(n): Report(NodeId(n), Membership(own(n, name="same")).report(())) for n in (1, 2)
    }
    machine.view_changed(view, reports, Context(1, NodeId(1), None, view))
    configure(LoggingConfig(to_stderr=False), "clm")
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        f'INFO membership view={4 << 16} members=1 joined=1 left=""',
        "ERROR duplicate_node_name node=2 name=same",
    ]
