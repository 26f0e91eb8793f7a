"""The snapshot of a service on disk: what it remembers, up to which position of the stream.

Written to a temporary file, synced, renamed: there is always one that is whole, or none.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openais.node.logs import EventLog
from openais.node.paths import STATE_DIR_MODE, make_directory
from openais.wire.codec import DecodeError, pack_state, unpack_state

VERSION: Final = 1
MAGIC: Final = b"openais snapshot\n"
DIGEST_SIZE: Final = 16
LOG_BYTES_MIN: Final = 4 << 20  # a snapshot is made when the log is larger than this and the state

_LOG = EventLog(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state and its position."""

    history: bytes
    index: int
    state: bytes


class Journal:
    """The snapshot file of one service.

    Args:
        state_dir: of the node.
        service: its name.
        node_id: a snapshot of another node is not taken up.

    Raises:
        ExitError: status 16, the directory cannot be used.
    """

    def __init__(self, state_dir: Path, service: str, node_id: int) -> None:
        self.path: Final = state_dir / service / "snapshot"
        self.log_bytes = 0  # delivered since the last snapshot
        self.state_bytes = 0  # of the last snapshot
        self.written = 0
        self.failed = 0
        self._identity: Final = [VERSION, service, node_id]
        make_directory(self.path.parent, STATE_DIR_MODE)

    @property
    def due(self) -> bool:
        """True: the log is larger than a snapshot would be."""
        return self.log_bytes > max(LOG_BYTES_MIN, self.state_bytes)

    def read(self) -> Snapshot | None:
        """Return the last snapshot; None: there is none that can be used."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._unusable(error.strerror or str(error))
            return None
        body, digest = data[len(MAGIC) : -DIGEST_SIZE], data[-DIGEST_SIZE:]
        if not data.startswith(MAGIC) or _digest(body) != digest:
            self._unusable("damaged")
            return None
        try:
            identity, history, index, state = unpack_state(body)
        except (DecodeError, TypeError, ValueError) as error:
            self._unusable(str(error))
            return None
        if identity != self._identity:
            self._unusable(f"of {identity}, expected {self._identity}")
            return None
        self.state_bytes = len(state)
        return Snapshot(history, index, state)

    def _unusable(self, rule: str) -> None:
        _LOG.warning("snapshot_unusable", path=str(self.path), rule=rule)

    def write(self, snapshot: Snapshot) -> bool:
        """Make a snapshot durable; False: the disk refused, and the log says why."""
        body = pack_state([self._identity, snapshot.history, snapshot.index, snapshot.state])
        temporary = self.path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                file.write(MAGIC)
                file.write(body)
                file.write(_digest(body))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.path)
            _sync_directory(self.path.parent)
        except OSError as error:
            self.failed += 1
            self.log_bytes = 0  # the next attempt comes after as much again
            reason = error.strerror or str(error)
            _LOG.error("snapshot_failed", path=str(self.path), reason=reason)
            temporary.unlink(missing_ok=True)
            return False
        self.log_bytes = 0
        self.state_bytes = len(snapshot.state)
        self.written += 1
        return True


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_SIZE).digest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
