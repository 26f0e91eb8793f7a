"""What totemd remembers over a restart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openais.node.exits import Exit, ExitError
from totemd.store import SLOT_SIZE, SlotFile, Store


def test_a_ring_number_is_never_used_again(tmp_path: Path) -> None:
    first = Store(tmp_path, 1)
    first.persist(10)
    first.persist(1_000)
    again = Store(tmp_path, 1)
    assert again.stored_ring_seq >= 1_000
    assert again.boot_epoch == first.boot_epoch + 1


def test_numbers_within_the_reserve_need_no_write(tmp_path: Path) -> None:
    store = Store(tmp_path, 1)
    before = (tmp_path / "ringid_1").read_bytes()
    store.persist(store.stored_ring_seq + 1)
    assert (tmp_path / "ringid_1").read_bytes() == before


def test_sessions_only_grow_even_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(tmp_path, 1).new_session()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert Store(tmp_path, 1).new_session()[0] > first[0]


@pytest.mark.parametrize("slot", [0, 1])
def test_a_torn_slot_leaves_the_other(tmp_path: Path, slot: int) -> None:
    path = tmp_path / "slots"
    SlotFile(path).write((1, 2, 3))
    SlotFile(path).write((4, 5, 6))
    with path.open("r+b") as file:
        file.seek(slot * SLOT_SIZE + 8)
        file.write(b"torn")
    assert SlotFile(path).values in ((1, 2, 3), (4, 5, 6))


def test_a_state_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExitError) as caught:
        Store(tmp_path / "file", 1)
    assert caught.value.status is Exit.RING_ID


def test_a_disk_that_fails_later_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.pwrite", full)
    store.persist(1 << 40)
    assert "ring_seq_not_stored" in caplog.text
    assert "No space left on device" in caplog.text


def test_peer_sessions_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, 1)
    assert store.peer_sessions() == {}
    store.save_peer_sessions({3: (7, b"abcd"), 2: (5, b"efgh")})
    assert Store(tmp_path, 1).peer_sessions() == {2: (5, b"efgh"), 3: (7, b"abcd")}
