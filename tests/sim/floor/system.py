"""The operating system of simulated processes: local sockets, clocks, descriptors, the disk.

What the processes of services and applications use of the real one is replaced here and nowhere
else; all else of them is the code that is shipped. Every call into this system is a point at which
the process may be killed, so a crash can come between any two of them.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zmq

from openais.node.exits import ExitError
from openais.node.ipc import Access, IpcStats, Peer
from openais.wire.codec import Buffer, DecodeError, pack_frames, unpack_frames
from tests.sim.cluster import WALL_S, Cluster

US: Final = 1_000
MS: Final = 1_000_000
LATENCY_NS: Final = (20 * US, 60 * US)  # of one local message
TURN_NS: Final = (5 * US, 50 * US)  # from the wake-up of a process to its turn
RECONNECT_NS: Final = (MS, 50 * MS)  # a socket looks again for a server that was not there
DESCRIPTOR_BASE: Final = 1 << 20  # of simulated descriptors, so that none is a real one
BUDGET: Final = 256  # bundles that a server receives in one turn
CONNECTED_EVENT: Final = struct.pack("=HI", int(zmq.Event.DISCONNECTED), 0)


class KilledError(BaseException):
    """The process ends here. No code of it may catch this."""


class Task:
    """One simulated process.

    Args:
        system: it runs on.
        node_id: of its node.
        name: like "ckpt"; for stories.
    """

    def __init__(self, system: System, node_id: int, name: str) -> None:
        self.system: Final = system
        self.node_id: Final = node_id
        self.name: Final = name
        self.pid: Final = system.new_pid()
        self.alive = True
        self.body: Callable[[], int | None] = lambda: None
        self.died: Callable[[], None] = lambda: None
        self.gave_up: Callable[[Exception], None] = lambda _error: None
        self.may_die: Callable[[], bool] = lambda: True  # asked when `kill_at` is reached
        self.sockets: Final[dict[SimSocket, None]] = {}
        self.servers: Final[dict[SimServer, None]] = {}
        self.links: Final[dict[Any, None]] = {}  # of an application to services
        self.kill_at: tuple[str, int] | None = None  # kind of call ("": any), how many of it yet
        self._turn_at_ns: int | None = None
        self._paused_until_ns = 0

    def wake(self, delay_ns: int = 0) -> None:
        """Let the process have a turn soon, or after a while."""
        if not self.alive:
            return
        cluster = self.system.cluster
        delay_ns = delay_ns or self.system.random.randint(*TURN_NS)
        at_ns = max(cluster.now_ns + delay_ns, self._paused_until_ns)
        if self._turn_at_ns is not None and self._turn_at_ns <= at_ns:
            return
        self._turn_at_ns = at_ns
        cluster.at(at_ns - cluster.now_ns, lambda: self._turn(at_ns))

    def pause(self, duration_ns: int) -> None:
        """Do not schedule the process for a while."""
        self._paused_until_ns = self.system.cluster.now_ns + duration_ns
        self._turn_at_ns = None
        self.wake(duration_ns)

    def _turn(self, at_ns: int) -> None:
        if not self.alive or self._turn_at_ns != at_ns:
            return
        self._turn_at_ns = None
        self.run(self.body)

    def run(self, body: Callable[[], int | None]) -> None:
        """Let the process do something; it may be killed in the middle."""
        before, self.system.current = self.system.current, self
        try:
            wait_ns = body()
        except KilledError:
            self.kill()
        except ExitError as error:
            self.gave_up(error)
            self.kill()
        else:
            if wait_ns is not None:
                self.wake(max(wait_ns, US))
        finally:
            self.system.current = before

    def call(self, kind: str) -> None:
        """Note a call into the system; the process may be killed at it.

        Raises:
            KilledError: it is.
        """
        if self.kill_at is None:
            return
        wanted, left = self.kill_at
        if wanted in ("", kind):
            if left <= 1:
                self.kill_at = None
                if self.may_die():
                    self.system.kills[kind] += 1
                    raise KilledError
                return
            self.kill_at = wanted, left - 1

    def kill(self) -> None:
        """End the process at once; the kernel closes what it had open."""
        if not self.alive:
            return
        self.alive = False
        self.system.dead(self)
        for server in list(self.servers):
            server.close()
        for socket in list(self.sockets):
            socket.close(0)
        self.died()


@dataclass(eq=False, slots=True)
class Pipe:
    """One connection between a socket and a server, with what is on the way."""

    socket: SimSocket
    server: SimServer
    client: int
    pid: int
    arrived_ns: list[int] = field(default_factory=lambda: [0, 0])  # last, by direction
    dropped: bool = False
    closed: bool = False


class SimSocket:
    """A DEALER socket; as much of `zmq.Socket` as the processes use."""

    def __init__(self, system: System) -> None:
        assert system.current is not None
        self.system: Final = system
        self.task: Final = system.current
        self.task.sockets[self] = None
        self.pipe: Pipe | None = None
        self.inbox: Final[deque[list[bytes]]] = deque()
        self.ended = 0  # disconnects to be told
        self._frames: deque[bytes] = deque()
        self._unsent: list[list[bytes]] = []
        self._path = ""

    def setsockopt(self, _option: int, _value: int) -> None:
        """Take an option: none of them matters here."""

    def get_monitor_socket(self, _events: int) -> SimMonitor:
        """Return what tells of disconnects."""
        return SimMonitor(self)

    def disable_monitor(self) -> None:
        """End the monitor."""

    def connect(self, address: str) -> None:
        """Connect as soon as there is a server."""
        self._path = address.removeprefix("ipc://")
        self.system.connect(self, self._path)

    def connected(self, pipe: Pipe) -> None:
        """Learn that there is a server; send what waited for it."""
        self.pipe = pipe
        unsent, self._unsent = self._unsent, []
        for frames in unsent:
            self.system.to_server(pipe, frames)

    def send(self, frame: Buffer) -> None:
        """Send a message of one frame."""
        self.send_multipart([frame])

    def send_multipart(self, frames: list[Buffer], *, copy: bool = True) -> None:
        """Send a message."""
        self.task.call("send")
        data = [bytes(frame) for frame in frames]
        if self.pipe is None:
            self._unsent.append(data)
        else:
            self.system.to_server(self.pipe, data)

    def recv(self, _flags: int, *, copy: bool = True) -> SimFrame:
        """Return the next frame.

        Raises:
            zmq.Again: nothing waits.
        """
        if not self._frames:
            if not self.inbox:
                raise zmq.Again
            self.task.call("receive")
            self._frames.extend(self.inbox.popleft())
        return SimFrame(self._frames.popleft(), more=bool(self._frames))

    def get(self, _events: int) -> int:
        """Return whether there is something to receive."""
        return int(zmq.POLLIN) if self.inbox or self._frames else 0

    def close(self, _linger: int = 0) -> None:
        """End the connection."""
        self.task.sockets.pop(self, None)
        self.system.closed_by_client(self, self._path)


class SimFrame:
    """One frame of a message."""

    def __init__(self, data: bytes, *, more: bool) -> None:
        self.bytes = data
        self.buffer = memoryview(data)
        self.more = more


class SimMonitor:
    """Tells of the disconnects of a socket, in the encoding of ZeroMQ."""

    def __init__(self, socket: SimSocket) -> None:
        self._socket = socket

    def poll(self, _timeout_ms: int) -> int:
        """Return how many events wait."""
        return self._socket.ended

    def get(self, _events: int) -> int:
        """Return whether an event waits."""
        return int(zmq.POLLIN) if self._socket.ended else 0

    def recv_multipart(self) -> list[bytes]:
        """Return the next event."""
        self._socket.ended -= 1
        return [CONNECTED_EVENT, b""]

    def close(self, _linger: int) -> None:
        """End it."""


class SimContext:
    """Makes sockets."""

    def __init__(self, system: System) -> None:
        self._system = system

    def socket(self, _kind: int) -> SimSocket:
        """Make a DEALER."""
        return SimSocket(self._system)

    def destroy(self, _linger: int = 0) -> None:
        """End it."""


class SimServer:
    """The doors of `openais.node.ipc.IpcServer`, on simulated connections."""

    def __init__(
        self,
        context: SimContext,
        run_dir: Path,
        name: str,
        mode: int,
        access: Access,
        clients_max: int,
        frame_size_max: int,
        refuse: Callable[..., bytes],
    ) -> None:
        self.stats = IpcStats()
        self.access = access
        self._system: System = context._system
        assert self._system.current is not None
        self.task = self._system.current
        self.task.servers[self] = None
        self.path = str(run_dir / name)
        self.pipes: dict[int, Pipe] = {}
        self.inbox: deque[tuple[Pipe, list[bytes]]] = deque()
        self.ends: deque[Pipe] = deque()
        self._unsent: dict[int, list[Buffer]] = {}
        self._serial = 0
        self._system.bind(self)

    def register(self, _poller: object) -> None:
        """Arrivals wake the process anyway."""

    def noticed(self, ready: set[int]) -> None:
        """The end of a process closes its connections anyway."""

    @property
    def pending(self) -> bool:
        """True: call `receive` again soon."""
        return bool(self.inbox)

    @property
    def count(self) -> int:
        """Return how many clients are connected."""
        return len(self.pipes)

    def accept(self, socket: SimSocket) -> Pipe:
        """Take a new client."""
        self._serial += 1
        pipe = Pipe(socket, self, self._serial, socket.task.pid)
        self.pipes[pipe.client] = pipe
        return pipe

    def peer(self, client: int) -> Peer:
        """Return who a client is."""
        return Peer(0, 0, self.pipes[client].pid)

    def allow(self, client: int, messages: int, size: int) -> None:
        """Nothing is bounded here."""

    def connected(self, client: int) -> bool:
        """True while a client is neither closed nor dropped."""
        return client in self.pipes and not self.pipes[client].dropped

    def receive(self) -> list[tuple[int, list[Buffer]]]:
        """Return (client, elements) of what has come."""
        received = []
        for _ in range(BUDGET):
            if not self.inbox:
                break
            self.task.call("serve")
            pipe, frames = self.inbox.popleft()
            if pipe.dropped:
                continue
            try:
                elements = unpack_frames([memoryview(frame) for frame in frames])
            except DecodeError:
                self.stats.bundles_malformed += 1
            else:
                received.append((pipe.client, elements))
        return received

    def closed(self) -> list[tuple[int, int]]:
        """Return (client, pid) of those that are gone, when all they sent was received."""
        if self.inbox:
            return []
        found = []
        while self.ends:
            pipe = self.ends.popleft()
            if self.pipes.pop(pipe.client, None) is not None:
                found.append((pipe.client, pipe.pid))
        return found

    def drop(self, client: int) -> None:
        """End a connection from this side."""
        pipe = self.pipes.get(client)
        if pipe is not None and not pipe.dropped:
            self._send(pipe)
            pipe.dropped = True

    def send(self, client: int, *elements: Buffer) -> None:
        """Queue the elements of one message."""
        if self.connected(client):
            self._unsent.setdefault(client, []).extend(elements)

    def flush(self) -> None:
        """Send what waits."""
        for client in list(self._unsent):
            pipe = self.pipes.get(client)
            if pipe is None:
                del self._unsent[client]
            else:
                self.task.call("answer")
                self._send(pipe)

    def _send(self, pipe: Pipe) -> None:
        elements = self._unsent.pop(pipe.client, None)
        if elements:
            self._system.to_client(pipe, [bytes(frame) for frame in pack_frames(elements)])

    def close(self) -> None:
        """Close the socket; clients see a disconnect."""
        self.task.servers.pop(self, None)
        self._system.unbind(self)


class SimPoller:
    """Knows which descriptors a process waits for."""

    def __init__(self, system: System) -> None:
        assert system.current is not None
        self._system = system
        self._task = system.current
        self._descriptors: dict[int, None] = {}

    def register(self, item: Any, *, drained: bool = False) -> None:
        """Wait for one more."""
        if isinstance(item, int):
            self._descriptors[item] = None
            self._system.watchers.setdefault(item, self._task)

    def unregister(self, item: Any) -> None:
        """Wait for it no more."""
        if isinstance(item, int):
            self._descriptors.pop(item, None)

    def take(self, socket: SimSocket | SimMonitor) -> bool:
        """Return whether a socket is readable."""
        return socket.get(0) != 0

    def used(self, _socket: SimSocket | SimMonitor) -> None:
        """Arrivals wake the process anyway."""

    def poll(self, _timeout_ms: int) -> list[int]:
        """Return the descriptors of processes that are dead, of children that report."""
        return [d for d in self._descriptors if self._system.ready(d)]


class SimSocketPair:
    """What wakes a process at a signal: never, here."""

    def fileno(self) -> int:
        """Return no descriptor."""
        return -1


class System:
    """All nodes' operating systems.

    Args:
        cluster: whose clock is used.
        source: of everything random here.
    """

    def __init__(self, cluster: Cluster, source: random.Random) -> None:
        self.cluster: Final = cluster
        self.random: Final = source
        self.current: Task | None = None
        self.watchers: Final[dict[int, Task]] = {}  # descriptor -> who waits for it
        self.disk: Final[dict[str, Any]] = {}  # path -> what was made durable
        self.disk_refuses: Final[set[int]] = set()  # nodes whose disk is full
        self.kills: Final[Counter[str]] = Counter()  # by the call at which they came
        self.files: Final[dict[int, bytearray]] = {}  # temporary ones, by descriptor
        self.children: Final[dict[int, Callable[[], None]]] = {}  # at work, by descriptor
        self._bound: Final[dict[str, SimServer]] = {}
        self._waiting: Final[dict[str, dict[SimSocket, None]]] = {}
        self._pids = 100
        self._dead: Final[set[int]] = set()  # pids
        self._descriptors: Final[dict[int, int]] = {}  # descriptor -> pid, or 0
        self._reports: Final[dict[int, bytes]] = {}  # of children, by descriptor

    # Clocks

    def monotonic_ns(self) -> int:
        """Return the monotonic clock."""
        return self.cluster.now_ns

    def time_ns(self) -> int:
        """Return the wall clock."""
        return WALL_S * 1_000_000_000 + self.cluster.now_ns

    # Processes

    def new_pid(self) -> int:
        """Return the pid of a new process."""
        self._pids += 1
        return self._pids

    def dead(self, task: Task) -> None:
        """Note the end of a process; who waits for it is woken."""
        self._dead.add(task.pid)
        for descriptor, pid in self._descriptors.items():
            watcher = self.watchers.get(descriptor)
            if pid == task.pid and watcher is not None:
                watcher.wake()

    def pidfd_open(self, pid: int) -> int:
        """Return a descriptor that is ready when the process is dead.

        Raises:
            OSError: it is.
        """
        if pid in self._dead:
            raise ProcessLookupError
        descriptor = DESCRIPTOR_BASE + len(self._descriptors)
        self._descriptors[descriptor] = pid
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        self._descriptors[descriptor] = 0
        self.watchers.pop(descriptor, None)
        self.children.pop(descriptor, None)

    def ready(self, descriptor: int) -> bool:
        """True: the process that a descriptor is of is dead, or the child has reported."""
        return self._descriptors.get(descriptor, 0) in self._dead or descriptor in self._reports

    # Files

    def call(self, kind: str) -> None:
        """Note a call of the process that runs now, if one does.

        Raises:
            KilledError: it is killed at this call.
        """
        if self.current is not None:
            self.current.call(kind)

    def open_file(self) -> int:
        """Open a new file."""
        descriptor = DESCRIPTOR_BASE + len(self._descriptors)
        self._descriptors[descriptor] = 0
        self.files[descriptor] = bytearray()
        return descriptor

    def write(self, descriptor: int, data: Buffer) -> int:
        """Write to a file."""
        self.call("snapshot")
        self.files[descriptor] += data
        return len(data)

    def open_report(self, parent: Task) -> int:
        """Open the pipe on which a child of a process reports."""
        descriptor = DESCRIPTOR_BASE + len(self._descriptors)
        self._descriptors[descriptor] = 0
        self.watchers[descriptor] = parent
        return descriptor

    def report(self, descriptor: int, data: bytes) -> None:
        """Let a child report and end."""
        self._reports[descriptor] = data
        self.watchers[descriptor].wake()

    def read_report(self, descriptor: int, _size: int) -> bytes:
        """Return what a child reported."""
        return self._reports.pop(descriptor, b"")

    # Connections

    def bind(self, server: SimServer) -> None:
        """Let sockets find a server; those that looked for one do, a little later."""
        assert server.path not in self._bound, f"{server.path} is bound twice"
        self._bound[server.path] = server
        for socket in list(self._waiting.pop(server.path, {})):
            delay_ns = self.random.randint(*RECONNECT_NS)
            self.cluster.at(delay_ns, lambda s=socket: self.connect(s, server.path))  # type: ignore[misc]

    def unbind(self, server: SimServer) -> None:
        """End a server and its connections."""
        if self._bound.get(server.path) is server:
            del self._bound[server.path]
        for pipe in server.pipes.values():
            self._deliver(pipe, 1, lambda p=pipe: self._end_client(p))  # type: ignore[misc]

    def _end_client(self, pipe: Pipe) -> None:
        pipe.closed = True
        if pipe.socket.pipe is pipe and pipe.socket in pipe.socket.task.sockets:
            pipe.socket.ended += 1
            pipe.socket.task.wake()

    def connect(self, socket: SimSocket, path: str) -> None:
        """Connect a socket now, or when there is a server."""
        if socket not in socket.task.sockets or not socket.task.alive:
            return
        server = self._bound.get(path)
        if server is None:
            self._waiting.setdefault(path, {})[socket] = None
        elif socket.pipe is None:
            socket.connected(server.accept(socket))

    def closed_by_client(self, socket: SimSocket, path: str) -> None:
        """End a connection from its client's side."""
        self._waiting.get(path, {}).pop(socket, None)
        pipe = socket.pipe
        if pipe is not None and not pipe.closed:
            self._deliver(pipe, 0, lambda: self._end_server(pipe))

    def _end_server(self, pipe: Pipe) -> None:
        pipe.closed = True
        if pipe.server.task.alive:
            pipe.server.ends.append(pipe)
            pipe.server.task.wake()

    def to_server(self, pipe: Pipe, frames: list[bytes]) -> None:
        """Carry a message to a server."""
        self._deliver(pipe, 0, lambda: self._arrive_server(pipe, frames))

    def _arrive_server(self, pipe: Pipe, frames: list[bytes]) -> None:
        if not pipe.closed and pipe.server.task.alive:
            pipe.server.inbox.append((pipe, frames))
            pipe.server.task.wake()

    def to_client(self, pipe: Pipe, frames: list[bytes]) -> None:
        """Carry a message to a socket."""
        self._deliver(pipe, 1, lambda: self._arrive_client(pipe, frames))

    def _arrive_client(self, pipe: Pipe, frames: list[bytes]) -> None:
        socket = pipe.socket
        if socket.task.alive and socket in socket.task.sockets:
            socket.inbox.append(frames)
            socket.task.wake()

    def _deliver(self, pipe: Pipe, direction: int, arrive: Callable[[], None]) -> None:
        """Do something when a message arrives: none overtakes another."""
        at_ns = self.cluster.now_ns + self.random.randint(*LATENCY_NS)
        at_ns = max(at_ns, pipe.arrived_ns[direction] + 1)
        pipe.arrived_ns[direction] = at_ns
        self.cluster.at(at_ns - self.cluster.now_ns, arrive)
