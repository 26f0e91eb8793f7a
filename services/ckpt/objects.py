"""A checkpoint as an object of the replicated state: its bytes, its versions in a merge. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any, Final

from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, Level, SectionState
from openais.wire.codec import Buffer, DecodeError, pack_state, unpack_state
from services.ckpt import watches
from services.ckpt.checkpoint import Checkpoint, Opening, Section
from services.ckpt.watches import OpenKey
from services.kit.machine import Foreign, NodeId, SessionId, Summary

TOMBSTONES_MAX: Final = 10_000
TOMBSTONE_NS: Final = 3_600_000_000_000  # as long a deleted uid is remembered

_HEAD: Final = struct.Struct(">I")  # bytes of what stands before the data of the sections
_PART_SIZE_MIN: Final = 4096  # bytes; data of small sections is gathered into parts
_PART_SIZE_MAX: Final = 64 << 10


class Conflict(Enum):
    """What becomes of two versions of one checkpoint (``ckpt.merge_policy``)."""

    WINNER = "winner"
    MARK_CORRUPTED = "mark_corrupted"
    UNION = "union"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a merge treats conflicts.

    Attributes:
        conflict: of versions of one checkpoint.
        detaches: of two linked checkpoints with one name, the loser stays for those who have it
            open; False: their handles are bad.
    """

    conflict: Conflict = Conflict.WINNER
    detaches: bool = True

    @property
    def reads_losers(self) -> bool:
        """True: the content of the versions that lost is needed."""
        return self.conflict is not Conflict.WINNER


DEFAULT: Final = Policy()


class Tombstones:
    """The uids deleted lately, so that a side that was apart does not bring them back."""

    def __init__(self) -> None:
        self._deleted: dict[bytes, int] = {}  # oldest first -> when, wall clock

    def add(self, uid: bytes, now_ns: int) -> None:
        """Remember a deletion; forget what is too old or too much."""
        self._deleted[uid] = now_ns
        over = max(0, len(self._deleted) - TOMBSTONES_MAX)
        for old in list(islice(self._deleted, over)):
            del self._deleted[old]
        while self._deleted:
            oldest = next(iter(self._deleted))
            if self._deleted[oldest] > now_ns - TOMBSTONE_NS:
                break
            del self._deleted[oldest]

    def uids(self) -> tuple[bytes, ...]:
        """Return the uids, oldest first."""
        return tuple(self._deleted)

    def values(self) -> list[Any]:
        """Return everything as plain values."""
        return [[uid, at_ns] for uid, at_ns in self._deleted.items()]

    def load(self, rest: Buffer) -> tuple[int, list[SessionId]]:
        """Take up what `dump_rest` packed; return the counter of uids and who tracks.

        Raises:
            DecodeError: damaged.
        """
        try:
            counter, tracking, deleted = unpack_state(rest)
            self._deleted = {uid: at_ns for uid, at_ns in deleted}  # noqa: C416 - checks pairs
            return int(counter), [SessionId(session) for session in tracking]
        except (TypeError, ValueError) as error:
            raise DecodeError(f"checkpoints: {error}") from error


def dump_rest(counter: int, tracking: Iterable[SessionId], tombstones: Tombstones) -> bytes:
    """Return what belongs to no checkpoint."""
    return pack_state([counter, sorted(tracking), tombstones.values()])


def dump(c: Checkpoint) -> list[bytes]:
    """Return a checkpoint in parts; the data of large sections uncopied."""
    head = pack_state(
        [
            [
                c.uid,
                c.name,
                c.attributes,
                c.creation_ns,
                c.linked,
                c.active,
                c.deadline_ns,
                c.generation,
                c.generated,
                c.mutations,
            ],
            [
                [*key, o.node_id, o.flags, int(o.level), _watches(c, key)]
                for key, o in sorted(c.opens.items())
            ],
            [
                [i, len(s.data), s.expiration_ns, s.last_update_ns, s.version, int(s.state)]
                for i, s in c.sections.items()
            ],
        ]
    )
    return [_HEAD.pack(len(head)) + head, *_gathered(s.data for s in c.sections.values())]


def _watches(c: Checkpoint, key: OpenKey) -> list[wire.WatchReport]:
    return [watch.report(number) for number, watch in sorted(c.watches.get(key, {}).items())]


