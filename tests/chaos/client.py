"""The clients of one node, a program of its own: ``python -m tests.chaos.client``.

It says ``ready`` and works until there is a line of input. It says ``stopped``, and after another
line every client shows that its handles still work, and the first reads everything there is.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openais import ckpt, clm, errors
from openais.ckpt import CreationFlags
from openais.errors import AisError
from openais.wire.status import TIME_END
from tests.chaos.history import Operation, Outcome, Record, Writer
from tests.chaos.judge import TORN

EPOCH_NS: Final = 8_000_000_000
SECTIONS: Final = 4  # of each checkpoint in one epoch
FINAL: Final = "final"
APPENDS: Final = "appends"
# All operations agree, by safe delivery; and those that are content with agreed delivery.
CHECKPOINTS: Final = {
    "safe": CreationFlags.WR_ALL_REPLICAS,
    "agreed": CreationFlags.WR_ACTIVE_REPLICA,
    "weak": CreationFlags.WR_ACTIVE_REPLICA_WEAK,
    APPENDS: CreationFlags.WR_ACTIVE_REPLICA,
}
REGISTERS: Final = tuple(name for name in CHECKPOINTS if name != APPENDS)
APPENDED_SIZE: Final = 20
SIZES: Final = (0, 40, 40, 300, 300, 300, 3_000, 30_000)  # of data, beyond its name
SECTION_SIZE_MAX: Final = 1 << 16
SECTIONS_MAX: Final = 100_000
MIXED_PER_NODE: Final = 2
WRITING: Final = (
    Operation.PUT,
    Operation.OVERWRITE,
    Operation.CREATE,
    Operation.SWAP,
    Operation.APPEND,
)
_WEIGHTS: Final = {
    Operation.READ: 35,
    Operation.PUT: 25,
    Operation.SWAP: 15,
    Operation.OVERWRITE: 10,
    Operation.CREATE: 8,
    Operation.DELETE: 7,
}
ATTEMPTS_MAX: Final = 6
OPEN_DEADLINE_S: Final = 45.0
OPEN_AGAIN_S: Final = 0.2
# Handles of the first level outlive the loss of the quorum, those of the second become stale.
LEVELS: Final = ("B.01", "B.02")
JOIN_S: Final = 60.0
_ENDS: Final = (
    (errors.NotExistError, Outcome.ABSENT),
    (errors.ExistError, Outcome.PRESENT),
    (errors.FailedOperationError, Outcome.OTHER),
)
_BROKEN: Final = (errors.BadHandleError, errors.LibraryError)


@dataclass(frozen=True, slots=True)
class Options:
    """What the harness asks for."""

    node: int
    run_dir: Path
    directory: Path
    seed: int
    begun_ns: int
    pause_ms: int


def attributes(flags: CreationFlags) -> ckpt.Attributes:
    """Return the attributes of a checkpoint of this load."""
    size = SECTION_SIZE_MAX * SECTIONS_MAX
    return ckpt.Attributes(flags, size, TIME_END, SECTIONS_MAX, SECTION_SIZE_MAX, 32)


def filled(value: str, size: int) -> bytes:
    """Return data that has a name, and shows whether it is whole."""
    return f"{value}:{size}:".encode() + b"." * size


def name_of(data: bytes) -> str:
    """Return the name of data; of such as nobody wrote, one that says so."""
    value, _, rest = data.decode("utf-8", "replace").partition(":")
    size, _, _ = rest.partition(":")
    if size.isdecimal() and data == filled(value, int(size)):
        return value
    return f"{TORN} {data[:60]!r} of {len(data)} bytes"


class Client(threading.Thread):
    """One client: one session, one thread, one history."""

    def __init__(self, options: Options, name: str, stopping: threading.Event) -> None:
        super().__init__(name=f"n{options.node}c{name}")
        self.options: Final = options
        self.history: Final = Writer(options.directory, self.name)
        self.rng: Final = random.Random(f"client {options.seed} {self.name}")
        self.stopping: Final = stopping
        self._number = 0
        self._open()

    def _open(self) -> None:
        """Open everything, again and again while the service is not there."""
        end = time.monotonic() + OPEN_DEADLINE_S
        while True:
            try:
                self.open()
            except AisError:
                self.close()
                if time.monotonic() > end:
                    raise
            else:
                return
            self.stopping.wait(OPEN_AGAIN_S)

    def run(self) -> None:
        """Work until told to stop."""
        while not self.stopping.wait(self.rng.uniform(0, 2 * self.options.pause_ms) / 1000):
            self.work()

    def do(
        self,
        operation: Operation,
        checkpoint: str = "",
        section: str = "",
        expected: str | None = None,
    ) -> Outcome:
        """Do one call and write down what came of it."""
        self._number += 1
        value = f"{self.name}.{self._number}" if operation in WRITING else None
        record = Record(
            self.name,
            self._number,
            operation,
            checkpoint,
            section,
            value,
            time.monotonic_ns(),
            expected=expected,
        )
        self.history.begin(record)
        outcome, error, found = Outcome.DONE, "", None
        try:
            found = self.call(record)
        except AisError as failure:
            outcome, error = _outcome(failure), str(failure)
        self.history.end(record.number, time.monotonic_ns(), outcome, found, error)
        if outcome in (Outcome.BROKEN, Outcome.STALE):
            self.close()
            self._open()
        return outcome

    def until_done(self, operation: Operation, checkpoint: str = "", section: str = "") -> None:
        """Do a call until it is served: every handle must work in the end."""
        for _ in range(ATTEMPTS_MAX):
            if self.do(operation, checkpoint, section) is Outcome.DONE:
                return
        raise AssertionError(f"{operation.value} is not served {ATTEMPTS_MAX} times")

    def open(self) -> None:
        """Open a session and what is needed in it."""
        raise NotImplementedError

    def work(self) -> None:
        """Do one call."""
        raise NotImplementedError

    def call(self, record: Record) -> str | None:
        """Do this call; return what it found."""
        raise NotImplementedError

    def show(self) -> None:
        """Be served by every handle."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the session."""
        raise NotImplementedError


