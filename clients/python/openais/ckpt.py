"""Checkpoints: named, replicated memory of sections (SAI-AIS-CKPT).

What an active component records here, its standby reads when it takes over. Behaviour and errors,
function by function, are in docs/ckpt.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from openais import checkpoints, errors
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
from openais.errors import AisError
from openais.handle import CallbackQueue, DispatchFlags
from openais.session import CALL_TIMEOUT_NS, Session
from openais.wire import ckpt as wire
from openais.wire.ckpt import (
    Attributes,
    CreationFlags,
    Level,
    OpenFlags,
    SectionsChosen,
    SectionState,
)
from openais.wire.codec import DecodeError
from openais.wire.status import Status

__all__ = [
    "DEFAULT_ATTRIBUTES",
    "NEVER",
    "Attributes",
    "Checkpoint",
    "Client",
    "CreationFlags",
    "Descriptor",
    "DispatchFlags",
    "OpenFlags",
    "SectionDescriptor",
    "SectionState",
    "SectionsChosen",
]

LevelName = Literal["B.01", "B.02"]
OpenCallback = Callable[[int, "Checkpoint | None", Status], None]
SynchronizeCallback = Callable[[int, Status], None]


class Client:
    """A handle of the checkpoint service (saCkptInitialize). Use as a context manager.

    Args:
        open_callback: called with (invocation, checkpoint or None, status).
        synchronize_callback: called with (invocation, status).
        level: of SAI-AIS-CKPT, which decides some access rules.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.

    Raises:
        AisError: ERR_TRY_AGAIN, the service does not answer; ERR_ACCESS; ERR_VERSION.
    """

    def __init__(
        self,
        open_callback: OpenCallback | None = None,
        synchronize_callback: SynchronizeCallback | None = None,
        *,
        level: LevelName = "B.02",
        run_dir: Path | str | None = None,
    ) -> None:
        self._level: Final = checkpoints.level_of(level)
        self._open_callback: Final = open_callback
        self._synchronize_callback: Final = synchronize_callback
        self._queue: Final = CallbackQueue("ckpt")
        self._handles: Final = itertools.count(1)
        self._session: Final = Session("ckpt", wire.TABLE, run_dir=run_dir, gone=self._queue.lost)
        self._session.open()

    def __enter__(self) -> Client:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def open(
        self,
        name: str | bytes,
        attributes: Attributes | None = None,
        flags: OpenFlags | int | None = None,
        timeout_ns: int = CALL_TIMEOUT_NS,
    ) -> Checkpoint:
        """Open or create a checkpoint (saCkptCheckpointOpen).

        Without ``flags`` it is opened to read and write, and created with ``attributes``, else
        with DEFAULT_ATTRIBUTES, if there is none; one that exists is opened whatever its
        attributes are.

        Raises:
            AisError: see docs/ckpt.md.
        """
        if flags is None:
            try:
                return self._open(
                    name,
                    attributes or DEFAULT_ATTRIBUTES,
                    READ_WRITE | OpenFlags.CREATE,
                    timeout_ns,
                )
            except errors.ExistError:
                return self._open(name, None, READ_WRITE, timeout_ns)
        return self._open(name, attributes, int(flags), timeout_ns)

    def _open(
        self, name: str | bytes, attributes: Attributes | None, flags: int, timeout_ns: int
    ) -> Checkpoint:
        self._session.check("open")
        key = checkpoints.check_open(name, attributes, flags, timeout_ns, self._level)
        handle = next(self._handles)
        message = wire.Open(handle, key, flags, attributes, self._level)
        try:
            opened = self._session.call("open", message, timeout_ns=timeout_ns or CALL_TIMEOUT_NS)
        except AisError as error:
            if not error.definite:  # a late success must not stay open
                self._forget(handle)
            raise
        return Checkpoint(self, self._session, self._queue, HandleCalls(handle, opened.attributes))

    def _forget(self, handle: int) -> None:
        try:
            self._session.submit(
                "close", wire.Close(handle), 0, CALL_TIMEOUT_NS, lambda _status, _body: None
            )
        except AisError:
            return  # the session is gone, and its opens with it

    def open_async(
        self,
        invocation: int,
        name: str | bytes,
        attributes: Attributes | None = None,
        flags: OpenFlags | int = READ_WRITE,
    ) -> None:
        """Open or create; the checkpoint comes by callback (saCkptCheckpointOpenAsync)."""
        self._session.check("open_async")
        key = checkpoints.check_open(name, attributes, int(flags), CALL_TIMEOUT_NS, self._level)
        callback = self._open_callback
        if callback is None:
            raise errors.InitError("ckpt.open_async", "no open_callback was given")
        handle = next(self._handles)

        def done(status: Status, body: bytes) -> None:
            opened: Checkpoint | None = None
            try:
                answer = self._session.result("open", status, body)
                calls = HandleCalls(handle, answer.attributes)
                opened = Checkpoint(self, self._session, self._queue, calls)
            except AisError:
                pass  # the status tells
            except DecodeError:
                status = Status.ERR_LIBRARY
            self._queue.push(lambda: callback(invocation, opened, status))

        message = wire.Open(handle, key, int(flags), attributes, self._level)
        self._session.submit("open", message, 0, CALL_TIMEOUT_NS, done)

    def unlink(self, name: str | bytes) -> None:
        """Take a checkpoint's name away; it lives until its last close (saCkptCheckpointUnlink).

        Raises:
            AisError: ERR_NOT_EXIST; ERR_INVALID_PARAM.
        """
        self._session.call("unlink", wire.Unlink(checkpoints.name_key(name, "ckpt.unlink")))

    def checkpoints(self) -> tuple[wire.CheckpointInfo, ...]:
        """Return what operators see of all checkpoints, by name."""
        answer: wire.Checkpoints = self._session.call("list", wire.CheckpointsGet())
        return answer.checkpoints

    def dump(self, name: str | bytes) -> Iterator[tuple[SectionDescriptor, bytes]]:
        """Iterate over the sections of a checkpoint with their data, for operators.

        Raises:
            AisError: ERR_NOT_EXIST.
        """
        key = checkpoints.name_key(name, "ckpt.dump")
        after, more = 0, True
        while more:
            part: wire.Dump = self._session.call("dump", wire.CheckpointDump(key, after))
            for item in part.sections:
                yield checkpoints.descriptor(item.section), item.data
            after += len(part.sections)
            more = part.more

    @property
    def level(self) -> Level:
        """Level of this handle."""
        return self._level

    @property
    def synchronize_callback(self) -> SynchronizeCallback | None:
        """The callback given."""
        return self._synchronize_callback

    def fileno(self) -> int:
        """Return a descriptor that is readable while callbacks wait."""
        return self._queue.fileno()

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run the callbacks that wait, in this thread; return how many."""
        return self._queue.dispatch(flags)

    def close(self) -> None:
        """Finalize: closes every checkpoint opened here. May be repeated."""
        self._session.close()
        self._queue.close()


