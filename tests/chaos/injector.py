"""Carries a schedule of faults out, and does what systemd does: starts a dead supervisord again.

A fault waits while it would leave less than a majority of the nodes well: on a slow machine, nodes
take longer to recover than the schedule has foreseen.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, assert_never

from deploy.supervisor import SupervisorError
from tests.chaos.schedule import Fault, Kind
from tests.chaos.stage import Stage, StageError

FAULTS_AT_A_TIME_MAX: Final = 64  # each has a thread while it lasts
WATCH_S: Final = 0.3  # how often somebody looks after supervisord
RECOVERY_DEADLINE_S: Final = 60.0  # so long a fault is put off
FILE: Final = "faults"


class Injector:
    """Does the faults of a run at their times; use as a context manager.

    Args:
        stage: to whom.
        faults: what, and when.
        directory: gets a record of what was done, and when.
    """

    def __init__(self, stage: Stage, faults: Sequence[Fault], directory: Path) -> None:
        self._stage: Final = stage
        self._faults: Final = faults
        self._begun_s = time.monotonic()
        self._record: Final = (directory / FILE).open("w", encoding="utf-8", buffering=1)
        self._pool: Final = ThreadPoolExecutor(FAULTS_AT_A_TIME_MAX)
        self._over: Final = threading.Event()
        self._watch: Final = threading.Thread(target=self._look_after_supervisord)
        self.failures: Final[list[str]] = []  # of supervisord to start again

    def __enter__(self) -> Injector:
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._pool.shutdown(cancel_futures=True)
        self._watch.join()
        self._record.close()

    def run(self) -> None:
        """Do all faults; return when the last one is over."""
        doing = []
        for fault in self._faults:
            left_s = self._begun_s + fault.at_ms / 1000 - time.monotonic()
            time.sleep(max(0.0, left_s))
            self._wait_for_majority(fault)
            doing.append(self._pool.submit(self._do, fault))
        for future in doing:
            future.result()

    def _wait_for_majority(self, fault: Fault) -> None:
        """Put everything off while this fault would leave less than a majority well."""
        begin = time.monotonic()
        most = (len(self._stage.nodes) - 1) // 2
        while len(self._stage.unwell() | set(fault.nodes)) > most:
            if time.monotonic() - begin > RECOVERY_DEADLINE_S:
                raise StageError(f"no majority is well {RECOVERY_DEADLINE_S:.0f} s before {fault}")
        self._begun_s += time.monotonic() - begin

    def _do(self, fault: Fault) -> None:
        begun_ns = time.monotonic_ns()
        try:
            done = self._harm(fault)
        except SupervisorError as error:  # it is a victim itself
            done = f"not possible: {error}"
        self._note(str(fault), begun_ns, done)

    def _harm(self, fault: Fault) -> str:
        nodes = [self._stage[number] for number in fault.nodes]
        match fault.kind:
            case Kind.KILL:
                return f"pids {[node.send(fault.program, signal.SIGKILL) for node in nodes]}"
            case Kind.PAUSE:
                with nodes[0].paused(fault.program) as pids:
                    time.sleep(fault.duration_ms / 1000)
                return f"pids {pids}"
            case Kind.RESTART:
                nodes[0].restart(fault.program)
                return "done"
            case Kind.CUT:
                self._stage.cut(fault.nodes)
                time.sleep(fault.duration_ms / 1000)
                self._stage.heal()
                return "done"
        assert_never(fault.kind)

    def _look_after_supervisord(self) -> None:
        while not self._over.wait(WATCH_S):
            for node in self._stage.nodes:
                if node.supervisord_runs():
                    continue
                begun_ns = time.monotonic_ns()
                try:
                    node.launch()
                    self._note(f"supervisord of {node.number} started", begun_ns, "done")
                except (StageError, SupervisorError) as error:
                    self.failures.append(str(error))
                    self._note(f"supervisord of {node.number} started", begun_ns, str(error))

    def _note(self, what: str, begun_ns: int, outcome: str) -> None:
        self._record.write(json.dumps([what, begun_ns, time.monotonic_ns(), outcome]) + "\n")


def done(directory: Path) -> list[tuple[str, int, int, str]]:
    """Return what was done in a run: (fault, begin, end, outcome)."""
    lines = (directory / FILE).read_text(encoding="utf-8").splitlines()
    return [(what, begun, ended, outcome) for what, begun, ended, outcome in map(json.loads, lines)]
