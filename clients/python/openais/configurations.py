"""A connection to totemd for EVS: what `openais.evs` and `openais.aio.evs` share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from openais import errors
from openais.portconnection import Payload, PortConnection, known_guarantee
from openais.wire import port as wire
from openais.wire.codec import DecodeError, unpack_bundle
from openais.wire.port import ConfigurationKind, Guarantee, RingId


@dataclass(slots=True)
class Delivery:
    """One message of a node, in the total order. Not frozen: made once per message."""

    node_id: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ConfigurationChange:
    """A configuration of the ring, in the total order with the messages.

    The first one of a connection is the regular one of that moment. Every change is two: the
    TRANSITIONAL one, whose members came along from the old ring (``left`` did not), and the
    REGULAR one with all members (``joined`` are those that did not come along). The messages
    between the two belong to the old ring and were delivered by the transitional members only.
    """

    kind: ConfigurationKind
    ring: RingId  # in both the new one
    members: tuple[int, ...]
    left: tuple[int, ...]
    joined: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """The nodes of the last regular configuration that this connection was told."""

    local_node: int
    members: tuple[int, ...]
    ring: RingId


Event: TypeAlias = Delivery | ConfigurationChange


class Target(NamedTuple):
    """Messages with equal targets share a bundle."""

    guarantee: Guarantee
    keys: bytes


def group_key(call: str, group: str | bytes) -> bytes:
    """Return the key of a group: its bytes, filled up with zeros.

    Raises:
        InvalidParamError: longer than a key.
    """
    name = group.encode() if isinstance(group, str) else bytes(group)
    if len(name) > wire.EVS_KEY_SIZE:
        raise errors.InvalidParamError(
            call, f"{len(name)} bytes, the key of a group has {wire.EVS_KEY_SIZE}: {name!r}"
        )
    return name.ljust(wire.EVS_KEY_SIZE, b"\0")


class EvsConnection(PortConnection):
    """One connection of EVS; any thread. Arguments as `PortConnection`."""

    KIND: ClassVar = wire.Kind.EVS
    NAME: ClassVar = "evs"

    def __init__(
        self,
        run_dir: Path | str | None,
        event: Callable[[Sequence[Any], int], None],
        lost: Callable[[], None],
        *,
        rejoin: bool,
    ) -> None:
        super().__init__(run_dir, event, lost, rejoin=rejoin)
        self.first: ConfigurationChange | None = None  # before any is delivered
        self._joined: Final[dict[bytes, None]] = {}
        self._joined_keys = b""  # of all of them
        self._keeps = False  # a totemd that is older sends everything back whole
        self._unordered: Final[deque[tuple[int, list[bytes]]]] = deque()  # request, bundle

    def _outcome(self) -> None:
        """Open only once the first configuration is here: the membership is always known."""
        if self.first is not None or self._failure is not None:
            super()._outcome()

    def joined(self, keys: Iterable[bytes]) -> None:
        """Learn that totemd has taken a join."""
        with self._lock:
            self._joined.update(dict.fromkeys(keys))
            self._joined_keys = b"".join(self._joined)

    def left(self, keys: Iterable[bytes]) -> None:
        """Learn that totemd has taken a leave."""
        with self._lock:
            for key in keys:
                self._joined.pop(key, None)
            self._joined_keys = b"".join(self._joined)

    def membership(self, delivered: ConfigurationChange | None) -> Membership:
        """Return the members of a configuration; None: of the first one."""
        self.check("evs.membership")
        current = delivered or self.first
        assert current is not None, "it is open once the first configuration is here"
        return Membership(self.node_id, current.members, current.ring)

    def multicast_joined(self, guarantee: Guarantee, payload: Payload) -> None:
        """Queue a message to all groups that this connection has joined.

        Raises:
            AisError: ERR_NOT_EXIST, no group is joined; else as `multicast_groups`.
        """
        call = "evs.mcast_joined"
        self.check(call)
        keys = self._joined_keys
        if not keys:
            raise errors.NotExistError(call, "in no group; join one first")
        self._multicast(call, guarantee, keys, payload)

    def multicast_groups(
        self, guarantee: Guarantee, groups: Iterable[str | bytes], payload: Payload
    ) -> None:
        """Queue a message to groups, joined or not.

        Raises:
            AisError: ERR_TRY_AGAIN, the queue is full; ERR_TOO_BIG; ERR_TOO_MANY_GROUPS;
                ERR_INVALID_PARAM.
        """
        call = "evs.mcast_groups"
        self.check(call)
        keys = b"".join(dict.fromkeys(group_key(call, group) for group in groups))
        if not keys:
            raise errors.InvalidParamError(call, "at least one group is needed")
        self._multicast(call, guarantee, keys, payload)

    def _multicast(self, call: str, guarantee: int, keys: bytes, payload: Payload) -> None:
        count = len(keys) // wire.EVS_KEY_SIZE
        if count > wire.EVS_GROUPS_PER_MESSAGE_MAX:
            rule = f"{count} groups, limit {wire.EVS_GROUPS_PER_MESSAGE_MAX} for one message"
            raise errors.TooManyGroupsError(call, rule)
        if type(guarantee) is not Guarantee:
            guarantee = known_guarantee(call, guarantee)
        data = payload if type(payload) is bytes else bytes(payload)
        self._enqueue(call, Target(guarantee, keys), data)

    def _join_again(self) -> list[Any]:
        keys = list(self._joined)
        most = wire.EVS_GROUPS_PER_CALL_MAX
        joins = []
        for i in range(0, len(keys), most):
            self._request += 1
            joins.append(wire.EvsJoin(self._request, tuple(keys[i : i + most])))
        return joins

    def _multicast_message(
        self, request: int, target: Target, bundle: list[bytes], data: bytes
    ) -> Any:
        if self._keeps:
            self._unordered.append((request, bundle))
        return wire.EvsMulticast(request, target.guarantee, target.keys, data)

    def _forget_sent(self) -> None:
        self._unordered.clear()

    def _ordered(self, request: int) -> list[bytes]:
        """Forget what was sent up to a request; return the bundle of that one."""
        bundle: list[bytes] = []
        with self._lock:
            while self._unordered and self._unordered[0][0] <= request:
                _number, bundle = self._unordered.popleft()
        return bundle

    def _deliver(self, node_id: int, bundle: list[bytes]) -> None:
        self._event([Delivery(node_id, one) for one in bundle], sum(map(len, bundle)))

    def _message(self, message: Any) -> None:
        match message:
            case wire.EvsDelivered(node_id, payload):
                try:
                    self._deliver(node_id, unpack_bundle(payload))
                except DecodeError:
                    return  # sent by something that is not this library
            case wire.EvsDeliveredOwn(request):
                self._deliver(self.node_id, self._ordered(request))
            case wire.EvsPassed(request):
                self._ordered(request)
            case wire.Attached():
                self._keeps = message.version >= wire.VERSION_EVS_KEEPS
                super()._message(message)
            case wire.Configuration(kind, ring, members, left, joined):
                change = ConfigurationChange(kind, ring, members, left, joined)
                if self.first is None:
                    self.first = change
                    self._outcome()
                self._event([change], 0)
            case _:
                super()._message(message)
