"""The server side of a local socket: who is connected, what it sent, when it is gone.

A client's identity comes from the kernel, never from its message. The end of a client is noticed
in two ways: the kernel tells that its process died (a pidfd), or that the socket was closed.
Knows bundles and connections, not what the messages mean.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import zmq

from openais.node import bundles
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from openais.node.paths import SocketPathError, socket_path
from openais.node.poller import Poller, monitored, readable
from openais.wire.codec import Buffer, DecodeError, unpack_frames
from openais.wire.status import Status

RECEIVE_BUDGET: Final = 256  # bundles per wake-up
SEND_QUEUE_BUNDLES: Final = 64  # handed to ZeroMQ per client; the rest waits here
UNSENT_BYTES_MAX: Final = 64 << 20  # per client that does not read; more ends the connection
UNSENT_MESSAGES_MAX: Final = 100_000
BUNDLE_BYTES: Final = 1 << 20  # a bundle is closed when it is that big
PEER_PROPERTY: Final = "Peer-Address"
ACCEPTED: Final = int(zmq.Event.ACCEPTED)
MONITOR_EVENTS: Final = ACCEPTED | int(zmq.Event.DISCONNECTED)

_LOG = EventLog(__name__)


Refuse = Callable[[Status, str], bytes]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says."""

    uid: int
    gid: int
    pid: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect: root, this process's own user, and those named."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    admin_uids: frozenset[int] = frozenset()
    admin_gids: frozenset[int] = frozenset()

    def allows(self, peer: Peer) -> bool:
        """True: the peer may use this socket."""
        return peer.uid in (0, os.getuid()) or peer.uid in self.uids or peer.gid in self.gids

    def trusts(self, peer: Peer) -> bool:
        """True: the peer is root or of this process's own user."""
        return peer.uid in (0, os.getuid())

    def administers(self, peer: Peer) -> bool:
        """True: the peer may do what changes the service for others."""
        named = peer.uid in self.admin_uids or peer.gid in self.admin_gids
        return self.trusts(peer) or named


# A descriptor, and how many connections have had it: the next one gets the same at once.
_Connection: TypeAlias = "tuple[int, int]"


@dataclass(slots=True)
class _Client:
    id: int
    identity: bytes
    peer: Peer
    connection: _Connection
    waiting: deque[tuple[Buffer, ...]] = field(default_factory=deque)
    waiting_bytes: int = 0
    allowed: tuple[int, int] = (0, 0)  # messages and bytes that may wait beyond the bounds
    dropped: bool = False

    @property
    def behind(self) -> bool:
        """True: more waits than may."""
        messages, size = self.allowed
        return (
            len(self.waiting) > UNSENT_MESSAGES_MAX + messages
            or self.waiting_bytes > UNSENT_BYTES_MAX + size
        )


@dataclass(slots=True)
class IpcStats:
    """Counters of one local socket."""

    bundles_received: int = 0
    bundles_sent: int = 0
    bundles_malformed: int = 0
    clients_refused: int = 0
    clients_overflowed: int = 0


