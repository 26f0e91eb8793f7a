"""What the call server remembers: calls and their records, in a checkpoint.

One section says that a call is open, one more holds each record. A section is created and never
overwritten, so a component that is late, and no longer active without knowing it, cannot undo what
its successor recorded. A change is acknowledged when every replica has it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from examples.callserver.protocol import Record, decode_section, encode_record
from openais.aio import ckpt
from openais.ckpt import Attributes, CreationFlags
from openais.errors import ExistError, NotExistError
from openais.wire.status import ONE_SECOND_NS

NAME: Final = "callserver"
LOADS_MAX: Final = 100
ELEMENTS_MAX: Final = 10_000  # sections read in one call
RECORDS_MAX: Final = 1_000_000
RECORD_SIZE_MAX: Final = 4096  # bytes
SEPARATOR: Final = "/"  # between the name of a call and the number of a record
ATTRIBUTES: Final = Attributes(
    creation_flags=CreationFlags.WR_ALL_REPLICAS,
    checkpoint_size=64 << 20,
    retention_duration=60 * ONE_SECOND_NS,
    max_sections=RECORDS_MAX,
    max_section_size=RECORD_SIZE_MAX,
    max_section_id_size=80,
)


class UnknownCallError(Exception):
    """There is no such call."""


class Ledger:
    """The calls. Use with ``async with``."""

    def __init__(self) -> None:
        self._client: Final = ckpt.Client()
        self._checkpoint: ckpt.Checkpoint | None = None
        self._calls: dict[str, tuple[Record, ...]] = {}
        self._locks: Final[dict[str, asyncio.Lock]] = {}  # one change of a call at a time

    async def __aenter__(self) -> Ledger:
        """Open the checkpoint, or create it."""
        await self._client.__aenter__()
        self._checkpoint = await self._client.open(NAME, ATTRIBUTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self._client.close()

    @property
    def _sections(self) -> ckpt.Checkpoint:
        assert self._checkpoint is not None, "use with async with"
        return self._checkpoint

    async def load(self) -> int:
        """Read everything that a predecessor recorded; return the number of calls.

        Raises:
            UnknownCallError: somebody else is changing the calls.
        """
        for _ in range(LOADS_MAX):
            ids = [i.decode() for i in await self._sections.sections()]
            calls: dict[str, list[Record]] = {i: [] for i in ids if SEPARATOR not in i}
            numbered = sorted(
                i for i in ids if i.partition(SEPARATOR)[0] in calls and i not in calls
            )
            try:
                for begin in range(0, len(numbered), ELEMENTS_MAX):
                    some = numbered[begin : begin + ELEMENTS_MAX]
                    for i, data in zip(some, await self._read(some), strict=True):
                        calls[i.partition(SEPARATOR)[0]] += decode_section(data)
            except NotExistError:
                continue  # the predecessor's last hang-up arrived in between
            self._calls = {call: tuple(records) for call, records in calls.items()}
            return len(self._calls)
        raise UnknownCallError(f"calls vanish while they are read, {LOADS_MAX} times")

    async def _read(self, ids: list[str]) -> tuple[bytes, ...]:
        return await self._sections.read([(i, 0, None) for i in ids])

    def _changing(self, call: str) -> asyncio.Lock:
        return self._locks.setdefault(call, asyncio.Lock())

    async def _create(self, section_id: str, data: bytes) -> None:
        """Create a section; one that is there was created by an earlier attempt."""
        try:
            await self._sections.section_create(section_id, data)
        except ExistError:
            return

    async def start(self, call: str) -> None:
        """Open a call; one that is open stays as it is, so that asking twice is harmless."""
        async with self._changing(call):
            await self._create(call, b"")
            self._calls.setdefault(call, ())

    async def add(self, call: str, record: Record) -> None:
        """Add a record to a call, once, however often it is asked for.

        Raises:
            UnknownCallError: not open.
        """
        async with self._changing(call):
            records = self.read(call)
            if all(record.number != known.number for known in records):
                await self._create(_record_id(call, record), encode_record(record))
                self._calls[call] = (*records, record)

    def read(self, call: str) -> tuple[Record, ...]:
        """Return the records of a call.

        Raises:
            UnknownCallError: not open.
        """
        if call not in self._calls:
            raise UnknownCallError(f"no call {call}")
        return self._calls[call]

    async def hang_up(self, call: str) -> tuple[Record, ...]:
        """Close a call; return its records.

        Raises:
            UnknownCallError: not open.
        """
        async with self._changing(call):
            records = self.read(call)
            await self._sections.section_delete(call)  # from here on the call is closed
            ids = [_record_id(call, record) for record in records]
            await asyncio.gather(*(self._sections.section_delete(i) for i in ids))
            del self._calls[call]
            del self._locks[call]
            return records


def _record_id(call: str, record: Record) -> str:
    return f"{call}{SEPARATOR}{record.number:08d}"
