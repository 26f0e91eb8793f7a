"""The clients of one service on this node: sessions attached, requests held until answered.

Decides when a request is multicast, answered from memory, or given up; the replica decides what
the answer is.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from openais.node.ipc import IpcServer
from openais.node.logs import EventLog
from openais.node.poller import Poller
from openais.wire import session as wire
from openais.wire.codec import DecodeError, tag_of
from openais.wire.port import Guarantee
from openais.wire.session import RequestFlag
from openais.wire.status import ONE_MILLISECOND_NS, Status
from services.kit import entries
from services.kit.effects import Now
from services.kit.group import Group
from services.kit.machine import Caller, Context, NodeId, Operation, Service, SessionId
from services.kit.replica import Replica
from services.kit.requests import Key, Requests
from services.kit.sessions import Record

SESSION_GRACE_MS: Final = 5000
BODY_OVERHEAD_MAX: Final = 4096  # bytes of a request beside its data
HELD_MAX: Final = 65_536  # requests of all sessions of this node
HELLOS_MAX: Final = 4096  # that wait for the replica
ACKNOWLEDGE_EVERY: Final = 32  # notifications between two ordered acknowledgements
STALE_MAX: Final = 4096  # sessions that ended without quorum; of older ones the reason is forgotten
NO_QUORUM: Final = "this node is not in the quorate part of the cluster"

_LOG = EventLog(__name__)


@dataclass(slots=True)
class _Orphan:
    """A session whose client is gone, until it returns, its process dies or the grace is over."""

    deadline_ns: int
    descriptor: int  # pidfd, or -1


@dataclass(slots=True)
class ServerStats:
    """Counters of the client side."""

    requests: int = 0
    requests_refused: int = 0
    requests_repeated: int = 0
    requests_late: int = 0
    reads: int = 0
    fences: int = 0
    sessions_resumed: int = 0
    sessions_orphaned: int = 0


class Server:
    """See the module.

    Args:
        ipc: the bound socket.
        replica: of the service.
        group: where entries go.
        operations: the table of the service, by request class.
        status: makes the status document.
        clients_max: sessions of this node.
        data_size_max: bytes of data in one request.
    """

    def __init__(
        self,
        ipc: IpcServer,
        replica: Replica,
        group: Group,
        operations: tuple[Operation, ...],
        status: Callable[[], dict[str, Any]],
        clients_max: int,
        data_size_max: int,
    ) -> None:
        self._body_size_max: Final = data_size_max + BODY_OVERHEAD_MAX
        self.ipc: Final = ipc
        self.stats: Final = ServerStats()
        self.replica = replica
        self._group: Final = group
        table = replica.machine.table
        self._services: Final = {table.tag(o.request): o.service for o in operations}
        self._status: Final = status
        self._outside = ""  # why this node is no member, though its ring is
        self._clients_max: Final = clients_max
        self._sessions: Final[dict[int, SessionId]] = {}  # client -> session
        self._clients: Final[dict[SessionId, int]] = {}
        self._hellos: Final[dict[int, wire.Hello]] = {}  # wait for the replica
        self._orphans: Final[dict[SessionId, _Orphan]] = {}
        self._stale: Final[dict[SessionId, None]] = {}  # in order; clients may still ask for them
        self._requests: Final = Requests(group.send)
        self._reads: Final[dict[Key, Any]] = {}  # decoded
        self._open: Final[set[Key]] = set()  # requests and reads without an answer
        self._deadlines: Final[list[tuple[int, Key]]] = []
        self._seen: Final[dict[SessionId, int]] = {}  # notifications acknowledged
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
        self.ipc.noticed(ready)
        for client, messages in self.ipc.receive():
            for message in wire.TABLE.take(messages):
                if self.ipc.connected(client):
                    self._message(client, message, now)
        for client, pid in self.ipc.closed():
            self._hellos.pop(client, None)
            session = self._sessions.pop(client, None)
            if session is not None and self._clients.get(session) == client:
                del self._clients[session]
                self._orphan(session, pid, now)
        for session, orphan in list(self._orphans.items()):
            if orphan.descriptor in ready or orphan.deadline_ns <= now.ns:
                self._end(session, now)

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
                self._acknowledged(self._sessions.get(client), serial)
            case wire.Hello():
                self._hello(client, message, now)
            case wire.Bye():
                session = self._sessions.pop(client, None)
                self.ipc.drop(client)
                if session is not None:
                    self._clients.pop(session, None)
                    self._end(session, now)
            case wire.StatusQuery():
                self._send(client, wire.StatusReport(json.dumps(self._status())))
            case _:
                self._gone(client, Status.ERR_INVALID_PARAM, "this is what a service says")

    def _hello(self, client: int, hello: wire.Hello, now: Now) -> None:
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
            self._attach(client, session, hello, now)

    def _attach(self, client: int, session: SessionId, hello: wire.Hello, now: Now) -> None:
        record = self.replica.sessions.open.get(session)
        known = record is not None and record.node_id == self.replica.me
        if session in self._stale or not (known or self.replica.acts or hello.outlives_membership):
            self._gone(client, Status.ERR_UNAVAILABLE, NO_QUORUM)
            return
        if self._outside and not hello.outlives_membership:
            self._gone(client, Status.ERR_UNAVAILABLE, self._outside)
            return
        if not known and hello.resume and self.replica.serving:
            self._gone(client, Status.ERR_LIBRARY, "the session was lost")
            return
        if not known and not hello.resume and len(self._clients) >= self._clients_max:
            rule = f"{self._clients_max} sessions are open on this node"
            self._gone(client, Status.ERR_NO_RESOURCES, rule)
            return
        before = self._clients.get(session)
        if before is not None:  # the client has made a new connection
            self._sessions.pop(before, None)
            self.ipc.drop(before)
        self._adopt(session)
        self._sessions[client] = session
        self._clients[session] = client
        if known:
            self._welcome(client, session, hello)
        elif len(self._hellos) < HELLOS_MAX:
            self._hellos[client] = hello
            if not hello.resume:
                self._open_session(session, hello)
        else:
            self._gone(client, Status.ERR_TRY_AGAIN, f"{HELLOS_MAX} sessions wait to be opened")
        self._wall_ns = now.wall_ns

    def _welcome(self, client: int, session: SessionId, hello: wire.Hello) -> None:
        self._hellos.pop(client, None)
        record = self.replica.sessions.open[session]
        self.stats.sessions_resumed += hello.resume
        version = min(hello.version, wire.VERSION)
        self._send(client, wire.Welcome(self.replica.me, hello.resume, version, SESSION_GRACE_MS))
        for serial, body in record.kept:
            if serial > hello.notified:
                self._send(client, wire.Notify(serial, body))

    def _open_session(self, session: SessionId, hello: wire.Hello) -> None:
        self._group.send(entries.SessionOpened(session, hello.outlives_membership))

    def stale(self, session: SessionId) -> None:
        """A session of this node ended because there is no quorum: its handle is stale."""
        self._stale[session] = None
        if len(self._stale) > STALE_MAX:
            del self._stale[next(iter(self._stale))]
        self._forget(session)
        client = self._clients.get(session)
        if client is not None:
            self._gone(client, Status.ERR_UNAVAILABLE, self._outside or NO_QUORUM)

    def take_outside(self, rule: str, now: Now) -> None:
        """Serve nobody while the node is no member, as if it had left; "" lets it in again."""
        if rule == self._outside:
            return
        self._outside = rule
        sessions = self.replica.sessions
        for session in sessions.of_node(self.replica.me) if rule else ():
            if not sessions.open[session].outlives_membership:
                self._group.send(entries.SessionClosed(now.wall_ns, session))
                self.stale(session)

    def opened(self, session: SessionId) -> None:
        """A session of this node is open on all replicas."""
        client = self._clients.get(session)
        if client is not None and client in self._hellos:
            self._welcome(client, session, self._hellos[client])

    def live(self, now: Now) -> None:
        """The replica serves again: each session is there, or gone."""
        for client, hello in list(self._hellos.items()):
            session = self._sessions[client]
            if session in self.replica.sessions.open:
                self._welcome(client, session, hello)
            elif hello.resume:
                self._gone(client, Status.ERR_LIBRARY, "the session was lost")
            else:
                self._open_session(session, hello)
        for session in self.replica.sessions.of_node(self.replica.me):
            if session not in self._clients and session not in self._orphans:
                self._orphans[session] = _Orphan(now.ns + SESSION_GRACE_MS * ONE_MILLISECOND_NS, -1)
        self._drop_lost_sessions()

    def _drop_lost_sessions(self) -> None:
        for session, client in list(self._clients.items()):
            if session not in self.replica.sessions.open and client not in self._hellos:
                self._gone(client, Status.ERR_LIBRARY, "the session was lost")

    def send_again(self) -> None:
        """Multicast everything unanswered again: the connection to totemd was lost on the way."""
        for session in self._requests.sessions():
            self._send_again(session)
        if self._fence_open:
            self._group.send(entries.Fence(self._fence), self._fence_guarantee)

    def _record(self, session: SessionId) -> Record | None:
        return self.replica.sessions.open.get(session)

    def _send_again(self, session: SessionId) -> None:
        record = self._record(session)
        if record is not None:
            self._requests.send_again(session, record)

    def _orphan(self, session: SessionId, pid: int, now: Now) -> None:
        """A connection ended without a word: the process died, or will be back."""
        self.stats.sessions_orphaned += 1
        orphan = _Orphan(now.ns + SESSION_GRACE_MS * ONE_MILLISECOND_NS, -1)
        self._orphans[session] = orphan
        try:
            orphan.descriptor = os.pidfd_open(pid)
        except OSError:  # dead already
            orphan.deadline_ns = now.ns
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
        self._seen.pop(session, None)
        self._requests.ended(session)
        for key in [key for key in self._open if key[0] == session]:
            self._open.discard(key)
            self._reads.pop(key, None)

    def _gone(self, client: int, status: Status, reason: str) -> None:
        self._send(client, wire.Gone(status, reason))
        self._hellos.pop(client, None)
        session = self._sessions.pop(client, None)
        if session is not None:
            self._clients.pop(session, None)
        self.ipc.drop(client)

    def _send(self, client: int, message: Any) -> None:
        self.ipc.send(client, wire.TABLE.encode(message))

    # Requests

    def _request(self, session: SessionId, request: wire.Request, now: Now) -> None:
        self.stats.requests += 1
        refusal = self._rule(request)
        key = (session, request.number)
        if refusal is not None:
            self.stats.requests_refused += 1
            self._reply(key, *refusal)
            return
        if key in self._open:
            self.stats.requests_repeated += 1
            return
        record = self._record(session)
        answer = record.answers.get(request.number) if record is not None else None
        if answer is not None:
            self.stats.requests_repeated += 1
            self._reply(key, answer[0], answer[1])
            return
        deadline_ns = now.ns + request.timeout_ms * ONE_MILLISECOND_NS
        if self._services[tag_of(request.body)] is Service.READ:
            self._read(key, request, deadline_ns, now)
            return
        safe = request.flags & RequestFlag.SAFE or self.replica.quorum.configured
        self._wall_ns = max(self._wall_ns, now.wall_ns)
        entry = entries.Operation(
            self._wall_ns, session, request.number, request.acknowledged, request.body
        )
        guarantee = Guarantee.SAFE if safe else Guarantee.AGREED
        self._requests.add(session, entry, guarantee, record)
        self._hold(key, deadline_ns)

    def _rule(self, request: wire.Request) -> tuple[Status, bytes] | None:
        if self._outside:
            return Status.ERR_TRY_AGAIN, self._outside.encode()  # of a handle that outlives it
        if len(request.body) > self._body_size_max:
            rule = f"{len(request.body)} bytes in one request, limit {self._body_size_max}"
            return Status.ERR_NO_RESOURCES, rule.encode()
        if request.timeout_ms <= 0 or request.number <= 0:
            return Status.ERR_INVALID_PARAM, b"timeout and number must be positive"
        if len(self._open) >= HELD_MAX:
            return Status.ERR_TRY_AGAIN, b"too many requests wait in this service"
        try:
            tag = tag_of(request.body)
        except DecodeError as error:
            return Status.ERR_INVALID_PARAM, str(error).encode()
        if tag not in self._services:
            return Status.ERR_INVALID_PARAM, f"no operation {tag}".encode()
        return self._version_rule(tag)

    def _version_rule(self, tag: int) -> tuple[Status, bytes] | None:
        """Say why an operation has to wait until every member is upgraded."""
        since = self.replica.machine.table.since(tag) or 1
        spoken = self.replica.versions.spoken.service
        if not spoken or since <= spoken:
            return None
        rule = f"came with version {since}; a member of the group speaks {spoken} only"
        return Status.ERR_NOT_SUPPORTED, rule.encode()

    def _hold(self, key: Key, deadline_ns: int) -> None:
        self._open.add(key)
        heapq.heappush(self._deadlines, (deadline_ns, key))

    def _read(self, key: Key, request: wire.Request, deadline_ns: int, now: Now) -> None:
        try:
            message = self.replica.machine.table.decode(request.body)
        except DecodeError as error:
            self._reply(key, Status.ERR_INVALID_PARAM, str(error).encode())
            return
        self.stats.reads += 1
        if request.flags & RequestFlag.LOCAL and self.replica.serving:
            self._answer_read(key, message, now)
            return
        self._reads[key] = message
        self._hold(key, deadline_ns)
        self._reads_next.append(key)

    def _answer_read(self, key: Key, message: Any, now: Now) -> None:
        replica = self.replica
        assert replica.view is not None
        if not replica.acts:
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
            self._open.discard(key)
            self._answer_read(key, self._reads.pop(key), now)
        self._reads_fenced = []

    def replied(self, key: Key, status: Status, body: bytes) -> None:
        """The replica has the answer of a request."""
        self._requests.answered(key)
        self._open.discard(key)
        self._reply(key, status, body)

    def _reply(self, key: Key, status: Status, body: bytes) -> None:
        client = self._clients.get(key[0])
        if client is not None:
            self._send(client, wire.Reply(key[1], status, body))

    def told(self, session: SessionId, serial: int, body: bytes) -> None:
        """The replica notifies a session."""
        client = self._clients.get(session)
        if client is not None and client not in self._hellos:
            self._send(client, wire.Notify(serial, body))

    def _acknowledged(self, session: SessionId | None, serial: int) -> None:
        if session is None:
            return
        record = self.replica.sessions.open.get(session)
        if record is None or serial > record.serial:
            return
        if serial - self._seen.get(session, record.notified) >= ACKNOWLEDGE_EVERY:
            self._seen[session] = serial
            self._group.send(entries.Notified(session, serial))

    # Time

    def wait_ns(self, now: Now) -> int | None:
        """Return in how many ns `expire` wants to be called; None: never."""
        waits = [orphan.deadline_ns - now.ns for orphan in self._orphans.values()]
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            waits.append(self._deadlines[0][0] - now.ns)
        return max(0, min(waits)) if waits else None

    def expire(self, now: Now) -> None:
        """Give up requests whose time is over."""
        while self._deadlines and self._deadlines[0][0] <= now.ns:
            _, key = heapq.heappop(self._deadlines)
            if key not in self._open:
                continue
            self._open.discard(key)
            self._reads.pop(key, None)
            self.stats.requests_late += 1
            request = self._requests.give_up(key)
            if request is not None and request.left:
                self._reply(key, Status.ERR_TIMEOUT, b"no agreement in time; it may come later")
            else:
                self._reply(key, Status.ERR_TRY_AGAIN, b"the cluster did not take it in time")


def refusal(status: Status, rule: str) -> bytes:
    """Encode the last words for a client that is not served."""
    return wire.TABLE.encode(wire.Gone(status, rule))
