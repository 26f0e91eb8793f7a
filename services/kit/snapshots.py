"""When and how snapshots are written while the service goes on.

A large state is written by a forked child: it sees the memory of the moment of the fork, while the
service goes on. The process has threads of ZeroMQ, so the child does nothing but encode, write and
sync: it gives up every inherited descriptor first (clients and totemd must see the end of the
service, whatever a child still does), uses no socket, no log and no lock, and ends by `_exit`. It
never renames: a child that outlives its parent cannot replace the snapshot of the next process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from openais.node.logs import EventLog
from openais.node.poller import Poller
from openais.wire.codec import Buffer
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS
from services.kit.journal import AbandonedError, Journal

AGAIN_NS: Final = 2 * ONE_SECOND_NS  # after a failure
PAUSE_FACTOR: Final = 4  # between two snapshots, times as long as the last one took
BYTES_PER_SECOND: Final = 100 << 20  # that a disk is taken to write, until one was measured
NICE: Final = 10  # of a child, added
REPORT_SIZE_MAX: Final = 1024  # bytes a child says

_REPORT: Final = struct.Struct(">?Q")  # written, bytes of the state; else a text follows
_LOG = EventLog(__name__)

Dump = Callable[[], Iterable[Buffer]]


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """Bounds.

    Attributes:
        log_bytes: logged since the last snapshot at which one is due, unless the state is larger.
        log_entries: likewise, so that their replay does not take too long.
        fork_bytes: a state that large or of unknown size is written by a forked child.
        timeout_ns: after which a child is killed.
        exit_ns: how long an orderly end may wait for a snapshot.
    """

    log_bytes: int = 4 << 20
    log_entries: int = 2_000
    fork_bytes: int = 1 << 20
    timeout_ns: int = 60 * ONE_SECOND_NS
    exit_ns: int = ONE_SECOND_NS


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A snapshot that is being written, and what the log held when it began."""

    index: int
    began_ns: int
    log_bytes: int
    log_entries: int


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    descriptor: int  # the end of the pipe that it reports to
    attempt: _Attempt


@dataclass(slots=True)
class SnapshotStats:
    """Counters."""

    snapshots_written: int = 0
    snapshots_failed: int = 0  # the disk refused, the child died, or it took too long
    snapshots_forked: int = 0  # begun by a forked child


