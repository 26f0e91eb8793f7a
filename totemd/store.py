"""What totemd must remember over a restart: ring sequence, boot epoch, sealing session.

Each value is a file of two slots that are written in turn, in place: a torn write or a full disk
leaves the other slot. A value is durable before it is used.
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

RING_SEQ_RESERVE: Final = 64  # written ahead, so that most rings need no write
SLOT: Final = struct.Struct(">QQQQ")  # serial, three values
SLOT_SIZE: Final = 512
CHECKSUM: Final = struct.Struct(">I")
PEERS_MAX: Final = 1024
PEER: Final = struct.Struct(">IQ4s")

_LOG = EventLog(__name__)


class SlotFile:
    """Three integers, durable after `write`."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        slots = [self._read(0), self._read(1)]
        self._serial, *values = max(slots)
        self.values: tuple[int, int, int] = (values[0], values[1], values[2])
        if os.fstat(self._descriptor).st_size < 2 * SLOT_SIZE:
            os.posix_fallocate(self._descriptor, 0, 2 * SLOT_SIZE)

    def _read(self, slot: int) -> tuple[int, ...]:
        data = os.pread(self._descriptor, SLOT.size + CHECKSUM.size, slot * SLOT_SIZE)
        if len(data) < SLOT.size + CHECKSUM.size:
            return (0, 0, 0, 0)
        body, checksum = data[: SLOT.size], data[SLOT.size :]
        if CHECKSUM.unpack(checksum)[0] != zlib.crc32(body):
            return (0, 0, 0, 0)
        return SLOT.unpack(body)

    def write(self, values: tuple[int, int, int]) -> None:
        """Make the values durable.

        Raises:
            OSError: as the system says; the values before are still there.
        """
        self._serial += 1
        body = SLOT.pack(self._serial, *values)
        data = body + CHECKSUM.pack(zlib.crc32(body))
        os.pwrite(self._descriptor, data, self._serial % 2 * SLOT_SIZE)
        os.fsync(self._descriptor)
        self.values = values


class Store:
    """The files of one node.

    Args:
        state_dir: exists.
        node_id: names the ring file.

    Raises:
        ExitError: status 21, a file cannot be read or written.
    """

    def __init__(self, state_dir: Path, node_id: int) -> None:
        self._peers: Final = state_dir / "totem-peers"
        try:
            self._ring = SlotFile(state_dir / f"ringid_{node_id}")
            self._session = SlotFile(state_dir / "totem-session")
            seq, epoch, _ = self._ring.values
            self.stored_ring_seq = seq
            self.boot_epoch = epoch + 1
            self._reserved = seq + RING_SEQ_RESERVE
            self._ring.write((self._reserved, self.boot_epoch, 0))
        except OSError as error:
            raise _unusable(state_dir, error) from error

    def new_session(self) -> Session:
        """Return a sealing session larger than all before, durable.

        Raises:
            ExitError: status 21.
        """
        start = max(time.time_ns() // 1_000, self._session.values[0] + 1)
        try:
            self._session.write((start, 0, 0))
        except OSError as error:
            raise _unusable(self._session.path, error) from error
        return start, os.urandom(4)

    def persist(self, ring_seq: int) -> None:
        """Make sure that a ring sequence number is never used again after a restart.

        A disk that fails now stops nothing: the ring goes on, and the log says what that means.
        """
        if ring_seq <= self._reserved:
            return
        try:
            self._ring.write((ring_seq + RING_SEQ_RESERVE, self.boot_epoch, 0))
            self._reserved = ring_seq + RING_SEQ_RESERVE
        except OSError as error:
            _LOG.error(
                "ring_seq_not_stored",
                path=str(self._ring.path),
                reason=error.strerror or str(error),
                rule="a ring number may be used twice if this node restarts now",
            )

    def peer_sessions(self) -> dict[int, Session]:
        """Return the newest session of each node that was seen before; {} if unknown."""
        try:
            data = self._peers.read_bytes()[: PEERS_MAX * PEER.size]
        except OSError:
            return {}
        size = len(data) // PEER.size * PEER.size
        return {node: (start, random) for node, start, random in PEER.iter_unpack(data[:size])}

    def save_peer_sessions(self, sessions: dict[int, Session]) -> None:
        """Remember the newest sessions; a disk that fails is logged and costs nothing else."""
        data = b"".join(PEER.pack(node, *sessions[node]) for node in sorted(sessions)[:PEERS_MAX])
        temporary = self._peers.with_suffix(".new")
        try:
            temporary.write_bytes(data)
            temporary.rename(self._peers)
        except OSError as error:
            _LOG.warning(
                "peers_not_stored", path=str(self._peers), reason=error.strerror or str(error)
            )


def _unusable(path: Path, error: OSError) -> ExitError:
    return ExitError(Exit.RING_ID, f"state {path}: {error.strerror or error}")
