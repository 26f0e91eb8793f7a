"""The clients of one service on this node: sessions attached, requests held until answered.

Decides when a request is multicast, answered from memory, or given up; the replica decides what
the answer is.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from openais.node.ipc import IpcServer
from openais.node.poller import Poller
from openais.wire import session as wire
from openais.wire.codec import DecodeError, tag_of
from openais.wire.port import Guarantee
from openais.wire.session import RequestFlag
from openais.wire.status import ONE_MILLISECOND_NS, Status
from services.kit import entries
from services.kit.effects import Now
from services.kit.group import Group
from services.kit.limits import Attached, Limits, ServingClock, Use
from services.kit.machine import Caller, Context, NodeId, Operation, Service, SessionId
from services.kit.replica import Replica
from services.kit.requests import Key, Requests
from services.kit.sessions import Record

HELD_MAX: Final = 65_536  # requests of all sessions of this node
HELLOS_MAX: Final = 4096  # that wait for the replica
ACKNOWLEDGE_EVERY: Final = 16  # notifications between two ordered acknowledgements
CANCEL_NS: Final = 500 * ONE_MILLISECOND_NS  # a withdrawal is ordered in, before ERR_TIMEOUT
STALE_MAX: Final = 4096  # sessions that ended without quorum; of older ones the reason is forgotten
NO_QUORUM: Final = "this node is not in the quorate part of the cluster"


@dataclass(slots=True)
class _Orphan:
    """A session whose client is gone, until it returns, its process dies or the grace is over."""

    deadline_ns: int  # of the serving clock
    descriptor: int  # pidfd, or -1


@dataclass(slots=True)
class ServerStats:
    """Counters of the client side."""

    requests: int = 0
    requests_refused: int = 0
    requests_over_limit: int = 0
    requests_repeated: int = 0
    requests_late: int = 0
    reads: int = 0
    fences: int = 0
    sessions_refused: int = 0
    sessions_resumed: int = 0
    sessions_orphaned: int = 0
    sessions_ended: int = 0  # whose client did not come back


class Server:
    """See the module.

    Args:
        ipc: the bound socket.
        replica: of the service.
        group: where entries go.
        operations: the table of the service, by request class.
        status: makes the status document.
        limits: of clients.
    """

    def __init__(
        self,
        ipc: IpcServer,
        replica: Replica,
        group: Group,
        operations: tuple[Operation, ...],
        status: Callable[[], dict[str, Any]],
        limits: Limits,
    ) -> None:
        self.ipc: Final = ipc
        self.stats: Final = ServerStats()
        self.replica = replica
        self.use: Final = Use(limits)
        self._group: Final = group
        table = replica.machine.table
        self._operations: Final = {table.tag(o.request): o for o in operations}
        self._status: Final = status
        self._outside = ""  # why this node is no member, though its ring is
        self._sessions: Final[dict[int, SessionId]] = {}  # client -> session
        self._attached: Final = self.use.attached
        self._hellos: Final[dict[int, wire.Hello]] = {}  # wait for the replica
        self._orphans: Final[dict[SessionId, _Orphan]] = {}
        self._clock: Final = ServingClock()
        self._stale: Final[dict[SessionId, None]] = {}  # in order; clients may still ask for them
        self._requests: Final = Requests(group.send)
        self._reads: Final[dict[Key, Any]] = {}  # decoded
        self._open: Final[set[Key]] = set()  # requests and reads without an answer
        self._cancelled: Final[dict[Key, Status]] = {}  # withdrawals that are on the way
        self._deadlines: Final[list[tuple[int, Key]]] = []
        self._reads_next: Final[list[Key]] = []
        self._reads_fenced: list[Key] = []
        self._fence = 0
        self._fence_open = False
        self._poller: Poller | None = None
        self._wall_ns = 0

    def register(self, poller: Poller) -> None:
        """Let a poller wake up for clients."""
        self._poller = poller
        self.ipc.register(poller)

    # Clients

    def receive(self, now: Now, ready: set[int]) -> None:
        """Serve what clients sent, and those that are gone."""
        self._clock.turn(now.ns, serving=self.replica.serving)
        self.ipc.noticed(ready)
        for client, messages in self.ipc.receive():
            for message in wire.TABLE.take(messages):
                if self.ipc.connected(client):
                    self._message(client, message, now)
        for client, pid in self.ipc.closed():
            self._hellos.pop(client, None)
            session = self._sessions.pop(client, None)
            if session is not None and self._client(session) == client:
                del self._attached[session]
                self._orphan(session, pid)
        for session, orphan in list(self._orphans.items()):
            if orphan.descriptor in ready or orphan.deadline_ns <= self._clock.ns:
                self.stats.sessions_ended += 1
                self._end(session, now)

    def _client(self, session: SessionId) -> int | None:
        attached = self._attached.get(session)
        return attached.client if attached is not None else None

    def _message(self, client: int, message: Any, now: Now) -> None:
        match message:
            case DecodeError():
                self._gone(client, Status.ERR_INVALID_PARAM, str(message)[:200])
            case wire.Request():
                session = self._sessions.get(client)
                if session is None:
                    self._gone(client, Status.ERR_INIT, "the first message must be Hello")
                else:
                    self._request(session, message, now)
            case wire.Acknowledge(serial):
                self._acknowledged(self._sessions.get(client), serial, now)
            case wire.Cancel(number):
                self._cancel(self._sessions.get(client), number, now)
            case wire.Hello():
                self._hello(client, message)
            case wire.Bye():
                session = self._sessions.pop(client, None)
                self.ipc.drop(client)
                if session is not None:
                    self._attached.pop(session, None)
                    self._end(session, now)
            case wire.StatusQuery():
                self._send(client, wire.StatusReport(json.dumps(self._status())))
            case _:
                self._gone(client, Status.ERR_INVALID_PARAM, "this is what a service says")

    def _hello(self, client: int, hello: wire.Hello) -> None:
        session = SessionId(hello.session_id)
        if hello.version_min > wire.VERSION or hello.version < wire.VERSION_MIN:
            rule = f"this service speaks version {wire.VERSION}"
            self._gone(client, Status.ERR_VERSION, rule)
        elif len(session) != wire.SESSION_ID_SIZE:
            rule = f"a session id has {wire.SESSION_ID_SIZE} bytes"
            self._gone(client, Status.ERR_INVALID_PARAM, rule)
        elif client in self._sessions:
            self._gone(client, Status.ERR_EXIST, "this connection has a session")
        else:
            self._attach(client, session, hello)

    def _attach(self, client: int, session: SessionId, hello: wire.Hello) -> None:
        acts = self.replica.acts or hello.outlives_membership
        if session in self._stale or not (acts or self._known(session)):
            self._gone(client, Status.ERR_UNAVAILABLE, NO_QUORUM)
            return
        if self._outside and not hello.outlives_membership:
            self._gone(client, Status.ERR_UNAVAILABLE, self._outside)
            return
        before = self._attached.pop(session, None)
        if before is not None:  # the client has made a new connection
            self._sessions.pop(before.client, None)
            self._hellos.pop(before.client, None)
            self.ipc.drop(before.client)
        peer = self.ipc.peer(client)
        rule = self.use.session_rule(peer) if not hello.resume else None
        if rule is not None:
            self.stats.sessions_refused += 1
            self._gone(client, Status.ERR_NO_RESOURCES, rule)
            return
        self._adopt(session)
        self._sessions[client] = session
        attached = Attached(client, peer, hello.notified, hello.notified, hello.notified)
        if before is not None:
            attached.requests, attached.bytes_held = before.requests, before.bytes_held
        self._attached[session] = attached
        if self._known(session):
            self._welcome(client, session, hello)
        elif len(self._hellos) < HELLOS_MAX:
            self._hellos[client] = hello
            self._ask(client, session, hello)
        else:
            self._gone(client, Status.ERR_TRY_AGAIN, f"{HELLOS_MAX} sessions wait to be opened")

    def _known(self, session: SessionId) -> bool:
        record = self._record(session)
        return record is not None and record.node_id == self.replica.me

    def _ask(self, client: int, session: SessionId, hello: wire.Hello) -> None:
        """Have a session opened on all replicas, or taken up where a node's memory was lost."""
        if not hello.resume:
            self._group.send(entries.SessionOpened(session, hello.outlives_membership))
        elif self.replica.sessions.resumable(session):
            self._group.send(entries.SessionResumed(self._wall_ns, session, hello.notified))
        elif self.replica.serving:
            self._gone(client, Status.ERR_LIBRARY, "the session was lost")

    def _welcome(self, client: int, session: SessionId, hello: wire.Hello) -> None:
        self._hellos.pop(client, None)
        self.stats.sessions_resumed += hello.resume
        version = min(hello.version, wire.VERSION)
        grace_ms = self.use.limits.session_grace_ms
        self._send(client, wire.Welcome(self.replica.me, hello.resume, version, grace_ms))
        self._push(session)

    def stale(self, session: SessionId) -> None:
        """A session of this node ended because there is no quorum: its handle is stale."""
        self._stale[session] = None
        if len(self._stale) > STALE_MAX:
            del self._stale[next(iter(self._stale))]
        self._forget(session)
        client = self._client(session)
        if client is not None:
            self._gone(client, Status.ERR_UNAVAILABLE, self._outside or NO_QUORUM)

    def take_outside(self, rule: str, now: Now) -> None:
        """Serve nobody while the node is no member, as if it had left; "" lets it in again."""
        if rule == self._outside:
            return
        self._outside = rule
        for session in self.replica.sessions.of_node(self.replica.me) if rule else ():
            self._exclude(session, now.wall_ns)

    def _exclude(self, session: SessionId, wall_ns: int) -> None:
        if not self.replica.sessions.open[session].outlives_membership:
            self._group.send(entries.SessionClosed(wall_ns, session))
            self.stale(session)

    def opened(self, session: SessionId) -> None:
        """A session of this node is open on all replicas."""
        if self._outside:  # since it was asked for
            self._exclude(session, self._wall_ns)
        client = self._client(session)
        if client is not None and client in self._hellos:
            self._welcome(client, session, self._hellos[client])

    def ended(self, session: SessionId) -> None:
        """A session of this node is over on all replicas."""
        client = self._client(session)
        if client is not None:
            self._gone(client, Status.ERR_LIBRARY, "the session was lost, or did not take notice")

    def live(self) -> None:
        """The replica serves again: each session is there, or gone."""
        for client, hello in list(self._hellos.items()):
            session = self._sessions[client]
            if self._known(session):
                self._welcome(client, session, hello)
            else:
                self._ask(client, session, hello)
        for session in self.replica.sessions.of_node(self.replica.me):
            if session not in self._attached and session not in self._orphans:
                self._orphans[session] = _Orphan(self._grace_end_ns(), -1)
        for session, attached in list(self._attached.items()):
            if not self._known(session) and attached.client not in self._hellos:
                self._take_up(session, attached)

    def _take_up(self, session: SessionId, attached: Attached) -> None:
        """Take a session up again that was closed with the seat, while its client stayed."""
        if self.replica.sessions.resumable(session):
            version = wire.VERSION
            hello = wire.Hello(version, version, session, resume=True, notified=attached.pushed)
            self._hellos[attached.client] = hello
            self._ask(attached.client, session, hello)
        else:
            self._gone(attached.client, Status.ERR_LIBRARY, "the session was lost")

    def send_again(self) -> None:
        """Multicast everything unanswered again: the connection to totemd was lost on the way."""
        for session in self._requests.sessions():
            self._send_again(session)
        for (session, number), status in self._cancelled.items():
            self._group.send(entries.Cancelled(self._wall_ns, session, number, status))
        if self._fence_open:
            self._group.send(entries.Fence(self._fence), self._fence_guarantee)

    def _record(self, session: SessionId) -> Record | None:
        return self.replica.sessions.open.get(session)

    def _send_again(self, session: SessionId) -> None:
        record = self._record(session)
        if record is not None:
            self._requests.send_again(session, record)

    def _grace_end_ns(self) -> int:
        return self._clock.ns + self.use.limits.session_grace_ms * ONE_MILLISECOND_NS

    def _orphan(self, session: SessionId, pid: int) -> None:
        """A connection ended without a word: the process died, or will be back."""
        self.stats.sessions_orphaned += 1
        orphan = _Orphan(self._grace_end_ns(), -1)
        self._orphans[session] = orphan
        try:
            orphan.descriptor = os.pidfd_open(pid)
        except OSError:  # dead already
            orphan.deadline_ns = self._clock.ns
            return
        if self._poller is not None:
            self._poller.register(orphan.descriptor)

    def _adopt(self, session: SessionId) -> None:
        orphan = self._orphans.pop(session, None)
        if orphan is not None and orphan.descriptor >= 0:
            if self._poller is not None:
                self._poller.unregister(orphan.descriptor)
            os.close(orphan.descriptor)

    def _end(self, session: SessionId, now: Now) -> None:
        """Close a session on all replicas."""
        self._forget(session)
        self._group.send(entries.SessionClosed(now.wall_ns, session))

    def _forget(self, session: SessionId) -> None:
        """Drop what this node holds of a session that ended."""
        self._adopt(session)
        self._requests.ended(session)
        for key in [key for key in self._open if key[0] == session]:
            self._open.discard(key)
            self._reads.pop(key, None)
        for key in [key for key in self._cancelled if key[0] == session]:
            del self._cancelled[key]

    def _gone(self, client: int, status: Status, reason: str) -> None:
        self._send(client, wire.Gone(status, reason))
        self._hellos.pop(client, None)
        session = self._sessions.pop(client, None)
        if session is not None:
            self._attached.pop(session, None)
            self._forget(session)
        self.ipc.drop(client)

    def _send(self, client: int, message: Any) -> None:
        self.ipc.send(client, wire.TABLE.encode(message))

    # Requests

    def _request(self, session: SessionId, request: wire.Request, now: Now) -> None:
        self.stats.requests += 1
        key = (session, request.number)
        if key in self._open:
            self.stats.requests_repeated += 1
            return
        refusal = self._rule(session, request)
        if refusal is not None:
            self.stats.requests_refused += 1
            self._reply(key, *refusal)
            return
        record = self._record(session)
        answer = record.answers.get(request.number) if record is not None else None
        if answer is not None:
            self.stats.requests_repeated += 1
            self._reply(key, answer[0], answer[1])
            return
        deadline_ns = now.ns + request.timeout_ms * ONE_MILLISECOND_NS
        if self._operations[tag_of(request.body)].service is Service.READ:
            self._read(key, request, deadline_ns, now)
            return
        safe = request.flags & RequestFlag.SAFE or self.replica.quorum.configured
        self._wall_ns = max(self._wall_ns, now.wall_ns)
        entry = entries.Operation(
            self._wall_ns, session, request.number, request.acknowledged, request.body
        )
        guarantee = Guarantee.SAFE if safe else Guarantee.AGREED
        self._requests.add(session, entry, guarantee, record)
        self._hold(key, len(request.body), deadline_ns)

    def _rule(self, session: SessionId, request: wire.Request) -> tuple[Status, bytes] | None:
        if self._outside:
            return Status.ERR_TRY_AGAIN, self._outside.encode()  # of a handle that outlives it
        size, size_max = len(request.body), self.use.limits.body_size_max
        if size > size_max:
            return Status.ERR_NO_RESOURCES, b"%d bytes in one request, limit %d" % (size, size_max)
        if request.timeout_ms <= 0 or request.number <= 0:
            return Status.ERR_INVALID_PARAM, b"timeout and number must be positive"
        try:
            tag = tag_of(request.body)
        except DecodeError as error:
            return Status.ERR_INVALID_PARAM, str(error).encode()
        if tag not in self._operations:
            return Status.ERR_INVALID_PARAM, f"no operation {tag}".encode()
        peer = self._attached[session].peer
        if self._operations[tag].admin and not self.ipc.access.administers(peer):
            return Status.ERR_ACCESS, f"uid {peer.uid} is no administrator".encode()
        return self._version_rule(tag) or self._limit_rule(session, size)

    def _limit_rule(self, session: SessionId, size: int) -> tuple[Status, bytes] | None:
        rule = self.use.request_rule(session, size)
        if rule is None and len(self._open) >= HELD_MAX:
            rule = "too many requests wait in this service"
        if rule is None:
            return None
        self.stats.requests_over_limit += 1
        return Status.ERR_TRY_AGAIN, rule.encode()

    def _version_rule(self, tag: int) -> tuple[Status, bytes] | None:
        """Say why an operation has to wait until every member is upgraded."""
        since = self.replica.machine.table.since(tag) or 1
        spoken = self.replica.versions.spoken.service
        if not spoken or since <= spoken:
            return None
        rule = f"came with version {since}; a member of the group speaks {spoken} only"
        return Status.ERR_NOT_SUPPORTED, rule.encode()

    def _hold(self, key: Key, size: int, deadline_ns: int) -> None:
        self._open.add(key)
        self.use.hold(key, size)
        heapq.heappush(self._deadlines, (deadline_ns, key))

    def _close(self, key: Key) -> None:
        self._open.discard(key)
        self._reads.pop(key, None)
        self.use.release(key)

    def _read(self, key: Key, request: wire.Request, deadline_ns: int, now: Now) -> None:
        try:
            message = self.replica.machine.table.decode(request.body)
        except DecodeError as error:
            self._reply(key, Status.ERR_INVALID_PARAM, str(error).encode())
            return
        self.stats.reads += 1
        local = request.flags & RequestFlag.LOCAL and self.replica.serving
        if local and self._known(key[0]):  # else what it has open is not here yet
            self._answer_read(key, message, now)
            return
        self._reads[key] = message
        self._hold(key, len(request.body), deadline_ns)
        self._reads_next.append(key)

    def _answer_read(self, key: Key, message: Any, now: Now) -> None:
        replica = self.replica
        assert replica.view is not None
        if not replica.acts or not self._known(key[0]):  # the session is about to be told its end
            self._refuse_without_quorum(key)
            return
        caller = Caller(NodeId(replica.me), *key)
        context = Context(now.wall_ns, NodeId(replica.me), caller, replica.view)
        answer = replica.machine.read(message, context)
        result = answer.result
        body = b"" if result is None else replica.machine.table.encode(result)
        self._reply(key, answer.status, body)

    def _refuse_without_quorum(self, key: Key) -> None:
        record = self.replica.sessions.open.get(key[0])
        status = Status.ERR_UNAVAILABLE if record is None else record.without_quorum
        self._reply(key, status, NO_QUORUM.encode())

    @property
    def _fence_guarantee(self) -> Guarantee:
        """Safe where there is a quorum: a minority must not read what is outdated elsewhere."""
        return Guarantee.SAFE if self.replica.quorum.configured else Guarantee.AGREED

    def order(self) -> None:
        """Send the requests that could not go out before, and one fence for all reads that wait."""
        for session in self._requests.unsent():
            self._send_again(session)
        if self._reads_next and not self._fence_open and self._group.attached:
            self._fence += 1
            self._fence_open = True
            self.stats.fences += 1
            self._reads_fenced = self._reads_next[:]
            self._reads_next.clear()
            self._group.send(entries.Fence(self._fence), self._fence_guarantee)

    def fence_passed(self, number: int, now: Now) -> None:
        """Answer the reads of a fence."""
        if number != self._fence or not self._fence_open:
            return
        self._fence_open = False
        for key in self._reads_fenced:
            if key not in self._reads:
                continue  # given up
            record = self._record(key[0])
            if record is not None and self._requests.unapplied_before(key, record):
                self._reads_next.append(key)  # what this client asked before was dropped
                continue
            message = self._reads[key]
            self._close(key)
            self._answer_read(key, message, now)
        self._reads_fenced = []

    def replied(self, key: Key, status: Status, body: bytes) -> None:
        """The replica has the answer of a request."""
        self._requests.answered(key)
        self._cancelled.pop(key, None)
        self._close(key)
        self._reply(key, status, body)

    def _reply(self, key: Key, status: Status, body: bytes) -> None:
        client = self._client(key[0])
        if client is not None:
            self._send(client, wire.Reply(key[1], status, body))

    def _cancel(self, session: SessionId | None, number: int, now: Now) -> None:
        """Nobody waits for an answer any more."""
        if session is None:
            return
        key, record = (session, number), self._record(session)
        waits = record is not None and number in record.waiting
        if key in self._reads or (key not in self._open and not waits):
            self._close(key)
            self._reply(key, Status.ERR_INTERRUPT, b"given up")
        elif key not in self._cancelled:
            self._give_up(key, Status.ERR_INTERRUPT, now)

    def _give_up(self, key: Key, status: Status, now: Now) -> bool:
        """Withdraw a request; True: it has its answer, False: that will come."""
        request = self._requests.give_up(key)
        record = self._record(key[0])
        waits = record is not None and key[1] in record.waiting
        if not waits and (request is None or not request.left):
            self._close(key)
            self._reply(key, Status.ERR_TRY_AGAIN, b"the cluster did not take it in time")
            return True
        if not waits and not self.replica.waits:
            self._close(key)
            self._reply(key, Status.ERR_TIMEOUT, b"no agreement in time; it may come later")
            return True
        self._wall_ns = max(self._wall_ns, now.wall_ns)
        self._cancelled[key] = status
        self._group.send(entries.Cancelled(self._wall_ns, *key, status))
        return False

    # Notifications

    def told(self, session: SessionId) -> None:
        """A session has a notification more, or has taken some."""
        client = self._client(session)
        if client is not None and client not in self._hellos:
            self._push(session)

    def _push(self, session: SessionId) -> None:
        """Send what the session has not got, as far as the window lets."""
        record, attached = self._record(session), self._attached[session]
        if record is None:
            return
        last = attached.taken + wire.NOTIFICATIONS_ON_THE_WAY_MAX
        begin = bisect.bisect_right(record.kept, attached.pushed, key=itemgetter(0))
        for serial, body in itertools.islice(record.kept, begin, None):
            if serial > last:
                return
            self._send(attached.client, wire.Notify(serial, body))
            attached.pushed = serial
        if record.serial > attached.pushed and not record.full:  # the newest were dropped
            self._send(attached.client, wire.Missed(record.serial))
            attached.pushed = record.serial

    def _acknowledged(self, session: SessionId | None, serial: int, now: Now) -> None:
        record = self._record(session) if session is not None else None
        if session is None or record is None or serial > record.serial:
            return
        attached = self._attached[session]
        attached.taken = max(attached.taken, serial)
        attached.ordered = max(attached.ordered, record.notified)
        if serial - attached.ordered >= ACKNOWLEDGE_EVERY:
            attached.ordered = serial
            self._group.send(entries.Notified(session, serial, now.wall_ns))
        self.told(session)

    # Time

    def wait_ns(self, now: Now) -> int | None:
        """Return in how many ns `expire` wants to be called; None: never."""
        waits = [orphan.deadline_ns - self._clock.ns for orphan in self._orphans.values()]
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            waits.append(self._deadlines[0][0] - now.ns)
        return max(0, min(waits)) if waits else None

    def expire(self, now: Now) -> None:
        """Give up requests whose time is over."""
        self._wall_ns = max(self._wall_ns, now.wall_ns)
        while self._deadlines and self._deadlines[0][0] <= now.ns:
            _, key = heapq.heappop(self._deadlines)
            if key not in self._open:
                continue
            self.stats.requests_late += 1
            if key in self._cancelled:  # and the withdrawal is not ordered in time either
                self._close(key)
                self._reply(key, Status.ERR_TIMEOUT, b"no agreement in time; it may come later")
            elif not self._give_up(key, Status.ERR_TIMEOUT, now):
                heapq.heappush(self._deadlines, (now.ns + CANCEL_NS, key))


def refusal(status: Status, rule: str) -> bytes:
    """Encode the last words for a client that is not served."""
    return wire.TABLE.encode(wire.Gone(status, rule))
