"""Generated parts of the documentation are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from openais.node.exits import Exit

ROOT = Path(__file__).resolve().parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current_else_run_docs_generate_py() -> None:
    assert generator().outdated() == []


def test_every_exit_status_stands_in_the_configuration_page() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    table = page.partition("## Exit statuses")[2]
    for status in Exit:
        assert f"| {int(status)} |" in table, f"{status!r} is not documented"


def test_tests_that_the_documents_name_exist() -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for page in sorted((ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"`(test_[a-z0-9]+_[a-z0-9_]+)`", page.read_text(encoding="utf-8")))
        assert not named - there, f"{page.name} names tests that are not there"
