"""Process groups: who is in which, agreed by all nodes of a ring.

The table changes in two ways only, both at one position of the total order: by an ordered join or
leave, and by the round that follows each regular configuration, in which every node tells its own
processes. Until the round is over nothing else is sent (the sync gate), so all nodes of a ring
begin it with the same table. A round belongs to one ring; what remains of an earlier one is
ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from totemd.protocol.local import Change, GroupKey, Member, Reason, Space
from totemd.protocol.messages import RingId

NAME_SIZE_MAX: Final = 128  # bytes
MEMBERS_MAX: Final = 128  # per group, CPG_MEMBERS_MAX
PROCESSES_MAX: Final = 65_536  # entries one node may tell
NODE_DOWN: Final = 1  # number of the view of a round
NODE_UP: Final = 2
VANISHED: Final = 3

_MULTICAST: Final = struct.Struct(">BBQQ")  # kind, space, connection, request; then the name
_CHANGE: Final = struct.Struct(">BBBQI")  # kind, reason, space, connection, pid; then the name
_LIST: Final = struct.Struct(">BIQQI")  # kind, ring representative, ring seq, age, entries
_ENTRY: Final = struct.Struct(">BQIQ")  # space, connection, pid, age; then the name
_CONFIGURED: Final = struct.Struct(">QB")  # after the entries: version of the file, newcomer


class Kind(IntEnum):
    """First byte of a message between totemds; 4 is `evs.KIND`."""

    PROCESS_LIST = 0
    JOIN = 1
    LEAVE = 2
    MULTICAST = 3


class GroupDecodeError(Exception):
    """The bytes are not a message between totemds."""


class Key(NamedTuple):
    """Identifies one membership: a process may come again under the same pid."""

    node_id: int
    connection: int


@dataclass(slots=True)
class Entry:
    """One membership."""

    pid: int
    age: int


class GroupJoin(NamedTuple):
    """Ordered: a process of the originator joins."""

    group: GroupKey
    connection: int
    pid: int


class GroupLeave(NamedTuple):
    """Ordered: a process of the originator leaves, for the given reason."""

    group: GroupKey
    connection: int
    reason: Reason


class GroupMulticast(NamedTuple):
    """Ordered: a message of one member to all."""

    group: GroupKey
    connection: int
    request: int  # the sender's number of it
    payload: bytes | memoryview


class ProcessList(NamedTuple):
    """All memberships of the originator, told in the round of one ring."""

    ring: RingId
    age: int  # highest age the originator knows
    entries: tuple[tuple[GroupKey, int, int, int], ...]  # group, connection, pid, age
    config_version: int = 0  # of the originator's configuration; 0 has none, and is not told
    newcomer: bool = False  # the originator has finished no round with another node yet


GroupMessage = GroupJoin | GroupLeave | GroupMulticast | ProcessList


def _name(name: bytes) -> bytes:
    return bytes((len(name),)) + name


def encode_join(m: GroupJoin) -> bytes:
    """Encode a join."""
    head = _CHANGE.pack(Kind.JOIN, Reason.JOIN, m.group.space, m.connection, m.pid)
    return head + _name(m.group.name)


def encode_leave(m: GroupLeave) -> bytes:
    """Encode a leave."""
    head = _CHANGE.pack(Kind.LEAVE, m.reason, m.group.space, m.connection, 0)
    return head + _name(m.group.name)


def encode_multicast(m: GroupMulticast) -> bytes:
    """Encode a multicast."""
    head = _MULTICAST.pack(Kind.MULTICAST, m.group.space, m.connection, m.request)
    return b"".join((head, _name(m.group.name), m.payload))


def encode_list(m: ProcessList) -> bytes:
    """Encode a process list."""
    parts = [
        _LIST.pack(Kind.PROCESS_LIST, m.ring.representative, m.ring.seq, m.age, len(m.entries))
    ]
    for group, connection, pid, age in m.entries:
        parts += (_ENTRY.pack(group.space, connection, pid, age), _name(group.name))
    if m.config_version:
        parts.append(_CONFIGURED.pack(m.config_version, m.newcomer))
    return b"".join(parts)


def decode(data: bytes | memoryview) -> GroupMessage:
    """Decode one message between totemds.

    Raises:
        GroupDecodeError: the only exception there is.
    """
    try:
        kind = Kind(data[0])
        if kind is Kind.MULTICAST:
            _, space, connection, request = _MULTICAST.unpack_from(data)
            name, end = _read_name(data, _MULTICAST.size)
            return GroupMulticast(GroupKey(Space(space), name), connection, request, data[end:])
        if kind is Kind.PROCESS_LIST:
            return _decode_list(data)
        _, reason, space, connection, pid = _CHANGE.unpack_from(data)
        name, end = _read_name(data, _CHANGE.size)
        if end != len(data):
            raise GroupDecodeError("change: surplus bytes")
        group = GroupKey(Space(space), name)
        if kind is Kind.JOIN:
            return GroupJoin(group, connection, pid)
        return GroupLeave(group, connection, Reason(reason))
    except (struct.error, IndexError, ValueError) as error:
        raise GroupDecodeError(f"group message: {error}") from error


def _read_name(data: bytes | memoryview, offset: int) -> tuple[bytes, int]:
    end = offset + 1 + data[offset]
    name = bytes(data[offset + 1 : end])
    if not 0 < len(name) <= NAME_SIZE_MAX or end > len(data):
        raise GroupDecodeError("group name: empty, too long or cut off")
    return name, end


def _decode_list(data: bytes | memoryview) -> ProcessList:
    _, representative, seq, age, count = _LIST.unpack_from(data)
    if count > PROCESSES_MAX:
        raise GroupDecodeError(f"process list: {count} entries, limit {PROCESSES_MAX}")
    offset = _LIST.size
    entries = []
    for _ in range(count):
        space, connection, pid, entry_age = _ENTRY.unpack_from(data, offset)
        if entry_age > age:
            raise GroupDecodeError("process list: an entry is of an age the sender does not know")
        name, offset = _read_name(data, offset + _ENTRY.size)
        entries.append((GroupKey(Space(space), name), connection, pid, entry_age))
    ring = RingId(seq, representative)
    if offset == len(data):
        return ProcessList(ring, age, tuple(entries))
    config_version, newcomer = _CONFIGURED.unpack_from(data, offset)
    if offset + _CONFIGURED.size != len(data) or not config_version or newcomer > 1:
        raise GroupDecodeError("process list: surplus bytes")
    return ProcessList(ring, age, tuple(entries), config_version, bool(newcomer))


@dataclass(frozen=True, slots=True)
class GroupView:
    """One change of one group, to be told to its local members."""

    group: GroupKey
    ring: RingId
    number: int
    members: tuple[Member, ...]
    left: tuple[Change, ...]
    joined: tuple[Change, ...]
    left_keys: tuple[Key, ...]


class Outdated(NamedTuple):
    """Who came with an older configuration than another node of the ring has."""

    node_id: int
    config_version: int
    highest: int


@dataclass(slots=True)
class _Round:
    ring: RingId
    members: tuple[int, ...]
    lists: dict[int, ProcessList] = field(default_factory=dict)


class Groups:
    """The table of one node.

    Args:
        node_id: of this node.
        config_version: of its configuration; 0 has none and is never outdated.
    """

    def __init__(self, node_id: int, config_version: int = 0) -> None:
        self.me: Final = node_id
        self.outdated: tuple[Outdated, ...] = ()  # newcomers that the last round kept out
        self.ring = RingId(0, 0)  # of the last finished round
        self.nodes: tuple[int, ...] = (node_id,)
        self.groups: dict[GroupKey, dict[Key, Entry]] = {}
        self._config_version: Final = config_version
        self._newcomer = True
        self._age = 0
        self._number = VANISHED
        self._shared = {node_id}  # nodes with us in every hop since the last finished round
        self._hop: frozenset[int] = frozenset((node_id,))
        self._round: _Round | None = None
        self.rounds_finished = 0
        self.unknown_members = 0

    def transitional(self, members: Iterable[int]) -> None:
        """Learn who comes along from the old ring to the next."""
        self._hop = frozenset(members)

    def regular(self, ring: RingId, members: tuple[int, ...]) -> bytes:
        """Begin the round of a new ring; return this node's part of it.

        Only here the nodes that did not come along stop being shared: a round whose last message
        is delivered after the transitional configuration ends at the same position for all.
        """
        self._shared &= self._hop
        self._round = _Round(ring, members)
        mine = [
            (group, key.connection, entry.pid, entry.age)
            for group, entries in sorted(self.groups.items())
            for key, entry in sorted(entries.items())
            if key.node_id == self.me
        ]
        told = ProcessList(ring, self._age, tuple(mine), self._config_version, self._newcomer)
        return encode_list(told)

    def process_list(self, originator: int, message: ProcessList) -> list[GroupView] | None:
        """Take one node's part of the round; when it was the last one, return the changes.

        A newcomer with an outdated configuration does not come in: what it told counts as
        nothing, at all nodes alike, and for itself the round has no end.
        """
        current = self._round
        if current is None or message.ring != current.ring or originator not in current.members:
            return None
        current.lists[originator] = message
        if len(current.lists) < len(current.members):
            return None
        self._keep_out_outdated(current)
        if any(outdated.node_id == self.me for outdated in self.outdated):
            self._round = None
            return None
        return self._finish(current)

    def _keep_out_outdated(self, current: _Round) -> None:
        lists = current.lists
        highest = max(message.config_version for message in lists.values())
        self.outdated = tuple(
            Outdated(node, m.config_version, highest)
            for node, m in sorted(lists.items())
            if m.newcomer and 0 < m.config_version < highest
        )
        for outdated in self.outdated:
            node = outdated.node_id
            lists[node] = lists[node]._replace(entries=())

    def missing(self) -> tuple[int, ...]:
        """Return the members that have not told their part of the round that runs."""
        current = self._round
        if current is None:
            return ()
        return tuple(n for n in current.members if n not in current.lists)

    def _finish(self, current: _Round) -> list[GroupView]:
        self._round = None
        self.ring = current.ring
        self.rounds_finished += 1
        self._newcomer = self._newcomer and len(current.members) == 1
        views = self._remove(
            {n for n in self.nodes if n not in self._shared}, Reason.NODEDOWN, NODE_DOWN
        )
        views += self._add(current)
        views += self._remove_vanished(current)
        self.nodes = current.members
        self._shared = set(current.members)
        self._number = VANISHED
        self._age = max(message.age for message in current.lists.values())
        return views

    def _remove(self, nodes: set[int], reason: Reason, number: int) -> list[GroupView]:
        gone = {
            group: [key for key in sorted(entries) if key.node_id in nodes]
            for group, entries in sorted(self.groups.items())
        }
        return [self._take_out(group, keys, reason, number) for group, keys in gone.items() if keys]

    def _remove_vanished(self, current: _Round) -> list[GroupView]:
        told = {
            (group, Key(node, connection))
            for node, message in current.lists.items()
            for group, connection, _, _ in message.entries
        }
        gone = {
            group: [key for key in sorted(entries) if (group, key) not in told]
            for group, entries in sorted(self.groups.items())
        }
        return [
            self._take_out(group, keys, Reason.PROCDOWN, VANISHED)
            for group, keys in gone.items()
            if keys
        ]

    def _add(self, current: _Round) -> list[GroupView]:
        added: dict[GroupKey, list[Change]] = {}
        for node in current.members:
            for group, connection, pid, age in current.lists[node].entries:
                entries = self.groups.setdefault(group, {})
                key = Key(node, connection)
                if key in entries:
                    continue
                entries[key] = Entry(pid, age)
                added.setdefault(group, []).append(Change(Member(node, pid, age), Reason.NODEUP))
        return [
            GroupView(
                group, self.ring, NODE_UP, self.members(group), (), tuple(sorted(changes)), ()
            )
            for group, changes in sorted(added.items())
        ]

    def _take_out(self, group: GroupKey, keys: list[Key], reason: Reason, number: int) -> GroupView:
        entries = self.groups[group]
        left = []
        for key in keys:
            entry = entries.pop(key)
            left.append(Change(Member(key.node_id, entry.pid, entry.age), reason))
        members = self.members(group)
        if not entries:
            del self.groups[group]
        return GroupView(group, self.ring, number, members, tuple(sorted(left)), (), tuple(keys))

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def join(self, originator: int, message: GroupJoin) -> GroupView | None:
        """Apply an ordered join; None: it changes nothing."""
        entries = self.groups.setdefault(message.group, {})
        key = Key(originator, message.connection)
        if key in entries:
            return None
        self._age += 1
        entries[key] = Entry(message.pid, self._age)
        change = Change(Member(originator, message.pid, self._age), Reason.JOIN)
        members = self.members(message.group)
        return GroupView(message.group, self.ring, self._next_number(), members, (), (change,), ())

    def leave(self, originator: int, message: GroupLeave) -> GroupView | None:
        """Apply an ordered leave; None: there was no such member."""
        key = Key(originator, message.connection)
        if key not in self.groups.get(message.group, ()):
            return None
        return self._take_out(message.group, [key], message.reason, self._next_number())

    def sender(self, originator: int, message: GroupMulticast) -> Entry | None:
        """Return the member that sent a message; None: not a member here, so not delivered."""
        entries = self.groups.get(message.group)
        entry = entries.get(Key(originator, message.connection)) if entries else None
        if entry is None:
            self.unknown_members += 1
        return entry

    def members(self, group: GroupKey) -> tuple[Member, ...]:
        """Return the members of a group, sorted by node and pid."""
        entries = self.groups.get(group, {})
        return tuple(
            sorted(Member(key.node_id, entry.pid, entry.age) for key, entry in entries.items())
        )

    def check(self) -> None:
        """Assert every invariant."""
        known = set(self.nodes)
        for entries in self.groups.values():
            assert all(key.node_id in known for key in entries)
            assert all(entry.age <= self._age for entry in entries.values())
