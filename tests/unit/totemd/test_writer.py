"""Files are written by a child; neither a slow nor a failing disk holds up the parent."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from totemd.writer import WAITING_MAX, WriteFile, Writer, WriterLostError, Written, write_durably

DEADLINE_S = 10.0


@contextmanager
def writer(write: WriteFile = write_durably) -> Iterator[Writer]:
    made = Writer(write)
    try:
        yield made
    finally:
        made.close()


def results(made: Writer, count: int) -> list[Written]:
    found: list[Written] = []
    while len(found) < count:
        ready, _, _ = select.select([made], [], [], DEADLINE_S)
        assert ready, f"{len(found)} of {count} writes finished"
        found += made.finished()
    return found


def test_a_write_is_reported_when_the_file_is_there(tmp_path: Path) -> None:
    with writer() as made:
        ticket = made.begin(tmp_path / "file", b"content")
        assert results(made, 1) == [(ticket, None)]
    assert (tmp_path / "file").read_bytes() == b"content"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writes_are_done_in_order(tmp_path: Path) -> None:
    with writer() as made:
        tickets = [made.begin(tmp_path / "file", b"%d" % k) for k in range(WAITING_MAX)]
        assert [w.ticket for w in results(made, WAITING_MAX)] == tickets
    assert (tmp_path / "file").read_bytes() == b"%d" % (WAITING_MAX - 1)


def test_a_failure_names_its_reason_and_the_next_write_goes_on(tmp_path: Path) -> None:
    with writer() as made:
        made.begin(tmp_path / "missing" / "file", b"x")
        made.begin(tmp_path / "file", b"y")
        first, second = results(made, 2)
    assert first.error == "No such file or directory"
    assert second.error is None


def test_a_disk_that_hangs_does_not_hold_up_the_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")

    def slow(path: Path, data: bytes) -> None:
        (tmp_path / "gate").read_bytes()  # until somebody has written to it
        write_durably(path, data)

    with writer(slow) as made:
        ticket = made.begin(tmp_path / "file", b"late")
        assert made.finished() == []
        (tmp_path / "gate").write_bytes(b"")
        assert results(made, 1) == [(ticket, None)]


def test_what_was_begun_is_done_when_the_parent_has_closed(tmp_path: Path) -> None:
    # Danger: the next totemd starts while a child of the last one still writes the same files.
    made = Writer()
    for k in range(WAITING_MAX):
        made.begin(tmp_path / "file", b"%d" % k)
    made.close()
    assert (tmp_path / "file").read_bytes() == b"%d" % (WAITING_MAX - 1)
    with pytest.raises(ChildProcessError):
        os.waitpid(made.pid, os.WNOHANG)


def test_a_disk_that_hangs_holds_up_the_end_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totemd.writer.FINISH_MS", 1)
    os.mkfifo(tmp_path / "gate")

    def slow(_path: Path, _data: bytes) -> None:
        (tmp_path / "gate").read_bytes()

    made = Writer(slow)
    made.begin(tmp_path / "file", b"late")
    made.close()
    assert os.waitpid(made.pid, os.WNOHANG) == (0, 0)
    (tmp_path / "gate").write_bytes(b"open")
    os.waitpid(made.pid, 0)


def test_a_writer_that_is_gone_is_noticed(tmp_path: Path) -> None:
    with writer() as made:
        os.kill(made.pid, signal.SIGKILL)
        ready, _, _ = select.select([made], [], [], DEADLINE_S)
        assert ready
        with pytest.raises(WriterLostError):
            made.finished()
        with pytest.raises(WriterLostError):
            made.begin(tmp_path / "file", b"")


def test_the_child_ignores_the_signals_that_end_its_parent(tmp_path: Path) -> None:
    with writer() as made:
        made.begin(tmp_path / "file", b"x")
        results(made, 1)  # it is up
        os.kill(made.pid, signal.SIGTERM)
        made.begin(tmp_path / "file", b"y")
        assert results(made, 1)[0].error is None


def test_the_child_holds_none_of_its_parents_files(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w"), writer() as made:
        made.begin(tmp_path / "file", b"x")
        results(made, 1)
        links = [str(p.readlink()) for p in Path(f"/proc/{made.pid}/fd").iterdir()]
    assert all(link == "/dev/null" or link.startswith("socket:") for link in links), links
    assert len([link for link in links if link.startswith("socket:")]) == 1


@pytest.mark.parametrize("call", ["os.open", "os.write", "os.fsync", "pathlib.Path.rename"])
def test_a_failure_at_any_step_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_durably(path, b"before")

    def fail(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(OSError, match="No space left"):
            write_durably(path, b"after")
    assert path.read_bytes() == b"before"
    write_durably(path, b"after")  # what was left behind is no obstacle
    assert path.read_bytes() == b"after"
