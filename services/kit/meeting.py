"""What replicas that meet decide, from what all of them were told. Pure functions of that.

The members that announce one state are a side. The sides are ranked; the first one's state is
what goes on. Sides that were alive apart from each other are merged: of each object that they do
not hold alike the version of one side is taken, or it is deleted; never a mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from openais.wire.codec import DecodeError, pack_state, unpack_state
from services.kit.entries import Announce, Piece, RoundId
from services.kit.machine import Foreign, Machine, Summary
from services.kit.memory import MACHINE
from services.kit.transfer import Assembly

DELETED: Final = b""  # in the place of the digest of an object


class SideId(NamedTuple):
    """What the members of one side have in common."""

    has_state: bool
    stale: bool
    component: RoundId | None
    digest: bytes


@dataclass(frozen=True, slots=True)
class Side:
    """Members that hold one state."""

    id: SideId
    nodes: tuple[int, ...]  # sorted
    quorate_steps: int  # made with a quorum, where one is configured
    size: int  # members of its component, of which some may hold more than others
    applied: int  # entries that made the state

    @property
    def level(self) -> tuple[bool, int, bool, int]:
        """Sides of one level are equal: of their objects the higher counter wins."""
        return self.id.has_state, self.quorate_steps, not self.id.stale, self.size


@dataclass(frozen=True, slots=True)
class Version:
    """One object as one side holds it."""

    digest: bytes
    summary: Summary


Catalog = dict[bytes, Version]  # by name; names of the machine


@dataclass(frozen=True, slots=True)
class Lost:
    """A version that is given up, and for what."""

    name: bytes
    counter: int
    kept: int | None  # counter of the version that won; None: deleted


@dataclass(frozen=True, slots=True)
class Merge:
    """What becomes of the objects that the sides do not hold alike."""

    versions: tuple[tuple[int, Foreign], ...]  # with the rank of their side; content to come
    wanted: tuple[tuple[bytes, ...], ...]  # by rank: names of what the side has to send
    lost: tuple[tuple[Lost, ...], ...]  # by rank


@dataclass(slots=True)
class Round:
    """One view, until it is in force."""

    id: RoundId
    members: tuple[int, ...]
    meeting: bool  # somebody is new: everybody announces
    began_ns: int  # or when something came last
    announces: dict[int, Announce] = field(default_factory=dict)
    nodes: tuple[int, ...] = ()  # that take part, once all that will have announced
    catalogs: dict[SideId, Catalog] = field(default_factory=dict)
    sessions: dict[SideId, bytes] = field(default_factory=dict)  # with the catalogs
    catalog_sent: bool = False
    pieces: dict[int, Assembly] = field(default_factory=dict)  # by giver
    attempt: int = 0  # +1 when it goes on without somebody
    merge: Merge | None = None
    settle_sent_ns: int = 0

    def sides(self) -> list[Side]:
        """Return the sides, the winner first."""
        grouped: dict[SideId, list[int]] = {}
        for node in self.nodes:
            grouped.setdefault(self._side_of(node), []).append(node)
        components = [(a.component, a.stale) for a in map(self.announces.__getitem__, self.nodes)]
        sides = [
            Side(
                side_id,
                tuple(nodes),
                self.announces[nodes[0]].quorate_steps,
                components.count((side_id.component, side_id.stale)),
                self.announces[nodes[0]].applied,
            )
            for side_id, nodes in grouped.items()
        ]
        return sorted(sides, key=lambda s: (s.level, s.applied, -s.nodes[0]), reverse=True)

    def merging(self) -> list[Side]:
        """Return the sides whose objects are merged; one: there is nothing to merge.

        Where a quorum is configured, the state that went further with it goes on as a whole: the
        other side could change nothing, or is its past. A stale side was merged before.
        """
        ranked = self.sides()
        first = ranked[0]
        if not first.id.has_state or first.id.stale:
            return [first]
        return [s for s in ranked if s.level[:3] == first.level[:3]]

    def content(self, side: Side, name: bytes) -> bytes | None:
        """Return an object as it came from a side; None: it did not come yet."""
        for node, assembly in self.pieces.items():
            if self._side_of(node) == side.id and MACHINE + name in assembly.objects:
                return assembly.objects[MACHINE + name]
        return None

    def take(self, node: int, piece: Piece) -> bool:
        """Take a piece of what is merged; True: it was the next one."""
        if piece.component != self.id or piece.attempt != self.attempt or node not in self.nodes:
            return False
        return self.pieces.setdefault(node, Assembly()).take(piece)

    def settle(self, nodes: tuple[int, ...]) -> None:
        """Go on with these only. What came whole is kept, from whomever."""
        self.nodes = nodes
        self.merge = None
        self.attempt += 1
        for assembly in self.pieces.values():
            assembly.restart()

    def _side_of(self, node: int) -> SideId:
        a = self.announces[node]
        return SideId(a.has_state, a.stale, a.component, a.digest)

    def remaining(self) -> dict[int, list[bytes]]:
        """Return what still has to be sent, by who has to send it."""
        assert self.merge is not None
        found: dict[int, list[bytes]] = {}
        for rank, side in enumerate(self.merging()):
            names = [n for n in self.merge.wanted[rank] if self.content(side, n) is None]
            if names:
                found[side.nodes[0]] = names
        return found

    def silent(self) -> set[int]:
        """Return who keeps the others waiting."""
        if not self.nodes:
            return set(self.members) - set(self.announces)
        if self.merge is None:
            return {s.nodes[0] for s in self.merging() if s.id not in self.catalogs}
        return set(self.remaining())


def pack_catalog(machine: Machine, digests: Mapping[bytes, bytes]) -> bytes:
    """Pack what this side holds: ``digests`` of the machine's objects, and what it deleted."""
    versions = []
    for name in sorted(digests):
        s = machine.summary(name)
        versions.append([name, digests[name], s.counter, s.in_use, s.info])
    deleted = [[name, DELETED, 0, False, b""] for name in machine.tombstones()]
    return pack_state(versions + deleted)