class Checkpoint:
    """One open checkpoint, also a mapping of section ids to data. Use as a context manager."""

    def __init__(
        self, client: Client, session: Session, queue: CallbackQueue, calls: HandleCalls
    ) -> None:
        self._client: Final = client
        self._session: Final = session
        self._queue: Final = queue
        self._calls: Final = calls
        self._closed = False

    def __enter__(self) -> Checkpoint:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _of(self, call: str) -> HandleCalls:
        """Return what makes requests; a bad handle comes before bad arguments."""
        self._session.check(call)
        if self._closed:
            raise errors.BadHandleError(f"ckpt.{call}", "the checkpoint is closed")
        return self._calls

    def _do(self, call: Call, timeout_ns: int = CALL_TIMEOUT_NS) -> Any:
        return self._session.call(call.name, call.message, flags=call.flags, timeout_ns=timeout_ns)

    def status(self) -> Descriptor:
        """Return attributes and use (saCkptCheckpointStatusGet)."""
        return checkpoints.status(self._do(self._of("status").status()))

    def retention_duration_set(self, duration_ns: int) -> None:
        """Set how long the checkpoint is kept after its last close."""
        self._do(self._of("retention_duration_set").retention_duration_set(duration_ns))

    def active_replica_set(self) -> None:
        """Make the local node's replica the active one (collocated checkpoints)."""
        self._do(self._of("active_replica_set").active_replica_set())

    def section_create(
        self, section_id: SectionId | None = None, data: bytes = b"", expiration_time: int = NEVER
    ) -> bytes:
        """Create a section; None: the service chooses the id. Return the id."""
        call = self._of("section_create").section_create(section_id, data, expiration_time)
        created: wire.SectionCreated = self._do(call)
        return created.section_id

    def section_delete(self, section_id: SectionId) -> None:
        """Delete a section."""
        self._do(self._of("section_delete").section_delete(section_id))

    def section_expiration_time_set(self, section_id: SectionId, expiration_time: int) -> None:
        """Set when a section expires, in ns since 1970; NEVER cancels."""
        self._do(
            self._of("section_expiration_time_set").expiration_time_set(section_id, expiration_time)
        )

    def write(self, elements: Iterable[tuple[SectionId, int, bytes]]) -> None:
        """Write (section, offset, data) elements: all or none, in one step.

        Raises:
            AisError: its ``detail`` is `Erroneous` with the index of the element at fault.
        """
        self._do(self._of("write").write(elements))

    def overwrite(self, section_id: SectionId, data: bytes, *, create: bool = False) -> None:
        """Replace a section's whole content; ``create``: make it if it is not there."""
        self._do(self._of("overwrite").overwrite(section_id, data, create=create))

    def read(
        self, elements: Iterable[tuple[SectionId, int, int | None]], *, local: bool = False
    ) -> tuple[bytes, ...]:
        """Read (section, offset, size or None) elements of one consistent state.

        Args:
            elements: what to read.
            local: without a fence: own writes are seen, others' perhaps a little late.
        """
        answer: wire.ReadData = self._do(self._of("read").read(elements, local=local))
        return answer.parts

    def iterate(
        self, chosen: SectionsChosen = SectionsChosen.ANY, expiration_time: int = 0
    ) -> Iterator[SectionDescriptor]:
        """Iterate over sections as they are now; the set of ids is fixed at the call."""
        ids: wire.SectionIds = self._do(self._of("iterate").sections(chosen, expiration_time))
        return self._descriptors(ids.ids)

    def _descriptors(self, ids: tuple[bytes, ...]) -> Iterator[SectionDescriptor]:
        for section_id in ids:
            try:
                section = self._do(self._of("iterate").section(section_id))
            except errors.NotExistError:
                continue  # deleted meanwhile
            yield checkpoints.descriptor(section)

    def synchronize(self, timeout_ns: int = CALL_TIMEOUT_NS) -> None:
        """Wait until all replicas have all changes made before."""
        calls = self._of("synchronize")
        checkpoints.check_synchronize(timeout_ns)
        self._do(calls.synchronize(), timeout_ns)

    def synchronize_async(self, invocation: int) -> None:
        """As synchronize; the outcome comes by callback."""
        call = self._of("synchronize_async").synchronize()
        callback = self._client.synchronize_callback
        if callback is None:
            raise errors.InitError("ckpt.synchronize_async", "no synchronize_callback was given")

        def done(status: Status, _body: bytes) -> None:
            self._queue.push(lambda: callback(invocation, status), tag=self)

        self._session.submit(call.name, call.message, call.flags, CALL_TIMEOUT_NS, done)

    def close(self) -> None:
        """Close; may be repeated."""
        if not self._closed:
            call = self._calls.close()
            self._closed = True
            self._queue.drop(self)
            self._client_close(call)

    def _client_close(self, call: Call) -> None:
        try:
            self._session.call(call.name, call.message)
        except (errors.BadHandleError, errors.LibraryError):
            return  # the client was closed first, or the session is gone: so is this open

    # A mapping of section ids to data

    def __getitem__(self, section_id: SectionId) -> bytes:
        """Return a section's data; KeyError if there is none."""
        try:
            return self.read([(section_id, 0, None)])[0]
        except errors.NotExistError as error:
            raise KeyError(section_id) from error

    def __setitem__(self, section_id: SectionId, data: bytes) -> None:
        """Replace a section's data, or create it."""
        self.overwrite(section_id, data, create=True)

    def __delitem__(self, section_id: SectionId) -> None:
        """Delete a section; KeyError if there is none."""
        try:
            self.section_delete(section_id)
        except errors.NotExistError as error:
            raise KeyError(section_id) from error

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over section ids in creation order."""
        ids: wire.SectionIds = self._do(self._of("iterate").sections(SectionsChosen.ANY, 0))
        return iter(ids.ids)

    def __contains__(self, section_id: SectionId) -> bool:
        """True: there is such a section."""
        try:
            self._do(self._of("iterate").section(checkpoints.section_key(section_id)))
        except errors.NotExistError:
            return False
        return True

    def __len__(self) -> int:
        """Return the number of sections."""
        return self.status().number_of_sections
