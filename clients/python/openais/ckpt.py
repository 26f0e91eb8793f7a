"""Checkpoints: named, replicated memory of sections (SAI-AIS-CKPT).

What an active component records here, its standby reads when it takes over. Behaviour and errors,
function by function, are in docs/ckpt.md.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from openais import checkpoints, dumpfile, errors
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
    TrackElement,
)
from openais.errors import AisError
from openais.handle import CallbackQueue, DispatchFlags
from openais.levels import Version
from openais.sectionmap import SectionMap
from openais.session import CALL_TIMEOUT_NS, Session
from openais.wire import ckpt as wire
from openais.wire.ckpt import (
    Attributes,
    ChangeKind,
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
    "Change",
    "ChangeKind",
    "Checkpoint",
    "Client",
    "CreationFlags",
    "Descriptor",
    "DispatchFlags",
    "OpenFlags",
    "SectionDescriptor",
    "SectionMap",
    "SectionState",
    "SectionsChosen",
    "TrackElement",
    "Watch",
]

TrackCallback = Callable[["Checkpoint", tuple[TrackElement, ...]], None]
OpenCallback = Callable[[int, "Checkpoint | None", Status], None]
SynchronizeCallback = Callable[[int, Status], None]


class Client:
    """A handle of the checkpoint service (saCkptInitialize). Use as a context manager.

    Args:
        open_callback: called with (invocation, checkpoint or None, status).
        synchronize_callback: called with (invocation, status).
        track_callback: called with (checkpoint, elements); see `track`.
        level: of SAI-AIS-CKPT, "B.01" or "B.02", which decides some access rules.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.

    Raises:
        AisError: ERR_TRY_AGAIN, the service does not answer; ERR_ACCESS; ERR_VERSION.
    """

    def __init__(
        self,
        open_callback: OpenCallback | None = None,
        synchronize_callback: SynchronizeCallback | None = None,
        track_callback: TrackCallback | None = None,
        *,
        level: str = "B.02",
        run_dir: Path | str | None = None,
    ) -> None:
        self._level: Final = checkpoints.level_of(level)
        self._open_callback: Final = open_callback
        self._synchronize_callback: Final = synchronize_callback
        self._track_callback: Final = track_callback
        self._queue: Final = CallbackQueue("ckpt")
        self._handles: Final = itertools.count(1)
        self._open_ones: Final[dict[int, Checkpoint]] = {}
        self._session: Final = Session(
            "ckpt",
            wire.TABLE,
            run_dir=run_dir,
            notified=self._notified,
            gone=self._queue.lost,
        )
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
        return self._opened(handle, opened)

    def _opened(self, handle: int, answer: wire.Opened) -> Checkpoint:
        calls = HandleCalls(handle, answer.attributes)
        opened = Checkpoint(self, self._session, self._queue, calls, created=answer.created)
        self._open_ones[handle] = opened
        return opened

    def forget(self, handle: int) -> None:
        """Tell no more of a checkpoint that is closed."""
        self._open_ones.pop(handle, None)

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
                opened = self._opened(handle, answer)
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
        self._session.call("unlink", wire.Unlink(checkpoints.name_key(name, "unlink")))

    def checkpoints(self) -> tuple[wire.CheckpointInfo, ...]:
        """Return what operators see of all checkpoints, by name."""
        answer: wire.Checkpoints = self._session.call("list", wire.CheckpointsGet())
        return answer.checkpoints

    def names(self, prefix: str | bytes = b"") -> Iterator[bytes]:
        """Iterate over the names of checkpoints that begin with a prefix (an extension)."""
        start = checkpoints.prefix_key(prefix)
        after, more = b"", True
        while more:
            part: wire.Names = self._session.call("names", wire.NamesGet(start, after))
            yield from part.names
            more = part.more
            after = part.names[-1] if part.names else b""

    def dump(self, name: str | bytes) -> Iterator[tuple[SectionDescriptor, bytes]]:
        """Iterate over the sections of a checkpoint with their data, for operators.

        Raises:
            AisError: ERR_NOT_EXIST; ERR_TRY_AGAIN, it changed between two parts of 64 MiB.
        """
        key = checkpoints.name_key(name, "dump")
        paging = Paging("ckpt.dump")
        while paging.more:
            yield from paging.take(self._dumped(key, paging))

    def _dumped(self, key: bytes, paging: Paging) -> wire.Dump:
        message = wire.CheckpointDump(key, paging.after, paging.offset)
        part: wire.Dump = self._session.call("dump", message)
        return part

    def dump_to(self, name: str | bytes, file: IO[bytes]) -> None:
        """Write a checkpoint to a file, for `restore` (an extension).

        Raises:
            AisError: as `dump`; what is in the file then is no whole dump.
        """
        key = checkpoints.name_key(name, "dump")
        paging = Paging("ckpt.dump")
        writer: dumpfile.Writer | None = None
        while paging.more:
            part = self._dumped(key, paging)
            whole = paging.take(part)
            if writer is None:
                header = dumpfile.Header(part.info.name, part.info.attributes)
                writer = dumpfile.Writer(file, header)
            for section, data in whole:
                writer.add(section, data)
        assert writer is not None, "there is a first part"
        writer.finish()

    def restore(
        self, file: IO[bytes], name: str | bytes | None = None, *, replace: bool = False
    ) -> Checkpoint:
        """Create a checkpoint from a file of `dump_to`; return it open (an extension).

        The file is read twice: nothing is done with one that is damaged. Sections whose time is
        over are left out. The sections come one by one; who opens the checkpoint meanwhile sees
        a part of them.

        Args:
            file: seekable.
            name: of the new checkpoint; None: the name it had.
            replace: one that has the name is unlinked before.

        Raises:
            DumpError: not a dump, or damaged.
            AisError: ERR_EXIST, and as `open` and `section_create`.
        """
        plan = dumpfile.plan(file, name)
        if replace:
            with contextlib.suppress(errors.NotExistError):
                self.unlink(plan.name)
        restored = self._create_new(plan.name, plan.attributes)
        for item in plan.items(time.time_ns()):
            for call in dumpfile.calls(restored.calls, item):
                restored.do(call)
        return restored

    def _create_new(self, key: bytes, attributes: Attributes) -> Checkpoint:
        created = self._open(key, attributes, READ_WRITE | OpenFlags.CREATE, CALL_TIMEOUT_NS)
        if not created.created:
            created.close()
            raise errors.ExistError("ckpt.restore", f"there is a checkpoint {key!r}")
        return created

    # Tracking (B.02.03)

    def track(self) -> None:
        """Begin to call the track callback with every change of what is or will be open here.

        Raises:
            AisError: ERR_VERSION at level B.01; ERR_INIT without a track callback.
        """
        self.check_tracking("track")
        self._session.call("track", wire.Track())

    def track_stop(self) -> None:
        """End `track`; what waits is dropped.

        Raises:
            AisError: ERR_NOT_EXIST, nothing is tracked.
        """
        self.check_tracking("track_stop")
        self._session.call("track_stop", wire.TrackStop())
        self._queue.drop(checkpoints.TRACK)

    def check_tracking(self, call: str) -> None:
        """Raise if this handle cannot track."""
        self._session.check(call)
        if self._level < Level.B_02:
            raise errors.VersionError(f"ckpt.{call}", "a function of level B.02")
        if self._track_callback is None:
            raise errors.InitError(f"ckpt.{call}", "no track_callback was given")

    def _notified(self, message: Any) -> None:
        if not isinstance(message, wire.Changed):
            return
        checkpoint = self._open_ones.get(message.handle)
        callback = self._track_callback
        size = sum(len(e.data or b"") for e in message.elements)
        full = len(self._queue) >= checkpoints.WAITING_MAX
        if checkpoint is None or full:
            return
        if self._queue.bytes_waiting + size > checkpoints.WAITING_BYTES_MAX:
            return  # the next one tells that this one was lost
        if message.watch != checkpoints.TRACK:
            checkpoint.changed(message, size)
        elif callback is not None:
            tracked = checkpoints.tracked(message)
            self._queue.push(lambda: callback(checkpoint, tracked), size, checkpoints.TRACK)

    @property
    def level(self) -> Level:
        """Level of this handle."""
        return self._level

    @property
    def version(self) -> Version:
        """The version that is served, whatever level was asked for."""
        return checkpoints.VERSION

    @property
    def synchronize_callback(self) -> SynchronizeCallback | None:
        """The callback given."""
        return self._synchronize_callback

    def fileno(self) -> int:
        """Return a descriptor that is readable while callbacks wait."""
        self._session.check_process("fileno")
        return self._queue.fileno()

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run the callbacks that wait, in this thread; return how many."""
        self._session.check_process("dispatch")
        return self._queue.dispatch(flags)

    def close(self) -> None:
        """Finalize: closes every checkpoint opened here. May be repeated."""
        self._session.close()
        self._queue.close()


