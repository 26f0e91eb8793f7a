"""Sizes, words and names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tidy.sources import FOLDERS, ROOT, files, module_name, tree

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
FORBIDDEN_WORDS = ("processor id", "hostname id", "TODO", "FIXME", "XXX")
ALL = files(*FOLDERS)


@pytest.mark.parametrize("path", ALL, ids=module_name)
def test_a_file_is_short_and_well_named(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX
    assert path.stem not in FORBIDDEN_NAMES


@pytest.mark.parametrize("path", ALL, ids=module_name)
def test_a_function_fits_on_a_page(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", [p for p in ALL if p.name != "test_shape.py"], ids=module_name)
def test_a_file_has_no_word_of_unfinished_work(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [word for word in FORBIDDEN_WORDS if word in text]


def test_every_link_between_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        for part in page.read_text(encoding="utf-8").split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            if target and not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_sets_are_not_iterated_in_replicated_state() -> None:
    for path in files("services"):
        if path.name not in (
            "state.py",
            "checkpoint.py",
            "replica.py",
            "applier.py",
            "sessions.py",
        ):
            continue
        for node in ast.walk(tree(path)):
            hashed = isinstance(node, ast.For) and isinstance(node.iter, ast.Set | ast.SetComp)
            assert not hashed, f"{path.name} iterates over a set"
