"""Which release each program of a node runs: a link per program, resolved when it starts.

A release is a directory whose ``bin/python3`` runs its code: a virtual environment.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

LINKS_NAME: Final = "releases"  # beside the run directory of a node
LINKS_OF_PACKAGE: Final = Path("/etc/ais/releases")
PYTHON: Final = "bin/python3"
PROBE_TIMEOUT_S: Final = 20.0


class ReleaseError(Exception):
    """A release or a link cannot be used: says what, where, the rule."""


def module(program: str) -> str:
    """Return the module of a program."""
    return {"totemd": "totemd", "cluster": "deploy.cluster"}.get(program, f"services.{program}")


def command(links: Path, program: str, config: Path) -> str:
    """Return the command for supervisord.

    The link is resolved before Python starts: a program that runs must not import what the link
    leads to later.
    """
    python = f'"$(readlink -f {links / program})/{PYTHON}"'
    return f"/bin/sh -c 'exec {python} -m {module(program)} -c {config}'"


def links_of(run_dir: Path) -> Path:
    """Return the directory of the links of a node."""
    beside = run_dir.parent / LINKS_NAME
    return beside if beside.is_dir() else LINKS_OF_PACKAGE


def target(links: Path, program: str) -> Path:
    """Return the release that a program starts from.

    Raises:
        ReleaseError: there is no link.
    """
    try:
        return (links / program).readlink()
    except OSError as error:
        raise ReleaseError(
            f"{links / program}: {error.strerror}; supervisord must start {program} from a link "
            "there: see docs/operating.md, releases"
        ) from error


def point(links: Path, program: str, release: Path) -> None:
    """Let a program start from a release from now on; there is a link at every moment.

    Raises:
        ReleaseError: the link cannot be written.
    """
    temporary = links / f".{program}.new"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(release)
        temporary.rename(links / program)
    except OSError as error:
        raise ReleaseError(f"{links / program}: {error.strerror}") from error


def version(release: Path, program: str) -> str:
    """Ask a release for its version of a program, which also shows that it can be run at all.

    Raises:
        ReleaseError: it cannot.
    """
    python = release / PYTHON
    if not os.access(python, os.X_OK):
        raise ReleaseError(f"{release}: no release, {PYTHON} is not there or cannot be executed")
    asked = [str(python), "-m", module(program), "-v"]
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError(f"{release}: {program} does not start: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ReleaseError(f"{release}: {program} does not start: {lines[-1] if lines else ''}")
    return done.stdout.split()[-1]
