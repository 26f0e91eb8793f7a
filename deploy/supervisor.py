"""supervisord of one node: its configuration, and talking to it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

from supervisor.xmlrpc import SupervisorTransport

from deploy import release
from openais.node import lock
from openais.node.exits import NOT_RESTARTED, Exit

CONFIG_NAME: Final = "supervisord.conf"
SOCKET_NAME: Final = "supervisor.sock"
PID_NAME: Final = "supervisord.pid"
CLUSTER: Final = "cluster"
START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 30.0
ORPHAN_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05
LOG_BYTES: Final = "10MB"
GIVEN_UP: Final = frozenset({*map(int, NOT_RESTARTED), int(Exit.SERVICE_INITIALIZATION)})
PRIORITIES: Final = {"totemd": 10, "clm": 20, "ckpt": 30, CLUSTER: 999}  # start; stop in reverse
STOP_SECONDS: Final = {CLUSTER: 60}

_HEAD: Final = """\
; supervisord of one openais node. Written by "openais cluster up"; edit freely.
[unix_http_server]
file={run}/supervisor.sock
chmod=0700

[supervisord]
pidfile={run}/supervisord.pid
logfile={log}/supervisord.log
logfile_maxbytes=10MB
childlogdir={log}
identifier={name}
umask=027

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:promptly]
supervisor.rpcinterface_factory = deploy.promptly:make

[supervisorctl]
serverurl=unix://{run}/supervisor.sock
"""
_PROGRAM: Final = """
[program:{name}]
command={command}
directory={directory}
priority={priority}
autostart={autostart}
autorestart=unexpected
exitcodes={exitcodes}
startsecs=0
stopwaitsecs={stop_seconds}
redirect_stderr=true
stdout_logfile={log}/{name}.log
stdout_logfile_maxbytes={log_bytes}
"""


def make(node_dir: Path, name: str, services: tuple[str, ...]) -> Path:
    """Write the configuration of supervisord and the links to the release that runs now."""
    links = node_dir / release.LINKS_NAME
    links.mkdir(mode=0o755, exist_ok=True)
    for program in ("totemd", *services, CLUSTER):
        release.point(links, program, Path(sys.executable).parent.parent)
    path = node_dir / "conf" / CONFIG_NAME
    path.write_text(configuration(node_dir, name, services), encoding="utf-8")
    return path


def configuration(node_dir: Path, name: str, services: tuple[str, ...]) -> str:
    """Return the configuration of supervisord for a node directory."""
    config = node_dir / "conf" / "openais.conf"
    links = node_dir / release.LINKS_NAME
    log = node_dir / "log"
    programs = ("totemd", *services, CLUSTER)
    restarting = dict.fromkeys(programs, NOT_RESTARTED) | {CLUSTER: GIVEN_UP}
    parts = [
        _PROGRAM.format(
            name=program,
            command=release.command(links, program, config),
            directory=node_dir,
            priority=PRIORITIES.get(program, 100),
            autostart="false",
            exitcodes=",".join(map(str, sorted({0, *map(int, restarting[program])}))),
            stop_seconds=STOP_SECONDS.get(program, 10),
            log=log,
            log_bytes=LOG_BYTES,
        )
        for program in programs
    ]
    return _HEAD.format(run=node_dir / "run", log=log, name=name) + "".join(parts)


class SupervisorError(Exception):
    """supervisord does not answer, or refuses: says what and why."""


class Supervisor:
    """supervisord of the node whose run directory is given."""

    def __init__(self, run_dir: Path) -> None:
        self._socket: Final = run_dir / SOCKET_NAME
        self._pid_file: Final = run_dir / PID_NAME

    def _call(self, name: str, *arguments: Any) -> Any:
        # A transport whose connection broke once stays unusable: each call has its own.
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, name)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(f"supervisord: {name}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorError(f"supervisord at {self._socket}: {error}") from error
        finally:
            transport.close()

    def pid(self) -> int | None:
        """Return the pid of supervisord, if it answers."""
        try:
            return int(self._call("getPID"))
        except SupervisorError:
            return None

    def state(self, program: str) -> str:
        """Return the state of a program, like RUNNING or FATAL."""
        return str(self._call("getProcessInfo", program)["statename"])

    def outcome(self, program: str) -> tuple[str, int]:
        """Return the state of a program and its last exit status."""
        info = self._call("getProcessInfo", program)
        return str(info["statename"]), int(info["exitstatus"])

    def states(self) -> dict[str, dict[str, Any]]:
        """Return what supervisord knows of each program."""
        return {info["name"]: info for info in self._call("getAllProcessInfo")}

    def start(self, program: str) -> None:
        """Start a program unless it runs; does not wait."""
        if self.state(program) not in ("RUNNING", "STARTING", "BACKOFF"):
            self._call("startProcess", program, False)  # noqa: FBT003 - the protocol's "wait"

    def stop(self, program: str) -> None:
        """Stop a program if it runs, and wait until it has ended."""
        if self.state(program) in ("RUNNING", "STARTING", "BACKOFF"):
            self._call("stopProcess", program)

    def shutdown(self) -> None:
        """End supervisord and wait until it is gone.

        Raises:
            SupervisorError: it is still there after STOP_TIMEOUT_S.
        """
        pid = self.pid()
        if pid is None:
            return
        self._call("shutdown")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _alive(pid):
            if time.monotonic() > deadline:
                raise SupervisorError(f"supervisord (pid {pid}) does not end")
            time.sleep(POLL_S)


def launch(node_dir: Path) -> None:
    """Start supervisord of a node unless it runs; return when it answers.

    Raises:
        SupervisorError: it does not start; says why.
    """
    supervisor = Supervisor(node_dir / "run")
    if supervisor.pid() is not None:
        return
    config = node_dir / "conf" / CONFIG_NAME
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        raise SupervisorError(f"supervisord -c {config}: {(done.stderr or done.stdout).strip()}")
    deadline = time.monotonic() + START_TIMEOUT_S
    while supervisor.pid() is None:
        if time.monotonic() > deadline:
            raise SupervisorError(f"supervisord -c {config}: no answer; see {node_dir / 'log'}")
        time.sleep(POLL_S)


def end_orphan(run_dir: Path, program: str) -> None:
    """End a program whose supervisord is dead: in order, and if that takes too long, by force.

    Only the holder of the program's lock in this run directory is meant.

    Raises:
        SupervisorError: it cannot be ended.
    """
    deadline = time.monotonic() + ORPHAN_TIMEOUT_S
    number = signal.SIGTERM
    while (pid := lock.holder(run_dir, program)) is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise SupervisorError(f"{program} (pid {pid}) belongs to somebody else") from error
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        time.sleep(POLL_S)


def environment() -> dict[str, str]:
    """Return the environment of a node's processes: what decides paths is in its own files."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OPENAIS_", "SUPERVISOR_"))}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
