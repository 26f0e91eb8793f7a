"""Extended virtual synchrony for applications: open groups over the ring of all nodes.

Members are nodes. A group is a key of 32 bytes that filters what a client is told: joining tells
nobody, and anyone may send to any group. Clients see every configuration of the ring, in order
with the messages. Knows this node's filters; the payload of a message is never looked at.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from totemd.protocol.effects import Configuration, ConfigurationKind
from totemd.protocol.groups import Kind
from totemd.protocol.local import (
    ConnectionId,
    Done,
    EvsDelivered,
    EvsDeliveredOwn,
    EvsPassed,
    Refusal,
    Refused,
    Tell,
)
from totemd.protocol.packing import MESSAGE_SIZE_MAX

KIND: Final = 4  # first byte of a message between totemds; `groups.Kind` has the others
KEY_SIZE: Final = 32  # bytes of a group's key; all of them are compared
GROUPS_PER_CALL_MAX: Final = 50  # of one join or leave
GROUPS_PER_CLIENT_MAX: Final = 256
GROUPS_PER_MESSAGE_MAX: Final = 32

_HEADER: Final = struct.Struct(">BBBH")  # kind, guarantee, groups, serial; then the keys
_SERIAL_MAX: Final = (1 << 16) - 1
assert KIND not in set(Kind)

Rule = tuple[Refusal, str]


class EvsDecodeError(Exception):
    """The bytes are not an EVS message between totemds."""


class EvsMulticast(NamedTuple):
    """Ordered: a message to some groups, from no matter whom."""

    guarantee: int  # as the sender asked for, for those who look at the wire
    keys: bytes  # KEY_SIZE each, one after the other
    payload: bytes | memoryview
    serial: int = 0  # means something to the originator alone; 0: nothing


class _Sent(NamedTuple):
    serial: int
    connection: ConnectionId
    request: int


def encode(m: EvsMulticast) -> bytes:
    """Encode a message."""
    header = _HEADER.pack(KIND, m.guarantee, len(m.keys) // KEY_SIZE, m.serial)
    return b"".join((header, m.keys, m.payload))


def decode(data: bytes | memoryview) -> EvsMulticast:
    """Decode a message.

    Raises:
        EvsDecodeError: the only exception there is.
    """
    if len(data) < _HEADER.size:
        raise EvsDecodeError("EVS message: cut off")
    kind, guarantee, count, serial = _HEADER.unpack_from(data)
    end = _HEADER.size + count * KEY_SIZE
    if kind != KIND or not 0 < count <= GROUPS_PER_MESSAGE_MAX or end > len(data):
        raise EvsDecodeError(f"EVS message: kind {kind}, {count} groups, {len(data)} bytes")
    return EvsMulticast(guarantee, bytes(data[_HEADER.size : end]), data[end:], serial)


def split(keys: bytes) -> list[bytes]:
    """Return the keys that stand one after the other."""
    return [keys[i : i + KEY_SIZE] for i in range(0, len(keys), KEY_SIZE)]


class Evs:
    """The EVS clients of one node."""

    def __init__(self) -> None:
        self._groups: Final[dict[ConnectionId, dict[bytes, None]]] = {}
        self._listeners: Final[dict[bytes, dict[ConnectionId, None]]] = {}
        self._keepers: Final[set[ConnectionId]] = set()  # who keep what they send
        self._sent: Final[deque[_Sent]] = deque()  # of those, not ordered yet, in that order
        self._serial = 0
        self._passed: dict[ConnectionId, int] = {}
        self._current: Configuration | None = None

    def __contains__(self, connection: ConnectionId) -> bool:
        """True: an EVS client."""
        return connection in self._groups

    def attach(self, connection: ConnectionId, *, keeps: bool = False) -> list[Tell]:
        """Take a client; it is told the regular configuration of now, without a predecessor.

        Args:
            connection: of the client.
            keeps: it keeps what it sends, and need not be sent it back.
        """
        self._groups[connection] = {}
        if keeps:
            self._keepers.add(connection)
        now = self._current
        if now is None:
            return []  # the first configuration is on its way
        first = Configuration(ConfigurationKind.REGULAR, now.ring, now.members, None, (), ())
        return [Tell(connection, first)]

    def detach(self, connection: ConnectionId) -> None:
        """Forget a client and its groups; nobody is told."""
        for key in self._groups.pop(connection, ()):
            self._unlisten(connection, key)
        self._keepers.discard(connection)
        self._passed.pop(connection, None)

    def sent(self, connection: ConnectionId, request: int) -> int:
        """Remember a multicast until it is ordered; return the serial it travels with."""
        if connection not in self._keepers:
            return 0
        self._serial = self._serial % _SERIAL_MAX + 1
        self._sent.append(_Sent(self._serial, connection, request))
        return self._serial

    def _own(self, serial: int) -> _Sent | None:
        """Return the multicast of this node that is delivered now: they come in their order."""
        while serial and self._sent:
            sent = self._sent.popleft()
            if sent.serial == serial:
                return sent
        return None

    def passed(self) -> list[Tell]:
        """Return how far what clients sent was ordered, without being told them, since last."""
        passed, self._passed = self._passed, {}
        return [Tell(connection, EvsPassed(request)) for connection, request in passed.items()]

    def join(self, connection: ConnectionId, request: int, keys: tuple[bytes, ...]) -> Tell:
        """Add groups to a client's filter, all or none; those it has already stay."""
        rule = self._keys_rule(connection, keys, GROUPS_PER_CALL_MAX)
        mine = self._groups.get(connection, {})
        if rule is None and len(mine.keys() | set(keys)) > GROUPS_PER_CLIENT_MAX:
            rule = Refusal.TOO_MANY_GROUPS, f"a client has at most {GROUPS_PER_CLIENT_MAX} groups"
        if rule is not None:
            return Tell(connection, Refused(request, *rule))
        for key in keys:
            mine[key] = None
            self._listeners.setdefault(key, {})[connection] = None
        return Tell(connection, Done(request))

    def leave(self, connection: ConnectionId, request: int, keys: tuple[bytes, ...]) -> Tell:
        """Take groups out of a client's filter, all or none."""
        rule = self._keys_rule(connection, keys, GROUPS_PER_CALL_MAX)
        mine = self._groups.get(connection, {})
        if rule is None and not mine.keys() >= set(keys):
            rule = Refusal.NOT_EXIST, "not in one of these groups; none was left"
        if rule is not None:
            return Tell(connection, Refused(request, *rule))
        for key in keys:
            if key in mine:  # it may be named twice
                del mine[key]
                self._unlisten(connection, key)
        return Tell(connection, Done(request))

    def _unlisten(self, connection: ConnectionId, key: bytes) -> None:
        listeners = self._listeners[key]
        del listeners[connection]
        if not listeners:
            del self._listeners[key]

    def _keys_rule(
        self, connection: ConnectionId, keys: Iterable[bytes], count_max: int
    ) -> Rule | None:
        keys = list(keys)
        if connection not in self._groups:
            return Refusal.INVALID_PARAM, "this connection is not one of EVS"
        if not keys:
            return Refusal.INVALID_PARAM, "at least one group is needed"
        if len(keys) > count_max:
            return Refusal.TOO_MANY_GROUPS, f"{len(keys)} groups, limit {count_max}"
        if any(len(key) != KEY_SIZE for key in keys):
            return Refusal.INVALID_PARAM, f"the key of a group has {KEY_SIZE} bytes"
        return None

    def multicast_rule(
        self, connection: ConnectionId, keys: bytes, payload: bytes | memoryview
    ) -> Rule | None:
        """Return why a message to these groups is refused; None: it is not."""
        rule = self._keys_rule(connection, split(keys), GROUPS_PER_MESSAGE_MAX)
        limit = MESSAGE_SIZE_MAX - _HEADER.size - len(keys)
        if rule is None and len(payload) > limit:
            return Refusal.TOO_BIG, f"{len(payload)} bytes, limit {limit}"
        return rule

    def deliver(
        self, originator: int, data: bytes | memoryview, *, own: bool = False
    ) -> list[Tell]:
        """Return what the clients are told of one message: each at most once.

        Args:
            originator: who sent it.
            data: the message.
            own: this node sent it.

        Raises:
            EvsDecodeError: not a message.
        """
        message = decode(data)
        told: dict[ConnectionId, None] = {}
        for key in split(message.keys):
            told |= self._listeners.get(key, {})
        sent = self._own(message.serial) if own else None
        if sent is not None and sent.connection in self._keepers and sent.connection not in told:
            self._passed[sent.connection] = sent.request
        if not told:
            return []
        event = EvsDelivered(originator, message.payload)
        return [
            Tell(connection, EvsDeliveredOwn(sent.request))
            if sent is not None and connection == sent.connection
            else Tell(connection, event)
            for connection in told
        ]

    def clients(self) -> tuple[tuple[ConnectionId, tuple[bytes, ...]], ...]:
        """Return the clients, and the keys that each has joined, sorted."""
        return tuple((c, tuple(sorted(keys))) for c, keys in sorted(self._groups.items()))

    def configuration(self, c: Configuration) -> list[Tell]:
        """Return what the clients are told of a configuration: all of them, at once."""
        if c.kind is ConfigurationKind.REGULAR:
            self._current = c
        return [Tell(connection, c) for connection in self._groups]

    def check(self) -> None:
        """Assert every invariant."""
        pairs = {(c, key) for c, keys in self._groups.items() for key in keys}
        assert pairs == {(c, key) for key, some in self._listeners.items() for c in some}
        assert all(len(keys) <= GROUPS_PER_CLIENT_MAX for keys in self._groups.values())
        assert self._keepers | self._passed.keys() <= self._groups.keys()
