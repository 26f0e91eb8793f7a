"""What `openais.ckpt` and `openais.aio.ckpt` share: arguments to requests, answers to values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from openais import errors
from openais.wire import ckpt as wire
from openais.wire.ckpt import (
    Attributes,
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
LEVELS: Final = {"B.01": Level.B_01, "B.02": Level.B_02}

SectionId = bytes | str


@dataclass(frozen=True, slots=True)
class SectionDescriptor:
    """One section (SaCkptSectionDescriptorT). Times in ns since 1970, sizes in bytes."""

    section_id: bytes
    expiration_time: int  # TIME_END: never
    size: int
    state: SectionState
    last_update: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One checkpoint (SaCkptCheckpointDescriptorT)."""

    attributes: Attributes
    number_of_sections: int
    memory_used: int  # bytes of data


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its name in errors, message, flags."""

    name: str
    message: Any
    flags: int = 0


def section_key(section_id: SectionId) -> bytes:
    """Return the bytes of a section's id.

    Raises:
        InvalidParamError: longer than any checkpoint allows.
    """
    key = section_id.encode() if isinstance(section_id, str) else section_id
    if len(key) > wire.SECTION_ID_SIZE_MAX:
        rule = f"section id: at most {wire.SECTION_ID_SIZE_MAX} bytes, not {len(key)}"
        raise errors.InvalidParamError("ckpt.section", rule)
    return key


def name_key(name: str | bytes, call: str) -> bytes:
    """Return the bytes of a checkpoint's name.

    Raises:
        InvalidParamError: empty, or longer than 256 bytes.
    """
    key = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    if not 0 < len(key) <= wire.NAME_SIZE_MAX:
        rule = f"name: 1..{wire.NAME_SIZE_MAX} bytes, not {len(key)}"
        raise errors.InvalidParamError(call, rule)
    return key


def _number(call: str, what: str, value: int, maximum: int) -> int:
    if not 0 <= value <= maximum:
        raise errors.InvalidParamError(f"ckpt.{call}", f"{what}: 0..{maximum}, not {value}")
    return value


def level_of(name: str) -> Level:
    """Return the level of a name like ``B.02``.

    Raises:
        VersionError: unknown.
    """
    if name not in LEVELS:
        raise errors.VersionError("ckpt.open", f'level "{name}", known: {", ".join(LEVELS)}')
    return LEVELS[name]


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
    key = name_key(name, "ckpt.open")
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
        key = None if section_id is None else section_key(section_id)
        _number("section_create", "expiration_time", expiration_time, TIME_END)
        message = wire.SectionCreate(self.handle, key, expiration_time, _sized(data))
        return self._change("section_create", message)

    def section_delete(self, section_id: SectionId) -> Call:
        """SectionDelete."""
        message = wire.SectionDelete(self.handle, section_key(section_id))
        return self._change("section_delete", message)

    def expiration_time_set(self, section_id: SectionId, expiration_time: int) -> Call:
        """SectionExpirationTimeSet."""
        _number("section_expiration_time_set", "expiration_time", expiration_time, TIME_END)
        message = wire.SectionExpirationTimeSet(
            self.handle, section_key(section_id), expiration_time
        )
        return self._change("section_expiration_time_set", message)

    def write(self, elements: Iterable[tuple[SectionId, int, bytes]]) -> Call:
        """CheckpointWrite of (section, offset, data)."""
        parts = tuple(
            wire.WriteElement(section_key(s), _number("write", "offset", o, wire.SIZE_MAX), d)
            for s, o, d in elements
        )
        _check_total(sum(len(p.data) for p in parts))
        return self._change("write", wire.Write(self.handle, parts))

    def overwrite(self, section_id: SectionId, data: bytes, *, create: bool) -> Call:
        """SectionOverwrite."""
        message = wire.SectionOverwrite(self.handle, section_key(section_id), _sized(data), create)
        return self._change("overwrite", message)

    def read(self, elements: Iterable[tuple[SectionId, int, int | None]], *, local: bool) -> Call:
        """CheckpointRead of (section, offset, size)."""
        parts = tuple(_read_element(*element) for element in elements)
        flags = int(RequestFlag.LOCAL if local else RequestFlag.NONE)
        return Call("read", wire.Read(self.handle, parts), flags)

    def sections(self, chosen: SectionsChosen, expiration_time: int) -> Call:
        """SectionIterationInitialize."""
        if chosen not in set(SectionsChosen):
            rule = f"no SectionsChosen has the value {int(chosen)}"
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


def _read_element(section_id: SectionId, offset: int, size: int | None) -> wire.ReadElement:
    if size is not None:
        _number("read", "size", size, wire.SIZE_MAX)
    _number("read", "offset", offset, wire.SIZE_MAX)
    return wire.ReadElement(section_key(section_id), offset, size)


def _sized(data: bytes) -> bytes:
    _check_total(len(data))
    return data


def _check_total(size: int) -> None:
    if size > wire.CALL_SIZE_MAX:
        rule = f"{size} bytes in one call, limit {wire.CALL_SIZE_MAX}"
        raise errors.NoResourcesError("ckpt.write", rule)


def descriptor(section: wire.Section) -> SectionDescriptor:
    """Return a section as the application sees it."""
    return SectionDescriptor(
        section.section_id,
        section.expiration_ns,
        section.size,
        section.state,
        section.last_update_ns,
    )


def status(answer: wire.CheckpointStatus) -> Descriptor:
    """Return a checkpoint as the application sees it."""
    return Descriptor(answer.attributes, answer.number_of_sections, answer.memory_used)


NEVER: Final = TIME_END
