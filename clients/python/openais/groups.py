"""A connection to totemd's process groups: what `openais.cpg` and `openais.aio.cpg` share.

Knows the life of a membership, and messages that are larger than one multicast.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from openais import errors
from openais.parts import LARGE_SIZE_MAX, Assembly, Sending, TooMuchError, cut
from openais.portconnection import MESSAGE_SIZE_MAX, PortConnection, known_guarantee
from openais.wire import parts
from openais.wire import port as wire
from openais.wire.codec import Buffer, DecodeError, unpack_bundle
from openais.wire.port import Guarantee, Reason, RingId
from openais.wire.status import Status


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One member of a group (cpg_address)."""

    node_id: int
    pid: int


@dataclass(frozen=True, slots=True)
class Change:
    """One member that left or joined, and why."""

    address: Address
    reason: Reason


@dataclass(slots=True)
class Delivery:
    """One message of a member, in the total order. Not frozen: made once per message."""

    group: str
    sender: Address
    payload: bytes


@dataclass(frozen=True, slots=True)
class ConfigurationChange:
    """The membership of the group changed, in the total order with its messages."""

    group: str
    members: tuple[Address, ...]  # after the change, by node and pid
    left: tuple[Change, ...]
    joined: tuple[Change, ...]
    oldest: Address | None  # the member that joined first; None: no members


@dataclass(frozen=True, slots=True)
class RingChange:
    """A new ring is installed (cpg_totem_confchg)."""

    ring: RingId
    nodes: tuple[int, ...]


Event: TypeAlias = Delivery | ConfigurationChange | RingChange


class Membership(Enum):
    """Where this connection is in the life of its membership."""

    NONE = "none"
    JOINING = "joining"
    JOINED = "joined"
    LEAVING = "leaving"


def encode_name(group: str | bytes) -> bytes:
    """Return the bytes of a group's name."""
    return group.encode("utf-8", "surrogateescape") if isinstance(group, str) else group


def decode_name(name: bytes) -> str:
    """Return a group's name as text, of which `encode_name` makes the same bytes again."""
    return name.decode("utf-8", "surrogateescape")


class PartTarget(NamedTuple):
    """Where a part of a large message goes; no two are equal, so that none is bundled."""

    guarantee: Guarantee
    number: int


