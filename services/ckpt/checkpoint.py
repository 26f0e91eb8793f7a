"""One checkpoint: its sections, who has it open, its rules. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, CreationFlags, Level, OpenFlags, SectionState
from openais.wire.status import TIME_END, Status
from services.kit.machine import NodeId, SessionId

GENERATED_ID_SIZE_MAX: Final = 8  # bytes

OpenKey = tuple[SessionId, int]  # session, handle


class RefusalError(Exception):
    """A request that breaks a rule; nothing was changed."""

    def __init__(self, status: Status, index: int | None = None) -> None:
        super().__init__(status.name)
        self.status = status
        self.index = index  # of the element at fault


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
    used: int = 0  # bytes of data
    mutations: int = 0  # +1 with each change of what a merge compares; opens do not count
    opens: dict[OpenKey, Opening] = field(default_factory=dict)
    sections: dict[bytes, Section] = field(default_factory=dict)  # in creation order

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
            raise RefusalError(Status.ERR_NOT_EXIST)

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
        nodes = {o.node_id for o in self.opens.values()}
        if self.active == opening.node_id and opening.node_id not in nodes:
            self.active = None
        if self.opens:
            return False
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
            raise RefusalError(Status.ERR_NOT_EXIST, index)
        return section

    def create_default(self, now_ns: int) -> None:
        """Create the default section of a checkpoint with one section."""
        if self.attributes.max_sections == 1:
            self.sections[b""] = Section(b"", TIME_END, now_ns)

    def section_create(
        self, section_id: bytes | None, expiration_ns: int, data: bytes, now_ns: int
    ) -> bytes:
        """Create a section; return its id."""
        a = self.attributes
        bad = section_id == b"" or len(section_id or b"") > a.max_section_id_size
        if bad or len(data) > a.max_section_size or expiration_ns < 0:
            raise RefusalError(Status.ERR_INVALID_PARAM)
        self.need_active()
        if a.max_sections == 1 or section_id in self.sections:
            raise RefusalError(Status.ERR_EXIST)
        if len(self.sections) >= min(a.max_sections, wire.SECTIONS_MAX):
            raise RefusalError(Status.ERR_NO_SPACE)
        if section_id is None:
            section_id = self._generate()
        self.sections[section_id] = Section(data, expiration_ns, now_ns)
        self.used += len(data)
        return section_id

    def _generate(self) -> bytes:
        size = min(GENERATED_ID_SIZE_MAX, self.attributes.max_section_id_size)
        last = (1 << 8 * size) - 1
        for number in range(self.generated + 1, last + 1):
            section_id = number.to_bytes(size, "big")
            if section_id not in self.sections:
                self.generated = number
                return section_id
        raise RefusalError(Status.ERR_NO_SPACE)

    def section_delete(self, section_id: bytes) -> None:
        """Delete a section."""
        if not section_id:
            raise RefusalError(Status.ERR_INVALID_PARAM)
        self.need_active()
        section = self.find(section_id)
        self.used -= len(section.data)
        del self.sections[section_id]

    def section_expiration_set(self, section_id: bytes, expiration_ns: int) -> None:
        """Set when a section expires."""
        if not section_id or expiration_ns < 0:
            raise RefusalError(Status.ERR_INVALID_PARAM)
        self.need_active()
        self.find(section_id).expiration_ns = expiration_ns

    def write(self, elements: tuple[wire.WriteElement, ...], now_ns: int) -> None:
        """Write all elements, or none."""
        if not 0 < len(elements) <= wire.ELEMENTS_MAX:
            raise RefusalError(Status.ERR_INVALID_PARAM)
        limit = self.attributes.max_section_size
        for index, e in enumerate(elements):
            if not e.data or e.offset < 0 or e.offset + len(e.data) > limit:
                raise RefusalError(Status.ERR_INVALID_PARAM, index)
        self.need_active()
        for index, e in enumerate(elements):
            self.find(e.section_id, index)
        for e in elements:
            self._write(self.sections[e.section_id], e.offset, e.data, now_ns)

    def _write(self, section: Section, offset: int, data: bytes, now_ns: int) -> None:
        old = section.data
        whole = offset == 0 and len(data) >= len(old)
        gap = bytes(max(0, offset - len(old)))
        self._replace(section, old[:offset] + gap + data + old[offset + len(data) :], now_ns)
        if whole:
            section.state = SectionState.VALID

    def _replace(self, section: Section, data: bytes, now_ns: int) -> None:
        self.used += len(data) - len(section.data)
        section.data = data
        section.last_update_ns = max(section.last_update_ns, now_ns)

    def overwrite(self, op: wire.SectionOverwrite, now_ns: int) -> None:
        """Replace a section's whole content; create it where the request says so."""
        if len(op.data) > self.attributes.max_section_size:
            raise RefusalError(Status.ERR_INVALID_PARAM)
        self.need_active()
        if op.create and op.section_id not in self.sections:
            self.section_create(op.section_id, TIME_END, op.data, now_ns)
            return
        section = self.find(op.section_id)
        self._replace(section, op.data, now_ns)
        section.state = SectionState.VALID

    def read(self, elements: tuple[wire.ReadElement, ...]) -> tuple[bytes, ...]:
        """Return one part per element."""
        if not 0 < len(elements) <= wire.ELEMENTS_MAX:
            raise RefusalError(Status.ERR_INVALID_PARAM)
        self.need_active()
        return tuple(self._read(index, e) for index, e in enumerate(elements))

    def _read(self, index: int, e: wire.ReadElement) -> bytes:
        if e.size is not None and not 0 <= e.size <= self.attributes.max_section_size:
            raise RefusalError(Status.ERR_INVALID_PARAM, index)
        data = self.find(e.section_id, index).data
        if not 0 <= e.offset <= len(data):
            raise RefusalError(Status.ERR_INVALID_PARAM, index)
        return data[e.offset :] if e.size is None else data[e.offset : e.offset + e.size]

    def chosen(self, op: wire.SectionsGet) -> tuple[bytes, ...]:
        """Return the ids of the sections that an iteration shows, in creation order."""
        timed = (wire.SectionsChosen.LEQ_EXPIRATION_TIME, wire.SectionsChosen.GEQ_EXPIRATION_TIME)
        if op.chosen in timed and op.expiration_ns < 0:
            raise RefusalError(Status.ERR_INVALID_PARAM)
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
        return wire.Section(section_id, s.expiration_ns, len(s.data), s.state, s.last_update_ns)

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

    def values(self) -> list[Any]:
        """Return everything as plain values, canonical."""
        return [
            self.uid,
            self.name,
            self.attributes,
            self.creation_ns,
            self.linked,
            self.active,
            self.deadline_ns,
            self.generation,
            self.generated,
            self.mutations,
            [[*key, o.node_id, o.flags, int(o.level)] for key, o in sorted(self.opens.items())],
            [
                [i, s.data, s.expiration_ns, s.last_update_ns, int(s.state)]
                for i, s in self.sections.items()
            ],
        ]

    def check(self) -> None:
        """Assert every invariant."""
        assert self.used == sum(len(s.data) for s in self.sections.values())
        assert self.deadline_ns is None or not self.opens
        assert self.linked or self.opens, "an unlinked checkpoint lives by its opens"
        assert (b"" in self.sections) == (self.attributes.max_sections == 1)


def load(values: list[Any]) -> Checkpoint:
    """Build a checkpoint from what `Checkpoint.values` returned."""
    uid, name, attributes, creation, linked, active, deadline, *counters = values[:-2]
    generation, generated, mutations = counters
    sections = {i: Section(d, e, u, SectionState(s)) for i, d, e, u, s in values[-1]}
    return Checkpoint(
        uid,
        name,
        Attributes(*attributes),
        creation,
        linked,
        None if active is None else NodeId(active),
        deadline,
        generation,
        generated,
        sum(len(s.data) for s in sections.values()),
        mutations,
        {(SessionId(s), h): Opening(NodeId(n), f, Level(v)) for s, h, n, f, v in values[-2]},
        sections,
    )


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
