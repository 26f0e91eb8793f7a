"""The program `cluster` of supervisord: start a node's processes in order, stop them in reverse.

It asks supervisord to start totemd, waits until it serves, then the services, then says that the
node is up. It adopts what runs already and holds nothing: it may die and come back at any time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Final

from deploy.supervisor import GIVEN_UP, Supervisor, SupervisorError, end_orphan
from openais import status
from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from openais.node.program import main as program

POLL_S: Final = 0.05
QUERY_S: Final = 0.5
SAY_AGAIN_S: Final = 10.0  # while something does not become ready
IN_TOTEMD: Final = ("cpg", "evs")  # services without a process of their own
ORPHANS_MAX: Final = 3  # ended while one program is started
RUNS: Final = ("RUNNING", "STARTING", "BACKOFF")
PR_SET_PDEATHSIG: Final = 1

_LOG = EventLog(__name__)


class Cluster:
    """The processes of one node."""

    def __init__(self, config: NodeConfig) -> None:
        self._run_dir: Final = config.system.run_dir
        self._supervisor: Final = Supervisor(self._run_dir)
        services = tuple(name for name in config.services.names if name not in IN_TOTEMD)
        self._programs: Final = ("totemd", *services)
        self._stopping: Final = threading.Event()

    def run(self) -> None:
        """Start everything, then wait until told to stop; then stop everything."""
        # Killed with its supervisord, so that the next one can start it: it holds nothing.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            for name in self._programs:
                self._start(name)
            if not self._stopping.is_set():
                _LOG.info("node_up", programs=" ".join(self._programs))
            while not self._stopping.wait(SAY_AGAIN_S):
                pass
            self._stop()
        except SupervisorError as error:
            raise ExitError(Exit.SERVICE_INITIALIZATION, str(error)) from error

    def _start(self, name: str) -> None:
        if self._stopping.is_set():
            return
        if self._supervisor.state(name) not in RUNS:
            end_orphan(self._run_dir, name)  # of a supervisord that was killed
        self._supervisor.start(name)
        waited = 0.0
        orphans = 0
        while not self._serves(name):
            state, exit_status = self._supervisor.outcome(name)
            if (state, exit_status) == ("EXITED", Exit.ALREADY_RUNNING) and orphans < ORPHANS_MAX:
                # Of a supervisord that was killed while this orphan had no lock yet.
                orphans += 1
                end_orphan(self._run_dir, name)
                self._supervisor.start(name)
            elif state == "FATAL" or (state == "EXITED" and exit_status in GIVEN_UP):
                rule = f"{name} does not start ({state}): see its log for the reason"
                raise ExitError(Exit.SERVICE_INITIALIZATION, rule)
            if self._stopping.wait(POLL_S):
                return
            waited += POLL_S
            if waited >= SAY_AGAIN_S:
                waited = 0.0
                _LOG.warning("not_ready", program=name, state=state)
        _LOG.info("ready", program=name)

    def _serves(self, name: str) -> bool:
        """True: the process that supervisord runs serves, not an orphan in its place."""
        document = status.query(self._run_dir, name, QUERY_S)
        if document is None or not status.ready(document):
            return False
        return bool(document["pid"] == self._supervisor.states()[name]["pid"])

    def _stop(self) -> None:
        for name in reversed(self._programs):
            try:
                self._supervisor.stop(name)
            except SupervisorError as error:
                # supervisord itself is shutting down, and stops the rest by priority.
                _LOG.info("stop_left_to_supervisord", program=name, rule=str(error))
                return
            _LOG.info("stopped", program=name, pid=os.getpid())


if __name__ == "__main__":
    sys.exit(program("cluster", lambda config: Cluster(config).run()))
