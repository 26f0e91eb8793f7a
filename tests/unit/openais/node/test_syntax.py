"""The brace syntax: what is accepted, and one error row after the other."""

from __future__ import annotations

import pytest

from openais.node.exits import Exit
from openais.node.syntax import parse
from openais.node.tree import (
    DEPTH_MAX,
    LINE_SIZE_MAX,
    PROBLEMS_MAX,
    Problems,
    Section,
    TooManyProblemsError,
    nearest,
)


def parsed(data: bytes) -> tuple[Section, Problems]:
    problems = Problems()
    root = Section("", "FILE:1")
    parse(data, "FILE", problems, root)
    return root, problems


def test_sections_and_directives_keep_their_lines() -> None:
    root, problems = parsed(b"a {\n  b: c\n  d {\n    e: f g\n  }\n}\nh: i\n")
    assert not problems.errors
    assert [(s.name, s.origin) for s in root.sections] == [("a", "FILE:1")]
    inner = root.sections[0]
    assert [(d.key, d.value, d.origin) for d in inner.directives] == [("b", "c", "FILE:2")]
    assert [(d.key, d.value, d.origin) for d in inner.sections[0].directives] == [
        ("e", "f g", "FILE:4")
    ]
    assert [(d.key, d.value) for d in root.directives] == [("h", "i")]


def test_cfg_002_comments_blanks_carriage_returns_and_a_byte_order_mark_are_tolerated() -> None:
    text = (
        "\ufeff# comment\r\n\r\n \t\u00a0\r\na\u00a0{\r\n\u00a0\u00a0# more\r\n\tb :\tc \r\n}\r\n"
    )
    root, problems = parsed(text.encode())
    assert not problems.errors
    assert root.sections[0].directives[0].value == "c"


def test_cfg_003_a_hash_a_colon_or_a_brace_inside_a_value_belongs_to_it() -> None:
    root, problems = parsed(b"a: b # c\nd: e:f\ng: {h}\n")
    assert not problems.errors
    assert [d.value for d in root.directives] == ["b # c", "e:f", "{h}"]


def test_cfg_004_a_line_of_4096_bytes_is_accepted_and_one_more_byte_is_not() -> None:
    fits = b"a: " + b"x" * (LINE_SIZE_MAX - 3)
    root, problems = parsed(fits + b"\r\n" + fits + b"x\n")
    assert problems.errors == [
        f"parser error: FILE:2: line too long ({LINE_SIZE_MAX + 1} bytes, limit 4096)"
    ]
    assert len(root.directives) == 1


def test_cfg_005_a_last_line_without_newline_is_complete() -> None:
    root, problems = parsed(b"a: bcd")
    assert not problems.errors
    assert root.directives[0].value == "bcd"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (b"\n {\n}", 2, "section name missing before '{'"),
        (b"a { b\n}", 1, "unexpected text after '{'"),
        (b"a {\n} b", 2, "unexpected text around '}'"),
        (b"a {\nb }", 2, "unexpected text around '}'"),
        (b": b", 1, "key missing before ':'"),
        (b"a:  ", 1, "value missing for a"),
        (b"hello", 1, "neither a section, a directive nor a comment"),
        (b"9a: b", 1, "neither a section, a directive nor a comment"),
        (b"a b {\n}", 1, "neither a section, a directive nor a comment"),
        (b"a = b", 1, "neither a section, a directive nor a comment"),
        (b"}", 1, "'}' without open section"),
        (b"\na {\nb: c", 3, "section a opened at line 2 is not closed"),
        (b"a: \xff", 1, "invalid UTF-8 at byte 4"),
        (b"a: b\0c", 1, "NUL byte"),
    ],
)
def test_cfg_006_each_faulty_line_is_named_with_its_reason(
    text: bytes, line: int, reason: str
) -> None:
    _, problems = parsed(text)
    assert problems.errors == [f"parser error: FILE:{line}: {reason}"]
    assert problems.statuses == {Exit.MAIN_CONFIGURATION}


def test_cfg_007_all_errors_of_a_file_are_reported_in_one_run() -> None:
    _, problems = parsed(b"a\nb {\nc:\n}\n}\n")
    assert [error.split(":")[2] for error in problems.errors] == ["1", "3", "5"]


def test_a_faulty_opening_still_opens_so_that_the_nesting_stays_right() -> None:
    root, problems = parsed(b"a { x\nb: c\n}\nd {\n}\n")
    assert len(problems.errors) == 1
    assert [s.name for s in root.sections] == ["d"]


def test_a_whole_section_on_one_line_is_one_error() -> None:
    _, problems = parsed(b"a { b: c }\nd: e\n")
    assert problems.errors == ["parser error: FILE:1: unexpected text after '{'"]


def test_reading_stops_after_the_twentieth_error() -> None:
    problems = Problems()
    with pytest.raises(TooManyProblemsError):
        parse(b"x\n" * (PROBLEMS_MAX + 5), "FILE", problems, Section("", "FILE:1"))
    assert len(problems.errors) == PROBLEMS_MAX


def test_sections_do_not_nest_without_bound() -> None:
    _, problems = parsed(b"a {\n" * (DEPTH_MAX + 1) + b"}\n" * (DEPTH_MAX + 1))
    assert problems.errors == [
        f"parser error: FILE:{DEPTH_MAX + 1}: more than {DEPTH_MAX} sections inside each other"
    ]


def test_a_misspelling_finds_the_nearest_name_within_two_edits() -> None:
    known = ["join", "token", "token_retransmit", "merge"]
    assert nearest("tokn", known) == "token"
    assert nearest("jion", known) == "join"
    assert nearest("consensus", known) is None
    assert nearest("token", ["token"]) is None
    assert nearest("x", []) is None
