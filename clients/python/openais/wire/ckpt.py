"""The protocol of the checkpoint service (SAI-AIS-CKPT)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final

from openais.wire.codec import Table
from openais.wire.status import TIME_END

VERSION: Final = 2
VERSION_MIN: Final = 2  # 1 had no versions of sections in its state

NAME_SIZE_MAX: Final = 256  # bytes
ELEMENTS_MAX: Final = 65_535  # of one read or write
CALL_SIZE_MAX: Final = 64 << 20  # bytes of data in one call
SECTIONS_MAX: Final = 1_000_000  # of one checkpoint
SECTION_ID_SIZE_MAX: Final = 65_535  # bytes, whatever a checkpoint allows
MEMORY_MAX: Final = 2 << 30  # bytes that all checkpoints take on each node, with what manages them
CHECKPOINTS_MAX: Final = 20_000
OPENS_PER_SESSION_MAX: Final = 10_000
WATCHES_PER_OPEN_MAX: Final = 64
WATCH_DATA_MAX: Final = 64 << 10  # bytes of data told with a change
NAMES_MAX: Final = 4096  # of one listing
VERSION_SIZE_MAX: Final = 64  # bytes of the version of a section
SIZE_MAX: Final = (1 << 64) - 1  # SaSizeT
COUNT_MAX: Final = (1 << 32) - 1  # SaUint32T


class Level(IntEnum):
    """Edition of the specification a handle was opened with."""

    B_01 = 1
    B_02 = 2


class CreationFlags(IntFlag):
    """How a checkpoint is replicated: one of the first three, and COLLOCATED."""

    WR_ALL_REPLICAS = 0x1
    WR_ACTIVE_REPLICA = 0x2
    WR_ACTIVE_REPLICA_WEAK = 0x4
    COLLOCATED = 0x8


class OpenFlags(IntFlag):
    """What a handle may do."""

    READ = 0x1
    WRITE = 0x2
    CREATE = 0x4


class SectionsChosen(IntEnum):
    """Which sections an iteration shows."""

    FOREVER = 1
    LEQ_EXPIRATION_TIME = 2
    GEQ_EXPIRATION_TIME = 3
    CORRUPTED = 4
    ANY = 5


class SectionState(IntEnum):
    """SaCkptSectionStateT."""

    VALID = 1
    CORRUPTED = 2


class ChangeKind(IntEnum):
    """What happened to sections that are watched (an extension)."""

    CREATED = 1
    WRITTEN = 2
    OVERWRITTEN = 3
    DELETED = 4
    EXPIRED = 5
    REPLACED = 6  # a merge brought other content: read again


@dataclass(frozen=True, slots=True)
class Attributes:
    """Creation attributes (SaCkptCheckpointCreationAttributesT). Sizes in bytes, times in ns."""

    creation_flags: int
    checkpoint_size: int  # planned sum of all sections; a hint
    retention_duration: int  # after the last close; TIME_END: for ever
    max_sections: int  # 1: the default section only
    max_section_size: int
    max_section_id_size: int


WRITE_MODES: Final = frozenset(
    {
        CreationFlags.WR_ALL_REPLICAS,
        CreationFlags.WR_ACTIVE_REPLICA,
        CreationFlags.WR_ACTIVE_REPLICA_WEAK,
    }
)


def attributes_rule(a: Attributes) -> str | None:
    """Return the rule that creation attributes break; None: none."""
    mode = a.creation_flags & ~CreationFlags.COLLOCATED
    rules = (
        (mode in WRITE_MODES, "creation_flags: exactly one write mode, and COLLOCATED"),
        (1 <= a.max_sections <= COUNT_MAX, "max_sections: 1..2^32-1"),
        (1 <= a.max_section_size <= SIZE_MAX, "max_section_size: 1..2^64-1"),
        (
            min(a.max_sections - 1, 1) <= a.max_section_id_size <= SIZE_MAX,
            "max_section_id_size: 1..2^64-1, or 0 where max_sections is 1",
        ),
        (0 <= a.retention_duration <= TIME_END, "retention_duration: 0..2^63-1"),
        (
            0 <= a.checkpoint_size <= min(SIZE_MAX, a.max_sections * a.max_section_size),
            "checkpoint_size <= max_sections * max_section_size",
        ),
    )
    return next((rule for holds, rule in rules if not holds), None)


# From a client. ``handle`` is chosen by the client, unique in its session.


@dataclass(frozen=True, slots=True)
class Open:
    """Ordered. Open or create a checkpoint; answered by `Opened`."""

    handle: int
    name: bytes
    flags: int  # OpenFlags
    attributes: Attributes | None  # with CREATE, and only then
    level: Level


@dataclass(frozen=True, slots=True)
class Close:
    """Ordered. No result."""

    handle: int


@dataclass(frozen=True, slots=True)
class Unlink:
    """Ordered. Take a checkpoint's name away; no result."""

    name: bytes


@dataclass(frozen=True, slots=True)
class RetentionDurationSet:
    """Ordered. No result."""

    handle: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class ActiveReplicaSet:
    """Ordered. Make the replica of the caller's node the active one; no result."""

    handle: int


