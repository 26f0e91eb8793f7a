"""Who may import whom (docs/architecture.md, "Cores and shells")."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.sources import files, imports, module_name, tree

STANDARD = frozenset(sys.stdlib_module_names)
OURS = ("openais", "totemd", "services", "deploy", "examples", "bench", "tests")
IMPURE = frozenset(
    (
        *("asyncio", "concurrent", "fcntl", "http", "io", "logging", "multiprocessing", "os"),
        *("pathlib", "random", "secrets", "selectors", "shutil", "signal", "socket", "ssl"),
        *("subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid", "xmlrpc"),
    )
)

# room -> what it may import besides the standard library; the longest matching room counts.
ROOMS: dict[str, tuple[str, ...]] = {
    "openais.wire": ("openais.wire",),
    "openais.wire.codec": ("openais.wire", "msgpack"),
    "openais.node": ("openais.wire", "openais.node", "openais.__version__"),
    "openais.node.bundles": ("openais.wire", "zmq"),
    "openais.node.poller": ("zmq",),
    "openais.node.ipc": ("openais.wire", "openais.node", "zmq"),
    "openais": ("openais", "zmq"),
    "totemd.protocol": ("totemd.protocol",),
    "totemd": (
        "totemd",
        "openais.wire",
        "openais.node",
        "openais.__version__",
        "zmq",
        "cryptography",
    ),
    "services.kit": (
        "services.kit",
        "openais.wire",
        "openais.node",
        "openais.__version__",
        "zmq",
    ),
    "services.kit.machine": ("openais.wire",),
    "services.ckpt": ("services.ckpt", "services.kit", "openais.wire", "openais.node"),
    "services.ckpt.state": (
        "openais.wire",
        "services.kit.machine",
        "services.ckpt.checkpoint",
        "services.ckpt.rules",
        "services.ckpt.objects",
        "services.ckpt.watches",
    ),
    "services.ckpt.objects": (
        "openais.wire",
        "services.kit.machine",
        "services.ckpt.checkpoint",
        "services.ckpt.watches",
    ),
    "services.ckpt.checkpoint": (
        "openais.wire",
        "services.kit.machine",
        "services.ckpt.rules",
        "services.ckpt.watches",
    ),
    "services.ckpt.watches": ("openais.wire", "services.kit.machine"),
    "services.ckpt.rules": ("openais.wire",),
    "services.clm": ("services.clm", "services.kit", "openais.wire", "openais.node"),
    "services.clm.state": (
        "openais.wire",
        "services.kit.machine",
        "services.clm.administration",
        "services.clm.snapshot",
        "services.clm.trackers",
    ),
    "services.clm.administration": (
        "openais.wire",
        "services.kit.machine",
        "services.clm.snapshot",
    ),
    "services.clm.trackers": ("openais.wire", "services.kit.machine", "services.clm.snapshot"),
    "services.clm.snapshot": ("openais.wire",),
    "deploy": ("deploy", "openais", "supervisor"),
    "examples": ("examples", "openais"),
    "services": (),
    "bench": ("bench", "openais", "totemd", "services", "deploy", "tests.net", "zmq"),
}
PURE = (
    "totemd.protocol",
    "services.kit.machine",
    "services.kit.identifiers",
    "services.kit.small",
    "services.kit.timers",
    "services.kit.effects",
    "services.kit.replica",
    "services.kit.requests",
    "services.kit.sessions",
    "services.kit.entries",
    "services.kit.memory",
    "services.kit.applier",
    "services.kit.digests",
    "services.kit.effects",
    "services.kit.fragments",
    "services.kit.meeting",
    "services.kit.shared",
    "services.kit.transfer",
    "services.ckpt.state",
    "services.ckpt.checkpoint",
    "services.ckpt.rules",
    "services.ckpt.watches",
    "services.ckpt.objects",
    "services.ckpt.api",
    "services.clm.state",
    "services.clm.administration",
    "services.clm.snapshot",
    "services.clm.trackers",
    "services.clm.api",
    "openais.wire",
)

SOURCES = files("totemd", "services", "deploy", "clients/python/openais", "examples", "bench")


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(name: str) -> str:
    return max((room for room in ROOMS if within(name, room)), key=len)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_its_room_allows(path: Path) -> None:
    name = module_name(path)
    allowed = ROOMS[room_of(name)]
    foreign = {
        imported
        for imported in imports(path)
        if imported.split(".")[0] not in STANDARD
        and not any(within(imported, room) for room in allowed)
    }
    assert not foreign, f"{name} (room {room_of(name)}) may not import {sorted(foreign)}"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if any(within(module_name(p), room) for room in PURE)],
    ids=module_name,
)
def test_a_pure_module_imports_nothing_that_touches_the_world(path: Path) -> None:
    touched = {name.split(".")[0] for name in imports(path)} & IMPURE
    assert not touched
    called = {
        node.func.id
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "eval", "exec", "hash", "id"}


def test_no_module_imports_the_tests_but_benchmarks_their_networks() -> None:
    for path in SOURCES:
        foreign = {name for name in imports(path) if within(name, "tests")}
        if within(module_name(path), "bench"):
            foreign = {name for name in foreign if not within(name, "tests.net")}
        assert not foreign, path


def test_importing_the_package_loads_no_socket_library() -> None:
    program = "import sys, openais; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nothing_is_unpickled_or_evaluated() -> None:
    for path in SOURCES:
        assert not {n.split(".")[0] for n in imports(path)} & {"pickle", "marshal", "shelve"}, path
