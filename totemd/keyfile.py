"""Read the key file, with every check; make a new one; read the key ring."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Final

from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from totemd.keyring import KeyRing, decode

SIZE_MIN: Final = 32  # bytes
SIZE_MAX: Final = 4096
SIZE_DEFAULT: Final = 128
DIFFERENT_BYTES_MIN: Final = 16
MODE: Final = 0o400
RING_NAME: Final = "keyring"  # in the state directory

_LOG = EventLog(__name__)


class KeyFileError(ExitError):
    """The key file cannot be used; says why."""

    def __init__(self, path: Path, rule: str) -> None:
        super().__init__(Exit.KEY_FILE, f"key file {path}: {rule}")


def read(path: Path) -> bytes:
    """Return the key.

    Raises:
        KeyFileError: missing, unreadable, too open, too short, too long or not random.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            key = os.read(descriptor, SIZE_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyFileError(path, os.strerror(error.errno or 0)) from error
    _check_owner(path, status)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise KeyFileError(path, f"permissions too open ({mode:04o}, expected {MODE:04o})")
    _check_content(path, key)
    return key


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        user = pwd.getpwuid(os.geteuid()).pw_name
        raise KeyFileError(path, f"not a regular file owned by root or {user}")


def _check_content(path: Path, key: bytes) -> None:
    if len(key) < SIZE_MIN:
        raise KeyFileError(path, f"{len(key)} bytes, at least {SIZE_MIN} needed")
    if len(key) > SIZE_MAX:
        raise KeyFileError(path, f"longer than {SIZE_MAX} bytes")
    if len(set(key)) < DIFFERENT_BYTES_MIN:
        raise KeyFileError(path, "not random")


def read_ring(path: Path) -> KeyRing | None:
    """Return the key ring of an earlier life; None: there is none, or it is spoiled.

    Raises:
        KeyFileError: unreadable.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(path, os.strerror(error.errno or 0)) from error
    ring = decode(data)
    if ring is None:
        _LOG.error("key_ring_spoiled", path=str(path), rule="the key file is used instead")
    return ring


def write(path: Path, key: bytes, *, force: bool) -> None:
    """Write a key, readable by its owner only, whole or not at all.

    Raises:
        FileExistsError: the file exists and ``force`` is False.
        OSError: as the system says.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = path.with_name(path.name + ".new") if force else path
    if force:
        target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        written = os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if written != len(key):
        target.unlink()
        raise OSError(f"{target}: {written} of {len(key)} bytes written")
    if force:
        target.rename(path)
