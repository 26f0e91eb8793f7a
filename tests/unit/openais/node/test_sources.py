"""Sources of the configuration: the list, plug-ins, formats, what comes from where."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from openais.node.config import ConfigError, Loaded, load_with_origins
from openais.node.effective import Row, rows
from openais.node.exits import Exit
from tests.unit.openais.node.configs import MACHINE, MINIMAL, complained, in_totem, nodelist

PLUG_IN = """
class Source:
    def read_config(self, tree, context):
        tree.section("totem").add("token", "777", "somewhere:else")
        tree.section("totem").add("merge", "333")
        assert context.main_file.name == "openais.conf"
        assert context.environ["SHELL_LEVEL"] == "1"
        assert not context.test_mode


class Broken:
    def read_config(self, tree, context):
        raise KeyError("oh dear")


class Reporting:
    def read_config(self, tree, context):
        context.warn("plugin:x", "take care")
        context.error("plugin:x", "not good")


class Nonsense:
    def read_config(self, tree, context):
        tree.section("totem").directives[0].value = None
        tree.section("totem").directives[0].source = 0


class Leaving:
    def read_config(self, tree, context):
        raise SystemExit(0)


class Reading:
    def read_config(self, tree, context):
        number = tree.section("totem").section("interface").get("mcastport")
        node = tree.section("nodelist").new_section("node")
        node.add("ring0_addr", "192.168.1.9")
        node.add("nodeid", str(int(number) - 5400))
        node.add("name", "added")


nothing = 1
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "sources_for_test.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "sources_for_test", raising=False)
    return "sources_for_test"


def read(
    folder: Path, names: str, text: str = MINIMAL, environ: Mapping[str, str] | None = None
) -> Loaded:
    path = folder / "openais.conf"
    path.write_text(text)
    given = {"OPENAIS_DEFAULT_CONFIG_IFACE": names, "SHELL_LEVEL": "1", **(environ or {})}
    return load_with_origins(path, given, machine=MACHINE)


def row(loaded: Loaded, name: str) -> Row:
    return next(row for row in rows(loaded) if row.name == name)


def fails(folder: Path, names: str, text: str = MINIMAL) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, names, text)
    return caught.value


def test_cfg_028_sources_run_in_order_and_the_later_one_wins_with_its_origin(
    tmp_path: Path, plug_in: str
) -> None:
    loaded = read(tmp_path, f"aisparser:{plug_in}/Source", in_totem("token: 500\njoin: 60"))
    assert loaded.config.totem.token_ms == 777
    assert row(loaded, "totem.token") == Row("totem.token", "777", "somewhere:else", written=True)
    assert row(loaded, "totem.merge").origin == f"plugin:{plug_in}/Source"
    assert row(loaded, "totem.join").origin == f"{tmp_path / 'openais.conf'}:5"


def test_an_earlier_value_that_is_replaced_is_not_looked_at(tmp_path: Path, plug_in: str) -> None:
    loaded = read(tmp_path, f"aisparser:{plug_in}/Source", in_totem("token: nonsense"))
    assert loaded.config.totem.token_ms == 777


def test_a_plug_in_reads_what_is_there_and_adds_to_it(tmp_path: Path, plug_in: str) -> None:
    text = in_totem("", "mcastport: 5409") + nodelist(2)
    config = read(tmp_path, f"aisparser:{plug_in}/Reading", text).config
    assert [(node.node_id, node.name) for node in config.nodes] == [
        (1, "n1"),
        (2, "n2"),
        (9, "added"),
    ]


def test_an_error_names_the_plug_in_as_origin(tmp_path: Path, plug_in: str) -> None:
    error = fails(
        tmp_path, f"aisparser:{plug_in}/Reading", MINIMAL.replace("5405", "") + nodelist(2)
    )
    assert error.exit_status is Exit.CONFIGURATION_SOURCE  # there is no port to read
    text = in_totem("", "mcastport: 5401") + nodelist(2)
    error = fails(tmp_path, f"aisparser:{plug_in}/Reading", text)
    assert error.errors == (
        f"parser error: plugin:{plug_in}/Reading: nodelist.node.nodeid: 1 is used twice",
    )


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("Broken", "KeyError: 'oh dear'"),
        ("Nonsense", "TypeError"),
        ("Leaving", "SystemExit"),
        ("Absent", "AttributeError"),
        ("nothing", "has no method read_config"),
    ],
)
def test_cfg_029_a_source_that_fails_ends_with_status_24(
    tmp_path: Path, plug_in: str, attribute: str, reason: str
) -> None:
    error = fails(tmp_path, f"aisparser:{plug_in}/{attribute}")
    assert error.exit_status is Exit.CONFIGURATION_SOURCE
    assert f'configuration source "{plug_in}/{attribute}"' in error.reason
    assert reason in error.reason


