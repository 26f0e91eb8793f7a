"""Make files durable without waiting for the disk: a child process writes, the loop goes on.

One small process, made while this one has neither threads nor secrets. It ends when its parent
does. A disk that hangs keeps the child, never the parent, whose end waits for a moment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

DATA_SIZE_MAX: Final = 64 << 10  # bytes of one file
WAITING_MAX: Final = 16  # writes that are not finished; a caller that has more is mistaken
FINISH_MS: Final = 1000  # that the end of the parent waits for what was begun
HEAD: Final = struct.Struct(">QH")  # ticket, bytes of the path
TICKET: Final = struct.Struct(">Q")
MODE: Final = 0o600
REASON_SIZE_MAX: Final = 200
STDERR: Final = 2

WriteFile: TypeAlias = Callable[[Path, bytes], None]


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file: whole and on the disk, or as it was.

    Raises:
        OSError: as the system says; the file is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, MODE)
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(f"{written} of {len(data)} bytes written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Written(NamedTuple):
    """A write is finished."""

    ticket: int
    error: str | None  # None: durable


class WriterLostError(Exception):
    """The child is gone: nothing can be made durable any more."""


class Writer:
    """The parent's end. Writes are done one after the other, in the order of `begin`.

    Args:
        write: what the child does.
    """

    def __init__(self, write: WriteFile = write_durably) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ticket = 0
        self._waiting = 0
        self.pid: Final = os.fork()
        if not self.pid:
            _child(theirs, write)
        theirs.close()
        self._socket.settimeout(0)

    def fileno(self) -> int:
        """Return what a poller waits for."""
        return self._socket.fileno()

    def begin(self, path: Path, data: bytes) -> int:
        """Begin to replace a file; return the ticket that `finished` will name.

        Raises:
            WriterLostError: the child is gone.
        """
        assert len(data) <= DATA_SIZE_MAX
        assert self._waiting < WAITING_MAX, "more writes than any caller may have"
        self._ticket += 1
        name = os.fsencode(path)
        try:
            self._socket.send(HEAD.pack(self._ticket, len(name)) + name + data)
        except OSError as error:
            raise WriterLostError(f"the process that writes files is gone: {error}") from error
        self._waiting += 1
        return self._ticket

    def finished(self) -> list[Written]:
        """Return what was finished since the last call; wait for nothing.

        Raises:
            WriterLostError: the child is gone.
        """
        found: list[Written] = []
        while True:
            try:
                answer = self._socket.recv(TICKET.size + REASON_SIZE_MAX)
            except BlockingIOError:
                return found
            except OSError as error:
                raise WriterLostError(f"the process that writes files is gone: {error}") from error
            if not answer:
                raise WriterLostError("the process that writes files is gone")
            self._waiting -= 1
            reason = answer[TICKET.size :].decode(errors="replace")
            found.append(Written(TICKET.unpack_from(answer)[0], reason or None))

    def close(self) -> None:
        """Let the child end after what it was given, and wait until then, FINISH_MS at most.

        So the next process of this node does not meet it at the same files.
        """
        with self._socket, contextlib.suppress(OSError):  # it may be gone
            self._socket.shutdown(socket.SHUT_WR)
            child = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(child, select.POLLIN)
                poll.poll(FINISH_MS)
            finally:
                os.close(child)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def _child(link: socket.socket, write: WriteFile) -> None:
    """Serve until the parent is gone; never return."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent to the group; what was begun is finished
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(STDERR + 1):
        os.dup2(null, descriptor)
    own = link.fileno()
    os.closerange(STDERR + 1, own)  # the instance lock, above all
    os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))
    status = 0
    try:
        while request := link.recv(HEAD.size + os.pathconf("/", "PC_PATH_MAX") + DATA_SIZE_MAX):
            ticket, size = HEAD.unpack_from(request)
            path = Path(os.fsdecode(request[HEAD.size : HEAD.size + size]))
            link.send(TICKET.pack(ticket) + _reason(write, path, request[HEAD.size + size :]))
    except OSError:
        status = 1  # the parent is gone
    os._exit(status)


def _reason(write: WriteFile, path: Path, data: bytes) -> bytes:
    try:
        write(path, data)
    except OSError as error:
        return (error.strerror or str(error) or "failed").encode()[:REASON_SIZE_MAX]
    return b""
