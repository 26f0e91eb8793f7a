"""The snapshot file of a service on the simulated disk: whole, or not there."""

from __future__ import annotations

from pathlib import Path

from services.kit.journal import Snapshot
from tests.sim.floor.system import System


class SimJournal:
    """The doors of `services.kit.journal.Journal`; a process may die before and after a write."""

    def __init__(self, system: System, state_dir: Path, service: str, node_id: int) -> None:
        self.path = state_dir / service / "snapshot"
        self.log_bytes = 0
        self.state_bytes = 0
        self.written = 0
        self.failed = 0
        self._system = system
        self._node_id = node_id

    @property
    def due(self) -> bool:
        """True: the log is large enough."""
        return self.log_bytes > self._system.journal_bytes

    def read(self) -> Snapshot | None:
        """Return what was written last."""
        found: Snapshot | None = self._system.disk.get(str(self.path))
        return found

    def write(self, snapshot: Snapshot) -> bool:
        """Make a snapshot durable, or fail."""
        task = self._system.current
        assert task is not None
        task.call("snapshot")  # killed in the middle: the old one is still there
        self.log_bytes = 0
        if self._node_id in self._system.disk_refuses:
            self.failed += 1
            return False
        self._system.disk[str(self.path)] = snapshot
        self.written += 1
        task.call("snapshot_written")  # killed before totemd is told
        return True
