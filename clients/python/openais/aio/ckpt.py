"""Checkpoints for asyncio; behaviour and errors as in `openais.ckpt`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

from openais import checkpoints, errors
from openais.aio.session import AsyncSession
from openais.checkpoints import (
    DEFAULT_ATTRIBUTES,
    NEVER,
    READ_WRITE,
    Call,
    Descriptor,
    HandleCalls,
    SectionDescriptor,
    SectionId,
)
from openais.ckpt import LevelName
from openais.errors import AisError
from openais.session import CALL_TIMEOUT_NS
from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, OpenFlags, SectionsChosen


class Client:
    """A handle of the checkpoint service. Use with ``async with``."""

    def __init__(self, *, level: LevelName = "B.02", run_dir: Path | str | None = None) -> None:
        self._level: Final = checkpoints.level_of(level)
        self._handles: Final = itertools.count(1)
        self._session: Final = AsyncSession("ckpt", wire.TABLE, run_dir=run_dir)

    async def __aenter__(self) -> Client:
        """Open."""
        await self._session.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self.close()

    async def open(
        self,
        name: str | bytes,
        attributes: Attributes | None = None,
        flags: OpenFlags | int | None = None,
        timeout_ns: int = CALL_TIMEOUT_NS,
    ) -> Checkpoint:
        """Open or create a checkpoint; see `openais.ckpt.Client.open`."""
        if flags is None:
            create = READ_WRITE | OpenFlags.CREATE
            try:
                return await self._open(name, attributes or DEFAULT_ATTRIBUTES, create, timeout_ns)
            except errors.ExistError:
                return await self._open(name, None, READ_WRITE, timeout_ns)
        return await self._open(name, attributes, int(flags), timeout_ns)

    async def _open(
        self, name: str | bytes, attributes: Attributes | None, flags: int, timeout_ns: int
    ) -> Checkpoint:
        self._session.session.check("open")
        key = checkpoints.check_open(name, attributes, flags, timeout_ns, self._level)
        handle = next(self._handles)
        message = wire.Open(handle, key, flags, attributes, self._level)
        try:
            opened = await self._session.call(
                "open", message, timeout_ns=timeout_ns or CALL_TIMEOUT_NS
            )
        except AisError as error:
            if not error.definite:  # a late success must not stay open
                self._session.forget("close", wire.Close(handle))
            raise
        return Checkpoint(self._session, HandleCalls(handle, opened.attributes))

    async def unlink(self, name: str | bytes) -> None:
        """Take a checkpoint's name away; it lives until its last close."""
        await self._session.call("unlink", wire.Unlink(checkpoints.name_key(name, "ckpt.unlink")))

    def close(self) -> None:
        """Finalize: closes every checkpoint opened here. May be repeated."""
        self._session.close()


class Checkpoint:
    """One open checkpoint. Use with ``async with``."""

    def __init__(self, session: AsyncSession, calls: HandleCalls) -> None:
        self._session: Final = session
        self._calls: Final = calls
        self._closed = False

    async def __aenter__(self) -> Checkpoint:
        """Use with ``async with``."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    def _of(self, call: str) -> HandleCalls:
        """Return what makes requests; a bad handle comes before bad arguments."""
        self._session.session.check(call)
        if self._closed:
            raise errors.BadHandleError(f"ckpt.{call}", "the checkpoint is closed")
        return self._calls

    async def _do(self, call: Call, timeout_ns: int = CALL_TIMEOUT_NS) -> Any:
        return await self._session.call(
            call.name, call.message, flags=call.flags, timeout_ns=timeout_ns
        )

    async def status(self) -> Descriptor:
        """Return attributes and use."""
        return checkpoints.status(await self._do(self._of("status").status()))

    async def retention_duration_set(self, duration_ns: int) -> None:
        """Set how long the checkpoint is kept after its last close."""
        await self._do(self._of("retention_duration_set").retention_duration_set(duration_ns))

    async def active_replica_set(self) -> None:
        """Make the local node's replica the active one (collocated checkpoints)."""
        await self._do(self._of("active_replica_set").active_replica_set())

    async def section_create(
        self, section_id: SectionId | None = None, data: bytes = b"", expiration_time: int = NEVER
    ) -> bytes:
        """Create a section; None: the service chooses the id. Return the id."""
        call = self._of("section_create").section_create(section_id, data, expiration_time)
        created: wire.SectionCreated = await self._do(call)
        return created.section_id

    async def section_delete(self, section_id: SectionId) -> None:
        """Delete a section."""
        await self._do(self._of("section_delete").section_delete(section_id))

    async def section_expiration_time_set(
        self, section_id: SectionId, expiration_time: int
    ) -> None:
        """Set when a section expires, in ns since 1970; NEVER cancels."""
        await self._do(
            self._of("section_expiration_time_set").expiration_time_set(section_id, expiration_time)
        )

    async def write(self, elements: Iterable[tuple[SectionId, int, bytes]]) -> None:
        """Write (section, offset, data) elements: all or none, in one step."""
        await self._do(self._of("write").write(elements))

    async def overwrite(self, section_id: SectionId, data: bytes, *, create: bool = False) -> None:
        """Replace a section's whole content; ``create``: make it if it is not there."""
        await self._do(self._of("overwrite").overwrite(section_id, data, create=create))

    async def read(
        self, elements: Iterable[tuple[SectionId, int, int | None]], *, local: bool = False
    ) -> tuple[bytes, ...]:
        """Read (section, offset, size or None) elements of one consistent state."""
        answer: wire.ReadData = await self._do(self._of("read").read(elements, local=local))
        return answer.parts

    async def sections(self) -> tuple[bytes, ...]:
        """Return the ids of all sections in creation order."""
        ids: wire.SectionIds = await self._do(self._of("iterate").sections(SectionsChosen.ANY, 0))
        return ids.ids

    async def iterate(
        self, chosen: SectionsChosen = SectionsChosen.ANY, expiration_time: int = 0
    ) -> AsyncIterator[SectionDescriptor]:
        """Iterate over sections as they are now; the set of ids is fixed at the begin."""
        ids: wire.SectionIds = await self._do(self._of("iterate").sections(chosen, expiration_time))
        for section_id in ids.ids:
            try:
                section = await self._do(self._of("iterate").section(section_id))
            except errors.NotExistError:
                continue  # deleted meanwhile
            yield checkpoints.descriptor(section)

    async def synchronize(self, timeout_ns: int = CALL_TIMEOUT_NS) -> None:
        """Wait until all replicas have all changes made before."""
        calls = self._of("synchronize")
        checkpoints.check_synchronize(timeout_ns)
        await self._do(calls.synchronize(), timeout_ns)

    async def close(self) -> None:
        """Close; may be repeated."""
        if not self._closed:
            call = self._calls.close()
            self._closed = True
            try:
                await self._session.call(call.name, call.message)
            except (errors.BadHandleError, errors.LibraryError):
                return  # the client was closed first, or the session is gone: so is this open
