"""`./run mutants`: break the core on purpose, and see that the simulation notices.

Each mutant is applied to a copy of totemd in a temporary folder, which a process of its own
imports. An edit whose text is not there exactly once is an error: the list has to follow the code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.sim.axioms import AxiomError
from tests.sim.command import make
from tests.sim.floor.judge import FloorError
from tests.sim.measures import MEASURES

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "tests" / "simulation" / "mutations"
SEEDS: Final = 300
CHILD_S: Final = 900  # a mutant that takes longer counts as not caught


class MutantError(Exception):
    """A mutant no longer fits the code."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the core."""

    name: str
    breaks: tuple[str, ...]
    edits: tuple[tuple[str, str, str], ...]  # file in totemd, exact text, text instead
    mix: str | None
    seeds: int
    known: int | None  # a seed that catches it
    measure: str | None
    more: float | None  # caught if so many times the figure of the sound core
    above: float | None  # caught if above this figure
    directed: str | None  # a test, module:function, that catches what random runs rarely do
    services: bool  # of the services' floor; files are named from the root


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    caught: bool
    seeds: int
    seed: int
    found: str


def load() -> list[Mutant]:
    """Return all mutants, in the order of their files."""
    return [
        Mutant(
            m["name"],
            tuple(m["breaks"]),
            tuple((file, old, new) for file, old, new in m["edit"]),
            m.get("mix"),
            m.get("seeds", SEEDS),
            m.get("known"),
            m.get("measure"),
            m.get("more"),
            m.get("above"),
            m.get("directed"),
            m.get("services", False),
        )
        for path in sorted(FOLDER.glob("*.toml"))
        for m in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    ]


def mutate(mutant: Mutant, folder: Path) -> None:
    """Put a broken copy of totemd, and of the services if it is one of theirs, into a folder.

    Raises:
        MutantError: a text is not there exactly once.
    """
    for name in ("totemd", "services") if mutant.services else ("totemd",):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
    for file, old, new in mutant.edits:
        path = edited(mutant, folder, file)
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            where = f"{file} has this text {text.count(old)} times, not once: {old!r}"
            raise MutantError(f"mutant {mutant.name!r}: {where}")
        path.write_text(text.replace(old, new), encoding="utf-8")


def edited(mutant: Mutant, folder: Path, file: str) -> Path:
    """Return where the copy of an edited file is."""
    return folder / file if mutant.services else folder / "totemd" / file


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that imports the copy of totemd in a folder."""
    places = (folder, ROOT, ROOT / "clients" / "python")
    path = os.pathsep.join(map(str, places))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _child(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.sim.mutants", "--child", json.dumps(order)],
        cwd=folder,
        env=environment(folder),
        check=False,
        capture_output=True,
        text=True,
        timeout=CHILD_S,
    )
    if finished.returncode:
        raise MutantError(f"the child of {order} failed: {finished.stderr[-500:]}")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    for name in ("totemd", "services") if order["services"] else ("totemd",):
        if Path(answer[name]).parent != (folder / name).resolve():
            raise MutantError(f"the child imported {answer[name]}, not the broken copy")
    return answer


def try_mutant(
    mutant: Mutant, sound: dict[tuple[str, str], float], seeds: int | None = None
) -> Verdict:
    """Run one mutant until it is caught, or its seeds are used up.

    Args:
        mutant: is applied to a copy.
        sound: figures of the sound core, by measure and mix.
        seeds: at most so many.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        mutate(mutant, folder)
        count = min(mutant.seeds, seeds or mutant.seeds)
        order = {"mix": mutant.mix, "seeds": count, "first": mutant.known or 0}
        order |= {"measure": mutant.measure, "directed": mutant.directed}
        order |= {"services": mutant.services}
        try:
            answer = _child(order, folder)
        except subprocess.TimeoutExpired:
            return Verdict(mutant, caught=False, seeds=0, seed=0, found="took too long")
    if answer["found"] or mutant.measure is None:
        found = answer["found"]
        return Verdict(mutant, bool(found), answer["seeds"], answer["seed"], found or "nothing")
    usual = sound[mutant.measure, mutant.mix or ""]
    limit = mutant.above if mutant.above is not None else usual * (mutant.more or 1.0)
    figure = f"{mutant.measure} {answer['figure']:.1f}, sound {usual:.1f}, limit {limit:.1f}"
    return Verdict(mutant, answer["figure"] > limit, 0, 0, figure)


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Run the simulation on whatever core this process has imported."""
    import services.kit
    from totemd.protocol import ring

    kit = str(Path(services.kit.__file__).resolve().parent)
    where = str(Path(ring.__file__).resolve().parents[1] / "protocol")
    answer: dict[str, Any] = {"totemd": where, "services": kit, "found": "", "seeds": 0, "seed": 0}
    if order["directed"]:
        module, _, name = order["directed"].partition(":")
        try:
            getattr(importlib.import_module(module), name)()
        except Exception as error:  # any failure is a catch
            answer["found"] = _name(error)
        return answer
    if order["measure"]:
        try:
            answer["figure"] = MEASURES[order["measure"]](order["mix"] or "")
        except Exception as error:  # any failure is a catch
            answer["found"] = _name(error)
        return answer
    for seed in range(order["first"], order["first"] + order["seeds"]):
        answer["seeds"] += 1
        try:
            make(seed, order["mix"], services=order["services"]).run()
        except Exception as error:  # any failure is a catch
            answer["found"], answer["seed"] = _name(error), seed
            break
    return answer


def _name(error: Exception) -> str:
    if isinstance(error, AxiomError):
        return " ".join(sorted({v.axiom for v in error.violations}))
    if isinstance(error, FloorError):
        return " ".join(sorted({v.rule for v in error.violations}))
    return type(error).__name__


def baseline(mutants: list[Mutant]) -> dict[tuple[str, str], float]:
    """Measure the sound core for the mutants that are judged by figures."""
    wanted = {
        (m.measure, m.mix or "") for m in mutants if m.measure is not None and m.above is None
    }
    fixed = {(m.measure, m.mix or ""): 0.0 for m in mutants if m.measure is not None}
    return {**fixed, **{key: MEASURES[key[0]](key[1]) for key in sorted(wanted)}}


def main() -> int:
    """Run the whole list, or those whose name contains a word."""
    parser = argparse.ArgumentParser(prog="./run mutants", description="break the core on purpose")
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at most so many each")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        sys.stdout.write(json.dumps(obey(json.loads(options.child))) + "\n")
        return 0
    words = options.words or [""]
    mutants = [m for m in load() if any(word in m.name for word in words)]
    sound = baseline(mutants)
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(try_mutant, m, sound, options.seeds) for m in mutants]
        for finished in as_completed(running):
            try:
                verdict = finished.result()
            except MutantError as error:
                missed += 1
                sys.stdout.write(f"{error}\n")
                continue
            missed += not verdict.caught
            sys.stdout.write(line(verdict) + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(mutants)} mutants, {missed} not caught\n")
    return 1 if missed else 0


def line(verdict: Verdict) -> str:
    """Return one row of the table."""
    m = verdict.mutant
    where = f"{verdict.seeds} (seed {verdict.seed})" if verdict.seeds else "figure"
    seeds = "directed" if m.directed else where
    if not verdict.caught:
        seeds = f"NOT CAUGHT in {verdict.seeds}"
    return f"| {m.name} | {m.mix or 'all'} | {seeds} | {verdict.found} |"


if __name__ == "__main__":
    sys.exit(main())
