"""Writers that record what was acknowledged, and the check that nothing is lost or doubled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from openais import ckpt
from openais.errors import AisError, AisTimeoutError, TryAgainError
from openais.wire.status import TIME_END

ATTRIBUTES = ckpt.Attributes(ckpt.CreationFlags.WR_ALL_REPLICAS, 0, TIME_END, 64, 1 << 16, 32)


class Writer(threading.Thread):
    """Overwrites one section with 1, 2, 3 ... and reads it back; never goes back."""

    def __init__(self, run_dir: Path, section: str) -> None:
        super().__init__(daemon=True)
        self.section = section
        self.acknowledged = 0
        self.longest_s = 0.0
        self.failure: Exception | None = None
        self._stopping = threading.Event()
        self._run_dir = run_dir
        self._client = ckpt.Client(run_dir=run_dir)
        self._checkpoint = self._client.open("load", ATTRIBUTES)

    def run(self) -> None:
        number = 0
        try:
            while not self._stopping.is_set():
                number += 1
                begin = time.monotonic()
                self._write(number)
                self.acknowledged = number
                found = int(self._checkpoint[self.section])
                assert found == number, f"wrote {number}, read {found}"
                self.longest_s = max(self.longest_s, time.monotonic() - begin)
        except (AisError, AssertionError) as error:
            self.failure = error

    def _write(self, number: int) -> None:
        try:
            self._checkpoint[self.section] = b"%d" % number
        except (TryAgainError, AisTimeoutError):
            if not self._stopping.is_set():
                self._checkpoint[self.section] = b"%d" % number

    def finish(self) -> int:
        """Stop; return what was acknowledged last. Raise what went wrong."""
        self._stopping.set()
        self.join(30)
        if self.failure is not None:
            raise self.failure
        self._client.close()
        return self.acknowledged


def check(run_dir: Path, writers: list[Writer]) -> None:
    """Assert that every acknowledged value is there."""
    with ckpt.Client(run_dir=run_dir) as client, client.open("load", ATTRIBUTES) as checkpoint:
        for writer in writers:
            assert int(checkpoint[writer.section]) == writer.acknowledged, writer.section