def _gathered(datas: Iterator[bytes]) -> Iterator[bytes]:
    small: list[bytes] = []
    size = 0
    for data in datas:
        if len(data) < _PART_SIZE_MIN:
            small.append(data)
            size += len(data)
        if small and (len(data) >= _PART_SIZE_MIN or size >= _PART_SIZE_MAX):
            yield b"".join(small)
            small, size = [], 0
        if len(data) >= _PART_SIZE_MIN:
            yield data
    if size:
        yield b"".join(small)


def load(data: Buffer) -> Checkpoint:
    """Build a checkpoint from what `dump` returned, joined.

    Raises:
        DecodeError: damaged.
    """
    try:
        begin = _HEAD.size + _HEAD.unpack_from(data)[0]
        fields, opens, metas = unpack_state(data[_HEAD.size : begin])
        uid, name, attributes, creation, linked, active, deadline, *counters = fields
        generation, generated, mutations = counters
        sections = _sections(metas, data, begin)
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
            mutations,
            {(SessionId(s), h): Opening(NodeId(n), f, Level(v)) for s, h, n, f, v, _ in opens},
            sections,
            {
                (SessionId(s), h): {w[0]: watches.load(wire.WatchReport(*w)) for w in told}
                for s, h, _, _, _, told in opens
                if told
            },
        )
    except (TypeError, ValueError, IndexError, struct.error) as error:
        raise DecodeError(f"checkpoint: {error}") from error


def _sections(metas: list[Any], data: Buffer, begin: int) -> dict[bytes, Section]:
    sections: dict[bytes, Section] = {}
    for i, size, expiration, update, version, state in metas:
        part = bytes(data[begin : begin + size])
        sections[i] = Section(part, expiration, update, version, SectionState(state))
        begin += size
    if begin != len(data):
        raise DecodeError(f"checkpoint: {len(data)} bytes, expected {begin}")
    return sections


def summary(c: Checkpoint) -> Summary:
    """Sum a checkpoint up for a merge."""
    return Summary(c.mutations, bool(c.opens), pack_state(c.deadline_ns))


def merged(mine: Checkpoint | None, f: Foreign, policy: Policy) -> Checkpoint | None:
    """Return what a version of another side makes of ours; None: ours stays as it is.

    The sessions that have ours open keep it; those of the other side tell themselves what they
    have. A retention that runs on both sides goes on for the longer of both.
    """
    deadline_ns = unpack_state(f.summary.info)
    if mine is not None and not f.wins and f.content is None:
        if None in (mine.deadline_ns, deadline_ns) or deadline_ns <= mine.deadline_ns:
            return None
        content = mine
    else:
        assert f.content is not None, "a version that wins has its content"
        content = _content(mine, load(f.content), policy, foreign_wins=f.wins)
    c = Checkpoint(
        content.uid,
        content.name,
        content.attributes,
        content.creation_ns,
        content.linked,
        content.active,
        content.deadline_ns,
        content.generation,
        content.generated,
        content.mutations,
        {} if mine is None else dict(mine.opens),
        content.sections,
        {} if mine is None else mine.watches,
    )
    if mine is not None:
        known = [at for at in (mine.deadline_ns, deadline_ns) if at is not None]
        c.deadline_ns = max(known, default=None)
        c.generation = max(mine.generation, content.generation) + 1
        c.mutations = max(mine.mutations, f.summary.counter) + 1
    if c.opens:
        c.deadline_ns = None
    return c


def _content(
    mine: Checkpoint | None, theirs: Checkpoint, policy: Policy, *, foreign_wins: bool
) -> Checkpoint:
    if mine is None:
        return theirs
    winner, loser = (theirs, mine) if foreign_wins else (mine, theirs)
    match policy.conflict:
        case Conflict.WINNER:
            pass
        case Conflict.MARK_CORRUPTED:
            for section_id, section in winner.sections.items():
                other = loser.sections.get(section_id)
                if other is None or other.data != section.data:
                    section.state = SectionState.CORRUPTED
        case Conflict.UNION:
            limit = winner.attributes.max_sections
            for section_id, section in loser.sections.items():
                if len(winner.sections) < limit and section_id not in winner.sections:
                    winner.sections[section_id] = section
    return winner
