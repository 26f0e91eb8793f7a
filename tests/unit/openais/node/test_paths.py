"""Run directory, socket paths, directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from openais.node import paths
from openais.node.exits import Exit, ExitError


def test_a_client_finds_its_node_by_argument_then_environment_then_default() -> None:
    environ = {"OPENAIS_RUN_DIR": "/run/node-2"}
    assert paths.run_dir("/run/node-1", environ) == Path("/run/node-1")
    assert paths.run_dir(None, environ) == Path("/run/node-2")
    assert paths.run_dir(None, {"OPENAIS_RUN_DIR": ""}) == Path("/run/ais")
    assert paths.run_dir(None, {}) == Path("/run/ais")


def test_a_socket_path_longer_than_the_kernel_takes_is_refused() -> None:
    name = "ckpt.sock"
    fits = Path("/" + "r" * (paths.SOCKET_PATH_SIZE_MAX - len(name) - 2))
    assert paths.socket_path(fits, name) == fits / name
    with pytest.raises(paths.SocketPathError, match="100 bytes, limit 99"):
        paths.socket_path(Path(f"{fits}r"), name)


def test_directories_are_made_with_their_modes(tmp_path: Path) -> None:
    run, state = tmp_path / "a" / "run", tmp_path / "a" / "state"
    paths.make_node_directories(run, state)
    paths.make_node_directories(run, state)
    assert run.stat().st_mode & 0o777 & ~0o750 == 0
    assert state.stat().st_mode & 0o777 == 0o700


def test_cfg_027_a_directory_that_cannot_be_made_ends_with_status_16(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExitError) as caught:
        paths.make_directory(tmp_path / "file" / "run", 0o750)
    assert caught.value.status is Exit.DIRECTORY
