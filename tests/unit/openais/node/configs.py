"""Configuration files and machines for the tests of the configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import pytest

from openais.node.config import ConfigError, NodeConfig, load
from openais.node.machine import Machine

MINIMAL = """
totem {
    version: 2
    interface {
        ringnumber: 0
        bindnetaddr: 192.168.1.0
        mcastaddr: 239.1.1.1
    }
}
"""

MACHINE = Machine(
    host_name="alpha",
    full_name=lambda: "alpha.example.org",
    addresses=(
        ipaddress.ip_interface("127.0.0.1/8"),
        ipaddress.ip_interface("192.168.1.7/24"),
        ipaddress.ip_interface("fd00::7/64"),
    ),
    resolve=lambda name: {"beta": ("192.168.1.8",), "six": ("fd00::9",)}.get(name, ()),
    user_id={"root": 0, "ais": 990}.get,
    group_id={"root": 0, "calls": 991}.get,
    elevated=False,
)


def loaded(
    folder: Path,
    text: str | bytes,
    environ: Mapping[str, str] | None = None,
    *,
    lenient: bool = False,
    testing: bool = False,
    machine: Machine = MACHINE,
) -> NodeConfig:
    """Load a file with this text."""
    path = folder / "openais.conf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path, environ or {}, lenient=lenient, testing=testing, machine=machine)


def refused(
    folder: Path,
    text: str | bytes,
    environ: Mapping[str, str] | None = None,
    *,
    machine: Machine = MACHINE,
) -> ConfigError:
    """Load a file that is faulty."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, environ, machine=machine)
    return caught.value


def in_totem(lines: str, interface: str = "") -> str:
    """Return the minimal file with more lines in section totem and its interface."""
    return (
        MINIMAL.replace("version: 2", f"version: 2\n{lines}").replace(
            "ringnumber: 0", f"ringnumber: 0\n{interface}"
        )
        if lines or interface
        else MINIMAL
    )


def complained(error: ConfigError, reason: str) -> bool:
    """Tell whether one of the errors ends with a reason."""
    return any(line.endswith(reason) for line in error.errors)


def nodelist(count: int) -> str:
    """Return a nodelist whose first node is this machine; no text for no node."""
    nodes = [
        f"node {{\nring0_addr: 192.168.1.{6 + k}\nnodeid: {k}\nname: n{k}\n}}\n"
        for k in range(1, count + 1)
    ]
    return f"nodelist {{\n{''.join(nodes)}}}\n" if count else ""
