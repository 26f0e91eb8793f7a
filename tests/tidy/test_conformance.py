"""Every statement of the conformance lists has a test of its name, or says why it has none."""

from __future__ import annotations

import re

from tests.tidy.sources import ROOT

PAGE = ROOT / "docs" / "conformance.md"
ROW = re.compile(r"^\| ([A-Z]+)-(\d+) \| (.+) \| ([^|]+) \|$", re.MULTILINE)
NAME = re.compile(r"^(?:async )?def test_([a-z]+)((?:_\d+)+)_[a-z]\w*\(", re.MULTILINE)
WITHOUT_A_TEST = {"C", "open"}


def with_a_test() -> set[tuple[str, int]]:
    """Return the (list, number) that the names of conformance tests begin with."""
    return {
        (found[1], int(number))
        for path in sorted((ROOT / "tests" / "conformance").glob("test_*.py"))
        for found in NAME.finditer(path.read_text(encoding="utf-8"))
        for number in found[2].strip("_").split("_")
    }


def test_every_statement_has_a_test_of_its_id_and_every_such_test_a_statement() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    there = with_a_test()
    ids = [(of.lower(), int(number)) for of, number, _, _ in rows]
    assert len(ids) == len(set(ids)), "an id stands twice"
    shown = {i for i, row in zip(ids, rows, strict=True) if row[3] not in WITHOUT_A_TEST}
    assert not shown - there, "statements without a test"
    listed = {of for of, _ in ids}
    assert not {t for t in there if t[0] in listed} - shown, "tests without such a statement"


def test_the_lists_have_no_gaps() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    for of in sorted({row[0] for row in rows}):
        numbers = [int(row[1]) for row in rows if row[0] == of]
        assert numbers == list(range(1, len(numbers) + 1)), of