def test_the_traceback_of_a_source_is_shown(tmp_path: Path, plug_in: str) -> None:
    errors = fails(tmp_path, f"aisparser:{plug_in}/Broken").errors
    assert any("read_config" in line for line in errors)


@pytest.mark.parametrize("name", ["nowhere", "no.such.module/Thing", "", "aisparser:"])
def test_a_source_that_is_not_there_ends_with_status_24(tmp_path: Path, name: str) -> None:
    names = name or ":"
    assert fails(tmp_path, names).exit_status is Exit.CONFIGURATION_SOURCE


def test_what_a_source_reports_ends_with_status_8(tmp_path: Path, plug_in: str) -> None:
    error = fails(tmp_path, f"aisparser:{plug_in}/Reporting")
    assert error.exit_status is Exit.MAIN_CONFIGURATION
    assert error.errors == ("parser error: plugin:x: not good",)


def test_a_module_of_the_current_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever can make a daemon start in a directory of theirs must not run code in it.
    (tmp_path / "planted_source.py").write_text("raise RuntimeError('was run')")
    monkeypatch.chdir(tmp_path)
    for entry in ("", str(tmp_path), "."):
        monkeypatch.setattr(sys, "path", [entry, *sys.path])
        error = fails(tmp_path, "planted_source/Source")
        assert "ModuleNotFoundError" in error.reason
        assert sys.path[0] == entry


def test_the_number_of_sources_is_bounded(tmp_path: Path) -> None:
    error = fails(tmp_path, ":".join(["aisparser"] * 17))
    assert error.exit_status is Exit.CONFIGURATION_SOURCE
    assert "17 sources, at most 16" in error.reason


def test_the_environment_adds_and_replaces_values(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        "aisparser:env",
        in_totem("token: 500") + nodelist(2),
        {
            "OPENAIS_CFG_totem__token": "600",
            "OPENAIS_CFG_totem__interface__0__mcastport": "6000",
            "OPENAIS_CFG_nodelist__node__2__nodeid": "3",
            "OPENAIS_CFG_nodelist__node__2__ring0_addr": "192.168.1.30",
            "OPENAIS_CFG_ipc__max_clients": "7",
            "OPENAIS_CFG_totem__merge": "",
        },
    )
    config = loaded.config
    assert (config.totem.token_ms, config.interfaces[0].multicast_port) == (600, 6000)
    assert (config.ipc.clients_max, config.nodes[2].node_id) == (7, 3)
    assert row(loaded, "totem.token").origin == "environment OPENAIS_CFG_totem__token"


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("totem__interface__7__ttl", "section interface 7: there are only 1, from 0"),
        ("totem__to-ken!", '"to-ken!": expected a letter'),
        ("totem__tokn", "unknown directive totem.tokn, did you mean token?"),
    ],
)
def test_a_variable_that_fits_nowhere_is_named(tmp_path: Path, variable: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "aisparser:env", environ={f"OPENAIS_CFG_{variable}": "1"})
    assert caught.value.errors[0].startswith(
        f"parser error: environment OPENAIS_CFG_{variable}: {reason}"
    )


TREE = {
    "totem": {
        "version": 2,
        "token": "1.5s",
        "secauth": True,
        "key_accept": ["/a", "/b"],
        "interface": [{"ringnumber": 0, "bindnetaddr": "192.168.1.0", "mcastaddr": "239.1.1.1"}],
    },
    "uidgid": [{"uid": "ais"}, {"gid": "calls"}],
}

TOML = """
[totem]
version = 2
token = "1.5s"
secauth = true
key_accept = ["/a", "/b"]
[[totem.interface]]
ringnumber = 0
bindnetaddr = "192.168.1.0"
mcastaddr = "239.1.1.1"
[[uidgid]]
uid = "ais"
[[uidgid]]
gid = "calls"
"""