@dataclass(frozen=True, slots=True)
class StatusGet:
    """Read. Answered by `CheckpointStatus`."""

    handle: int


@dataclass(frozen=True, slots=True)
class SectionCreate:
    """Ordered. Answered by `SectionCreated`. ``section_id`` None: the service generates one."""

    handle: int
    section_id: bytes | None
    expiration_ns: int  # wall clock; TIME_END: never
    data: bytes


@dataclass(frozen=True, slots=True)
class SectionDelete:
    """Ordered. No result."""

    handle: int
    section_id: bytes


@dataclass(frozen=True, slots=True)
class SectionExpirationTimeSet:
    """Ordered. No result."""

    handle: int
    section_id: bytes
    expiration_ns: int


@dataclass(frozen=True, slots=True)
class WriteElement:
    """Write ``data`` from ``offset`` on; a gap before it is filled with zeros."""

    section_id: bytes  # b"" is the default section
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """Ordered. All elements or none; no result, an error may answer `Erroneous`."""

    handle: int
    elements: tuple[WriteElement, ...]


@dataclass(frozen=True, slots=True)
class SectionOverwrite:
    """Ordered. Replace a section's whole content; no result.

    ``create``: an absent section is created, never to expire (an extension).
    """

    handle: int
    section_id: bytes
    data: bytes
    create: bool = False


@dataclass(frozen=True, slots=True)
class ReadElement:
    """Read from ``offset`` at most ``size`` bytes; None: to the end."""

    section_id: bytes
    offset: int
    size: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """Read. One consistent state; answered by `ReadData`, an error may answer `Erroneous`.

    ``versions``: the answer tells the versions of the sections too (an extension).
    """

    handle: int
    elements: tuple[ReadElement, ...]
    versions: bool = False


@dataclass(frozen=True, slots=True)
class SectionsGet:
    """Read. The ids of the chosen sections in creation order; answered by `SectionIds`."""

    handle: int
    chosen: SectionsChosen
    expiration_ns: int


@dataclass(frozen=True, slots=True)
class SectionGet:
    """Read. One section; answered by `Section`."""

    handle: int
    section_id: bytes


@dataclass(frozen=True, slots=True)
class Synchronize:
    """Ordered, with safe delivery: everything before it is on all replicas; no result."""

    handle: int


@dataclass(frozen=True, slots=True)
class CheckpointsGet:
    """Read. All checkpoints, for operators; answered by `Checkpoints`."""


@dataclass(frozen=True, slots=True)
class CheckpointDump:
    """Read. The sections of a linked checkpoint with data, for operators; answered by `Dump`.

    At most CALL_SIZE_MAX bytes of data, beginning after section number ``after``, at ``offset``
    of the next. The last section of an answer may be cut.
    """

    name: bytes
    after: int = 0
    offset: int = 0


# From a client, extensions to the specification


@dataclass(frozen=True, slots=True)
class SectionPut:
    """Ordered. Create a section or replace its content; answered by `SectionPutDone`.

    Where ``expected`` is not the section's version, nothing is done: ERR_FAILED_OPERATION with
    `Differs`.
    """

    handle: int
    section_id: bytes
    data: bytes
    expected: bytes | None = None  # None: any; b"": there must be no such section
    ttl_ns: int | None = None  # expires so long after the write; None: expiry stays as it is


@dataclass(frozen=True, slots=True)
class SectionDrop:
    """Ordered. Delete a section if it has this version; no result, else as `SectionPut`."""

    handle: int
    section_id: bytes
    expected: bytes


@dataclass(frozen=True, slots=True)
class SectionTtlSet:
    """Ordered. Let a section expire so long after this; no result."""

    handle: int
    section_id: bytes
    ttl_ns: int


@dataclass(frozen=True, slots=True)
class ItemsGet:
    """Read. Sections that begin with a prefix, with data; answered by `Dump`, in parts like it."""

    handle: int
    prefix: bytes
    after: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class NamesGet:
    """Read. Linked checkpoints whose name begins with a prefix; answered by `Names`."""

    prefix: bytes
    after: bytes = b""  # the last name of the part before


@dataclass(frozen=True, slots=True)
class Watch:
    """Ordered. Tell changes of sections by `Changed`; no result.

    ``watch`` is chosen by the client, from 1 on, unique in the handle.
    """

    handle: int
    watch: int
    section_id: bytes | None  # None: all that begin with the prefix
    prefix: bytes
    data_size_max: int  # bytes of data told with a change; what is larger is told without


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Ordered. End a watch; no result."""

    handle: int
    watch: int


@dataclass(frozen=True, slots=True)
class Track:
    """Ordered. Watch 0 on all that this session has open or opens; no result."""


@dataclass(frozen=True, slots=True)
class TrackStop:
    """Ordered. End what `Track` began; no result."""


# To a client


@dataclass(frozen=True, slots=True)
class Opened:
    """The checkpoint is open."""

    attributes: Attributes
    created: bool


@dataclass(frozen=True, slots=True)
class CheckpointStatus:
    """SaCkptCheckpointDescriptorT."""

    attributes: Attributes  # with the present retention duration
    number_of_sections: int
    memory_used: int  # bytes of data


@dataclass(frozen=True, slots=True)
class SectionCreated:
    """The id of the new section."""

    section_id: bytes


@dataclass(frozen=True, slots=True)
class Erroneous:
    """Index of the element that was at fault."""

    index: int
    rule: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return what a person reads in an error."""
        return f"element {self.index}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The rule that a request breaks, for people."""

    rule: str

    def __str__(self) -> str:
        """Return what a person reads in an error."""
        return self.rule


