"""A session with one service: numbered requests, answers, notifications.

The session outlives the service process: after a reconnect it is taken up by its id and every
unanswered request is sent again, in order; the service applies each at most once.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from openais import errors
from openais.errors import AisError
from openais.link import Link, Waiter
from openais.node import paths
from openais.wire import session as wire
from openais.wire.codec import Buffer, DecodeError, Table
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, Status

OPEN_TIMEOUT_NS: Final = 10 * ONE_SECOND_NS
CALL_TIMEOUT_NS: Final = 10 * ONE_SECOND_NS
TIMEOUT_MAX_MS: Final = 100 * 365 * 24 * 3600 * 1000  # stands for ever
WAIT_MAX_S: Final = 24 * 3600.0  # of one wait for an answer, of which there may be many
TAKEN_EVERY: Final = 16  # notifications that one acknowledgement stands for where many wait
REPLY_GRACE_NS: Final = ONE_SECOND_NS  # the service answers in time; this is for the way back

# Who is answered so does not know what became of a request that had left.
MAY_BE_DONE: Final = (Status.ERR_TIMEOUT, Status.ERR_LIBRARY, Status.ERR_UNAVAILABLE)

Done = Callable[[Status, bytes], None]


class _State(Enum):
    OPENING = "opening"
    OPEN = "open"
    GONE = "gone"
    CLOSED = "closed"


@dataclass(slots=True)
class _Pending:
    request: wire.Request
    deadline_ns: int
    done: Done
    sent: bool = False  # at least once, to a service that may have seen it


class Session:
    """One session. Methods may be called from any thread.

    Args:
        service: its name, like ``ckpt``.
        table: its protocol.
        run_dir: of the node; None: environment, else the default.
        notified: called with each notification, in any thread.
        gone: called when the session is lost for good, in any thread, with the error that every
            call has from then on.
        missed: called, in any thread, with how many notifications were dropped before the next
            one, because they were not taken in time.
        paced: a notification counts as taken when `taken` is called, not when it has arrived; so
            the service keeps, and bounds, what the application is slow to take.
        outlives_membership: of an API level without ERR_UNAVAILABLE; it is never stale.
    """

    def __init__(
        self,
        service: str,
        table: Table,
        *,
        run_dir: Path | str | None = None,
        notified: Callable[[Any], None] | None = None,
        gone: Callable[[AisError], None] | None = None,
        missed: Callable[[int], None] | None = None,
        paced: bool = False,
        outlives_membership: bool = False,
    ) -> None:
        self.service: Final = service
        self.node_id = 0  # known when open
        self._table: Final = table
        self._id: Final = os.urandom(wire.SESSION_ID_SIZE)
        self._notified: Final = notified
        self._gone_callback: Final = gone
        self._missed: Final = missed
        self._untaken: Final[deque[int] | None] = deque() if paced else None
        self._outlives_membership: Final = outlives_membership
        self._lock: Final = threading.Lock()
        self._opened: Final = threading.Event()
        self._state = _State.OPENING
        self._reason = ""
        self._gone_status = Status.ERR_LIBRARY
        self._number = 0
        self._acknowledged = 0
        self._answered: Final[set[int]] = set()
        self._pending: Final[dict[int, _Pending]] = {}
        self._cancelled: Final[set[int]] = set()  # given up; the service has not said that it knows
        self._version = wire.VERSION_MIN
        self._outbox: list[bytes] = []
        self._resume = False
        self._serial = 0
        self._opened_callback: Callable[[], None] | None = None
        directory = paths.run_dir(run_dir)
        self._path: Final = paths.socket_path(directory, f"{service}.sock")
        self.link: Final = Link(self._path, self)

    # Calls

    def open(self, timeout_ns: int = OPEN_TIMEOUT_NS) -> None:
        """Wait until the service has opened the session.

        Raises:
            AisError: ERR_TRY_AGAIN, the service does not answer; ERR_ACCESS; ERR_VERSION.
        """
        self.begin()
        if not self._opened.wait(timeout_ns / ONE_SECOND_NS):
            self.close()
            raise self.unreachable()
        self.check("open")

    def begin(self, opened: Callable[[], None] | None = None) -> None:
        """Begin to open; ``opened`` is called at the outcome, in any thread."""
        self._opened_callback = opened
        self.link.open()

    def unreachable(self) -> AisError:
        """Return the error for a service that does not answer."""
        try:
            why = "no answer" if self._path.exists() else "the socket does not exist"
        except OSError as error:
            why = error.strerror or str(error)
        return errors.error(
            Status.ERR_TRY_AGAIN,
            f"{self.service}.open",
            f"service {self.service} at {self._path}: {why}; is the node started? "
            "See: openais cluster status",
        )

    def check(self, call: str) -> None:
        """Raise if the session cannot be used."""
        name = f"{self.service}.{call}"
        self.check_process(call)
        if self._state is _State.CLOSED:
            raise errors.BadHandleError(name, "closed")
        if self._state is _State.GONE:
            raise errors.error(self._gone_status, name, self._reason, definite=False)

    def check_process(self, call: str) -> None:
        """Raise ERR_BAD_HANDLE in a forked child."""
        self.link.check_process(f"{self.service}.{call}")

    def submit(self, call: str, message: object, flags: int, timeout_ns: int, done: Done) -> int:
        """Send one request; ``done`` is called with the answer, in any thread.

        Returns:
            The number of the request, for `abandon`.

        Raises:
            AisError: ERR_TRY_AGAIN, too many are outstanding; or the session is unusable.
        """
        number = self.send(call, message, flags, timeout_ns, done)
        self.link.leave_to_itself()
        return number

    def send(self, call: str, message: object, flags: int, timeout_ns: int, done: Done) -> int:
        """Do what `submit` does, for who sees to it that the answer is received."""
        self.check(call)
        timeout_ms = min(max(timeout_ns // ONE_MILLISECOND_NS, 1), TIMEOUT_MAX_MS)
        body = self._table.encode(message)
        with self._lock:
            if len(self._pending) + len(self._cancelled) >= wire.REQUESTS_OUTSTANDING_MAX:
                raise errors.TryAgainError(
                    f"{self.service}.{call}",
                    f"{wire.REQUESTS_OUTSTANDING_MAX} requests are unanswered",
                )
            self._number += 1
            number = self._number
            request = wire.Request(number, self._acknowledged, timeout_ms, flags, body)
            deadline_ns = time.monotonic_ns() + timeout_ms * ONE_MILLISECOND_NS
            self._pending[number] = _Pending(request, deadline_ns, done)
            self._outbox.append(wire.TABLE.encode(request))
        self.link.wake()
        return number

    def abandon(self, number: int) -> bool:
        """Stop waiting for an answer; False: the service certainly never saw the request.

        Where the request waits in the service, it is withdrawn there.
        """
        with self._lock:
            pending = self._pending.pop(number, None)
            if pending is None or not pending.sent or self._version < 2:
                self._answer_known(number)
                return pending is None or pending.sent
            self._cancelled.add(number)
            self._outbox.append(wire.TABLE.encode(wire.Cancel(number)))
        self.link.wake()
        return True

    def _answer_known(self, number: int) -> None:
        """Note that a request needs no answer any more, with the lock held."""
        self._answered.add(number)
        while self._acknowledged + 1 in self._answered:
            self._acknowledged += 1
            self._answered.discard(self._acknowledged)

    def taken(self) -> None:
        """Say that the application has taken one notification more, the oldest; see ``paced``."""
        with self._lock:
            if not self._untaken:
                return
            serial = self._untaken.popleft()
            if self._untaken and serial % TAKEN_EVERY:
                return
            self._outbox.append(wire.TABLE.encode(wire.Acknowledge(serial)))
        self.link.wake()

    def call(
        self,
        call: str,
        message: object,
        *,
        flags: int = 0,
        timeout_ns: int = CALL_TIMEOUT_NS,
    ) -> Any:
        """Do one request; return its result message, or None.

        Raises:
            AisError: by the status of the answer; ERR_TIMEOUT when none comes.
        """
        answer: list[tuple[Status, bytes]] = []
        waiter = Waiter.of_this_thread()

        def done(status: Status, body: bytes) -> None:
            answer.append((status, body))
            waiter.set()

        number = self.send(call, message, flags, timeout_ns, done)
        seconds = (min(timeout_ns, TIMEOUT_MAX_MS * ONE_MILLISECOND_NS) + REPLY_GRACE_NS) / 1e9
        deadline = time.monotonic() + seconds
        while not answer:  # the waiter may be set by what an earlier call gave up
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.late(call, number)
            self._wait(waiter, min(left, WAIT_MAX_S))
            if not answer:
                waiter.clear()
        return self.result(call, *answer[0])

    def _wait(self, waiter: Waiter, seconds: float) -> None:
        """Wait for an answer; who waits alone receives by itself."""
        if len(self._pending) > 1:
            waiter.wait(seconds)
            return
        self.link.serve_until(waiter, seconds)
        if self._pending:
            self.link.leave_to_itself()

    def late(self, call: str, number: int) -> AisError:
        """Give a request up whose time is over; return the error."""
        seen = self.abandon(number)
        status = Status.ERR_TIMEOUT if seen else Status.ERR_TRY_AGAIN
        return errors.error(
            status, f"{self.service}.{call}", f"no answer from {self._path}", definite=not seen
        )

    def result(self, call: str, status: Status, body: bytes) -> Any:
        """Return the result of an answer, or raise by its status."""
        if status is not Status.OK:
            raise self._failure(call, status, body)
        return self._table.decode(body) if body else None

    def _failure(self, call: str, status: Status, body: bytes) -> AisError:
        detail: object = None
        reason = ""
        if body:
            try:
                detail = self._table.decode(body)
                reason = str(detail)
            except DecodeError:  # text of the kit
                reason = body.decode("utf-8", "replace")
        definite = status not in MAY_BE_DONE
        failure = errors.error(status, f"{self.service}.{call}", reason, definite=definite)
        failure.detail = detail
        return failure

    def close(self) -> None:
        """Close the session in order; everything it had open is released. May be repeated."""
        with self._lock:
            if self._state is _State.CLOSED:
                return
            self._state = _State.CLOSED
            self._outbox.append(wire.TABLE.encode(wire.Bye()))
        self.link.close()
        self._fail_all(Status.ERR_BAD_HANDLE)

    # What the link asks, in any thread

    def connected(self) -> None:
        """Say who we are, then everything that is unanswered."""
        with self._lock:
            if self._state in (_State.CLOSED, _State.GONE):
                return
            hello = wire.Hello(
                wire.VERSION,
                wire.VERSION_MIN,
                self._id,
                self._resume,
                self._serial,
                self._outlives_membership,
            )
            now_ns = time.monotonic_ns()
            again = [self._again(pending, now_ns) for pending in self._pending.values()]
            cancels = [wire.TABLE.encode(wire.Cancel(n)) for n in sorted(self._cancelled)]
            self._outbox = [wire.TABLE.encode(hello), *again, *cancels]

    def _again(self, pending: _Pending, now_ns: int) -> bytes:
        """Encode a request once more, with the time that is left."""
        left_ms = max((pending.deadline_ns - now_ns) // ONE_MILLISECOND_NS, 1)
        request = dataclasses.replace(
            pending.request, acknowledged=self._acknowledged, timeout_ms=left_ms
        )
        return wire.TABLE.encode(request)

    def outgoing(self) -> list[bytes]:
        """Hand over what is to be sent."""
        with self._lock:
            outbox = self._outbox
            self._outbox = []
            for pending in reversed(self._pending.values()):
                if pending.sent:
                    break
                pending.sent = self._resume
            return outbox

    def received(self, elements: list[Buffer]) -> None:
        """Take messages of the service."""
        for message in wire.TABLE.take(elements):
            if not isinstance(message, DecodeError):  # a newer service may say more than we know
                self._message(message)

    def lost(self) -> None:
        """The service or the connection is gone; a new one follows."""

    def _message(self, message: Any) -> None:
        match message:
            case wire.Reply(number, status, body):
                self._reply(number, status, body)
            case wire.Notify(serial, body):
                self._notify(serial, body)
            case wire.Missed(serial):
                self._miss(serial)
            case wire.Welcome(node_id, _, version):
                self.node_id = node_id
                with self._lock:
                    self._version = version
                    self._resume = True
                    for pending in self._pending.values():
                        pending.sent = True
                    if self._state is _State.OPENING:
                        self._state = _State.OPEN
                self._outcome()
            case wire.Gone(status, reason):
                self._gone(status, reason)
            case _:
                pass  # what a client says

    def _outcome(self) -> None:
        if not self._opened.is_set():
            self._opened.set()
            if self._opened_callback is not None:
                self._opened_callback()

    def _reply(self, number: int, status: Status, body: bytes) -> None:
        with self._lock:
            pending = self._pending.pop(number, None)
            self._cancelled.discard(number)
            self._answer_known(number)
        if pending is not None:
            pending.done(status, body)

    def _notify(self, serial: int, body: bytes) -> None:
        if serial <= self._serial:
            return
        self._miss(serial - 1)
        self._serial = serial
        if self._untaken is None:
            with self._lock:
                self._outbox.append(wire.TABLE.encode(wire.Acknowledge(serial)))
        try:
            message = self._table.decode(body)
        except DecodeError:
            message = None  # a newer service may notify what we need not understand
        if self._untaken is not None:
            with self._lock:
                self._untaken.append(serial)
            if message is None:
                self.taken()
        if self._notified is not None and message is not None:
            self._notified(message)

    def _miss(self, serial: int) -> None:
        """Learn that no notification up to ``serial`` will come any more."""
        count = serial - self._serial
        if count <= 0:
            return
        self._serial = serial
        if self._missed is not None:
            self._missed(count)

    def _gone(self, status: Status, reason: str) -> None:
        with self._lock:
            if self._state is _State.CLOSED:
                return
            self._state = _State.GONE
            self._gone_status = status
            self._reason = reason
        self._outcome()
        self._fail_all(status)
        if self._gone_callback is not None:
            self._gone_callback(
                errors.error(status, f"{self.service}.dispatch", reason, definite=False)
            )

    def _fail_all(self, status: Status) -> None:
        with self._lock:
            pending = list(self._pending.values())
            self._pending.clear()
        for one in pending:
            one.done(status, b"")