def unpack_catalog(content: bytes) -> Catalog:
    """Unpack what `pack_catalog` packed.

    Raises:
        DecodeError: damaged.
    """
    try:
        return {
            name: Version(digest, Summary(counter, in_use, info))
            for name, digest, counter, in_use, info in unpack_state(content)
        }
    except (TypeError, ValueError) as error:
        raise DecodeError(f"catalog: {error}") from error


def plan(sides: list[Side], catalogs: Mapping[SideId, Catalog], *, losers: bool) -> Merge:
    """Decide what becomes of each object.

    Args:
        sides: to be merged, the winner first.
        catalogs: of all of them.
        losers: the content of versions that lose against the winner's is wanted, too.
    """
    held = [catalogs[side.id] for side in sides]
    versions: list[tuple[int, Foreign]] = []
    wanted: list[list[bytes]] = [[] for _ in sides]
    lost: list[list[Lost]] = [[] for _ in sides]
    for name in sorted(set().union(*held)):
        found = {rank: c[name] for rank, c in enumerate(held) if name in c}
        best = _best(found, sides)
        kept = None if best is None else found[best].summary.counter
        for rank, version in found.items():
            if version.digest == DELETED or (
                best is not None and version.digest == found[best].digest
            ):
                continue
            lost[rank].append(Lost(name, version.summary.counter, kept))
        if best is None:
            continue
        for rank, wins in _foreign(found, best, losers=losers):
            level = sides[rank].level == sides[0].level
            foreign = Foreign(name, found[rank].summary, wins, level, None)
            versions.append((rank, foreign))
            if wins or losers:
                wanted[rank].append(name)
    versions.sort(key=lambda item: (item[0], item[1].name))
    return Merge(tuple(versions), tuple(map(tuple, wanted)), tuple(map(tuple, lost)))


def _best(found: Mapping[int, Version], sides: list[Side]) -> int | None:
    """Return the rank of the side whose version is taken; None: the object is deleted."""
    alive = [rank for rank, version in found.items() if version.digest != DELETED]
    if not alive:
        return None
    first = min(found)  # of those that know of it
    if found[first].digest == DELETED and not any(found[r].summary.in_use for r in alive):
        return None
    return max(
        alive,
        key=lambda r: (sides[r].level, found[r].summary.counter, -sides[r].nodes[0]),
    )


def _foreign(
    found: Mapping[int, Version], best: int, *, losers: bool
) -> Iterable[tuple[int, bool]]:
    """Return which versions the winning side is told of, and whether each takes its place."""
    mine = found.get(0)
    ours = None if mine is None else mine.digest
    seen = {ours, DELETED}
    if found[best].digest not in seen:
        seen.add(found[best].digest)
        yield best, True
    elif ours in (None, DELETED):
        return
    for rank, version in found.items():
        if rank != 0 and version.digest not in seen and (losers or ours not in (None, DELETED)):
            seen.add(version.digest)
            yield rank, False