class IpcServer:
    """One bound ROUTER socket.

    Hold the instance lock first: a second bind on the same path silently takes the clients.

    Args:
        context: of the process.
        run_dir: where the socket is.
        name: of the socket.
        mode: permissions of the socket.
        access: who may connect.
        clients_max: connections at a time.
        frame_size_max: bytes of one bundle; a larger one ends the connection.
        refuse: encodes the last words for a client that is not served (any more).

    Raises:
        ExitError: status 20, the socket cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        run_dir: Path,
        name: str,
        mode: int,
        access: Access,
        clients_max: int,
        frame_size_max: int,
        refuse: Refuse,
    ) -> None:
        self.stats: Final = IpcStats()
        self._refuse: Final = refuse
        self.access: Final = access
        self._clients_max: Final = clients_max
        self._clients: Final[dict[int, _Client]] = {}
        self._by_identity: Final[dict[bytes, _Client]] = {}
        self._by_descriptor: Final[dict[int, _Client]] = {}
        self._accepted: Final[dict[int, int]] = {}  # descriptor -> how many connections had it
        self._pids: Final[dict[int, tuple[int, set[int]]]] = {}  # pid -> (pidfd, clients)
        self._watched: Final[dict[int, int]] = {}  # pidfd -> pid
        self._dead: Final[set[int]] = set()
        self._closed: Final[list[tuple[int, int]]] = []
        self._disconnected: Final[list[_Connection]] = []  # what they sent is read first
        self._unsent: Final[set[int]] = set()
        self._slow = False  # a client did not take all of it
        self._serial = 0
        self._more = False
        self._socket = context.socket(zmq.ROUTER)
        self._monitor = self._socket.get_monitor_socket(MONITOR_EVENTS)
        self._bind(run_dir, name, mode, frame_size_max)
        self._poller: Poller | None = None

    def _bind(self, run_dir: Path, name: str, mode: int, frame_size_max: int) -> None:
        socket = self._socket
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, frame_size_max)
        socket.setsockopt(zmq.SNDHWM, SEND_QUEUE_BUNDLES)
        socket.setsockopt(zmq.RCVHWM, SEND_QUEUE_BUNDLES)
        try:
            path = socket_path(run_dir, name)
            umask = os.umask(0o777 & ~mode)
            try:
                path.unlink(missing_ok=True)
                socket.bind(f"ipc://{path}")
            finally:
                os.umask(umask)
        except (SocketPathError, zmq.ZMQError, OSError) as error:
            reason = f"ipc socket {run_dir / name}: {error}"
            raise ExitError(Exit.IPC_SOCKET, reason) from error

    def register(self, poller: Poller) -> None:
        """Let a poller wake up for this server; it adds and removes its clients' pidfds."""
        self._poller = poller
        poller.register(self._socket)
        poller.register(self._monitor)

    @property
    def pending(self) -> bool:
        """True: call `receive` again soon: the budget was used up, or a client reads slowly."""
        return self._more or self._slow or bool(self._dead or self._disconnected)

    def peer(self, client: int) -> Peer:
        """Return who a client is."""
        return self._clients[client].peer

    def connected(self, client: int) -> bool:
        """True while a client is neither closed nor dropped."""
        return client in self._clients and not self._clients[client].dropped

    @property
    def count(self) -> int:
        """Clients connected now."""
        return len(self._clients)

    def receive(self) -> list[tuple[int, list[Buffer]]]:
        """Return (client, elements) of the bundles that have come, within the budget."""
        if self._take(self._monitor):
            self._read_monitor()
        received: list[tuple[int, list[Buffer]]] = []
        if not self._take(self._socket) and not self._more:
            return received
        for frames in self._bundles():
            client = self._client(frames)
            if client is None or client.dropped:
                continue
            try:
                elements = unpack_frames([frame.buffer for frame in frames[1:]])
                received.append((client.id, elements))
                self.stats.bundles_received += 1
            except DecodeError as error:
                self._malformed(client, str(error))
        return received

    def _take(self, socket: zmq.Socket[bytes]) -> bool:
        return self._poller is None or self._poller.take(socket)

    def _bundles(self) -> Iterator[list[zmq.Frame]]:
        """Yield what has come, until there is no more or the budget is used up."""
        self._more = True
        for count in range(RECEIVE_BUDGET):
            if count == 1 and not readable(self._socket):  # cheaper than the exception, once
                break
            try:
                yield self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
        else:
            self._use()
            return
        self._more = False

    def _use(self) -> None:
        if self._poller is not None:
            self._poller.used(self._socket)

    def _client(self, frames: list[zmq.Frame]) -> _Client | None:
        identity = frames[0].bytes
        client = self._by_identity.get(identity)
        if client is None:
            client = self._open(identity, frames[-1])
        return client

    def _malformed(self, client: _Client, rule: str) -> None:
        self.stats.bundles_malformed += 1
        if self.stats.bundles_malformed & (self.stats.bundles_malformed - 1) == 0:
            _LOG.warning(
                "bundle_malformed",
                pid=client.peer.pid,
                rule=rule,
                total=self.stats.bundles_malformed,
            )

    def _open(self, identity: bytes, frame: zmq.Frame) -> _Client | None:
        address = str(frame.get(PEER_PROPERTY))
        uid, gid, pid = (int(part) for part in address.split(":")[-3:])
        peer = Peer(uid, gid, pid)
        if not self.access.allows(peer):
            self._turn_away(identity, peer, Status.ERR_ACCESS, f"uid {uid} may not connect")
            return None
        if len(self._clients) >= self._clients_max:
            rule = f"{self._clients_max} clients are connected"
            self._turn_away(identity, peer, Status.ERR_NO_RESOURCES, rule)
            return None
        self._serial += 1
        self._read_monitor()  # knows its connection before its first message comes
        descriptor = int(frame.get(zmq.SRCFD))
        connection = (descriptor, self._accepted.get(descriptor, 0))
        client = _Client(self._serial, identity, peer, connection)
        self._clients[client.id] = client
        self._by_identity[identity] = client
        before = self._by_descriptor.get(descriptor)
        if before is not None:
            self._close(before)
        self._by_descriptor[descriptor] = client
        self._watch(client)
        return client

    def _turn_away(self, identity: bytes, peer: Peer, status: Status, rule: str) -> None:
        self.stats.clients_refused += 1
        if self.stats.clients_refused & (self.stats.clients_refused - 1) == 0:
            _LOG.warning("client_refused", uid=peer.uid, pid=peer.pid, rule=rule)
        self._use()
        with contextlib.suppress(zmq.ZMQError):  # it does not even read its refusal
            bundles.send(self._socket, [self._refuse(status, rule)], identity)

    def _watch(self, client: _Client) -> None:
        pid = client.peer.pid
        if pid in self._pids:
            self._pids[pid][1].add(client.id)
            return
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            self._dead.add(pid)
            descriptor = -1
        self._pids[pid] = (descriptor, {client.id})
        if descriptor >= 0 and self._poller is not None:
            self._watched[descriptor] = pid
            self._poller.register(descriptor)

    def noticed(self, ready: set[int]) -> None:
        """Learn which descriptors the poller found ready; those of dead processes are ours."""
        for descriptor in ready:
            pid = self._watched.get(descriptor)
            if pid is not None:
                self._dead.add(pid)

    def _read_monitor(self) -> None:
        while readable(self._monitor):
            kind, descriptor = monitored(self._monitor)
            if kind == ACCEPTED:
                self._accepted[descriptor] = self._accepted.get(descriptor, 0) + 1
            else:
                self._disconnected.append((descriptor, self._accepted.get(descriptor, 0)))

    def _close_disconnected(self) -> None:
        for connection in self._disconnected:
            client = self._by_descriptor.get(connection[0])
            if client is not None and client.connection == connection:
                self._close(client)
        self._disconnected.clear()

    def closed(self) -> list[tuple[int, int]]:
        """Return (client, pid) of those that are gone; all they sent has been received before."""
        if not self._more:
            self._close_disconnected()
            for pid in list(self._dead):
                for client in list(self._pids.get(pid, (0, set()))[1]):
                    self._close(self._clients[client])
            self._dead.clear()
        closed = self._closed[:]
        self._closed.clear()
        return closed

    def _close(self, client: _Client) -> None:
        if self._clients.pop(client.id, None) is None:
            return
        self._closed.append((client.id, client.peer.pid))
        self._unsent.discard(client.id)
        self._by_identity.pop(client.identity, None)
        if self._by_descriptor.get(client.connection[0]) is client:
            del self._by_descriptor[client.connection[0]]
        descriptor, clients = self._pids[client.peer.pid]
        clients.discard(client.id)
        if not clients:
            del self._pids[client.peer.pid]
            if descriptor >= 0:
                self._watched.pop(descriptor, None)
                if self._poller is not None:
                    self._poller.unregister(descriptor)
                os.close(descriptor)

    def drop(self, client: int) -> None:
        """End a connection from this side: nothing more is read from it or sent to it.

        It is not reported by `closed`; what was queued for it goes out if it can at once.
        """
        c = self._clients.get(client)
        if c is not None and not c.dropped:
            self._send(c)
            c.dropped = True
            c.waiting.clear()
            c.waiting_bytes = 0

    def send(self, client: int, *elements: Buffer) -> None:
        """Queue the elements of one encoded message; `flush` sends them."""
        c = self._clients.get(client)
        if c is None or c.dropped:
            return
        c.waiting.append(elements)
        c.waiting_bytes += sum(map(len, elements))
        self._unsent.add(client)
        if c.behind:
            self._overflow(c)

    def allow(self, client: int, messages: int, size: int) -> None:
        """Let so much more wait for a client until all is sent: what is kept for it anyway."""
        c = self._clients.get(client)
        if c is not None:
            c.allowed = (messages, size)

    def _overflow(self, c: _Client) -> None:
        self._send(c)
        if not c.behind:
            return
        self.stats.clients_overflowed += 1
        _LOG.warning("client_overflowed", pid=c.peer.pid, bytes=c.waiting_bytes)
        c.dropped = True
        c.waiting.clear()
        words = self._refuse(Status.ERR_LIBRARY, "this client did not read what it was sent")
        c.waiting.append((words,))  # goes out when it reads again
        c.waiting_bytes = len(words)
        self._closed.append((c.id, c.peer.pid))

    def flush(self) -> None:
        """Send what waits, in bundles; what a client does not take yet stays."""
        for client in list(self._unsent):
            c = self._clients.get(client)
            if c is None or self._send(c):
                self._unsent.discard(client)
        self._slow = bool(self._unsent)

    def _send(self, c: _Client) -> bool:
        self._use()
        while c.waiting:
            batch: list[Buffer] = []
            count = size = 0
            for message in c.waiting:
                batch += message
                count += 1
                size += sum(map(len, message))
                if size >= BUNDLE_BYTES:
                    break
            try:
                bundles.send(self._socket, batch, c.identity)
            except zmq.Again:
                return False
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                return True  # its end is on the way
            self.stats.bundles_sent += 1
            for _ in range(count):
                c.waiting.popleft()
            c.waiting_bytes -= size
        c.allowed = (0, 0)
        return True

    def close(self) -> None:
        """Close the socket; clients see a disconnect."""
        for descriptor, _ in self._pids.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._pids.clear()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