class Memory(Client):
    """A client of CKPT."""

    def __init__(self, options: Options, number: int, stopping: threading.Event) -> None:
        self._level: Final = LEVELS[number % len(LEVELS)]
        self._appends: Final = number == 0
        self._client: ckpt.Client | None = None
        self._read: str | None = None  # of the last read: the name of the data
        self._version = b""  # and its version
        self._checkpoints: Final[dict[str, ckpt.Checkpoint]] = {}
        super().__init__(options, str(number), stopping)

    def open(self) -> None:
        self._client = ckpt.Client(run_dir=self.options.run_dir, level=self._level)
        for name, flags in CHECKPOINTS.items():
            self._checkpoints[name] = self._client.open(f"chaos {name}", attributes(flags))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def work(self) -> None:
        if self._appends:
            self.do(Operation.APPEND, APPENDS)
        else:
            operation = self.rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            checkpoint, section = self.rng.choice(REGISTERS), self._section()
            if operation is Operation.SWAP:
                self._swap(checkpoint, section)
            else:
                self.do(operation, checkpoint, section)

    def _swap(self, checkpoint: str, section: str) -> None:
        """Read, and write if nobody has written meanwhile."""
        self._read, self._version = None, b""
        if self.do(Operation.READ, checkpoint, section) in (Outcome.DONE, Outcome.ABSENT):
            self.do(Operation.SWAP, checkpoint, section, self._read)

    def _section(self) -> str:
        epoch = (time.monotonic_ns() - self.options.begun_ns) // EPOCH_NS
        return f"e{epoch}s{self.rng.randrange(SECTIONS)}"

    def call(self, record: Record) -> str | None:
        checkpoint, section = self._checkpoints[record.checkpoint], record.section
        data = b""
        if record.value is not None:
            appends = record.operation is Operation.APPEND
            data = filled(record.value, APPENDED_SIZE if appends else self.rng.choice(SIZES))
        match record.operation:
            case Operation.READ:
                read, self._version = checkpoint.read_version(section)
                self._read = name_of(read)
                return self._read
            case Operation.PUT:
                checkpoint.overwrite(section, data, create=True)
            case Operation.OVERWRITE:
                checkpoint.overwrite(section, data)
            case Operation.CREATE:
                checkpoint.section_create(section, data)
            case Operation.DELETE:
                checkpoint.section_delete(section)
            case Operation.SWAP:
                checkpoint.put(section, data, expected=self._version)
            case Operation.APPEND:
                checkpoint.section_create(None, data)
            case Operation.ASK:
                raise AssertionError("not of CKPT")
        return None

    def show(self) -> None:
        for name in REGISTERS:
            section = f"{FINAL} {self.name}"
            self.until_done(Operation.PUT, name, section)
            self.until_done(Operation.READ, name, section)

    def read_everything(self) -> None:
        """Read every section of every epoch, and what was appended."""
        epochs = (time.monotonic_ns() - self.options.begun_ns) // EPOCH_NS + 1
        for name in REGISTERS:
            for epoch in range(epochs):
                for number in range(SECTIONS):
                    self.do(Operation.READ, name, f"e{epoch}s{number}")
        assert self._client is not None
        values = [name_of(data) for _, data in self._client.dump(f"chaos {APPENDS}")]
        path = self.options.directory / f"n{self.options.node}.{APPENDS}"
        path.write_text("".join(f"{value}\n" for value in values), encoding="utf-8")


