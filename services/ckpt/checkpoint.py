"""One checkpoint: its sections, who has it open, its rules. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, CreationFlags, Level, OpenFlags, SectionState
from openais.wire.port import RingId
from openais.wire.status import TIME_END, Status
from services.ckpt.rules import RefusalError, invalid
from services.ckpt.watches import OpenKey, Watches
from services.kit.machine import NodeId

GENERATED_ID_SIZE_MAX: Final = 8  # bytes
SECTION_OVERHEAD: Final = 256  # bytes of memory that a section takes beside its id and data

CHECKPOINT_OVERHEAD: Final = 1024  # bytes that a checkpoint takes beside its name and sections
PAGE_OVERHEAD: Final = 128  # bytes that a section takes in an answer beside its data
VERSION: Final = struct.Struct(">QIQ")  # ring sequence, its representative, mutations


class Stamp(NamedTuple):
    """What a change leaves on the sections that it touches."""

    now_ns: int
    version: bytes


@dataclass(slots=True)
class Opening:
    """One open."""

    node_id: NodeId
    flags: int
    level: Level


@dataclass(slots=True)
class Section:
    """One section."""

    data: bytes
    expiration_ns: int
    last_update_ns: int
    version: bytes  # of its last change; never the same again for this id, on any side of a split
    state: SectionState = SectionState.VALID


@dataclass(slots=True)
class Checkpoint:
    """One instance; names can be used again, uids never."""

    uid: bytes
    name: bytes
    attributes: Attributes
    creation_ns: int
    linked: bool = True
    active: NodeId | None = None  # asynchronous and collocated only
    deadline_ns: int | None = None  # of the retention, while nobody has it open
    generation: int = 0  # +1 when the retention timer starts or stops
    generated: int = 0  # counter of generated section ids
    mutations: int = 0  # changes made, opens and closes too
    opens: dict[OpenKey, Opening] = field(default_factory=dict)
    sections: dict[bytes, Section] = field(default_factory=dict)  # in creation order
    watches: Watches = field(default_factory=dict)
    used: int = field(init=False)  # bytes of data
    memory: int = field(init=False)  # bytes in all

    def __post_init__(self) -> None:
        self.used, self.memory = self._measured()

    def _measured(self) -> tuple[int, int]:
        """Return the bytes of data, and those that the checkpoint is taken to need in all."""
        used = sum(len(s.data) for s in self.sections.values())
        overhead = sum(SECTION_OVERHEAD + len(i) for i in self.sections)
        return used, CHECKPOINT_OVERHEAD + len(self.name) + overhead + used

    @property
    def synchronous(self) -> bool:
        """True: a write returns when every replica has it."""
        return bool(self.attributes.creation_flags & CreationFlags.WR_ALL_REPLICAS)

    @property
    def collocated(self) -> bool:
        """True: the application chooses the active replica."""
        return not self.synchronous and bool(
            self.attributes.creation_flags & CreationFlags.COLLOCATED
        )

    def need_active(self) -> None:
        """Refuse where there is no active replica (section 3.1.5)."""
        if self.collocated and self.active is None:
            raise RefusalError(Status.ERR_NOT_EXIST, "there is no active replica")

    # Opens

    def opened(self, key: OpenKey, opening: Opening) -> None:
        """Add an open; the retention timer stops."""
        self.opens[key] = opening
        if self.deadline_ns is not None:
            self.deadline_ns = None
            self.generation += 1

    def closed(self, key: OpenKey, now_ns: int) -> bool:
        """Take an open away; True: the checkpoint is to be deleted now."""
        opening = self.opens.pop(key)
        self.watches.pop(key, None)
        nodes = {o.node_id for o in self.opens.values()}
        if self.active == opening.node_id and opening.node_id not in nodes:
            self.active = None
        return not self.opens and self.unused(now_ns)

    def unused(self, now_ns: int) -> bool:
        """Apply the rules of the last close; True: the checkpoint is to be deleted now."""
        duration = self.attributes.retention_duration
        if not self.linked or duration == 0:
            return True
        if duration != TIME_END:
            self.deadline_ns = min(now_ns + duration, TIME_END)
            self.generation += 1
        return False

    def same(self, attributes: Attributes) -> bool:
        """True: an open with CREATE and these attributes fits (retention is not compared)."""
        mine = self.attributes
        return replace(attributes, retention_duration=mine.retention_duration) == mine

    # Sections

    def find(self, section_id: bytes, index: int | None = None) -> Section:
        """Return a section."""
        section = self.sections.get(section_id)
        if section is None:
            what = f"section {section_id[:64]!r}" if section_id else "default section"
            raise RefusalError(Status.ERR_NOT_EXIST, f"there is no {what}", index)
        return section

    def create_default(self, stamp: Stamp) -> None:
        """Create the default section of a checkpoint with one section."""
        if self.attributes.max_sections == 1:
            self._add(b"", Section(b"", TIME_END, *stamp))

    def stamp(self, now_ns: int, ring: RingId) -> Stamp:
        """Return the stamp of the next change."""
        return Stamp(now_ns, VERSION.pack(ring.seq, ring.representative, self.mutations + 1))

    def _add(self, section_id: bytes, section: Section) -> None:
        self.sections[section_id] = section
        self.used += len(section.data)
        self.memory += SECTION_OVERHEAD + len(section_id) + len(section.data)

    def remove(self, section_id: bytes) -> None:
        """Take a section away."""
        section = self.sections.pop(section_id)
        self.used -= len(section.data)
        self.memory -= SECTION_OVERHEAD + len(section_id) + len(section.data)

    def _need_room(self, data: int, room: int, overhead: int = 0) -> None:
        """Refuse ``data`` bytes more where ``room`` bytes are left for all checkpoints."""
        left = max(room, 0)
        if data + overhead > left:
            rule = f"{data + overhead} bytes more, {left} are left of {wire.MEMORY_MAX}"
            raise RefusalError(Status.ERR_NO_MEMORY, rule)

    def section_create(
        self, section_id: bytes | None, expiration_ns: int, data: bytes, stamp: Stamp, room: int
    ) -> bytes:
        """Create a section; return its id."""
        self.need_active()
        limit = min(self.attributes.max_sections, wire.SECTIONS_MAX)
        if self.attributes.max_sections == 1:
            raise RefusalError(Status.ERR_EXIST, "max_sections is 1: the default section only")
        if section_id in self.sections:
            raise RefusalError(Status.ERR_EXIST, "there is a section with this id")
        if len(self.sections) >= limit:
            raise RefusalError(Status.ERR_NO_SPACE, f"there are {limit} sections, max_sections")
        self._need_room(len(data), room, SECTION_OVERHEAD + len(section_id or bytes(8)))
        if section_id is None:
            section_id = self._generate()
        self._add(section_id, Section(data, expiration_ns, *stamp))
        return section_id

    def _generate(self) -> bytes:
        size = min(GENERATED_ID_SIZE_MAX, self.attributes.max_section_id_size)
        last = (1 << 8 * size) - 1
        for number in range(self.generated + 1, last + 1):
            section_id = number.to_bytes(size, "big")
            if section_id not in self.sections:
                self.generated = number
                return section_id
        raise RefusalError(Status.ERR_NO_SPACE, f"all generated ids of {size} bytes are used up")

    def section_delete(self, section_id: bytes) -> None:
        """Delete a section."""
        self.need_active()
        self.find(section_id)
        self.remove(section_id)

    def section_expiration_set(self, section_id: bytes, expiration_ns: int) -> None:
        """Set when a section expires."""
        self.need_active()
        self.find(section_id).expiration_ns = expiration_ns

    def still_expires(self, section_id: bytes, expiration_ns: int) -> bool:
        """True: there is such a section, and this is still when it expires."""
        section = self.sections.get(section_id)
        return section is not None and section.expiration_ns == expiration_ns

    def write(self, elements: tuple[wire.WriteElement, ...], stamp: Stamp, room: int) -> None:
        """Write all elements, or none."""
        self.need_active()
        sizes: dict[bytes, int] = {}
        for index, e in enumerate(elements):
            size = sizes.get(e.section_id)
            if size is None:
                size = len(self.find(e.section_id, index).data)
            sizes[e.section_id] = max(size, e.offset + len(e.data))
        growth = sum(size - len(self.sections[i].data) for i, size in sizes.items())
        self._need_room(growth, room)
        for e in elements:
            self._write(self.sections[e.section_id], e.offset, e.data, stamp)

    def _write(self, section: Section, offset: int, data: bytes, stamp: Stamp) -> None:
        old = section.data
        whole = offset == 0 and len(data) >= len(old)
        gap = bytes(max(0, offset - len(old)))
        self._replace(section, old[:offset] + gap + data + old[offset + len(data) :], stamp)
        if whole:
            section.state = SectionState.VALID

    def _replace(self, section: Section, data: bytes, stamp: Stamp) -> None:
        growth = len(data) - len(section.data)
        self.used += growth
        self.memory += growth
        section.data = data
        section.last_update_ns = max(section.last_update_ns, stamp.now_ns)
        section.version = stamp.version

    def overwrite(self, op: wire.SectionOverwrite, stamp: Stamp, room: int) -> None:
        """Replace a section's whole content; create it where the request says so."""
        self.need_active()
        if op.create and op.section_id not in self.sections:
            self.section_create(op.section_id, TIME_END, op.data, stamp, room)
            return
        section = self.find(op.section_id)
        self._need_room(len(op.data) - len(section.data), room)
        self._replace(section, op.data, stamp)
        section.state = SectionState.VALID

    def put(self, op: wire.SectionPut, stamp: Stamp, room: int) -> None:
        """Create a section or replace its content, if it has the version expected."""
        self.need_active()
        self.need_version(op.section_id, op.expected)
        expiration_ns = None if op.ttl_ns is None else min(stamp.now_ns + op.ttl_ns, TIME_END)
        section = self.sections.get(op.section_id)
        if section is None:
            until_ns = TIME_END if expiration_ns is None else expiration_ns
            self.section_create(op.section_id, until_ns, op.data, stamp, room)
            return
        self._need_room(len(op.data) - len(section.data), room)
        self._replace(section, op.data, stamp)
        section.state = SectionState.VALID
        if expiration_ns is not None:
            section.expiration_ns = expiration_ns

    def need_version(self, section_id: bytes, expected: bytes | None) -> None:
        """Refuse where a section does not have the version expected; None: any will do."""
        section = self.sections.get(section_id)
        version = b"" if section is None else section.version
        if expected is not None and expected != version:
            rule = "the section has another version"
            raise RefusalError(Status.ERR_FAILED_OPERATION, rule, detail=wire.Differs(version))

    def read(self, elements: tuple[wire.ReadElement, ...]) -> tuple[bytes, ...]:
        """Return one part per element."""
        self.need_active()
        size = 0
        for index, e in enumerate(elements):
            end = len(self.find(e.section_id, index).data)
            if e.offset > end:
                raise invalid(f"offset {e.offset}, the section ends at {end}", index)
            size += end - e.offset if e.size is None else min(e.size, end - e.offset)
            if size > wire.CALL_SIZE_MAX:
                rule = f"over {wire.CALL_SIZE_MAX} bytes in one read; read in parts"
                raise RefusalError(Status.ERR_NO_RESOURCES, rule, index)
        return tuple(self._read(e) for e in elements)

    def _read(self, e: wire.ReadElement) -> bytes:
        data = self.sections[e.section_id].data
        return data[e.offset :] if e.size is None else data[e.offset : e.offset + e.size]

    def versions(self, elements: tuple[wire.ReadElement, ...]) -> tuple[bytes, ...]:
        """Return the versions of the sections that were read."""
        return tuple(self.sections[e.section_id].version for e in elements)

    def chosen(self, op: wire.SectionsGet) -> tuple[bytes, ...]:
        """Return the ids of the sections that an iteration shows, in creation order."""
        self.need_active()
        return tuple(i for i, section in self.sections.items() if _shows(op, section))

    # What others see

    def status(self) -> wire.CheckpointStatus:
        """Return the descriptor."""
        self.need_active()
        return wire.CheckpointStatus(self.attributes, len(self.sections), self.used)

    def descriptor(self, section_id: bytes) -> wire.Section:
        """Return the descriptor of a section."""
        s = self.find(section_id)
        size = len(s.data)
        return wire.Section(section_id, s.expiration_ns, size, s.state, s.last_update_ns, s.version)

    def page(self, ids: list[bytes], after: int, offset: int) -> wire.Dump:
        """Return sections with data, as many as one answer holds; the last may be cut."""
        sections: list[wire.SectionDump] = []
        room = wire.CALL_SIZE_MAX
        cut = False
        for section_id in ids[after:]:
            data = self.sections[section_id].data
            begin = 0 if sections else offset
            if room <= 0 or (sections and len(data) > room):
                break
            part = data[begin : begin + room]
            sections.append(wire.SectionDump(self.descriptor(section_id), part))
            room -= len(part) + PAGE_OVERHEAD
            cut = begin + len(part) < len(data)
        more = cut or after + len(sections) < len(ids)
        return wire.Dump(self.info(), tuple(sections), more)

    def info(self) -> wire.CheckpointInfo:
        """Return what operators see."""
        flags = [o.flags for o in self.opens.values()]
        return wire.CheckpointInfo(
            self.name,
            self.linked,
            self.attributes,
            self.creation_ns,
            len(self.sections),
            self.used,
            len(flags),
            sum(1 for f in flags if f & OpenFlags.READ),
            sum(1 for f in flags if f & OpenFlags.WRITE),
            self.active or 0,
            self.deadline_ns or 0,
            self.uid,
            self.mutations,
        )

    def check(self) -> None:
        """Assert every invariant."""
        assert (self.used, self.memory) == self._measured()
        assert self.deadline_ns is None or not self.opens
        assert not set(self.watches) - set(self.opens)
        assert self.linked or self.opens, "an unlinked checkpoint lives by its opens"
        assert (b"" in self.sections) == (self.attributes.max_sections == 1)


def _shows(op: wire.SectionsGet, section: Section) -> bool:
    match op.chosen:
        case wire.SectionsChosen.FOREVER:
            return section.expiration_ns == TIME_END
        case wire.SectionsChosen.LEQ_EXPIRATION_TIME:
            return section.expiration_ns <= op.expiration_ns
        case wire.SectionsChosen.GEQ_EXPIRATION_TIME:
            return section.expiration_ns >= op.expiration_ns
        case wire.SectionsChosen.CORRUPTED:
            return section.state is SectionState.CORRUPTED
        case wire.SectionsChosen.ANY:
            return True