class GroupConnection(PortConnection):
    """One connection of CPG; any thread. Arguments as `PortConnection`, and these.

    Args:
        tell_ring: tell the present ring right after the first change of the membership.
    """

    KIND: ClassVar = wire.Kind.PROCESS
    NAME: ClassVar = "cpg"

    def __init__(
        self,
        run_dir: Path | str | None,
        event: Callable[[Sequence[Event], int], None],
        lost: Callable[[], None],
        *,
        rejoin: bool,
        tell_ring: bool = False,
    ) -> None:
        super().__init__(run_dir, event, lost, rejoin=rejoin)
        self.ring: RingChange | None = None
        self._tell_ring = tell_ring
        self._pid = os.getpid()
        self._membership = Membership.NONE
        self._group = b""
        self._join = (0, b"")  # the newest request, and the group
        self._undelivered: Final[deque[tuple[int, list[bytes] | bytes]]] = deque()  # bundle or part
        self._assembly: Final = Assembly()
        self._large: Final = threading.Lock()  # held while one large message is on its way
        self._sending: Sending | None = None
        self._large_number = 0
        self._part = 0

    def joining(self, name: bytes) -> bool:
        """Learn that a join is sent: members may multicast from now on. False: in a group."""
        with self._lock:
            if self._membership is not Membership.NONE:
                return False
            self._membership, self._group = Membership.JOINING, name
            return True

    def join_message(self, request: int, name: bytes) -> wire.Join:
        """Return the message that asks to join; called with the lock, by `ask`."""
        self._join = (request, name)
        return wire.Join(request, name)

    def not_joining(self) -> None:
        """Learn that the join was refused."""
        with self._lock:
            if self._membership is Membership.JOINING:
                self._membership, self._group = Membership.NONE, b""

    def leaving(self) -> bool:
        """Learn that a leave is sent: nothing is multicast any more. False: in no group."""
        with self._lock:
            if self._membership is not Membership.JOINED:
                return False
            self._membership = Membership.LEAVING
            return True

    def not_leaving(self) -> None:
        """Learn that the leave was not sent, or refused."""
        with self._lock:
            if self._membership is Membership.LEAVING:
                self._membership = Membership.JOINED

    def wait_membership(self, wanted: Membership, seconds: float) -> bool:
        """Wait until the membership is as wanted."""
        self.link.leave_to_itself()
        with self._changed:
            return self._changed.wait_for(
                lambda: self._membership is wanted or self._closed or self._failure is not None,
                seconds,
            )

    @property
    def membership(self) -> Membership:
        """Where this connection is in the life of its membership."""
        return self._membership

    def multicast(self, guarantee: Guarantee, payload: bytes) -> None:
        """Queue a message to the group.

        Raises:
            AisError: ERR_NOT_EXIST, in no group; ERR_TRY_AGAIN, the queue is full; ERR_TOO_BIG;
                ERR_INVALID_PARAM, no such guarantee.
        """
        call = "cpg.mcast"
        self.check(call)
        if type(guarantee) is not Guarantee:
            guarantee = known_guarantee(call, guarantee)
        self._enqueue(call, guarantee, payload)

    def multicast_large(self, guarantee: Guarantee, payload: bytes, seconds: float) -> None:
        """Multicast a message of any size to the group; return when it is delivered here.

        Raises:
            AisError: ERR_INTERRUPT, the group changed meanwhile and nobody was delivered it;
                ERR_TOO_BIG; ERR_NOT_EXIST; ERR_TRY_AGAIN, not sent as a whole in time;
                ERR_TIMEOUT, sent, but not delivered in time.
        """
        call = "cpg.mcast"
        self.check(call)
        guarantee = known_guarantee(call, guarantee)
        if len(payload) > LARGE_SIZE_MAX:
            raise errors.TooBigError(call, f"{len(payload)} bytes, limit {LARGE_SIZE_MAX}")
        deadline = time.monotonic() + seconds
        if self._membership is Membership.JOINING:  # the own join would interrupt it
            self.wait_membership(Membership.JOINED, seconds)
        with self._lock:
            self._send_rule(call)
        if not self._large.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise errors.TryAgainError(call, "another large message of this handle is on its way")
        try:
            self._large_number += 1
            self._sending = sending = Sending(self._large_number)
            for data in cut(sending.number, payload, MESSAGE_SIZE_MAX):
                if sending.status is None:
                    self._enqueue_part(call, guarantee, data, deadline)
            self.link.leave_to_itself()
            status = sending.wait(deadline - time.monotonic())
        finally:
            self._sending = None
            self._large.release()
        if status is None:
            raise errors.AisTimeoutError(call, "not delivered in time", definite=False)
        if status is Status.ERR_INTERRUPT:
            raise errors.InterruptError(call, "the group changed; nobody was delivered the message")
        if status is not Status.OK:
            raise errors.error(status, call, "the connection ended meanwhile", definite=False)

    def _enqueue_part(self, call: str, guarantee: Guarantee, data: bytes, deadline: float) -> None:
        self._part += 1
        target = PartTarget(guarantee, self._part)
        while True:
            self.check(call)
            try:
                return self._enqueue(call, target, data)
            except errors.TryAgainError:
                left = deadline - time.monotonic()
                if left <= 0 or not self.wait_room(left):
                    raise

    def _send_rule(self, call: str) -> None:
        if self._membership not in (Membership.JOINING, Membership.JOINED):
            raise errors.NotExistError(call, "in no group; join one first")

    def _join_again(self) -> list[Any]:
        if not self._group:
            return []
        self._request += 1
        self._membership = Membership.JOINING
        return [wire.Join(self._request, self._group)]

    def _pack(self, target: Any, messages: list[bytes]) -> bytes:
        return messages[0] if type(target) is PartTarget else super()._pack(target, messages)

    def _multicast_message(
        self, request: int, target: Any, bundle: list[bytes], data: bytes
    ) -> wire.Multicast:
        part = type(target) is PartTarget
        self._undelivered.append((request, data if part else bundle))
        return wire.Multicast(request, target.guarantee if part else target, data)

    def _forget_sent(self) -> None:
        self._undelivered.clear()

    def _message(self, message: Any) -> None:
        match message:
            case wire.Delivered(_, node_id, pid, payload):
                self._deliver(node_id, pid, payload)
            case wire.DeliveredOwn(_, request):
                self._deliver_own(request)
            case wire.Attached():
                if message.pid != wire.PID_NOT_TOLD:
                    self._pid = message.pid
                super()._message(message)
            case wire.View():
                self._view(message)
            case wire.RingChanged(ring, nodes, current):
                self.ring = RingChange(ring, nodes)
                if not current:
                    self._event([self.ring], 0)
            case _:
                if isinstance(message, wire.Done) and message.request == self._join[0]:
                    self.joining(self._join[1])  # an earlier leave was told only just now
                super()._message(message)

    def _deliver(self, node_id: int, pid: int, payload: Buffer) -> None:
        try:
            bundle = unpack_bundle(payload)
        except DecodeError:
            bundle = self._part_of(Address(node_id, pid), payload)
        self._pass(Address(node_id, pid), bundle)

    def _deliver_own(self, request: int) -> None:
        with self._lock:
            bundle: list[bytes] | bytes = []
            while self._undelivered and self._undelivered[0][0] <= request:
                _number, bundle = self._undelivered.popleft()
        if isinstance(bundle, bytes):
            bundle = self._part_of(self.address, bundle)
        self._pass(self.address, bundle)

    def _pass(self, sender: Address, bundle: list[bytes]) -> None:
        group = decode_name(self._group)
        size = sum(map(len, bundle))
        self._event([Delivery(group, sender, payload) for payload in bundle], size)

    def _part_of(self, sender: Address, payload: Buffer) -> list[bytes]:
        """Take what is not a bundle; return the large message that it completes."""
        try:
            part: parts.Part = parts.TABLE.decode(payload)
            message = self._assembly.take(sender, part)
        except DecodeError:
            return []  # sent by something that is not this library
        except TooMuchError:
            self._refused(0, Status.ERR_LIBRARY, "too many large messages are unfinished")
            return []
        if message is None:
            return []
        if sender == self.address:
            self._sent_large(part.number, Status.OK)
        return [message]

    def _sent_large(self, number: int | None, status: Status) -> None:
        sending = self._sending
        if sending is not None and number == sending.number:
            sending.end(status)

    @property
    def address(self) -> Address:
        """This process as members are told it: the pid is the one that totemd sees.

        In a namespace of its own a process has another pid for itself.
        """
        return Address(self.node_id, self._pid)

    def _view(self, view: wire.View) -> None:
        me = self.address
        joined = any((c.member.node_id, c.member.pid) == (me.node_id, me.pid) for c in view.joined)
        left = any((c.member.node_id, c.member.pid) == (me.node_id, me.pid) for c in view.left)
        self._sent_large(self._assembly.changed(me), Status.ERR_INTERRUPT)
        if left and self._sending is not None:
            self._sending.end(Status.ERR_INTERRUPT)
        with self._changed:
            if joined:
                self._membership = Membership.JOINED
            elif left:
                self._membership, self._group = Membership.NONE, b""
                self._undelivered.clear()
            self._changed.notify_all()
        oldest = min(view.members, key=lambda m: (m.age, m.node_id, m.pid), default=None)
        change = ConfigurationChange(
            decode_name(view.group),
            tuple(Address(m.node_id, m.pid) for m in view.members),
            _changes(view.left),
            _changes(view.joined),
            Address(oldest.node_id, oldest.pid) if oldest else None,
        )
        self._event([change], 0)
        if self._tell_ring and self.ring is not None:
            self._tell_ring = False
            self._event([self.ring], 0)

    def _fail(self, status: Status, reason: str) -> None:
        self._assembly.changed(self.address)
        if self._sending is not None:
            self._sending.end(status)
        super()._fail(status, reason)


def _changes(changes: tuple[wire.Change, ...]) -> tuple[Change, ...]:
    return tuple(Change(Address(c.member.node_id, c.member.pid), c.reason) for c in changes)