class Watcher(Client):
    """A client of CLM: follows the membership, and asks for it."""

    def __init__(self, options: Options, stopping: threading.Event) -> None:
        self._client: clm.Client | None = None
        self._followed: set[int] = set()
        super().__init__(options, "lm", stopping)

    def open(self) -> None:
        self._client = clm.Client(track_callback=self._changed, run_dir=self.options.run_dir)
        self._client.track(clm.TrackFlags.CURRENT | clm.TrackFlags.CHANGES, callback=True)

    def _changed(self, buffer: clm.NotificationBuffer, _members: int, _status: object) -> None:
        self._followed = _members_of(buffer)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def work(self) -> None:
        self.do(Operation.ASK)

    def call(self, _record: Record) -> str:
        assert self._client is not None
        self._client.dispatch()
        buffer = self._client.track(clm.TrackFlags.CURRENT)
        assert buffer is not None, "the present membership is asked for"
        return f"asked {sorted(_members_of(buffer))} followed {sorted(self._followed)}"

    def show(self) -> None:
        self.until_done(Operation.ASK)


def _members_of(buffer: clm.NotificationBuffer) -> set[int]:
    return {n.cluster_node.node_id for n in buffer.notification if n.cluster_node.member}


def _outcome(failure: AisError) -> Outcome:
    for kind, outcome in _ENDS:
        if isinstance(failure, kind):
            return outcome
    if isinstance(failure, errors.UnavailableError):
        return Outcome.STALE
    if isinstance(failure, _BROKEN):
        return Outcome.BROKEN
    return Outcome.REFUSED if failure.definite else Outcome.UNKNOWN


def say(word: str) -> None:
    """Tell the harness."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def options() -> Options:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.client", description=__doc__)
    for name in ("node", "seed", "begun-ns", "pause-ms"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("run-dir", "directory"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    found = parser.parse_args()
    return Options(
        found.node, found.run_dir, found.directory, found.seed, found.begun_ns, found.pause_ms
    )


def main() -> None:
    """Work, then show that everything still works."""
    chosen = options()
    stopping = threading.Event()
    memories = [Memory(chosen, number, stopping) for number in range(1 + MIXED_PER_NODE)]
    clients: list[Client] = [*memories, Watcher(chosen, stopping)]
    say("ready")
    for client in clients:
        client.start()
    sys.stdin.readline()
    stopping.set()
    for client in clients:
        client.join(JOIN_S)
        assert not client.is_alive(), f"{client.name}: a call does not return"
    say("stopped")
    sys.stdin.readline()
    for client in clients:
        client.show()
    memories[0].read_everything()
    for client in clients:
        client.close()
    say("done")


if __name__ == "__main__":
    main()
