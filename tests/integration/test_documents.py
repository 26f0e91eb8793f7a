"""Every program in the documents and the examples runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TIMEOUT_S = 30


def programs() -> list[tuple[str, str]]:
    """Return (where, text) of each python fence that is to be run."""
    found = []
    for page in PAGES:
        parts = page.read_text(encoding="utf-8").split("```python\n")[1:]
        for number, part in enumerate(parts, 1):
            found.append((f"{page.name}-{number}", part.split("```")[0]))
    return found


def run(cluster: Cluster, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *arguments],
        env=os.environ | {"OPENAIS_RUN_DIR": str(cluster.run_dir(1))},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize(("where", "text"), programs(), ids=[w for w, _ in programs()])
def test_a_program_of_the_documents_runs(cluster: Cluster, where: str, text: str) -> None:
    done = run(cluster, text)
    assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"


def test_the_readme_shows_the_first_program(cluster: Cluster) -> None:
    first = (ROOT / "examples" / "first.py").read_text(encoding="utf-8")
    body = first.split('"""\n\n', 1)[1]
    assert body in (ROOT / "README.md").read_text(encoding="utf-8")
    assert run(cluster, first).stdout == "b'world'\n"


def test_the_watcher_of_the_ring_tells_what_it_sees(cluster: Cluster) -> None:
    program = (ROOT / "examples" / "ringwatch.py").read_text(encoding="utf-8")
    done = run(cluster, program, "--say", "good morning", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "regular (1, 2, 3) left () joined ()"
    assert others == ["node 1: good morning"]


def test_the_main_job() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.callserver.demo", "--dir", f"/tmp/ais-demo-{os.getpid()}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 missing, 0 doubled, 0 calls lost" in done.stdout
    assert not Path(f"/tmp/ais-demo-{os.getpid()}").exists()


def test_the_lease_goes_to_another_when_its_holder_is_killed(cluster: Cluster) -> None:
    program = [sys.executable, str(ROOT / "examples" / "lease.py")]
    started = []
    try:
        for name, node_id in (("anna", 1), ("bert", 2)):
            environment = os.environ | {"OPENAIS_RUN_DIR": str(cluster.run_dir(node_id))}
            process = subprocess.Popen(
                [*program, name], env=environment, stdout=subprocess.PIPE, text=True
            )
            started.append(process)
            if name == "anna":
                assert process.stdout is not None
                assert process.stdout.readline() == "anna leads\n"
        started[0].kill()
        assert started[1].stdout is not None
        assert started[1].stdout.readline() == "bert leads\n"
    finally:
        for process in started:
            process.kill()
            process.communicate()
