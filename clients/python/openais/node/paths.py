"""Where a node's files are: run directory, sockets, directories that must exist."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from openais.node.exits import Exit, ExitError

RUN_DIR: Final = Path("/run/ais")
STATE_DIR: Final = Path("/var/lib/ais")
MAIN_CONFIG_FILE: Final = Path("/etc/ais/openais.conf")
AMF_CONFIG_FILE: Final = Path("/etc/ais/amf.conf")
KEY_FILE: Final = Path("/etc/ais/authkey")

RUN_DIR_VARIABLE: Final = "OPENAIS_RUN_DIR"
SOCKET_PATH_SIZE_MAX: Final = (
    99  # bytes; the kernel's limit is 107, ZeroMQ adds a suffix of its own
)
SOCKET_NAME_SIZE_MAX: Final = 24  # bytes of the longest socket name in a run directory

RUN_DIR_MODE: Final = 0o750
STATE_DIR_MODE: Final = 0o700


class SocketPathError(ValueError):
    """The path of a local socket is longer than the kernel takes."""


def run_dir(argument: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the run directory of the node a client talks to.

    The argument wins, then the environment variable OPENAIS_RUN_DIR, then /run/ais.
    """
    if argument is not None:
        return Path(argument)
    named = (os.environ if environ is None else environ).get(RUN_DIR_VARIABLE)
    return Path(named) if named else RUN_DIR


def socket_path(directory: Path, name: str) -> Path:
    """Return the path of a local socket.

    Raises:
        SocketPathError: longer than SOCKET_PATH_SIZE_MAX bytes.
    """
    path = directory / name
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_SIZE_MAX:
        raise SocketPathError(
            f"socket path {path}: {size} bytes, limit {SOCKET_PATH_SIZE_MAX}; "
            "use a shorter run directory"
        )
    return path


def make_directory(path: Path, mode: int) -> None:
    """Make sure that a directory exists and can be written; parents are made too.

    Raises:
        ExitError: status 16.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise ExitError(Exit.DIRECTORY, f"directory {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ExitError(Exit.DIRECTORY, f"directory {path}: not writable")


def make_node_directories(run: Path, state: Path) -> None:
    """Make sure that the run and the state directory exist.

    Raises:
        ExitError: status 16.
    """
    make_directory(run, RUN_DIR_MODE)
    make_directory(state, STATE_DIR_MODE)
