"""Releases for tests: directories whose ``bin/python3`` runs the code of a commit."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASELINE_VARIABLE = "OPENAIS_UPGRADE_FROM"  # a commit; else the newest tag v*, else HEAD~1
ROOMS = ("totemd", "services", "deploy", "clients/python/openais")
GIT_TIMEOUT_S = 30

_PYTHON = """\
#!/bin/sh
PYTHONPATH={root}:{root}/clients/python exec {python} "$@"
"""


class NoBaselineError(Exception):
    """There is no release before this one: says why."""


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            check=False,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoBaselineError(f"git: {error}") from error
    if done.returncode:
        raise NoBaselineError(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def baseline() -> str:
    """Return the commit of the release before this one.

    Raises:
        NoBaselineError: no history here.
    """
    named = os.environ.get(BASELINE_VARIABLE)
    if named is None:
        tags = _git("tag", "--list", "v*", "--sort=-version:refname").decode().split()
        named = tags[0] if tags else "HEAD~1"
    return _git("rev-parse", "--verify", f"{named}^{{commit}}").decode().strip()


def script(release: Path, text: str) -> Path:
    """Make a directory a release, by the text of its ``bin/python3``."""
    python = release / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.write_text(text)
    python.chmod(0o755)
    return release


def extract(commit: str, directory: Path) -> Path:
    """Lay out the release of a commit.

    Raises:
        NoBaselineError: git does not have it.
    """
    archive = _git("archive", "--format=tar", commit, *ROOMS)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    return script(directory, _PYTHON.format(root=directory, python=sys.executable))


def present(directory: Path) -> Path:
    """Lay out the release that the tree here is."""
    return script(directory, _PYTHON.format(root=ROOT, python=sys.executable))


def spans(release: Path) -> tuple[tuple[int, int], ...]:
    """Return the versions a release speaks: between replicas, at totemd's port."""
    code = (
        "from services.kit import entries; from openais.wire import port; "
        "print(entries.VERSION, entries.VERSION_MIN, port.VERSION, port.VERSION_MIN)"
    )
    python = str(release / "bin" / "python3")
    done = subprocess.run([python, "-c", code], capture_output=True, check=True, cwd="/")
    newest, oldest, port_newest, port_oldest = map(int, done.stdout.split())
    return (newest, oldest), (port_newest, port_oldest)


def meet(one: Path, other: Path) -> bool:
    """Tell whether two releases have a version of each protocol in common."""
    return all(
        max(a[1], b[1]) <= min(a[0], b[0]) for a, b in zip(spans(one), spans(other), strict=True)
    )
