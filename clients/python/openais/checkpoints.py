"""What `openais.ckpt` and `openais.aio.ckpt` share: arguments to requests, answers to values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from openais import errors, levels
from openais.levels import Version
from openais.wire import ckpt as wire
from openais.wire.ckpt import (
    Attributes,
    ChangedElement,
    ChangeKind,
    CreationFlags,
    Level,
    OpenFlags,
    SectionsChosen,
    SectionState,
)
from openais.wire.session import RequestFlag
from openais.wire.status import ONE_SECOND_NS, TIME_END

DEFAULT_ATTRIBUTES: Final = Attributes(
    creation_flags=CreationFlags.WR_ALL_REPLICAS,
    checkpoint_size=1 << 20,
    retention_duration=3600 * ONE_SECOND_NS,
    max_sections=1024,
    max_section_size=1 << 20,
    max_section_id_size=256,
)
READ_WRITE: Final = OpenFlags.READ | OpenFlags.WRITE
VERSION: Final = Version("B", 2, 3)  # served, from B.01 on

DELETED_OFFSET: Final = (1 << 63) - 1
TRACK: Final = 0  # the watch that tracking is
WAITING_MAX: Final = 65_536  # changes that wait for dispatch; what comes then is lost
WAITING_BYTES_MAX: Final = 64 << 20
ATTEMPTS_MAX: Final = 100  # to change what others change at the same time

SectionId = bytes | str


@dataclass(frozen=True, slots=True)
class SectionDescriptor:
    """One section (SaCkptSectionDescriptorT). Times in ns since 1970, sizes in bytes."""

    section_id: bytes
    expiration_time: int  # TIME_END: never
    size: int
    state: SectionState
    last_update: int
    version: bytes = b""  # changes with every change of the content (an extension)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One checkpoint (SaCkptCheckpointDescriptorT)."""

    attributes: Attributes
    number_of_sections: int
    memory_used: int  # bytes of data


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch tells: one operation on sections (an extension)."""

    kind: ChangeKind
    elements: tuple[ChangedElement, ...]  # of the sections watched; none with REPLACED
    version: bytes  # of the sections afterwards
    lost: int  # changes before this one that were not told, because too many waited


@dataclass(frozen=True, slots=True)
class TrackElement:
    """What tracking tells of one section (SaCkptIOVectorElementT, without data)."""

    section_id: bytes
    offset: int  # DELETED_OFFSET: the section is gone
    size: int  # bytes written


class Follower:
    """The client's end of a watch."""

    def __init__(self) -> None:
        self._number = 0

    def take(self, changed: wire.Changed) -> Change:
        """Return what the application sees, and how much it did not."""
        lost = max(changed.number - self._number - 1, 0)
        self._number = changed.number
        return Change(changed.kind, changed.elements, changed.version, lost)


