"""The configuration as an operator meets it: options, statuses, the command, a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import layout
from openais.node.exits import NOT_RESTARTED, Exit
from tests.integration import trio
from tests.integration.cluster import Cluster, short_directory, wait_for

ROOT = Path(__file__).resolve().parents[2]
CRASH = """
import sys
from openais.node.logs import EventLog
from openais.node.program import main

def body(config):
    EventLog("services.ckpt.service").info("last_words", node=config.totem.node_id)
    raise RuntimeError("a bug")

sys.exit(main("ckpt", body))
"""


@pytest.fixture
def node() -> Iterator[layout.Node]:
    """One node's directory, nothing running."""
    with short_directory() as directory:
        yield layout.make(directory, 1)[0]


def config(node: layout.Node) -> Path:
    return node.directory / "conf" / "openais.conf"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [["-m", "totemd", "-t", "-c"], ["-m", "openais.cli", "config", "check"]],
    ids=["totemd -t", "openais config check"],
)
def test_cfg_024_both_ways_to_check_say_the_same(node: layout.Node, command: list[str]) -> None:
    good = run(*command, str(config(node)))
    assert (good.returncode, good.stdout) == (0, f"{config(node)}: good\n"), good.stderr
    key = node.directory / "conf" / "authkey"
    key.chmod(0o444)
    bad_key = run(*command, str(config(node)))
    assert bad_key.returncode == 10
    assert "permissions too open (0444, expected 0400)" in bad_key.stdout
    assert bad_key.stderr.endswith("exiting: 1 problem (status 10)\n")
    config(node).write_text(config(node).read_text().replace("version: 2", "version: 3\nx: 1"))
    bad = run(*command, str(config(node)))
    assert bad.returncode == 8
    assert f"parser error: {config(node)}:4: unknown directive totem.x" in bad.stdout
    assert bad.stderr.endswith("exiting: 2 problems (status 8)\n")
    assert not list(node.run_dir.iterdir())


def test_cfg_023_a_relative_path_in_the_environment_is_a_usage_error() -> None:
    done = run("-m", "totemd", OPENAIS_MAIN_CONFIG_FILE="openais.conf")
    assert done.returncode == 2
    assert "OPENAIS_MAIN_CONFIG_FILE: expected an absolute path" in done.stderr
    assert done.stderr.endswith("(status 2)\n")


def test_the_environment_names_file_key_and_sources_and_options_override_it(
    node: layout.Node,
) -> None:
    path = config(node)
    text = path.read_text().replace(f"keyfile: {node.directory}/conf/authkey", "")
    path.write_text(text)
    environ = {
        "OPENAIS_MAIN_CONFIG_FILE": str(path),
        "OPENAIS_TOTEM_AUTHKEY_FILE": str(node.directory / "conf" / "authkey"),
        "OPENAIS_DEFAULT_CONFIG_IFACE": "aisparser:env",
        "OPENAIS_CFG_totem__token": "555",
    }
    assert run("-m", "totemd", "-t", **environ).returncode == 0
    done = run("-m", "totemd", "-t", "-k", "/absent/key", **environ)
    assert (done.returncode, done.stdout) == (
        10,
        "key file /absent/key: No such file or directory\n",
    )
    shown = run("-m", "openais.cli", "config", "show", "--effective", "--json", **environ)
    values = json.loads(shown.stdout)
    assert values["totem.token"] == {
        "value": "555",
        "origin": "environment OPENAIS_CFG_totem__token",
    }
    assert values["totem.consensus"] == {"value": "666", "origin": "derived"}


def test_cfg_029_a_source_that_fails_ends_a_daemon_with_status_24(node: layout.Node) -> None:
    done = run(
        *("-m", "totemd", "-c", str(config(node))),
        OPENAIS_DEFAULT_CONFIG_IFACE="aisparser:json/tool",
    )
    assert done.returncode == 24
    assert 'configuration source "json/tool"' in done.stderr
    assert done.stderr.endswith("(status 24)\n")


def test_show_prints_what_the_file_says_with_lines(node: layout.Node) -> None:
    done = run("-m", "openais.cli", "config", "show", str(config(node)))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.split() == ["totem.nodeid", "1", f"{config(node)}:5"] for line in lines)
    assert "totem.token " not in done.stdout


def test_a_crash_leaves_a_black_box(node: layout.Node) -> None:
    done = run("-c", CRASH, "-c", str(config(node)), PYTHONPATH=f"{ROOT}:{ROOT}/clients/python")
    assert done.returncode == 1
    assert "blackbox_written" in done.stderr
    files = list((node.directory / "state" / "blackbox").iterdir())
    assert len(files) == 1
    text = files[0].read_text()
    assert "last_words node=1" in text
    assert text.endswith("RuntimeError: a bug\n")


@pytest.mark.parametrize("preset", ["loopback", "fast"])
def test_nodes_with_a_preset_form_a_ring_and_notice_a_death(preset: str) -> None:
    with short_directory() as directory:
        for node in layout.make(directory, 3):
            text = config(node).read_text()
            config(node).write_text(text.replace("version: 2", f"version: 2\n    preset: {preset}"))
        cluster = Cluster(directory, 3)
        try:
            assert members(cluster) == [1, 2, 3]
            cluster.kill_node(3)
            wait_for(lambda: members(cluster) == [1, 2], "the dead node is left out")
        finally:
            cluster.down()


def members(cluster: Cluster) -> list[int]:
    document = cluster.status(1, "totemd")
    return list(document["members"]) if document else []


def test_a_node_that_starts_with_an_older_configuration_ends_with_status_8() -> None:
    with trio.laid_out(2) as nodes, trio.starting() as start:
        for node, version in zip(nodes, (7, 6), strict=True):
            text = config(node).read_text()
            added = f"version: 2\n    config_version: {version}"
            config(node).write_text(text.replace("version: 2", added))
        start(nodes[0])
        trio.together(nodes[0])
        code, output = start(nodes[1]).wait()
        assert code == Exit.MAIN_CONFIGURATION in NOT_RESTARTED, output
        assert f"{config(nodes[1])}: config_version is 6, another node of the ring has 7" in output
        trio.together(nodes[0])
