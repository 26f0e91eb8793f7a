"""A connection to totemd: what those of CPG and EVS have in common.

Knows the port protocol, its window, and bundles of messages that wait; events, it passes on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from openais import errors
from openais.errors import AisError
from openais.link import Link
from openais.node import paths
from openais.wire import port as wire
from openais.wire.codec import Buffer, DecodeError, pack_bundle
from openais.wire.port import Guarantee
from openais.wire.status import Status

MESSAGE_SIZE_MAX: Final = (1 << 20) - 1024  # bytes of one message (cpg_max_atomic_msgsize_get)
QUEUED_MESSAGES_MAX: Final = 1024  # that wait in this process; more only adds waiting time
QUEUED_BYTES_MAX: Final = 2 << 20
BUNDLE_SIZE: Final = 512 << 10  # bytes at which a bundle of several messages is closed
FLIGHT_MESSAGES_MAX: Final = 1024  # in bundles that totemd has not put on the ring yet
FLIGHT_BUNDLES_SMALL: Final = 2  # of them while what waits does not fill a bundle: it may grow
CLOSE_DRAIN_S: Final = 1.0  # that a close waits for messages to leave this process
BUNDLE_ITEM_OVERHEAD: Final = 5  # bytes a message costs in its bundle

Done = Callable[[Status, Any, str], None]
Payload: TypeAlias = bytes | bytearray | memoryview  # of a message; copied if it can change


class PortConnection:
    """One connection; any thread.

    Args:
        run_dir: of the node.
        event: called in the background thread with events in order, and their bytes.
        lost: called in the background thread when totemd is gone and ``rejoin`` is off.
        rejoin: after a loss, attach and join again; the membership is a fresh one.
    """

    KIND: ClassVar[wire.Kind]
    NAME: ClassVar[str]  # in errors

    def __init__(
        self,
        run_dir: Path | str | None,
        event: Callable[[Sequence[Any], int], None],
        lost: Callable[[], None],
        *,
        rejoin: bool,
    ) -> None:
        self.node_id = 0
        self._event: Final = event
        self._lost: Final = lost
        self._rejoin: Final = rejoin
        self._lock: Final = threading.Lock()
        self._attached: Final = threading.Event()
        self._changed: Final = threading.Condition(self._lock)
        self._closed = False
        self._failure: tuple[Status, str] | None = None
        self._was_attached = False
        self._request = 0
        self._waiting: Final[dict[int, Done]] = {}
        self._controls: list[bytes] = []
        self._messages: Final[deque[tuple[Any, bytes]]] = deque()  # (target, message)
        self._messages_bytes = 0
        self._in_flight: Final[deque[tuple[int, int, int]]] = deque()  # (request, messages, bytes)
        self._in_flight_messages = 0
        self._in_flight_bytes = 0
        self._window = (1, 1)
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

    @property
    def asked(self) -> bool:
        """True: an answer of totemd is waited for."""
        return bool(self._waiting)

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
        if self.link.paused:
            self.link.resume()  # the answer comes behind what is not read yet
        self.link.leave_to_itself()
        if not wait.wait(seconds):
            self.forget(number)
            raise errors.AisTimeoutError(call, f"{self._path} did not answer", definite=False)
        return result(call, *answer[0])

    @property
    def full(self) -> bool:
        """True: a multicast of maximum size would be refused (cpg_flow_control_state_get)."""
        return (
            len(self._messages) >= QUEUED_MESSAGES_MAX
            or self._messages_bytes + MESSAGE_SIZE_MAX > QUEUED_BYTES_MAX
        )

    def _enqueue(self, call: str, target: Any, payload: bytes) -> None:
        """Queue a message; messages with equal targets share bundles.

        Raises:
            AisError: ERR_TRY_AGAIN, the queue is full; ERR_TOO_BIG; those of `_send_rule`.
        """
        if len(payload) > MESSAGE_SIZE_MAX:
            raise errors.TooBigError(call, f"{len(payload)} bytes, limit {MESSAGE_SIZE_MAX}")
        with self._lock:
            self._send_rule(call)
            full = self._messages_bytes + len(payload) > QUEUED_BYTES_MAX
            if full or len(self._messages) >= QUEUED_MESSAGES_MAX:
                raise errors.TryAgainError(call, self._full_reason())
            self._messages.append((target, payload))
            self._messages_bytes += len(payload)
            go = self._has_window()  # else it goes when totemd has taken what is on its way
        if go:
            self.link.wake()

    def _full_reason(self) -> str:
        reason = "the queue of messages to send is full"
        if self.link.paused:
            reason += ": events wait for dispatch, and until then nothing is read from totemd"
        return reason

    def wait_room(self, seconds: float) -> bool:
        """Wait until the queue has room again, or nothing can be sent any more."""
        self.link.leave_to_itself()
        with self._changed:
            return self._changed.wait_for(
                lambda: not self.full or self._closed or self._failure is not None, seconds
            )

    @property
    def drained(self) -> bool:
        """True: no message waits in this process."""
        return not self._messages or self._closed or self._failure is not None

    def wait_drained(self, seconds: float) -> bool:
        """Wait until the messages that were queued have gone to totemd."""
        self.link.leave_to_itself()
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

    # What a kind of connection says for itself

    def _send_rule(self, call: str) -> None:
        """Raise if nothing may be sent; called with the lock."""

    def _join_again(self) -> list[Any]:
        """Return what is said after `Attach` on a new connection; called with the lock."""
        raise NotImplementedError

    def _pack(self, target: Any, messages: list[bytes]) -> bytes:
        """Return the payload of one multicast."""
        return pack_bundle(messages)

    def _multicast_message(
        self, request: int, target: Any, bundle: list[bytes], data: bytes
    ) -> Any:
        """Return the message for one multicast; called with the lock."""
        raise NotImplementedError

    def _forget_sent(self) -> None:
        """Learn that what was on the way is lost; called with the lock."""

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
        data = self._pack(target, bundle)
        self._request += 1
        self._in_flight.append((self._request, len(bundle), len(data)))
        self._in_flight_messages += len(bundle)
        self._in_flight_bytes += len(data)
        return self._multicast_message(self._request, target, bundle, data)

    def received(self, elements: list[Buffer]) -> None:
        """Take messages of totemd."""
        for message in wire.TABLE.take(elements):
            if not isinstance(message, DecodeError):  # a newer totemd may say more than we know
                self._message(message)

    def _message(self, message: Any) -> None:
        """Take one message; each kind of connection looks for its own events first."""
        match message:
            case wire.Accepted(request):
                self._accepted(request)
            case wire.Done(request) | wire.Members(request) | wire.Groups(request):
                self._answer(request, Status.OK, message, "")
            case wire.Attached():
                self._attach(message)
            case wire.Refused(request, status, reason):
                self._refused(request, status, reason)
            case _:
                pass  # for another kind of connection

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
        if any(number == request for number, _, _ in self._in_flight):
            # Others after it may have been taken: to go on would lose one without a word.
            request, status, reason = 0, Status.ERR_LIBRARY, f"a multicast was refused: {reason}"
        if request == 0:
            with self._changed:
                self._failure = (status, reason)
                self._changed.notify_all()
            self._outcome()
            self._fail(status, reason)
            self._lost()
            return
        self._answer(request, status, None, reason)

    def _answer(self, request: int, status: Status, message: Any, reason: str) -> None:
        with self._lock:
            done = self._waiting.pop(request, None)
        if done is not None:
            done(status, message, reason)

    def lost(self) -> None:
        """The totemd of this connection is gone; what was on the way may be lost."""
        with self._changed:
            self._in_flight.clear()
            self._forget_sent()
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
        for done in waiting:
            done(status, None, reason)


def known_guarantee(call: str, guarantee: int) -> Guarantee:
    """Return a guarantee.

    Raises:
        InvalidParamError: there is no such one.
    """
    try:
        return Guarantee(guarantee)
    except ValueError:
        raise errors.InvalidParamError(call, f"no Guarantee has the value {guarantee}") from None


def result(call: str, status: Status, message: Any, reason: str) -> Any:
    """Return the answer of totemd, or raise by its status."""
    if status is not Status.OK:
        raise errors.error(status, call, reason, definite=status is not Status.ERR_LIBRARY)
    return message