def tracked(changed: wire.Changed) -> tuple[TrackElement, ...]:
    """Return the elements of a track callback."""
    gone = changed.kind in (ChangeKind.DELETED, ChangeKind.EXPIRED)
    return tuple(
        TrackElement(e.section_id, DELETED_OFFSET if gone else e.offset, e.size)
        for e in changed.elements
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its name in errors, message, flags."""

    name: str
    message: Any
    flags: int = 0


def octets(call: str, what: str, value: object) -> bytes:
    """Return the bytes of an argument.

    Raises:
        InvalidParamError: no bytes.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    rule = f"{what}: bytes, not {type(value).__name__}"
    raise errors.InvalidParamError(f"ckpt.{call}", rule)


def _text(call: str, what: str, value: object) -> bytes:
    """Return the bytes of an argument that may be text."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return octets(call, what, value)


def section_key(call: str, section_id: SectionId) -> bytes:
    """Return the bytes of a section's id.

    Raises:
        InvalidParamError: no bytes, or longer than any checkpoint allows.
    """
    key = _text(call, "section id", section_id)
    if len(key) > wire.SECTION_ID_SIZE_MAX:
        rule = f"section id: at most {wire.SECTION_ID_SIZE_MAX} bytes, not {len(key)}"
        raise errors.InvalidParamError(f"ckpt.{call}", rule)
    return key


def name_key(name: str | bytes, call: str) -> bytes:
    """Return the bytes of a checkpoint's name.

    Raises:
        InvalidParamError: no bytes, empty, or longer than 256 bytes.
    """
    key = _text(call, "name", name)
    if not 0 < len(key) <= wire.NAME_SIZE_MAX:
        rule = f"name: 1..{wire.NAME_SIZE_MAX} bytes, not {len(key)}"
        raise errors.InvalidParamError(f"ckpt.{call}", rule)
    return key


def prefix_key(prefix: str | bytes) -> bytes:
    """Return the bytes of the prefix of a name."""
    return _text("names", "prefix", prefix)


def _number(call: str, what: str, value: int, maximum: int) -> int:
    if not 0 <= value <= maximum:
        raise errors.InvalidParamError(f"ckpt.{call}", f"{what}: 0..{maximum}, not {value}")
    return value


def level_of(asked: str) -> Level:
    """Return the level of a handle that asks for one like ``B.02``.

    Raises:
        VersionError: not served; its ``detail`` is the version that is.
    """
    return Level(levels.negotiate("ckpt.initialize", asked, VERSION))


def check_open(
    name: str | bytes,
    attributes: Attributes | None,
    flags: int,
    timeout_ns: int,
    level: Level,
) -> bytes:
    """Check the arguments of open; return the name.

    Raises:
        AisError: ERR_BAD_FLAGS, ERR_INVALID_PARAM, ERR_TIMEOUT.
    """
    key = name_key(name, "open")
    broken = None if attributes is None else wire.attributes_rule(attributes)
    if broken is not None:
        raise errors.InvalidParamError("ckpt.open", broken)
    if timeout_ns < 0:
        raise errors.InvalidParamError("ckpt.open", "timeout_ns >= 0")
    if flags & ~7 or not flags:
        raise errors.BadFlagsError("ckpt.open", f"flags {int(flags):#x}")
    if bool(flags & OpenFlags.CREATE) != (attributes is not None):
        rule = "attributes are given with CREATE, and only then"
        raise errors.InvalidParamError("ckpt.open", rule)
    if timeout_ns == 0 and level >= Level.B_02:
        raise errors.AisTimeoutError("ckpt.open", "timeout_ns is 0")
    return key


def check_synchronize(timeout_ns: int) -> None:
    """Check the argument of synchronize.

    Raises:
        AisError: ERR_INVALID_PARAM, ERR_TIMEOUT.
    """
    if timeout_ns < 0:
        raise errors.InvalidParamError("ckpt.synchronize", "timeout_ns >= 0")
    if timeout_ns == 0:
        raise errors.AisTimeoutError("ckpt.synchronize", "timeout_ns is 0")


class HandleCalls:
    """Requests through one open checkpoint.

    Args:
        handle: of the open.
        attributes: of the checkpoint.
    """

    def __init__(self, handle: int, attributes: Attributes) -> None:
        self.handle: Final = handle
        safe = attributes.creation_flags & CreationFlags.WR_ALL_REPLICAS
        self._flags: Final = int(RequestFlag.SAFE if safe else RequestFlag.NONE)

    def _change(self, name: str, message: Any) -> Call:
        return Call(name, message, self._flags)

    def close(self) -> Call:
        """Close."""
        return Call("close", wire.Close(self.handle))

    def status(self) -> Call:
        """StatusGet."""
        return Call("status", wire.StatusGet(self.handle))

    def retention_duration_set(self, duration_ns: int) -> Call:
        """RetentionDurationSet."""
        _number("retention_duration_set", "duration_ns", duration_ns, TIME_END)
        message = wire.RetentionDurationSet(self.handle, duration_ns)
        return self._change("retention_duration_set", message)

    def active_replica_set(self) -> Call:
        """ActiveReplicaSet."""
        return self._change("active_replica_set", wire.ActiveReplicaSet(self.handle))

    def section_create(
        self, section_id: SectionId | None, data: bytes, expiration_time: int
    ) -> Call:
        """SectionCreate."""
        key = None if section_id is None else section_key("section_create", section_id)
        _number("section_create", "expiration_time", expiration_time, TIME_END)
        message = wire.SectionCreate(
            self.handle, key, expiration_time, _sized("section_create", data)
        )
        return self._change("section_create", message)

    def section_delete(self, section_id: SectionId) -> Call:
        """SectionDelete."""
        message = wire.SectionDelete(self.handle, section_key("section_delete", section_id))
        return self._change("section_delete", message)

    def expiration_time_set(self, section_id: SectionId, expiration_time: int) -> Call:
        """SectionExpirationTimeSet."""
        _number("section_expiration_time_set", "expiration_time", expiration_time, TIME_END)
        message = wire.SectionExpirationTimeSet(
            self.handle, section_key("section_expiration_time_set", section_id), expiration_time
        )
        return self._change("section_expiration_time_set", message)

    def write(self, elements: Iterable[tuple[SectionId, int, bytes]]) -> Call:
        """CheckpointWrite of (section, offset, data)."""
        parts = tuple(_write_element(*element) for element in _listed("write", elements))
        _check_total("write", sum(len(p.data) for p in parts))
        return self._change("write", wire.Write(self.handle, parts))

    def overwrite(self, section_id: SectionId, data: bytes, *, create: bool) -> Call:
        """SectionOverwrite."""
        key = section_key("overwrite", section_id)
        message = wire.SectionOverwrite(self.handle, key, _sized("overwrite", data), create)
        return self._change("overwrite", message)

    def read(self, elements: Iterable[tuple[SectionId, int, int | None]], *, local: bool) -> Call:
        """CheckpointRead of (section, offset, size)."""
        parts = tuple(_read_element(*element) for element in _listed("read", elements))
        flags = int(RequestFlag.LOCAL if local else RequestFlag.NONE)
        return Call("read", wire.Read(self.handle, parts), flags)

    def sections(self, chosen: SectionsChosen | int, expiration_time: int) -> Call:
        """SectionIterationInitialize."""
        if chosen not in set(SectionsChosen):
            rule = f"no SectionsChosen has the value {chosen!r}"
            raise errors.InvalidParamError("ckpt.iterate", rule)
        timed = (SectionsChosen.LEQ_EXPIRATION_TIME, SectionsChosen.GEQ_EXPIRATION_TIME)
        at_ns = 0
        if chosen in timed:  # elsewhere it is ignored
            at_ns = _number("iterate", "expiration_time", expiration_time, TIME_END)
        return Call("iterate", wire.SectionsGet(self.handle, SectionsChosen(chosen), at_ns))

    def section(self, section_id: bytes) -> Call:
        """SectionIterationNext."""
        return Call("iterate", wire.SectionGet(self.handle, section_id))

    def synchronize(self) -> Call:
        """CheckpointSynchronize."""
        return Call("synchronize", wire.Synchronize(self.handle), int(RequestFlag.SAFE))

    # Extensions

    def read_versions(self, section_id: SectionId) -> Call:
        """Read a section with its version."""
        parts = (_read_element(section_id, 0, None),)
        return Call("read", wire.Read(self.handle, parts, versions=True))

    def put(
        self, section_id: SectionId, data: bytes, expected: bytes | None, ttl_ns: int | None
    ) -> Call:
        """Create a section or replace its content."""
        key = section_key("put", section_id)
        if ttl_ns is not None:
            _number("put", "ttl_ns", ttl_ns, TIME_END)
        if expected is not None:
            expected = octets("put", "expected", expected)
        message = wire.SectionPut(self.handle, key, _sized("put", data), expected, ttl_ns)
        return self._change("put", message)

    def drop(self, section_id: SectionId, expected: bytes) -> Call:
        """Delete a section that has the version expected."""
        key = section_key("section_delete", section_id)
        version = octets("section_delete", "expected", expected)
        return self._change("section_delete", wire.SectionDrop(self.handle, key, version))

    def ttl_set(self, section_id: SectionId, ttl_ns: int) -> Call:
        """Let a section expire so long after this."""
        key = section_key("ttl_set", section_id)
        _number("ttl_set", "ttl_ns", ttl_ns, TIME_END)
        return self._change("ttl_set", wire.SectionTtlSet(self.handle, key, ttl_ns))

    def items(self, prefix: SectionId, after: int, offset: int) -> Call:
        """Read the sections that begin with a prefix."""
        key = section_key("items", prefix)
        return Call("items", wire.ItemsGet(self.handle, key, after, offset))

    def watch(
        self,
        watch: int,
        section_id: SectionId | None,
        prefix: SectionId,
        data_size_max: int,
    ) -> Call:
        """Begin a watch."""
        _number("watch", "data_size_max", data_size_max, wire.WATCH_DATA_MAX)
        key = None if section_id is None else section_key("watch", section_id)
        start = section_key("watch", prefix)
        return Call("watch", wire.Watch(self.handle, watch, key, start, data_size_max))

    def unwatch(self, watch: int) -> Call:
        """End a watch."""
        return Call("unwatch", wire.Unwatch(self.handle, watch))


class Paging:
    """Puts the parts of a dump together; knows what to ask for next.

    The parts of one checkpoint are read one after the other, so it may change between them.
    """

    def __init__(self, call: str) -> None:
        self._call: Final = call
        self._state: tuple[bytes, int] | None = None  # uid, mutations
        self._cut: list[bytes] = []
        self.info: wire.CheckpointInfo | None = None  # of the first part
        self.after = 0
        self.offset = 0
        self.more = True

    def take(self, part: wire.Dump) -> list[tuple[SectionDescriptor, bytes]]:
        """Take a part; return the sections that are whole now.

        Raises:
            TryAgainError: the checkpoint changed between two parts.
        """
        state = (part.info.uid, part.info.mutations)
        if self._state not in (None, state):
            raise errors.TryAgainError(self._call, "the checkpoint changed while it was read")
        self._state = state
        self.info = self.info or part.info
        self.more = part.more
        whole: list[tuple[SectionDescriptor, bytes]] = []
        for item in part.sections:
            self._cut.append(item.data)
            self.offset += len(item.data)
            if self.offset >= item.section.size:
                whole.append((descriptor(item.section), b"".join(self._cut)))
                self._cut.clear()
                self.after += 1
                self.offset = 0
        return whole


def _listed(call: str, elements: Iterable[Any]) -> tuple[Any, ...]:
    if elements is None:
        raise errors.InvalidParamError(f"ckpt.{call}", "there are no elements")
    listed = tuple(elements)
    if not 0 < len(listed) <= wire.ELEMENTS_MAX:
        rule = f"elements: 1..{wire.ELEMENTS_MAX}, not {len(listed)}"
        raise errors.InvalidParamError(f"ckpt.{call}", rule)
    return listed


def _write_element(section_id: SectionId, offset: int, data: bytes) -> wire.WriteElement:
    _number("write", "offset", offset, wire.SIZE_MAX)
    return wire.WriteElement(
        section_key("write", section_id), offset, octets("write", "data", data)
    )


def _read_element(section_id: SectionId, offset: int, size: int | None) -> wire.ReadElement:
    if size is not None:
        _number("read", "size", size, wire.SIZE_MAX)
    _number("read", "offset", offset, wire.SIZE_MAX)
    return wire.ReadElement(section_key("read", section_id), offset, size)


def _sized(call: str, value: bytes) -> bytes:
    data = octets(call, "data", value)
    _check_total(call, len(data))
    return data


def _check_total(call: str, size: int) -> None:
    if size > wire.CALL_SIZE_MAX:
        rule = f"{size} bytes in one call, limit {wire.CALL_SIZE_MAX}"
        raise errors.NoResourcesError(f"ckpt.{call}", rule)


def descriptor(section: wire.Section) -> SectionDescriptor:
    """Return a section as the application sees it."""
    return SectionDescriptor(
        section.section_id,
        section.expiration_ns,
        section.size,
        section.state,
        section.last_update_ns,
        section.version,
    )


def status(answer: wire.CheckpointStatus) -> Descriptor:
    """Return a checkpoint as the application sees it."""
    return Descriptor(answer.attributes, answer.number_of_sections, answer.memory_used)


NEVER: Final = TIME_END
