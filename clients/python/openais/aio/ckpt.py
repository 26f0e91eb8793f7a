"""Checkpoints for asyncio; behaviour and errors as in `openais.ckpt`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final

from openais import checkpoints, dumpfile, errors
from openais.aio.session import AsyncSession
from openais.checkpoints import (
    DEFAULT_ATTRIBUTES,
    NEVER,
    READ_WRITE,
    Call,
    Change,
    Descriptor,
    Follower,
    HandleCalls,
    Paging,
    SectionDescriptor,
    SectionId,
)
from openais.errors import AisError
from openais.session import CALL_TIMEOUT_NS
from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, OpenFlags, SectionsChosen


class Client:
    """A handle of the checkpoint service. Use with ``async with``."""

    def __init__(self, *, level: str = "B.02", run_dir: Path | str | None = None) -> None:
        self._level: Final = checkpoints.level_of(level)
        self._handles: Final = itertools.count(1)
        self._open_ones: Final[dict[int, Checkpoint]] = {}
        self._session: Final = AsyncSession(
            "ckpt", wire.TABLE, run_dir=run_dir, notified=self._notified, gone=self._gone
        )

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
        calls = HandleCalls(handle, opened.attributes)
        made = Checkpoint(self, self._session, calls, created=opened.created)
        self._open_ones[handle] = made
        return made

    def forget(self, handle: int) -> None:
        """Tell no more of a checkpoint that is closed."""
        self._open_ones.pop(handle, None)

    def _notified(self, message: Any) -> None:
        if isinstance(message, wire.Changed):
            checkpoint = self._open_ones.get(message.handle)
            if checkpoint is not None:
                checkpoint.changed(message)

    def _gone(self, _error: AisError) -> None:
        for checkpoint in self._open_ones.values():
            checkpoint.end_watches()

    async def unlink(self, name: str | bytes) -> None:
        """Take a checkpoint's name away; it lives until its last close."""
        await self._session.call("unlink", wire.Unlink(checkpoints.name_key(name, "unlink")))

    async def checkpoints(self) -> tuple[wire.CheckpointInfo, ...]:
        """Return what operators see of all checkpoints, by name."""
        answer: wire.Checkpoints = await self._session.call("list", wire.CheckpointsGet())
        return answer.checkpoints

    # Extensions to the specification

    async def names(self, prefix: str | bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the names of checkpoints that begin with a prefix."""
        start = checkpoints.prefix_key(prefix)
        after, more = b"", True
        while more:
            part: wire.Names = await self._session.call("names", wire.NamesGet(start, after))
            for name in part.names:
                yield name
                after = name
            more = part.more

    async def dump(self, name: str | bytes) -> AsyncIterator[tuple[SectionDescriptor, bytes]]:
        """Iterate over the sections of a checkpoint with their data."""
        key = checkpoints.name_key(name, "dump")
        paging = Paging("ckpt.dump")
        while paging.more:
            for item in paging.take(await self._dumped(key, paging)):
                yield item

    async def _dumped(self, key: bytes, paging: Paging) -> wire.Dump:
        message = wire.CheckpointDump(key, paging.after, paging.offset)
        part: wire.Dump = await self._session.call("dump", message)
        return part

    async def dump_to(self, name: str | bytes, file: IO[bytes]) -> None:
        """Write a checkpoint to a file; see `openais.ckpt.Client.dump_to`."""
        key = checkpoints.name_key(name, "dump")
        paging = Paging("ckpt.dump")
        writer: dumpfile.Writer | None = None
        while paging.more:
            part = await self._dumped(key, paging)
            whole = paging.take(part)
            if writer is None:
                header = dumpfile.Header(part.info.name, part.info.attributes)
                writer = await asyncio.to_thread(dumpfile.Writer, file, header)
            for section, data in whole:
                await asyncio.to_thread(writer.add, section, data)
        assert writer is not None, "there is a first part"
        await asyncio.to_thread(writer.finish)

    async def restore(
        self, file: IO[bytes], name: str | bytes | None = None, *, replace: bool = False
    ) -> Checkpoint:
        """Create a checkpoint from a file; see `openais.ckpt.Client.restore`."""
        plan = await asyncio.to_thread(dumpfile.plan, file, name)
        if replace:
            with contextlib.suppress(errors.NotExistError):
                await self.unlink(plan.name)
        flags = READ_WRITE | OpenFlags.CREATE
        restored = await self._open(plan.name, plan.attributes, flags, CALL_TIMEOUT_NS)
        if not restored.created:
            await restored.close()
            raise errors.ExistError("ckpt.restore", f"there is a checkpoint {plan.name!r}")
        items = plan.items(time.time_ns())
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            for call in dumpfile.calls(restored.calls, item):
                await restored.do(call)
        return restored

    def close(self) -> None:
        """Finalize: closes every checkpoint opened here. May be repeated."""
        self._session.close()


class _Watching:
    """Changes that wait for who iterates over them."""

    def __init__(self) -> None:
        self.waiting: Final[asyncio.Queue[Change | None]] = asyncio.Queue()
        self._follower: Final = Follower()

    def put(self, message: wire.Changed) -> None:
        if self.waiting.qsize() < checkpoints.WAITING_MAX:  # else the next one tells of the loss
            self.waiting.put_nowait(self._follower.take(message))

    async def changes(self) -> AsyncIterator[Change]:
        while True:
            change = await self.waiting.get()
            if change is None:
                raise errors.LibraryError("ckpt.watch", "the session is lost, or it was closed")
            yield change


class Checkpoint:
    """One open checkpoint. Use with ``async with``."""

    def __init__(
        self, client: Client, session: AsyncSession, calls: HandleCalls, *, created: bool
    ) -> None:
        self._client: Final = client
        self._session: Final = session
        self.calls: Final = calls
        self.created: Final = created  # by this open
        self._closed = False
        self._watches: Final = itertools.count(1)
        self._watching: Final[dict[int, _Watching]] = {}

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
        return self.calls

    async def do(self, call: Call, timeout_ns: int = CALL_TIMEOUT_NS) -> Any:
        """Do one request of `calls`; return the message that answers it."""
        return await self._session.call(
            call.name, call.message, flags=call.flags, timeout_ns=timeout_ns
        )

    async def status(self) -> Descriptor:
        """Return attributes and use."""
        return checkpoints.status(await self.do(self._of("status").status()))

    async def retention_duration_set(self, duration_ns: int) -> None:
        """Set how long the checkpoint is kept after its last close."""
        await self.do(self._of("retention_duration_set").retention_duration_set(duration_ns))

    async def active_replica_set(self) -> None:
        """Make the local node's replica the active one (collocated checkpoints)."""
        await self.do(self._of("active_replica_set").active_replica_set())

    async def section_create(
        self, section_id: SectionId | None = None, data: bytes = b"", expiration_time: int = NEVER
    ) -> bytes:
        """Create a section; None: the service chooses the id. Return the id."""
        call = self._of("section_create").section_create(section_id, data, expiration_time)
        created: wire.SectionCreated = await self.do(call)
        return created.section_id

    async def section_delete(self, section_id: SectionId, *, expected: bytes | None = None) -> None:
        """Delete a section; ``expected``: only if it has this version (an extension)."""
        calls = self._of("section_delete")
        if expected is None:
            await self.do(calls.section_delete(section_id))
        else:
            await self.do(calls.drop(section_id, expected))

    async def section_expiration_time_set(
        self, section_id: SectionId, expiration_time: int
    ) -> None:
        """Set when a section expires, in ns since 1970; NEVER cancels."""
        await self.do(
            self._of("section_expiration_time_set").expiration_time_set(section_id, expiration_time)
        )

    async def write(self, elements: Iterable[tuple[SectionId, int, bytes]]) -> None:
        """Write (section, offset, data) elements: all or none, in one step."""
        await self.do(self._of("write").write(elements))

    async def overwrite(self, section_id: SectionId, data: bytes, *, create: bool = False) -> None:
        """Replace a section's whole content; ``create``: make it if it is not there."""
        await self.do(self._of("overwrite").overwrite(section_id, data, create=create))

    async def read(
        self, elements: Iterable[tuple[SectionId, int, int | None]], *, local: bool = False
    ) -> tuple[bytes, ...]:
        """Read (section, offset, size or None) elements of one consistent state."""
        answer: wire.ReadData = await self.do(self._of("read").read(elements, local=local))
        return answer.parts

    async def sections(self) -> tuple[bytes, ...]:
        """Return the ids of all sections in creation order."""
        ids: wire.SectionIds = await self.do(self._of("iterate").sections(SectionsChosen.ANY, 0))
        return ids.ids

    async def iterate(
        self, chosen: SectionsChosen | int = SectionsChosen.ANY, expiration_time: int = 0
    ) -> AsyncIterator[SectionDescriptor]:
        """Iterate over sections as they are now; the set of ids is fixed at the begin."""
        ids: wire.SectionIds = await self.do(self._of("iterate").sections(chosen, expiration_time))
        for section_id in ids.ids:
            try:
                section = await self.do(self._of("iterate").section(section_id))
            except errors.NotExistError:
                continue  # deleted meanwhile
            yield checkpoints.descriptor(section)

    async def synchronize(self, timeout_ns: int = CALL_TIMEOUT_NS) -> None:
        """Wait until all replicas have all changes made before."""
        calls = self._of("synchronize")
        checkpoints.check_synchronize(timeout_ns)
        await self.do(calls.synchronize(), timeout_ns)

    # Extensions to the specification; see `openais.ckpt.Checkpoint`

    async def read_version(self, section_id: SectionId) -> tuple[bytes, bytes]:
        """Read a whole section; return data and version."""
        answer: wire.ReadData = await self.do(self._of("read").read_versions(section_id))
        return answer.parts[0], answer.versions[0]

    async def put(
        self,
        section_id: SectionId,
        data: bytes,
        *,
        expected: bytes | None = None,
        ttl_ns: int | None = None,
    ) -> bytes:
        """Create a section or replace its content, in one step; return its new version."""
        call = self._of("put").put(section_id, data, expected, ttl_ns)
        done: wire.SectionPutDone = await self.do(call)
        return done.version

    async def ttl_set(self, section_id: SectionId, ttl_ns: int) -> None:
        """Let a section expire so long after this."""
        await self.do(self._of("ttl_set").ttl_set(section_id, ttl_ns))

    async def items(self, prefix: SectionId = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Iterate over the sections that begin with a prefix, ids and data, of one state."""
        calls = self._of("items")
        paging = Paging("ckpt.items")
        while paging.more:
            part: wire.Dump = await self.do(calls.items(prefix, paging.after, paging.offset))
            for section, data in paging.take(part):
                yield section.section_id, data

    async def change(
        self,
        section_id: SectionId,
        function: Callable[[bytes | None], bytes],
        *,
        ttl_ns: int | None = None,
    ) -> bytes:
        """Replace a section's data by what a function makes of it; nothing comes between.

        Raises:
            TryAgainError: somebody else was faster ATTEMPTS_MAX times.
        """
        for _ in range(checkpoints.ATTEMPTS_MAX):
            try:
                before, version = await self.read_version(section_id)
            except errors.NotExistError:
                after = function(None)
                version = b""
            else:
                after = function(before)
            try:
                await self.put(section_id, after, expected=version, ttl_ns=ttl_ns)
            except errors.FailedOperationError:
                continue
            return after
        rule = f"others were faster {checkpoints.ATTEMPTS_MAX} times"
        raise errors.TryAgainError("ckpt.change", rule)

    @contextlib.asynccontextmanager
    async def watch(
        self,
        *,
        section_id: SectionId | None = None,
        prefix: SectionId = b"",
        data_size_max: int = wire.WATCH_DATA_MAX,
    ) -> AsyncIterator[AsyncIterator[Change]]:
        """Watch sections: ``async with c.watch() as changes: async for change in changes``.

        From the begin of the block on, changes come in order, each once.
        """
        number = next(self._watches)
        call = self._of("watch").watch(number, section_id, prefix, data_size_max)
        watching = self._watching[number] = _Watching()
        try:
            await self.do(call)
            yield watching.changes()
        finally:
            del self._watching[number]
            if not self._closed:
                with contextlib.suppress(errors.AisError):  # gone with the session, or never there
                    await self.do(self.calls.unwatch(number))

    def changed(self, message: wire.Changed) -> None:
        """Let a change wait for its watch."""
        watching = self._watching.get(message.watch)
        if watching is not None:
            watching.put(message)

    def end_watches(self) -> None:
        """The session is lost, or this is closed: watches end."""
        for watching in self._watching.values():
            watching.waiting.put_nowait(None)

    async def close(self) -> None:
        """Close; may be repeated."""
        if not self._closed:
            call = self.calls.close()
            self._closed = True
            self._client.forget(self.calls.handle)
            self.end_watches()
            try:
                await self._session.call(call.name, call.message)
            except (errors.BadHandleError, errors.LibraryError, errors.UnavailableError):
                return  # the client was closed first, or the session is gone: so is this open
