"""The snapshot of a service on disk: what it remembers, up to which position of the stream.

The file is a head, the parts of the state as they come, and a digest of all of it. It is written
beside the old one, synced and renamed: there is always one that is whole, or none. A crash of the
machine may bring the one before back; the log it belongs to is gone then with totemd anyway.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openais.node.logs import EventLog
from openais.node.paths import STATE_DIR_MODE, make_directory
from openais.wire.codec import Buffer, DecodeError, pack_state, unpack_state

VERSION: Final = 2
MAGIC: Final = b"openais snapshot\n"
DIGEST_SIZE: Final = 32  # SHA-256: twice as fast as BLAKE2 where the processor helps
HEAD_SIZE_MAX: Final = 4096  # bytes of what stands before the state
PIECE_SIZE: Final = 1 << 20  # bytes written between two looks at whether to go on

_HEAD_LENGTH: Final = struct.Struct(">I")
_STATE_BEGIN_MIN: Final = len(MAGIC) + _HEAD_LENGTH.size
_LOG = EventLog(__name__)


class AbandonedError(Exception):
    """Nobody waits for this snapshot any more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state and its position. ``state`` is a view of the file; check it before it is used."""

    history: bytes
    index: int
    state: memoryview
    content: memoryview  # all that the digest is of
    digest: bytes

    def check(self) -> None:
        """Compare the digest.

        Raises:
            DecodeError: the file is damaged.
        """
        if hashlib.sha256(self.content).digest() != self.digest:
            raise DecodeError("damaged")


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
        self._temporary: Final = self.path.with_suffix(".new")
        self._identity: Final = [VERSION, service, node_id]
        make_directory(self.path.parent, STATE_DIR_MODE)
        self._temporary.unlink(missing_ok=True)

    def read(self) -> Snapshot | None:
        """Return the last snapshot, its digest unchecked; None: there is none to be used."""
        try:
            with self.path.open("rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # ValueError: empty
            self.unusable(str(error))
            return None
        try:
            return self._open(view)
        except (DecodeError, TypeError, ValueError) as error:
            self.unusable(str(error))
            return None

    def _open(self, view: memoryview) -> Snapshot:
        if bytes(view[: len(MAGIC)]) != MAGIC or len(view) < _STATE_BEGIN_MIN + DIGEST_SIZE:
            raise DecodeError("not a snapshot")
        (size,) = _HEAD_LENGTH.unpack_from(view, len(MAGIC))
        begin, end = _STATE_BEGIN_MIN + size, len(view) - DIGEST_SIZE
        if size > HEAD_SIZE_MAX or begin > end:
            raise DecodeError("damaged")
        identity, history, index = unpack_state(view[_STATE_BEGIN_MIN:begin])
        if identity != self._identity:
            raise DecodeError(f"of {identity}, expected {self._identity}")
        return Snapshot(history, index, view[begin:end], view[:end], bytes(view[end:]))

    def unusable(self, rule: str) -> None:
        """Log that the snapshot cannot be used."""
        _LOG.warning("snapshot_unusable", path=str(self.path), rule=rule)

    def create(self) -> int:
        """Open a new file for `write`, apart from all that an earlier process may still hold.

        Raises:
            OSError: the disk refuses.
        """
        self._temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._temporary, flags, 0o600)

    def write(
        self,
        descriptor: int,
        history: bytes,
        index: int,
        parts: Iterable[Buffer],
        wanted: Callable[[], bool],
    ) -> int:
        """Write a whole snapshot and sync it; return the bytes of the state.

        Uses no lock, no log and no socket: a forked child may do it.

        Args:
            descriptor: of `create`.
            history: position of the state.
            index: likewise.
            parts: of the state.
            wanted: asked again and again; False: give up.

        Raises:
            OSError: the disk refuses.
            AbandonedError: ``wanted`` said no.
        """
        head = pack_state([self._identity, history, index])
        first = b"".join((MAGIC, _HEAD_LENGTH.pack(len(head)), head))
        digest = hashlib.sha256(first)
        _write_all(descriptor, memoryview(first))
        total = 0
        for part in parts:
            view = memoryview(part)
            total += len(view)
            for begin in range(0, len(view), PIECE_SIZE):
                if not wanted():
                    raise AbandonedError
                piece = view[begin : begin + PIECE_SIZE]
                digest.update(piece)
                _write_all(descriptor, piece)
        _write_all(descriptor, memoryview(digest.digest()))
        os.fsync(descriptor)
        if not wanted():
            raise AbandonedError
        return total

    def install(self) -> None:
        """Make what was written the snapshot.

        Raises:
            OSError: the disk refuses.
        """
        self._temporary.rename(self.path)

    def discard(self) -> None:
        """Remove what was written, if anything."""
        self._temporary.unlink(missing_ok=True)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
