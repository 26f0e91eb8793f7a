"""How the services of a node learn that it may not be a member."""

from __future__ import annotations

from pathlib import Path

from services.kit.outside import FILE, LOOK_AGAIN_NS, REASON_SIZE_MAX, Outside, outside, put_outside


def test_a_reason_is_read_until_it_is_taken_back(tmp_path: Path) -> None:
    assert outside(tmp_path) == ""
    put_outside(tmp_path, "locked")
    assert outside(tmp_path) == "locked"
    put_outside(tmp_path, "not listed")
    assert outside(tmp_path) == "not listed"
    for _ in range(2):
        put_outside(tmp_path, "")
        assert outside(tmp_path) == ""


def test_an_empty_or_endless_file_still_means_outside(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    assert outside(tmp_path) == "unknown"
    (tmp_path / FILE).write_bytes(b"\xff" * 10_000)
    assert 0 < len(outside(tmp_path)) <= REASON_SIZE_MAX


def test_the_file_is_looked_at_now_and_then_only(tmp_path: Path) -> None:
    looker = Outside(tmp_path)
    assert looker.reason(5) == ""
    put_outside(tmp_path, "locked")
    assert looker.reason(5 + LOOK_AGAIN_NS - 1) == ""
    assert looker.reason(5 + LOOK_AGAIN_NS) == "locked"
