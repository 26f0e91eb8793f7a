"""What the call server remembers: calls and their records, in a checkpoint.

One section per open call. A change is acknowledged when every replica has it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from examples.callserver.protocol import Record, decode_section, encode_record
from openais.aio import ckpt
from openais.ckpt import Attributes, CreationFlags
from openais.errors import NotExistError
from openais.wire.status import ONE_SECOND_NS

NAME: Final = "callserver"
CALLS_MAX: Final = 10_000
LOADS_MAX: Final = 100
CALL_SIZE_MAX: Final = 1 << 20  # bytes of one call's records
ATTRIBUTES: Final = Attributes(
    creation_flags=CreationFlags.WR_ALL_REPLICAS,
    checkpoint_size=64 << 20,
    retention_duration=60 * ONE_SECOND_NS,
    max_sections=CALLS_MAX,
    max_section_size=CALL_SIZE_MAX,
    max_section_id_size=64,
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
            ids = await self._sections.sections()
            try:
                data = await self._sections.read([(i, 0, None) for i in ids]) if ids else ()
            except NotExistError:
                continue  # the predecessor's last hang-up arrived in between
            self._calls = {
                i.decode(): decode_section(records) for i, records in zip(ids, data, strict=True)
            }
            return len(self._calls)
        raise UnknownCallError(f"calls vanish while they are read, {LOADS_MAX} times")

    def _changing(self, call: str) -> asyncio.Lock:
        return self._locks.setdefault(call, asyncio.Lock())

    async def _record(self, call: str, records: tuple[Record, ...]) -> None:
        """Record, then remember: an answer is given only for what every replica has."""
        data = b"".join(encode_record(record) for record in records)
        await self._sections.overwrite(call, data, create=True)
        self._calls[call] = records

    async def start(self, call: str) -> None:
        """Open a call; one that is open stays as it is, so that asking twice is harmless."""
        async with self._changing(call):
            if call not in self._calls:
                await self._record(call, ())

    async def add(self, call: str, record: Record) -> None:
        """Add a record to a call, once, however often it is asked for.

        Raises:
            UnknownCallError: not open.
        """
        async with self._changing(call):
            records = self.read(call)
            if all(record.number != known.number for known in records):
                await self._record(call, (*records, record))

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
            await self._sections.section_delete(call)
            del self._calls[call]
            del self._locks[call]
            return records
