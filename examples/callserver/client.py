"""A client with many open calls that checks the server: nothing lost, nothing doubled.

Each call adds numbered records, one at a time, and sends a record again until it is acknowledged,
to whichever component answers. At the end each call is read back and compared with what was
acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from examples.callserver.protocol import (
    LINE_SIZE_MAX,
    STANDBY,
    Answer,
    ProtocolError,
    Record,
    Request,
    decode_answer,
    encode_request,
)

Address = tuple[str, int]

ANSWER_TIMEOUT_S: Final = 1.0  # then the request is sent again
GIVE_UP_S: Final = 30.0  # a call that gets no answer this long is lost
RETRY_S: Final = 0.005


class CallLostError(Exception):
    """A call got no answer from any component within GIVE_UP_S, or its server forgot it."""


@dataclass(slots=True)
class Interruption:
    """The longest time that one request waited for its answer, while a fault was injected."""

    longest_s: float = 0.0
    requests: int = 0


@dataclass(slots=True)
class Findings:
    """What the check of all calls found."""

    calls: int = 0
    records: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True: everything that was acknowledged is there, once."""
        return not (self.missing or self.doubled or self.lost)


class Line:
    """One TCP connection to whichever component is active; made anew when it fails."""

    def __init__(self, addresses: list[Address]) -> None:
        self._addresses = addresses
        self._turn = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Answer:
        """Send until an active component answers.

        Raises:
            CallLostError: nobody answered within GIVE_UP_S.
        """
        line = encode_request(request)
        give_up_at = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up_at:
            try:
                answer = await asyncio.wait_for(self._exchange(line), ANSWER_TIMEOUT_S)
            except (OSError, TimeoutError, ProtocolError, asyncio.IncompleteReadError):
                await self._switch()
                continue
            if answer.ok or answer.why != STANDBY:
                return answer
            await self._switch()
        raise CallLostError(f"call {request.call}: no answer to {request.action} in {GIVE_UP_S} s")

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, line: bytes) -> Answer:
        if self._streams is None:
            address = self._addresses[self._turn % len(self._addresses)]
            self._streams = await asyncio.open_connection(*address, limit=LINE_SIZE_MAX)
        reader, writer = self._streams
        writer.write(line)
        return decode_answer(await reader.readuntil(b"\n"))

    async def _switch(self) -> None:
        await self.close()
        self._turn += 1
        await asyncio.sleep(RETRY_S)


class Call:
    """One open call, and what the server acknowledged of it."""

    def __init__(self, name: str, addresses: list[Address]) -> None:
        self.name: Final = name
        self.acknowledged: list[Record] = []
        self._line = Line(addresses)

    async def start(self) -> None:
        """Open the call."""
        await self._ask(Request("start", self.name))

    async def add(self) -> None:
        """Add the next record and wait until it is acknowledged."""
        number = len(self.acknowledged) + 1
        record = Record(number, f"{self.name} says {number}")
        await self._ask(Request("add", self.name, record))
        self.acknowledged.append(record)

    async def read(self) -> tuple[Record, ...]:
        """Read back everything the server holds of the call."""
        return (await self._ask(Request("read", self.name))).records

    async def hang_up(self) -> None:
        """End the call."""
        await self._ask(Request("hangup", self.name))
        await self._line.close()

    async def _ask(self, request: Request) -> Answer:
        answer = await self._line.ask(request)
        if not answer.ok:
            raise CallLostError(f"call {self.name}: {request.action} refused: {answer.why}")
        return answer


class Load:
    """Keeps calls open and talking, and measures how long they wait.

    Args:
        addresses: where the components listen.
        calls: how many calls are open at once.
        pause_s: between two records of one call.
    """

    def __init__(self, addresses: list[Address], calls: int, pause_s: float) -> None:
        self._calls = [Call(f"call-{number}", addresses) for number in range(1, calls + 1)]
        self._pause_s = pause_s
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._interruption = Interruption()
        self._waiting: dict[str, float] = {}  # call -> since when
        self._lost: list[str] = []

    async def start(self) -> None:
        """Open all calls and begin to talk."""
        await asyncio.gather(*(call.start() for call in self._calls))
        self._tasks = [asyncio.create_task(self._talk(call)) for call in self._calls]

    def watch(self) -> Interruption:
        """Begin to measure an interruption; the returned value is updated as answers come."""
        self._interruption = Interruption()
        return self._interruption

    @property
    def records_acknowledged(self) -> int:
        """How many records were acknowledged so far."""
        return sum(len(call.acknowledged) for call in self._calls)

    async def settle(self, deadline_s: float) -> None:
        """Wait until every call that is waiting now was answered.

        Raises:
            CallLostError: some were not within the deadline.
        """
        end = time.monotonic() + deadline_s
        since = time.monotonic()
        while any(started < since for started in self._waiting.values()):
            if time.monotonic() > end:
                raise CallLostError(f"{len(self._waiting)} calls wait for over {deadline_s} s")
            await asyncio.sleep(RETRY_S)

    async def finish(self) -> Findings:
        """Stop talking, read every call back, compare, hang up."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        findings = Findings(calls=len(self._calls), records=self.records_acknowledged)
        findings.lost = list(self._lost)
        lost = {name.split(":")[0] for name in self._lost}
        for call in self._calls:
            if call.name not in lost:
                _compare(call, await call.read(), findings)
                await call.hang_up()
        return findings

    async def _talk(self, call: Call) -> None:
        try:
            while not self._stopping.is_set():
                began = self._waiting[call.name] = time.monotonic()
                await call.add()
                del self._waiting[call.name]
                waited = time.monotonic() - began
                self._interruption.longest_s = max(self._interruption.longest_s, waited)
                self._interruption.requests += 1
                await asyncio.sleep(self._pause_s)
        except CallLostError as error:
            self._waiting.pop(call.name, None)
            self._lost.append(f"{call.name}: {error}")


def _compare(call: Call, held: tuple[Record, ...], findings: Findings) -> None:
    counts: dict[Record, int] = {}
    for record in held:
        counts[record] = counts.get(record, 0) + 1
    numbers = [record.number for record in held]
    findings.missing += [
        f"{call.name} record {record.number}"
        for record in call.acknowledged
        if record not in counts
    ]
    findings.doubled += [
        f"{call.name} record {number}"
        for number in sorted(set(numbers))
        if numbers.count(number) > 1
    ]
    if numbers != sorted(numbers):
        findings.missing.append(f"{call.name}: records out of order")