@dataclass(frozen=True, slots=True)
class ReadData:
    """What was read, one per element."""

    parts: tuple[bytes, ...]
    versions: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SectionIds:
    """Ids of sections in creation order."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """SaCkptSectionDescriptorT."""

    section_id: bytes
    expiration_ns: int
    size: int
    state: SectionState
    last_update_ns: int
    version: bytes = b""  # of its last change


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What operators see of a checkpoint."""

    name: bytes
    linked: bool
    attributes: Attributes
    creation_ns: int
    sections: int
    used_size: int  # bytes
    opens: int
    readers: int
    writers: int
    active_node: int  # 0: none, or not applicable
    deadline_ns: int  # of the retention; 0: open, or kept for ever
    uid: bytes = b""  # of the instance; a name may come again, an uid never
    mutations: int = 0  # changes of its content and attributes so far


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """All checkpoints by name."""

    checkpoints: tuple[CheckpointInfo, ...]


@dataclass(frozen=True, slots=True)
class SectionDump:
    """A section with its data, or a part of it."""

    section: Section
    data: bytes


@dataclass(frozen=True, slots=True)
class Dump:
    """Part of a checkpoint; ``more`` sections follow."""

    info: CheckpointInfo
    sections: tuple[SectionDump, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class SectionPutDone:
    """The version that the section has now."""

    version: bytes


@dataclass(frozen=True, slots=True)
class Differs:
    """The version that a section has, which is not the one expected; b"": there is none."""

    version: bytes

    def __str__(self) -> str:
        """Return what a person reads in an error."""
        return "the section has another version" if self.version else "there is no such section"


@dataclass(frozen=True, slots=True)
class Names:
    """Names in order; ``more`` follow."""

    names: tuple[bytes, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ChangedElement:
    """One section that changed."""

    section_id: bytes
    offset: int
    size: int  # bytes written
    data: bytes | None  # None: none, or more than was asked for


@dataclass(frozen=True, slots=True)
class Changed:
    """Notification. One operation changed sections that are watched."""

    handle: int
    watch: int
    number: int  # of this watch, without gaps unless notifications were lost
    kind: ChangeKind
    elements: tuple[ChangedElement, ...]
    version: bytes  # of the sections, after the change


# Between replicas


@dataclass(frozen=True, slots=True)
class CheckpointExpire:
    """Own. The retention time of a checkpoint is over, if ``generation`` is still its own."""

    uid: bytes
    generation: int


@dataclass(frozen=True, slots=True)
class SectionExpire:
    """Own. A section is over, if it still has this expiration time."""

    uid: bytes
    section_id: bytes
    expiration_ns: int


@dataclass(frozen=True, slots=True)
class WatchReport:
    """One watch of an open."""

    watch: int
    section_id: bytes | None
    prefix: bytes
    data_size_max: int
    number: int


@dataclass(frozen=True, slots=True)
class OpenReport:
    """One open of a session."""

    session: bytes
    handle: int
    uid: bytes
    flags: int
    level: Level
    watches: tuple[WatchReport, ...] = ()


@dataclass(frozen=True, slots=True)
class OpensReport:
    """What the sessions of a node have open."""

    opens: tuple[OpenReport, ...]
    tracking: tuple[bytes, ...] = ()  # sessions


TABLE: Final = Table(
    "ckpt",
    {
        1: Open,
        2: Close,
        3: Unlink,
        4: RetentionDurationSet,
        5: ActiveReplicaSet,
        6: StatusGet,
        7: SectionCreate,
        8: SectionDelete,
        9: SectionExpirationTimeSet,
        10: Write,
        11: SectionOverwrite,
        12: Read,
        13: SectionsGet,
        14: SectionGet,
        15: Synchronize,
        16: CheckpointsGet,
        17: CheckpointDump,
        18: SectionPut,
        19: SectionDrop,
        20: SectionTtlSet,
        21: ItemsGet,
        22: NamesGet,
        23: Watch,
        24: Unwatch,
        25: Track,
        26: TrackStop,
        32: CheckpointExpire,
        33: SectionExpire,
        34: OpensReport,
        64: Opened,
        65: CheckpointStatus,
        66: SectionCreated,
        67: Erroneous,
        68: ReadData,
        69: SectionIds,
        70: Section,
        71: Checkpoints,
        72: Dump,
        73: Refusal,
        74: SectionPutDone,
        75: Differs,
        76: Names,
        96: Changed,
    },
    version=VERSION,
    version_min=VERSION_MIN,
)
