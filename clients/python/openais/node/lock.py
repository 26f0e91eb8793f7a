"""One instance per program and run directory: a kernel lock on ``PROGRAM.lock``.

The lock must be held before a socket is bound: a second ZeroMQ bind on the same ipc path would
silently take the first one's clients. The kernel releases it with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path
from typing import Final

from openais.node.exits import Exit, ExitError

_MODE: Final = 0o640
_PID_SIZE_MAX: Final = 32  # bytes read back of a lock file

_held: weakref.WeakSet[InstanceLock] = weakref.WeakSet()


class InstanceLock:
    """Held from construction until `release` or the end of the process.

    A forked child does not hold it: the parent can be started anew while the child still runs.

    Args:
        run_dir: the node's run directory; must exist.
        program: name of the program; the file is ``PROGRAM.lock`` and contains the holder's pid.

    Raises:
        ExitError: status 18 when another process holds it, 17 when the file cannot be had.
    """

    def __init__(self, run_dir: Path, program: str) -> None:
        self.path: Final = run_dir / f"{program}.lock"
        self._descriptor = _open(self.path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = _holder(self._descriptor)
            self._close()
            raise ExitError(Exit.ALREADY_RUNNING, f"already running (pid {holder})") from error
        except OSError as error:
            self._close()
            raise ExitError(Exit.LOCK_FILE, f"lock file {self.path}: {error.strerror}") from error
        _held.add(self)

    def release(self) -> None:
        """Give the lock up; the file stays, empty. Does nothing the second time."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._close()
            _held.discard(self)

    def abandon(self) -> None:
        """Close a forked child's copy; the parent goes on holding the lock."""
        if self._descriptor >= 0:
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


def holder(run_dir: Path, program: str) -> int | None:
    """Return the pid of the process that holds a program's lock, or None."""
    try:
        descriptor = os.open(run_dir / f"{program}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = _holder(descriptor)
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        raise ExitError(Exit.LOCK_FILE, f"lock file {path}: {error.strerror}") from error


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, _PID_SIZE_MAX, 0).decode("ascii", "replace").strip()
    return text or "unknown"


def _forked() -> None:
    for lock in list(_held):
        lock.abandon()
    _held.clear()


os.register_at_fork(after_in_child=_forked)