@pytest.mark.parametrize(
    ("source", "suffix", "text"),
    [("jsonconf", ".json", json.dumps(TREE)), ("tomlconf", ".toml", TOML)],
)
def test_json_and_toml_say_the_same_tree(
    tmp_path: Path, source: str, suffix: str, text: str
) -> None:
    (tmp_path / f"openais{suffix}").write_text(text)
    loaded = read(tmp_path, source)
    config = loaded.config
    assert (config.totem.token_ms, config.totem.secauth) == (1500, True)
    assert config.totem.key_accept == (Path("/a"), Path("/b"))
    assert [(i.uid, i.gid) for i in config.identities] == [(990, None), (None, 991)]
    assert row(loaded, "totem.token").origin == str(tmp_path / f"openais{suffix}")


@pytest.mark.parametrize(
    ("source", "suffix", "text", "reason"),
    [
        ("jsonconf", ".json", '{\n"totem": }', ".json:2: Expecting value"),
        ("jsonconf", ".json", "[]", ".json: expected an object with the sections"),
        ("jsonconf", ".json", "[" * 100_000, ".json: nested too deep"),
        ("jsonconf", ".json", '{"totem": {"token": null}}', "totem.token: expected a text"),
        ("jsonconf", ".json", '{"totem": {"token": 1, "token": 2}}', "totem.token already set at"),
        (
            "jsonconf",
            ".json",
            '{"totem": {"token": "a\\nb"}}',
            "token: expected one line of 1..4096",
        ),
        ("jsonconf", ".json", '{"totem": {"token": "\\ud800"}}', "surrogates not allowed"),
        ("jsonconf", ".json", '{"x' + '": {"x' * 20 + '": 1' + "}" * 21, "more than 16 sections"),
        ("tomlconf", ".toml", "[totem\n", ".toml:1: "),
        ("tomlconf", ".toml", "[totem]\ntoken = 1979-05-27\n", "totem.token: expected a text"),
        ("tomlconf", ".toml", f"[totem]\ntoken = {'9' * 5000}\n", "integer string"),
        ("tomlconf", ".toml", "\udcff", "invalid start byte"),
    ],
)
def test_a_faulty_document_is_an_error_of_its_file(
    tmp_path: Path, source: str, suffix: str, text: str, reason: str
) -> None:
    (tmp_path / f"openais{suffix}").write_bytes(text.encode("utf-8", "surrogateescape"))
    error = fails(tmp_path, source)
    assert error.exit_status is Exit.MAIN_CONFIGURATION
    assert any(reason in line for line in error.errors), error.errors


def test_a_document_beside_the_main_file_that_is_missing_is_named(tmp_path: Path) -> None:
    error = fails(tmp_path, "aisparser:tomlconf")
    assert error.errors == (
        f"configuration file {tmp_path / 'openais.toml'}: No such file or directory",
    )


def test_both_parsers_together_complete_each_other(tmp_path: Path) -> None:
    (tmp_path / "openais.toml").write_text("[totem]\ntoken = 900\n")
    assert read(tmp_path, "aisparser:tomlconf").config.totem.token_ms == 900


def test_with_elevated_privileges_no_source_is_named_by_the_environment(
    tmp_path: Path, plug_in: str
) -> None:
    path = tmp_path / "openais.conf"
    path.write_text(MINIMAL)
    machine = dataclasses.replace(MACHINE, elevated=True)
    environ = {"OPENAIS_DEFAULT_CONFIG_IFACE": f"{plug_in}/Broken"}
    config = load_with_origins(path, environ, machine=machine).config
    assert "OPENAIS_DEFAULT_CONFIG_IFACE ignored" in config.warnings[0]


def test_a_source_is_found_by_the_entry_point_of_its_package(
    tmp_path: Path, plug_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "installed" / "inventory-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: inventory\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[openais.config]\nracks = {plug_in}:Source\n")
    monkeypatch.syspath_prepend(str(package.parent))
    loaded = read(tmp_path, "aisparser:racks")
    assert loaded.config.totem.token_ms == 777
    assert row(loaded, "totem.merge").origin == "plugin:racks"


def test_an_alias_in_a_later_source_replaces_the_name_of_an_earlier_one(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        "aisparser:env",
        in_totem("fail_recv_const: 5"),
        {"OPENAIS_CFG_totem__fail_to_recv_const": "6"},
    )
    assert loaded.config.totem.fail_recv_const == 6


def test_complaints_of_the_parser_keep_their_lines_with_several_sources(tmp_path: Path) -> None:
    error = fails(tmp_path, "aisparser:env", in_totem("tokn: 1"))
    assert complained(error, ":4: unknown directive totem.tokn, did you mean token?")
