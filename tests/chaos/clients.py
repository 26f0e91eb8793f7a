"""The client programs of a run, one for each node."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.net.namespaces import ROOT

ERROR_LINES: Final = 12  # shown of what a client said before it ended


class ClientError(Exception):
    """A client program ended, or does not come to an end: says which, and its last words."""


class Program:
    """One client program.

    Args:
        name: of it.
        arguments: of Python.
        directory: gets what it says on its standard error.
    """

    def __init__(self, name: str, arguments: Sequence[str], directory: Path) -> None:
        self.name: Final = name
        self._errors: Final = directory / f"{name}.errors"
        with self._errors.open("wb") as errors:
            self._process: Final = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
            )

    def tell(self) -> None:
        """Let it go on to its next step."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is found by `expect`
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def expect(self, word: str, deadline_s: float) -> None:
        """Wait until it says a word.

        Raises:
            ClientError: it does not.
        """
        assert self._process.stdout is not None
        end = time.monotonic() + deadline_s
        if select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            said = self._process.stdout.readline().decode().strip()
            if said == word:
                return
            raise ClientError(f"{self.name} ended before it was {word}: {self._last_words()}")
        raise ClientError(f"{self.name} is not {word} after {deadline_s:.0f} s")

    def _last_words(self) -> str:
        text = self._errors.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-ERROR_LINES:])

    def end(self) -> None:
        """End it by force unless it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Programs:
    """The client programs of a run."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs: Final = programs

    def step(self, word: str, deadline_s: float) -> None:
        """Let all go on and wait until each says a word.

        Raises:
            ClientError: one does not.
        """
        for program in self._programs:
            program.tell()
        self.expect(word, deadline_s)

    def expect(self, word: str, deadline_s: float) -> None:
        """Wait until each says a word.

        Raises:
            ClientError: one does not.
        """
        end = time.monotonic() + deadline_s
        for program in self._programs:
            program.expect(word, end - time.monotonic())


@contextlib.contextmanager
def programs(commands: Mapping[str, Sequence[str]], directory: Path) -> Iterator[Programs]:
    """Run client programs, by name, and end them.

    Args:
        commands: the arguments of Python for each.
        directory: gets what they say on their standard error.
    """
    started: list[Program] = []
    try:
        for name, arguments in commands.items():
            started.append(Program(name, arguments, directory))
        yield Programs(started)
    finally:
        for program in started:
            program.end()
