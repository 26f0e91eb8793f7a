"""A process under measurement: what it logs and when, what it costs, how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LINES_MAX: Final = 10_000  # kept of one process
STOP_TIMEOUT_S: Final = 20.0
DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL")  # so that nothing outlives us
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessError(Exception):
    """A process did not do what the measurement needs: says which, and its last lines."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a process logged."""

    at_ns: int  # monotonic, when it arrived here
    text: str


class Process:
    """A daemon whose standard error is read line by line.

    Args:
        name: for errors.
        command: what is run.
        environment: of the process; None: ours.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name: Final = name
        self.began_ns: Final = time.monotonic_ns()
        self._lines: Final[list[Line]] = []
        self._changed: Final = threading.Condition()
        self._ended = False
        self._popen: Final = subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def _read(self) -> None:
        assert self._popen.stderr is not None
        for raw in self._popen.stderr:
            line = Line(time.monotonic_ns(), raw.decode("utf-8", "backslashreplace").rstrip())
            with self._changed:
                if len(self._lines) < LINES_MAX:
                    self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def lines(self, pattern: re.Pattern[str], since_ns: int = 0) -> list[Line]:
        """Return the lines that match and arrived since."""
        with self._changed:
            found = list(self._lines)
        return [x for x in found if x.at_ns >= since_ns and pattern.search(x.text)]

    def wait_line(self, pattern: re.Pattern[str], seconds: float, since_ns: int = 0) -> Line:
        """Return the first line that matches and arrived since.

        Raises:
            ProcessError: not within that time, or the process has ended.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            checked = 0
            while True:
                for line in self._lines[checked:]:
                    if line.at_ns >= since_ns and pattern.search(line.text):
                        return line
                checked = len(self._lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or checked >= LINES_MAX:
                    raise ProcessError(self._complaint(pattern, seconds))
                self._changed.wait(left)

    def _complaint(self, pattern: re.Pattern[str], seconds: float) -> str:
        how = "ended" if self._ended else f"not within {seconds:g} s"
        last = "".join(f"\n    {line.text}" for line in self._lines[-8:])
        return f"{self.name}: {how}: no line like {pattern.pattern!r}{last}"

    def kill(self) -> int:
        """Kill -9; return the time of it."""
        at_ns = time.monotonic_ns()
        self._popen.kill()
        self._popen.wait()
        return at_ns

    def stop(self) -> int:
        """Ask to end in order; return the time of it. `close` waits for the end."""
        at_ns = time.monotonic_ns()
        self._popen.terminate()
        return at_ns

    def close(self) -> None:
        """End the process, by force if it takes too long."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        self._popen.wait()

    @property
    def runs(self) -> bool:
        """True: it has not ended."""
        return self._popen.poll() is None


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """CPU time of one thread."""

    name: str
    user_ns: int
    system_ns: int


def cpu_times(pid: int) -> dict[int, ThreadTime]:
    """Return the CPU time of each thread of a process; none if it is gone."""
    times = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            text = (task / "stat").read_text(encoding="utf-8", errors="replace")
            head, _, rest = text.rpartition(")")
            fields = rest.split()
            user, system = int(fields[11]) * TICK_NS, int(fields[12]) * TICK_NS
            name = "main" if int(task.name) == pid else head.partition("(")[2]
            times[int(task.name)] = ThreadTime(name, user, system)
    return times


def memory_kib(pid: int) -> tuple[int, int]:
    """Return the resident set size and the proportional one."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = {m[1]: int(m[2]) for m in re.finditer(r"^(Rss|Pss):\s+(\d+) kB$", text, re.M)}
    return found["Rss"], found["Pss"]


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Have processes that only burn CPU time, for the time of a block."""
    loop = [*DIE_WITH_PARENT, sys.executable, "-S", "-c", "while True: pass"]
    burning = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()
