"""What totemd remembers over a restart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from openais.node.exits import Exit, ExitError
from totemd import store as module
from totemd.seal import AES_256_GCM, ClusterKey, Sealer
from totemd.store import RING_MAGIC, RING_SEQ_RENEW, RING_SEQ_RESERVE, Store, decode, encode
from totemd.writer import Writer, WriterLostError, write_durably


class Disk:
    """Stands in for the writer: writes when told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Path, bytes]] = []
        self._ticket = 0
        self.lost = False

    def begin(self, path: Path, data: bytes) -> int:
        if self.lost:
            raise WriterLostError("gone")
        self._ticket += 1
        self.waiting.append((self._ticket, path, data))
        return self._ticket

    def work(self, store: Store) -> None:
        """Finish what was begun and tell the store."""
        waiting, self.waiting = self.waiting, []
        for ticket, path, data in waiting:
            write_durably(path, data)
            store.written(ticket, None)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def opened(path: Path, disk: Disk | None = None) -> Store:
    return Store(path, 1, cast(Writer, disk or Disk()))


def test_a_ring_number_is_never_used_again(tmp_path: Path, disk: Disk) -> None:
    first = opened(tmp_path, disk)
    far = first.stored_ring_seq + 1_000
    assert not first.durable(far)
    disk.work(first)
    assert first.durable(far)
    again = opened(tmp_path)
    assert again.stored_ring_seq >= far
    assert again.boot_epoch > first.boot_epoch


def test_every_number_within_the_reservation_is_durable_at_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    last = store.stored_ring_seq + RING_SEQ_RESERVE
    assert store.durable(last)
    assert not store.durable(last + 1)
    assert opened(tmp_path).stored_ring_seq >= last


def test_the_reservation_is_renewed_before_it_is_used_up(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    for seq in range(store.stored_ring_seq, store.stored_ring_seq + 1_000, 4):
        assert store.durable(seq)
        disk.work(store)
    assert disk.waiting == []


def test_one_renewal_is_enough_while_the_disk_is_slow(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    begin = store.stored_ring_seq + RING_SEQ_RESERVE - RING_SEQ_RENEW
    assert all(store.durable(begin + k) for k in range(RING_SEQ_RENEW))
    assert len(disk.waiting) == 1


def test_a_disk_that_hangs_for_long_has_a_bounded_number_of_writes_before_it(
    tmp_path: Path, disk: Disk
) -> None:
    store = opened(tmp_path, disk)
    first = store.stored_ring_seq + 500
    for k in range(200):
        assert not store.durable(first + 4 * k)
        store.save_peer_sessions({3: (k, b"abcd")})
        store.renew_session()
    assert len(disk.waiting) == 3
    disk.work(store)
    assert not store.durable(first + 800)
    disk.work(store)
    assert store.durable(first + 800)


def test_a_number_is_durable_only_when_the_disk_says_so(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    far = store.stored_ring_seq + 500
    assert not store.durable(far)
    assert not store.durable(far)
    disk.work(store)
    assert store.durable(far)


def test_a_disk_that_fails_ends_the_process_with_status_21(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    assert not store.durable(store.stored_ring_seq + 500)
    with pytest.raises(ExitError, match="No space left") as caught:
        store.written(disk.waiting[0][0], "No space left on device")
    assert caught.value.status is Exit.RING_ID
    disk.lost = True
    with pytest.raises(ExitError, match="gone") as caught:
        store.durable(store.stored_ring_seq + 5_000)
    assert caught.value.status is Exit.RING_ID


def test_a_disk_that_fails_early_is_logged_and_tried_again(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path, disk)
    seq = store.stored_ring_seq + RING_SEQ_RENEW + 1
    assert store.durable(seq)
    store.written(disk.waiting.pop()[0], "No space left on device")
    assert "state_not_stored" in caplog.text
    assert store.durable(seq + 4)
    disk.work(store)
    assert store.durable(seq + RING_SEQ_RESERVE)
    before = store.session
    store.renew_session()
    store.written(disk.waiting.pop()[0], "No space left on device")
    assert store.session == before
    store.renew_session()
    disk.work(store)
    assert store.session > before


def test_sessions_only_grow_even_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path).session
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert opened(tmp_path).session[0] > first[0]


def test_a_new_session_is_not_used_before_it_is_durable(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    before = store.session
    store.renew_session()
    store.renew_session()
    assert store.session == before
    assert len(disk.waiting) == 1
    disk.work(store)
    assert store.session > before
    assert opened(tmp_path).session > store.session


@pytest.mark.parametrize("content", [b"", b"\0" * 20, b"x" * 19, b"x" * 1_024])
def test_a_spoiled_file_is_replaced_by_the_clock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    before = opened(tmp_path)
    (tmp_path / "ringid_1").write_bytes(content)
    (tmp_path / "totem-session").write_bytes(content)
    again = opened(tmp_path)
    assert again.stored_ring_seq >= before.stored_ring_seq
    assert again.session > before.session
    assert caplog.text.count("state_file_spoiled") == 2


def test_every_changed_bit_of_a_file_is_noticed() -> None:
    data = encode(RING_MAGIC, 0x0123_4567_89AB_CDEF)
    assert len(data) == 20
    assert decode(RING_MAGIC, data) == 0x0123_4567_89AB_CDEF
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert decode(RING_MAGIC, bytes(changed)) is None


def test_no_key_and_nonce_are_used_twice_however_a_start_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crash between any two steps of the first writes; the clock stands still meanwhile.
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000 * 10**9)
    seen = set()
    for step in range(40):
        count = 0

        def crash_at(step: int = step) -> None:
            nonlocal count
            count += 1
            if count > step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            for name in ("open", "write", "fsync"):
                _crash_before(patch, name, crash_at)
            try:
                store = opened(tmp_path)
            except KeyboardInterrupt:
                continue
        header = Sealer(ClusterKey(bytes(32), "c"), AES_256_GCM, 1, store.session, 200).seal(b"x")
        assert header[0][:28] not in seen
        seen.add(header[0][:28])
    assert len(seen) > 10
    assert len({header[8:16] for header in seen}) == len(seen), "the random part alone is no proof"


def _crash_before(patch: pytest.MonkeyPatch, name: str, crash: object) -> None:
    real = getattr(os, name)

    def call(*arguments: object, **named: object) -> object:
        assert callable(crash)
        crash()
        return real(*arguments, **named)

    patch.setattr(os, name, call)


def test_a_state_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExitError) as caught:
        opened(tmp_path / "file")
    assert caught.value.status is Exit.RING_ID


def test_peer_sessions_are_kept(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path, disk)
    assert store.peer_sessions() == {}
    store.save_peer_sessions({3: (7, b"abcd"), 2: (5, b"efgh")})
    disk.work(store)
    assert opened(tmp_path).peer_sessions() == {2: (5, b"efgh"), 3: (7, b"abcd")}


def test_peers_that_cannot_be_stored_are_only_logged(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path, disk)
    disk.lost = True
    store.save_peer_sessions({3: (7, b"abcd")})
    assert "peers_not_stored" in caplog.text
    assert module.PEERS_MAX * module.PEER.size <= 64 << 10
