"""What totemd must remember over a restart: its last ring number, its last sealing session.

A number is durable before it is used. While the ring runs no disk is waited for: numbers are
reserved ahead, and the reservation is renewed in the background long before it is used up.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path
from typing import Final

from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from totemd.seal import Session
from totemd.writer import Writer, WriterLostError, write_durably

RING_SEQ_RESERVE: Final = 64  # written ahead: 16 rings need no write
RING_SEQ_RENEW: Final = 32  # left of the reservation when the next one is begun
CLOCK_SHIFT: Final = 8  # of the seconds, where the ring number is lost
RECORD: Final = struct.Struct(">4sB3xQ")  # magic, version, number; then CRC-32 of these
CHECKSUM: Final = struct.Struct(">I")
VERSION: Final = 1
RING_MAGIC: Final = b"OTRS"
SESSION_MAGIC: Final = b"OTSS"
PEERS_MAX: Final = 1024
PEER: Final = struct.Struct(">IQ4s")
assert RECORD.size + CHECKSUM.size == 20

_LOG = EventLog(__name__)


def encode(magic: bytes, number: int) -> bytes:
    """Return the content of a file that holds one number."""
    record = RECORD.pack(magic, VERSION, number)
    return record + CHECKSUM.pack(zlib.crc32(record))


def decode(magic: bytes, data: bytes) -> int | None:
    """Return the number in a file; None: these bytes are not such a file."""
    if len(data) != RECORD.size + CHECKSUM.size:
        return None
    record, checksum = data[: RECORD.size], data[RECORD.size :]
    found, version, number = RECORD.unpack(record)
    if found != magic or version != VERSION or checksum != CHECKSUM.pack(zlib.crc32(record)):
        return None
    return int(number)


class Store:
    """The files of one node. Its first writes are done before the constructor returns.

    Args:
        state_dir: exists.
        node_id: names the ring file.
        writer: does all later writes.

    Attributes:
        stored_ring_seq: no ring of this node had a larger number.
        boot_epoch: larger than at every start before.
        session: for sealing, larger than all before.
        session_before: start of the last session of the life before; 0: unknown.

    Raises:
        ExitError: status 21, a file cannot be read or written.
    """

    def __init__(self, state_dir: Path, node_id: int, writer: Writer) -> None:
        self._writer: Final = writer
        self._peers: Final = state_dir / "totem-peers"
        self._ring_path: Final = state_dir / f"ringid_{node_id}"
        self._session_path: Final = state_dir / "totem-session"
        self._writing: Final[dict[int, tuple[Path, int]]] = {}  # ticket -> file, number
        self._needed = 0  # the largest ring number asked about
        now_s = time.time_ns() // 1_000_000_000
        try:
            stored = _read(self._ring_path, RING_MAGIC)
            self.stored_ring_seq: Final = now_s << CLOCK_SHIFT if stored is None else stored
            self._reserved = self.stored_ring_seq + RING_SEQ_RESERVE
            write_durably(self._ring_path, encode(RING_MAGIC, self._reserved))
            last = _read(self._session_path, SESSION_MAGIC) or 0
            self.session_before: Final = last
            self.session: Session = _session(last)
            write_durably(self._session_path, encode(SESSION_MAGIC, self.session[0]))
        except OSError as error:
            raise _unusable(state_dir, error.strerror or str(error)) from error
        self.boot_epoch: Final = self.session[0]
        self._next: Session | None = None

    def durable(self, ring_seq: int) -> bool:
        """Return whether a ring number will not be used again after a restart.

        If not, or soon not, a larger reservation is begun in the background.

        Raises:
            ExitError: status 21, nothing can be written any more.
        """
        if ring_seq + RING_SEQ_RENEW > self._reserved and not self._is_written(self._ring_path):
            self._begin(self._ring_path, RING_MAGIC, ring_seq + RING_SEQ_RESERVE)
        self._needed = max(self._needed, ring_seq)
        return ring_seq <= self._reserved

    def renew_session(self) -> None:
        """Begin to store the next session; `session` changes when it is durable."""
        if self._next is None:
            self._next = _session(self.session[0])
            self._begin(self._session_path, SESSION_MAGIC, self._next[0])

    def _is_written(self, path: Path) -> bool:
        """At most one write of a file is under way, however long the disk takes."""
        return any(writing == path for writing, _ in self._writing.values())

    def _begin(self, path: Path, magic: bytes, number: int) -> None:
        try:
            self._writing[self._writer.begin(path, encode(magic, number))] = (path, number)
        except WriterLostError as error:
            raise _unusable(path, str(error)) from error

    def written(self, ticket: int, error: str | None) -> None:
        """Learn that the writer has finished something; what is not ours is ignored.

        What failed is tried again when it is asked for again.

        Raises:
            ExitError: status 21, the ring waits for a number that cannot be stored: to run on
                would use it twice after a restart.
        """
        path, number = self._writing.pop(ticket, (None, 0))
        if path is None:
            return
        if path == self._ring_path and error is None:
            self._reserved = max(self._reserved, number)
        elif path == self._ring_path and self._needed > self._reserved:
            raise _unusable(path, error or "not stored")
        elif path == self._session_path:
            if error is None and self._next is not None:
                self.session = self._next
            self._next = None
        if error is not None:
            _LOG.error("state_not_stored", path=str(path), reason=error)

    def peer_sessions(self) -> dict[int, Session]:
        """Return the newest session of each node that was seen before; {} if unknown."""
        try:
            data = self._peers.read_bytes()[: PEERS_MAX * PEER.size]
        except OSError:
            return {}
        size = len(data) // PEER.size * PEER.size
        return {node: (start, random) for node, start, random in PEER.iter_unpack(data[:size])}

    def save_peer_sessions(self, sessions: dict[int, Session]) -> None:
        """Begin to remember the newest sessions; a failure costs nothing but a log line."""
        if self._is_written(self._peers):
            return
        data = b"".join(PEER.pack(node, *sessions[node]) for node in sorted(sessions)[:PEERS_MAX])
        try:
            self._writing[self._writer.begin(self._peers, data)] = (self._peers, 0)
        except WriterLostError as error:
            _LOG.warning("peers_not_stored", path=str(self._peers), reason=str(error))


def _session(last: int) -> Session:
    return max(time.time_ns() // 1_000, last + 1), os.urandom(4)


def _read(path: Path, magic: bytes) -> int | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    number = decode(magic, data)
    if number is None:
        _LOG.error(
            "state_file_spoiled",
            path=str(path),
            rule="not the file this program writes; numbers begin at the clock instead",
        )
    return number


def _unusable(path: Path, reason: str) -> ExitError:
    return ExitError(Exit.RING_ID, f"state {path}: {reason}")
