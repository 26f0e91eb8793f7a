"""A connection to totemd's groups: what the sync and the asyncio face of CPG and EVS share.

Knows the port protocol and bundles; calls back with events in the background thread.
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
from openais.errors import AisError
from openais.link import Link
from openais.node import paths
from openais.parts import LARGE_SIZE_MAX, Assembly, Sending, TooMuchError, cut
from openais.wire import parts
from openais.wire import port as wire
from openais.wire.codec import Buffer, DecodeError, pack_bundle, unpack_bundle
from openais.wire.port import Guarantee, Reason, RingId
from openais.wire.status import Status

MESSAGE_SIZE_MAX: Final = (1 << 20) - 1024  # bytes of one message (cpg_max_atomic_msgsize_get)
QUEUED_MESSAGES_MAX: Final = 1024  # that wait in this process; more only adds waiting time
QUEUED_BYTES_MAX: Final = 2 << 20
BUNDLE_SIZE: Final = 64 << 10  # bytes at which a bundle of several messages is closed
FLIGHT_MESSAGES_MAX: Final = 1024  # in bundles that totemd has not put on the ring yet
FLIGHT_BUNDLES_SMALL: Final = 2  # of them while what waits does not fill a bundle: it may grow
CLOSE_DRAIN_S: Final = 1.0  # that a close waits for messages to leave this process
BUNDLE_ITEM_OVERHEAD: Final = 5  # bytes a message costs in its bundle


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


def known_guarantee(call: str, guarantee: int) -> Guarantee:
    """Return a guarantee.

    Raises:
        InvalidParamError: there is no such one.
    """
    try:
        return Guarantee(guarantee)
    except ValueError:
        raise errors.InvalidParamError(call, f"no Guarantee has the value {guarantee}") from None


class PartTarget(NamedTuple):
    """Where a part of a large message goes; no two are equal, so that none is bundled."""

    guarantee: Guarantee
    number: int


Done = Callable[[Status, Any, str], None]


class GroupConnection:
    """One connection; any thread.

    What differs for EVS, `openais.configurations` overrides.

    Args:
        run_dir: of the node.
        event: called in the background thread with events in order, and their bytes.
        lost: called in the background thread when totemd is gone and ``rejoin`` is off.
        rejoin: after a loss, attach and join again; the membership is a fresh one.
        tell_ring: tell the present ring right after the first change of the membership.
    """

    KIND: ClassVar = wire.Kind.PROCESS
    NAME: ClassVar = "cpg"

    def __init__(
        self,
        run_dir: Path | str | None,
        event: Callable[[Sequence[Any], int], None],
        lost: Callable[[], None],
        *,
        rejoin: bool,
        tell_ring: bool = False,
    ) -> None:
        self._tell_ring = tell_ring
        self.node_id = 0
        self.ring: RingChange | None = None
        self._event: Final = event
        self._lost: Final = lost
        self._rejoin: Final = rejoin
        self._lock: Final = threading.Lock()
        self._attached: Final = threading.Event()
        self._changed: Final = threading.Condition(self._lock)
        self._closed = False
        self._failure: tuple[Status, str] | None = None
        self._was_attached = False
        self._membership = Membership.NONE
        self._group = b""
        self._request = 0
        self._waiting: Final[dict[int, Done]] = {}
        self._controls: list[bytes] = []
        self._messages: Final[deque[tuple[Any, bytes]]] = deque()  # equal targets: one bundle
        self._messages_bytes = 0
        self._in_flight: Final[deque[tuple[int, int, int]]] = deque()  # (request, messages, bytes)
        self._in_flight_messages = 0
        self._undelivered: Final[deque[tuple[int, list[bytes] | bytes]]] = deque()  # bundle or part
        self._in_flight_bytes = 0
        self._window = (1, 1)
        self._assembly: Final = Assembly()
        self._large: Final = threading.Lock()  # held while one large message is on its way
        self._sending: Sending | None = None
        self._large_number = 0
        self._part = 0
        self._path: Final = paths.socket_path(paths.run_dir(run_dir), wire.SOCKET_NAME)
        self.link: Final = Link(self._path, self)
        self._opened: Callable[[], None] | None = None

    def begin(self, opened: Callable[[], None] | None = None) -> None:
        """Begin to connect; ``opened`` is called in the background thread at the outcome."""
        self._opened = opened
        self.link.open()

    def wait_open(self, seconds: float) -> None:
        """Wait until attached.

        Raises:
            AisError: ERR_TRY_AGAIN, totemd does not answer; ERR_ACCESS; ERR_VERSION.
        """
        if not self._attached.wait(seconds):
            self.close()
            raise self.unreachable()
        self.check(f"{self.NAME}.open")

    def unreachable(self) -> AisError:
        """Return the error for a totemd that does not answer."""
        return errors.TryAgainError(
            f"{self.NAME}.open", f"totemd at {self._path} does not answer; is the node started?"
        )

    def check(self, call: str) -> None:
        """Raise if the connection cannot be used."""
        self.link.check_process(call)
        if self._closed:
            raise errors.BadHandleError(call, "closed")
        if self._failure is not None:
            status, reason = self._failure
            raise errors.error(status, call, reason, definite=False)

    # Requests

    def ask(self, call: str, make: Callable[[int], Any], done: Done) -> int:
        """Send one request that totemd answers; return its number, for `forget`."""
        self.check(call)
        with self._lock:
            self._request += 1
            request = self._request
            self._waiting[request] = done
            self._controls.append(wire.TABLE.encode(make(request)))
        self.link.wake()
        return request

    def forget(self, request: int) -> None:
        """Stop waiting for an answer."""
        with self._lock:
            self._waiting.pop(request, None)

    def request(self, call: str, make: Callable[[int], Any], seconds: float) -> Any:
        """Send one request and wait for the answer.

        Raises:
            AisError: by the answer's status; ERR_TIMEOUT.
        """
        answer: list[tuple[Status, Any, str]] = []
        wait = threading.Event()

        def done(status: Status, message: Any, reason: str) -> None:
            answer.append((status, message, reason))
            wait.set()

        number = self.ask(call, make, done)
        if not wait.wait(seconds):
            self.forget(number)
            raise errors.AisTimeoutError(call, f"{self._path} did not answer", definite=False)
        return result(call, *answer[0])

    def joining(self, name: bytes) -> bool:
        """Learn that a join is sent: members may multicast from now on. False: in a group."""
        with self._lock:
            if self._membership is not Membership.NONE:
                return False
            self._membership, self._group = Membership.JOINING, name
            return True

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
        with self._changed:
            return self._changed.wait_for(
                lambda: self._membership is wanted or self._closed or self._failure is not None,
                seconds,
            )

    @property
    def membership(self) -> Membership:
        """Where this connection is in the life of its membership."""
        return self._membership

    @property
    def full(self) -> bool:
        """True: a multicast of maximum size would be refused (cpg_flow_control_state_get)."""
        return (
            len(self._messages) >= QUEUED_MESSAGES_MAX
            or self._messages_bytes + MESSAGE_SIZE_MAX > QUEUED_BYTES_MAX
        )

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
        if self._membership not in (Membership.JOINING, Membership.JOINED):
            raise errors.NotExistError(call, "in no group; join one first")
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
        if self._membership is not Membership.JOINED:
            raise errors.NotExistError(call, "in no group; join one first")
        if not self._large.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise errors.TryAgainError(call, "another large message of this handle is on its way")
        try:
            self._large_number += 1
            self._sending = sending = Sending(self._large_number)
            for data in cut(sending.number, payload, MESSAGE_SIZE_MAX):
                if sending.status is None:
                    self._enqueue_part(call, guarantee, data, deadline)
            status = sending.wait(deadline - time.monotonic())
        finally:
            self._sending = None
            self._large.release()
        if status is None:
            raise errors.AisTimeoutError(call, "not delivered in time", definite=False)
        if status is Status.ERR_INTERRUPT:
            raise errors.InterruptError(call, "the group changed; nobody was delivered the message")
        self.check(call)

    def _enqueue_part(self, call: str, guarantee: Guarantee, data: bytes, deadline: float) -> None:
        self._part += 1
        target = PartTarget(guarantee, self._part)
        while True:
            try:
                return self._enqueue(call, target, data)
            except errors.TryAgainError:
                left = deadline - time.monotonic()
                if left <= 0 or not self.wait_room(left):
                    raise

    def _enqueue(self, call: str, target: Any, payload: bytes) -> None:
        if len(payload) > MESSAGE_SIZE_MAX:
            raise errors.TooBigError(call, f"{len(payload)} bytes, limit {MESSAGE_SIZE_MAX}")
        with self._lock:
            full = self._messages_bytes + len(payload) > QUEUED_BYTES_MAX
            if full or len(self._messages) >= QUEUED_MESSAGES_MAX:
                raise errors.TryAgainError(call, self._full_reason())
            self._messages.append((target, payload))
            self._messages_bytes += len(payload)
        self.link.wake()

    def _full_reason(self) -> str:
        reason = "the queue of messages to send is full"
        if self.link.paused:
            reason += ": events wait for dispatch, and until then nothing is read from totemd"
        return reason

    def wait_room(self, seconds: float) -> bool:
        """Wait until the queue has room again."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.full or self._closed, seconds)

    @property
    def drained(self) -> bool:
        """True: no message waits in this process."""
        return not self._messages or self._closed or self._failure is not None

    def wait_drained(self, seconds: float) -> bool:
        """Wait until the messages that were queued have gone to totemd."""
        with self._changed:
            return self._changed.wait_for(lambda: self.drained, seconds)

    def close(self) -> None:
        """Leave and close; may be repeated. Queued messages go out if they can at once."""
        self.wait_drained(CLOSE_DRAIN_S if self._attached.is_set() else 0)
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._controls.append(wire.TABLE.encode(wire.Detach()))
            self._changed.notify_all()
        self.link.close()
        self._fail(Status.ERR_BAD_HANDLE, "closed")

    # What the link asks, in the background thread

    def connected(self) -> None:
        """Attach, and join again what was joined."""
        with self._lock:
            if self._closed or self._failure is not None:
                return
            first: list[Any] = [wire.Attach(wire.VERSION, wire.VERSION_MIN, self.KIND)]
            if self._was_attached:
                first += self._join_again()
            self._controls[:0] = map(wire.TABLE.encode, first)

    def _join_again(self) -> list[Any]:
        if not self._group:
            return []
        self._request += 1
        self._membership = Membership.JOINING
        return [wire.Join(self._request, self._group)]

    def outgoing(self) -> list[Buffer]:
        """Hand over requests, then messages as far as totemd's window goes."""
        with self._lock:
            out: list[Buffer] = [*self._controls]
            self._controls = []
            while self._messages and self._has_window():
                wire.TABLE.put(self._next_multicast(), out)
            if not self.full or not self._messages:
                self._changed.notify_all()
            return out

    def _has_window(self) -> bool:
        if not self._attached.is_set():
            return False
        if not self._in_flight:
            return True
        bundles, size = self._window
        next_size = max(len(self._messages[0][1]), BUNDLE_SIZE)
        if len(self._in_flight) >= bundles or self._in_flight_bytes + next_size > size:
            return False
        if self._in_flight_messages >= FLIGHT_MESSAGES_MAX:
            return False
        return self._messages_bytes >= BUNDLE_SIZE or len(self._in_flight) < FLIGHT_BUNDLES_SMALL

    def _next_multicast(self) -> Any:
        target, payload = self._messages.popleft()
        bundle = [payload]
        size = len(payload)
        while self._messages and self._messages[0][0] == target:
            more = len(self._messages[0][1]) + BUNDLE_ITEM_OVERHEAD
            if size + more > BUNDLE_SIZE:
                break
            bundle.append(self._messages.popleft()[1])
            size += more
        self._messages_bytes -= sum(map(len, bundle))
        data = payload if type(target) is PartTarget else pack_bundle(bundle)
        self._request += 1
        self._in_flight.append((self._request, len(bundle), len(data)))
        self._in_flight_messages += len(bundle)
        self._in_flight_bytes += len(data)
        return self._multicast_message(self._request, target, bundle, data)

    def _multicast_message(
        self, request: int, target: Any, bundle: list[bytes], data: bytes
    ) -> Any:
        part = type(target) is PartTarget
        self._undelivered.append((request, data if part else bundle))
        return wire.Multicast(request, target.guarantee if part else target, data)

    def received(self, elements: list[Buffer]) -> None:
        """Take messages of totemd."""
        for message in wire.TABLE.take(elements):
            if not isinstance(message, DecodeError):  # a newer totemd may say more than we know
                self._message(message)

    def _message(self, message: Any) -> None:
        match message:
            case wire.Delivered(_, node_id, pid, payload):
                self._deliver(node_id, pid, payload)
            case wire.DeliveredOwn(_, request):
                self._deliver_own(request)
            case wire.Accepted(request):
                self._accepted(request)
            case wire.View():
                self._view(message)
            case wire.RingChanged(ring, nodes, current):
                self.ring = RingChange(ring, nodes)
                if not current:
                    self._event([self.ring], 0)
            case wire.Done(request) | wire.Members(request) | wire.Groups(request):
                self._answer(request, Status.OK, message, "")
            case wire.Attached():
                self._attach(message)
            case wire.Refused(request, status, reason):
                self._refused(request, status, reason)
            case _:
                self._other(message)

    def _other(self, message: Any) -> None:
        """Take a message that is not for every kind of connection; those of seats are ignored."""

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
            bundle = self._part_of(self._me, bundle)
        self._pass(self._me, bundle)

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
        if sender == self._me:
            self._sent_large(part.number, Status.OK)
        return [message]

    def _sent_large(self, number: int | None, status: Status) -> None:
        sending = self._sending
        if sending is not None and number == sending.number:
            sending.end(status)

    @property
    def _me(self) -> Address:
        return Address(self.node_id, os.getpid())

    def _attach(self, message: wire.Attached) -> None:
        with self._lock:
            self.node_id = message.node_id
            self._window = (message.window_messages, message.window_bytes)
            self._was_attached = True
        self._outcome()

    def _outcome(self) -> None:
        if not self._attached.is_set():
            self._attached.set()
            if self._opened is not None:
                self._opened()

    def _accepted(self, request: int) -> None:
        with self._lock:
            while self._in_flight and self._in_flight[0][0] <= request:
                _, messages, size = self._in_flight.popleft()
                self._in_flight_messages -= messages
                self._in_flight_bytes -= size

    def _refused(self, request: int, status: Status, reason: str) -> None:
        if request == 0:
            with self._changed:
                self._failure = (status, reason)
                self._changed.notify_all()
            self._outcome()
            self._fail(status, reason)
            self._lost()
            return
        self._accepted(request)
        self._answer(request, status, None, reason)

    def _answer(self, request: int, status: Status, message: Any, reason: str) -> None:
        with self._lock:
            done = self._waiting.pop(request, None)
        if done is not None:
            done(status, message, reason)

    def _view(self, view: wire.View) -> None:
        me = self._me
        joined = any((c.member.node_id, c.member.pid) == (me.node_id, me.pid) for c in view.joined)
        left = any((c.member.node_id, c.member.pid) == (me.node_id, me.pid) for c in view.left)
        self._sent_large(self._assembly.changed(me), Status.ERR_INTERRUPT)
        if left and self._sending is not None:
            self._sending.end(Status.ERR_INTERRUPT)
        with self._changed:
            if joined and self._membership is Membership.JOINING:
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

    def lost(self) -> None:
        """The totemd of this connection is gone; what was on the way may be lost."""
        with self._changed:
            self._in_flight.clear()
            self._undelivered.clear()
            self._in_flight_messages = self._in_flight_bytes = 0
            self._controls = []
            was_attached, self._window = self._was_attached, (1, 1)
            if was_attached and not self._rejoin:
                self._failure = (Status.ERR_LIBRARY, "totemd is gone")
            self._changed.notify_all()
        if was_attached:
            self._fail(Status.ERR_LIBRARY, "totemd is gone")
            if not self._rejoin:
                self._lost()

    def _fail(self, status: Status, reason: str) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        self._assembly.changed(self._me)
        if self._sending is not None:
            self._sending.end(status)
        for done in waiting:
            done(status, None, reason)


def result(call: str, status: Status, message: Any, reason: str) -> Any:
    """Return the answer of totemd, or raise by its status."""
    if status is not Status.OK:
        raise errors.error(status, call, reason, definite=status is not Status.ERR_LIBRARY)
    return message


def _changes(changes: tuple[wire.Change, ...]) -> tuple[Change, ...]:
    return tuple(Change(Address(c.member.node_id, c.member.pid), c.reason) for c in changes)
