"""What a node tells of itself, and what is logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from openais.node.config import load
from openais.node.logs import configure
from openais.node.model import LoggingConfig
from openais.wire import clm as wire
from openais.wire.port import RingId
from services.clm.service import BOOT_FILE, LoggedMembership, boot_timestamp_ns, own_node
from services.kit.machine import Context, NodeId, Report, View
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


def test_a_change_of_the_membership_is_one_line_and_a_duplicate_name_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingConfig(timestamp="off"), "clm")
    machine = LoggedMembership(own(1))
    members = (NodeId(1), NodeId(2))
    view = View(RingId(4, 1), members, members, ())
    reports = {
        NodeId(n): Report(NodeId(n), LoggedMembership(own(n, name="same")).report(()))
        for n in (1, 2)
    }
    machine.view_changed(view, reports, Context(1, NodeId(1), None, view))
    configure(LoggingConfig(to_stderr=False), "clm")
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        f'INFO membership view={4 << 16} members=1 joined=1 left=""',
        "ERROR duplicate_node_name node=2 name=same",
    ]
