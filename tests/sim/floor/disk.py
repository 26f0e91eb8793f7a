"""The snapshot file of a service on the simulated disk, and the children that write it.

What is in the file, when one is due and what its position is, the shipped code decides. Here are
the disk, whose every call is a point at which the process may be killed, and the fork.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from openais.wire.codec import DecodeError
from services.kit.journal import VERSION, Journal, Snapshot
from services.kit.snapshots import _REPORT, Dump, Snapshots, _Attempt, _Child
from tests.sim.floor.system import MS, System

CHILD_NS: Final = (MS, 80 * MS)  # how long a child writes
CHILD_DIES: Final = 0.1  # chance


class SimJournal(Journal):
    """A journal whose file is in the simulated system."""

    def __init__(self, system: System, state_dir: Path, service: str, node_id: int) -> None:
        self._system: Final = system
        self._node: Final = node_id
        final: Any = self
        final.path = state_dir / service / "snapshot"
        final._identity = [VERSION, service, node_id]
        self._written: int | None = None  # descriptor of the temporary file

    def read(self) -> Snapshot | None:
        """Return what was made durable last."""
        data = self._system.disk.get(str(self.path))
        if data is None:
            return None
        try:
            return self._open(memoryview(data))
        except (DecodeError, TypeError, ValueError) as error:
            self.unusable(str(error))
            return None

    def create(self) -> int:
        """Open a new temporary file.

        Raises:
            OSError: the disk is full.
        """
        self._system.call("snapshot")
        if self._node in self._system.disk_refuses:
            raise OSError("no space left")
        self._written = self._system.open_file()
        return self._written

    def install(self) -> None:
        """Make what was written the snapshot; the process may die before and after."""
        assert self._written is not None
        self._system.call("snapshot")
        self._system.disk[str(self.path)] = bytes(self._system.files.pop(self._written))
        self._written = None
        self._system.call("snapshot_written")

    def discard(self) -> None:
        """Remove what was written."""
        if self._written is not None:
            self._system.files.pop(self._written, None)
            self._written = None


class SimSnapshots(Snapshots):
    """Snapshots whose child is simulated: it has the memory of the moment of its fork."""

    system: System

    def _fork(self, attempt: _Attempt, history: bytes, descriptor: int, dump: Dump) -> None:
        system, journal = self.system, self._journal
        parent = system.current
        assert parent is not None
        parts = [bytes(part) for part in dump()]
        reader = system.open_report(parent)
        dies = system.random.random() < CHILD_DIES

        def write() -> None:
            if not parent.alive or reader not in system.children:
                return
            del system.children[reader]
            report = b""
            if not dies and descriptor in system.files:
                size = journal.write(descriptor, history, attempt.index, parts, lambda: True)
                report = _REPORT.pack(True, size)  # noqa: FBT003 - a field
            system.report(reader, report)

        system.children[reader] = write
        system.cluster.at(system.random.randint(*CHILD_NS), write)
        self.stats.snapshots_forked += 1
        self._child = _Child(0, reader, attempt)
        self._poller.register(reader)


def os_of(system: System) -> Any:
    """Return what the writing of snapshots uses of the module ``os``."""
    return SimpleNamespace(
        write=system.write,
        fsync=lambda _descriptor: system.call("snapshot"),
        close=system.close,
        read=system.read_report,
        waitpid=lambda _pid, _flags: None,
        kill=lambda _pid, _signal: None,
    )


def select_of(system: System) -> Any:
    """Return what an orderly end uses of the module ``select``: some children are soon done."""

    class Poll:
        def register(self, descriptor: int, _events: int) -> None:
            self._descriptor = descriptor

        def poll(self, _timeout_ms: int) -> bool:
            child = system.children.get(self._descriptor)
            if child is not None and system.random.random() < 0.5:
                child()
            return self._descriptor not in system.children

    return SimpleNamespace(poll=Poll, POLLIN=1)