class Snapshots:
    """See the module.

    Args:
        journal: where they are written.
        limits: bounds.
        poller: wakes up when a child is done.
    """

    def __init__(self, journal: Journal, limits: SnapshotLimits, poller: Poller) -> None:
        self.stats: Final = SnapshotStats()
        self.log_bytes = 0  # delivered since the last snapshot
        self.log_entries = 0  # applied since
        self.wanted = False  # totemd asks for one
        self._journal: Final = journal
        self._limits: Final = limits
        self._poller: Final = poller
        self._child: _Child | None = None
        self._size: int | None = None  # of the state in the last snapshot
        self._index = 0
        self._durable_ns: int | None = None
        self._duration_ns = 0
        self._not_before_ns = 0

    def loaded(self, size: int, index: int) -> None:
        """Learn that the state comes from a snapshot."""
        self._size = size
        self._index = index
        self._duration_ns = size * ONE_SECOND_NS // BYTES_PER_SECOND

    def due(self, now_ns: int) -> bool:
        """True: a snapshot should begin now."""
        if self._child is not None or now_ns < self._not_before_ns:
            return False
        if self.wanted or self.log_bytes > max(self._limits.log_bytes, self._size or 0):
            return True
        paused = now_ns - (self._durable_ns or 0) >= PAUSE_FACTOR * self._duration_ns
        return self.log_entries > self._limits.log_entries and paused

    def wait_ns(self, now_ns: int) -> int | None:
        """Return in how many ns `collect` wants to be called; None: never."""
        if self._child is None:
            return None
        return max(0, self._child.attempt.began_ns + self._limits.timeout_ns - now_ns)

    def begin(self, history: bytes, index: int, dump: Dump, now_ns: int) -> int | None:
        """Begin a snapshot, unless one is being written; return the index if it is durable."""
        if self._child is not None:
            return None
        attempt = _Attempt(index, now_ns, self.log_bytes, self.log_entries)
        try:
            descriptor = self._journal.create()
        except OSError as error:
            self._failed(_text(error), now_ns)
            return None
        try:
            if self._size is None or self._size >= self._limits.fork_bytes:
                self._fork(attempt, history, descriptor, dump)
                return None
            size = self._journal.write(descriptor, history, index, dump(), lambda: True)
            return self._written(attempt, size)
        except OSError as error:
            self._failed(_text(error), now_ns)
            return None
        finally:
            os.close(descriptor)

    def _fork(self, attempt: _Attempt, history: bytes, descriptor: int, dump: Dump) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        gc.freeze()  # until the child is done: what the collector marks is copied page by page
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # threads: see the module
                pid = os.fork()
        except OSError:
            gc.unfreeze()
            os.close(reader)
            os.close(writer)
            raise
        if pid == 0:
            _be_child(self._journal, parent, (descriptor, writer), history, attempt.index, dump)
        os.close(writer)
        self.stats.snapshots_forked += 1
        self._child = _Child(pid, reader, attempt)
        self._poller.register(reader)

    def collect(self, ready: set[int], now_ns: int) -> int | None:
        """Take the report of a child; return the index if its snapshot is durable now."""
        child = self._child
        if child is None:
            return None
        late = now_ns >= child.attempt.began_ns + self._limits.timeout_ns
        if child.descriptor not in ready and not late:
            return None
        if late:
            self._kill(child)
            self._failed(f"not done in {self._limits.timeout_ns // ONE_MILLISECOND_NS} ms", now_ns)
            return None
        report = os.read(child.descriptor, REPORT_SIZE_MAX)
        self._end(child)
        if len(report) < _REPORT.size:
            self._failed(f"the child {child.pid} that wrote it died", now_ns)
            return None
        written, size = _REPORT.unpack_from(report)
        if not written:
            self._failed(report[_REPORT.size :].decode("utf-8", "replace"), now_ns)
            return None
        try:
            return self._written(child.attempt, size)
        except OSError as error:
            self._failed(_text(error), now_ns)
            return None

    def _end(self, child: _Child) -> None:
        self._child = None
        gc.unfreeze()
        self._poller.unregister(child.descriptor)
        os.close(child.descriptor)
        os.waitpid(child.pid, 0)  # it has nothing left to do

    def _kill(self, child: _Child) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        self._end(child)

    def abandon(self) -> None:
        """Kill a child: what it writes is worth nothing any more."""
        if self._child is not None:
            self._kill(self._child)
            self._journal.discard()

    def _written(self, attempt: _Attempt, size: int) -> int:
        self._journal.install()
        now_ns = time.monotonic_ns()
        self.wanted = False
        self.log_bytes -= attempt.log_bytes
        self.log_entries -= attempt.log_entries
        self._size, self._index = size, attempt.index
        self._durable_ns, self._duration_ns = now_ns, now_ns - attempt.began_ns
        self.stats.snapshots_written += 1
        _LOG.debug("snapshot", index=attempt.index, bytes=size)
        return attempt.index

    def _failed(self, reason: str, now_ns: int) -> None:
        self.stats.snapshots_failed += 1
        self._not_before_ns = now_ns + AGAIN_NS
        _LOG.error("snapshot_failed", path=str(self._journal.path), reason=reason)
        self._journal.discard()

    def last(self, history: bytes, index: int, dump: Dump | None) -> int | None:
        """Write a last snapshot at an orderly end, if that is soon done; return a durable index.

        Without one the next process is told more by totemd.

        Args:
            history: position of the state.
            index: likewise.
            dump: the state; None: it is not settled.
        """
        begun_ns = time.monotonic_ns()
        end_ns = begun_ns + self._limits.exit_ns
        if self._child is None and dump is not None and self._duration_ns <= self._limits.exit_ns:
            durable = self.begin(history, index, dump, begun_ns)
            if durable is not None:
                return durable
        child = self._child
        if child is None:
            return None
        poll = select.poll()
        poll.register(child.descriptor, select.POLLIN)
        left_ms = max(0, (end_ns - time.monotonic_ns()) // ONE_MILLISECOND_NS)
        if not poll.poll(left_ms):
            _LOG.info("snapshot_left_out", reason="not done in time", log_bytes=self.log_bytes)
            self.abandon()
            return None
        return self.collect({child.descriptor}, time.monotonic_ns())

    def status(self) -> dict[str, Any]:
        """Return what the status document tells; keys in docs/operating.md."""
        age_ns = None if self._durable_ns is None else time.monotonic_ns() - self._durable_ns
        return {
            "log_bytes": self.log_bytes,
            "log_entries": self.log_entries,
            "log_bytes_due": self._limits.log_bytes,
            "log_entries_due": self._limits.log_entries,
            "snapshot_index": self._index,
            "snapshot_bytes": self._size or 0,
            "snapshot_age_ms": None if age_ns is None else age_ns // ONE_MILLISECOND_NS,
            "snapshot_duration_ms": self._duration_ns // ONE_MILLISECOND_NS,
            "snapshot_pid": 0 if self._child is None else self._child.pid,
        }


def _text(error: OSError) -> str:
    return error.strerror or str(error)


def _be_child(
    journal: Journal,
    parent: int,
    kept: tuple[int, int],
    history: bytes,
    index: int,
    dump: Dump,
) -> NoReturn:
    """Write a snapshot in a forked child, report, end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        gc.disable()
        file, pipe = kept
        _close_others(kept)
        os.nice(NICE)
        try:
            wanted = lambda: os.getppid() == parent  # noqa: E731
            size = journal.write(file, history, index, dump(), wanted)
            os.write(pipe, _REPORT.pack(True, size))  # noqa: FBT003 - a field
            status = 0
        except OSError as error:
            _complain(pipe, _text(error))
        except AbandonedError:
            pass  # nobody reads the pipe
        except BaseException as error:  # the top of this process, which ends
            _complain(pipe, f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _complain(pipe: int, text: str) -> None:
    words = text.encode()[: REPORT_SIZE_MAX - _REPORT.size]
    os.write(pipe, _REPORT.pack(False, 0) + words)  # noqa: FBT003 - a field


def _close_others(kept: tuple[int, ...]) -> None:
    """Close every descriptor but some; the standard ones lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    begin = 3
    for descriptor in sorted(kept):
        os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))