class Watch:
    """A watch of sections; ended by `close`. Use as a context manager."""

    def __init__(
        self, checkpoint: Checkpoint, number: int, callback: Callable[[Change], None]
    ) -> None:
        self.follower: Final = Follower()
        self._checkpoint: Final = checkpoint
        self._number: Final = number
        self._callback: Final = callback
        self._closed = False

    def __enter__(self) -> Watch:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def run(self, change: Change) -> None:
        """Call back, unless the watch was closed meanwhile."""
        if not self._closed:
            self._callback(change)

    def close(self) -> None:
        """End the watch; what waits is not told. May be repeated."""
        if not self._closed:
            self._closed = True
            self._checkpoint.unwatch(self._number)


class Checkpoint:
    """One open checkpoint, also a mapping of section ids to data. Use as a context manager."""

    def __init__(
        self,
        client: Client,
        session: Session,
        queue: CallbackQueue,
        calls: HandleCalls,
        *,
        created: bool,
    ) -> None:
        self._client: Final = client
        self._session: Final = session
        self._queue: Final = queue
        self.calls: Final = calls
        self.created: Final = created  # by this open
        self._closed = False
        self._watches: Final = itertools.count(1)
        self._watching: Final[dict[int, Watch]] = {}

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
        return self.calls

    def do(self, call: Call, timeout_ns: int = CALL_TIMEOUT_NS) -> Any:
        """Do one request of `calls`; return the message that answers it."""
        return self._session.call(call.name, call.message, flags=call.flags, timeout_ns=timeout_ns)

    def status(self) -> Descriptor:
        """Return attributes and use (saCkptCheckpointStatusGet)."""
        return checkpoints.status(self.do(self._of("status").status()))

    def retention_duration_set(self, duration_ns: int) -> None:
        """Set how long the checkpoint is kept after its last close."""
        self.do(self._of("retention_duration_set").retention_duration_set(duration_ns))

    def active_replica_set(self) -> None:
        """Make the local node's replica the active one (collocated checkpoints)."""
        self.do(self._of("active_replica_set").active_replica_set())

    def section_create(
        self, section_id: SectionId | None = None, data: bytes = b"", expiration_time: int = NEVER
    ) -> bytes:
        """Create a section; None: the service chooses the id. Return the id."""
        call = self._of("section_create").section_create(section_id, data, expiration_time)
        created: wire.SectionCreated = self.do(call)
        return created.section_id

    def section_delete(self, section_id: SectionId, *, expected: bytes | None = None) -> None:
        """Delete a section; ``expected``: only if it has this version (an extension).

        Raises:
            FailedOperationError: it has another version.
        """
        calls = self._of("section_delete")
        if expected is None:
            self.do(calls.section_delete(section_id))
        else:
            self.do(calls.drop(section_id, expected))

    def section_expiration_time_set(self, section_id: SectionId, expiration_time: int) -> None:
        """Set when a section expires, in ns since 1970; NEVER cancels."""
        self.do(
            self._of("section_expiration_time_set").expiration_time_set(section_id, expiration_time)
        )

    def write(self, elements: Iterable[tuple[SectionId, int, bytes]]) -> None:
        """Write (section, offset, data) elements: all or none, in one step.

        Raises:
            AisError: its ``detail`` is `Erroneous` with the index of the element at fault.
        """
        self.do(self._of("write").write(elements))

    def overwrite(self, section_id: SectionId, data: bytes, *, create: bool = False) -> None:
        """Replace a section's whole content; ``create``: make it if it is not there."""
        self.do(self._of("overwrite").overwrite(section_id, data, create=create))

    def read(
        self, elements: Iterable[tuple[SectionId, int, int | None]], *, local: bool = False
    ) -> tuple[bytes, ...]:
        """Read (section, offset, size or None) elements of one consistent state.

        Args:
            elements: what to read.
            local: without a fence: own writes are seen, others' perhaps a little late.
        """
        answer: wire.ReadData = self.do(self._of("read").read(elements, local=local))
        return answer.parts

    def iterate(
        self, chosen: SectionsChosen | int = SectionsChosen.ANY, expiration_time: int = 0
    ) -> Iterator[SectionDescriptor]:
        """Iterate over sections as they are now; the set of ids is fixed at the call."""
        ids: wire.SectionIds = self.do(self._of("iterate").sections(chosen, expiration_time))
        return self._descriptors(ids.ids)

    def _descriptors(self, ids: tuple[bytes, ...]) -> Iterator[SectionDescriptor]:
        for section_id in ids:
            try:
                section = self.do(self._of("iterate").section(section_id))
            except errors.NotExistError:
                continue  # deleted meanwhile
            yield checkpoints.descriptor(section)

    def synchronize(self, timeout_ns: int = CALL_TIMEOUT_NS) -> None:
        """Wait until all replicas have all changes made before."""
        calls = self._of("synchronize")
        checkpoints.check_synchronize(timeout_ns)
        self.do(calls.synchronize(), timeout_ns)

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
            call = self.calls.close()
            self._closed = True
            self._client.forget(self.calls.handle)
            self._watching.clear()
            self._queue.drop(self)
            self._client_close(call)

    def _client_close(self, call: Call) -> None:
        try:
            self._session.call(call.name, call.message)
        except (errors.BadHandleError, errors.LibraryError, errors.UnavailableError):
            return  # the client was closed first, or the session is gone: so is this open

    # Extensions to the specification

    def read_version(self, section_id: SectionId) -> tuple[bytes, bytes]:
        """Read a whole section; return data and version."""
        answer: wire.ReadData = self.do(self._of("read").read_versions(section_id))
        return answer.parts[0], answer.versions[0]

    def put(
        self,
        section_id: SectionId,
        data: bytes,
        *,
        expected: bytes | None = None,
        ttl_ns: int | None = None,
    ) -> bytes:
        """Create a section or replace its content, in one step; return its new version.

        Args:
            section_id: the section.
            data: its content.
            expected: only if this is its version; b"": only if there is no such section.
            ttl_ns: let it expire so long after the write; None: expiry stays as it is.

        Raises:
            FailedOperationError: another version; ``detail.version`` tells which.
        """
        call = self._of("put").put(section_id, data, expected, ttl_ns)
        done: wire.SectionPutDone = self.do(call)
        return done.version

    def ttl_set(self, section_id: SectionId, ttl_ns: int) -> None:
        """Let a section expire so long after this."""
        self.do(self._of("ttl_set").ttl_set(section_id, ttl_ns))

    def items(self, prefix: SectionId = b"") -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the sections that begin with a prefix, ids and data, of one state.

        Raises:
            TryAgainError: over 64 MiB, and changed while it was read.
        """
        calls = self._of("items")
        paging = Paging("ckpt.items")
        while paging.more:
            part: wire.Dump = self.do(calls.items(prefix, paging.after, paging.offset))
            yield from ((section.section_id, data) for section, data in paging.take(part))

    def watch(
        self,
        callback: Callable[[Change], None],
        *,
        section_id: SectionId | None = None,
        prefix: SectionId = b"",
        data_size_max: int = wire.WATCH_DATA_MAX,
    ) -> Watch:
        """Call back, by `Client.dispatch`, with every change of sections.

        Changes come in order, each once, also those made here; `Change.lost` tells how many
        before it were dropped because too many waited.

        Args:
            callback: called with each change.
            section_id: of the only one to watch.
            prefix: else all that begin with it.
            data_size_max: bytes; larger data are not told with the change.
        """
        calls = self._of("watch")
        number = next(self._watches)
        call = calls.watch(number, section_id, prefix, data_size_max)
        watch = Watch(self, number, callback)
        self._watching[number] = watch
        try:
            self.do(call)
        except AisError:
            self._watching.pop(number, None)
            raise
        return watch

    def changed(self, message: wire.Changed, size: int) -> None:
        """Let a change wait for dispatch; called in the background thread."""
        watch = self._watching.get(message.watch)
        if watch is not None:
            change = watch.follower.take(message)
            self._queue.push(lambda: watch.run(change), size, self)

    def unwatch(self, number: int) -> None:
        """End a watch."""
        self._watching.pop(number, None)
        if not self._closed:
            with contextlib.suppress(errors.NotExistError):
                self.do(self._of("unwatch").unwatch(number))

    def map(self, ttl_ns: int | None = None) -> SectionMap:
        """Return the sections as a dict; with ``ttl_ns`` what is set expires after that time."""
        return SectionMap(self, ttl_ns)

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
        ids: wire.SectionIds = self.do(self._of("iterate").sections(SectionsChosen.ANY, 0))
        return iter(ids.ids)

    def __contains__(self, section_id: SectionId) -> bool:
        """True: there is such a section."""
        try:
            self.do(self._of("iterate").section(checkpoints.section_key("contains", section_id)))
        except errors.NotExistError:
            return False
        return True

    def __len__(self) -> int:
        """Return the number of sections."""
        return self.status().number_of_sections
