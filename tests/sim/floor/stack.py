"""The stacks of all nodes: totemd with its port, services, applications. Real but for the system.

The service process, its server, its seat and its replica are the shipped ones, and so is the SDK's
session; `installed` lets them use the simulated system instead of the kernel's.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import openais.session
import services.kit.journal
import services.kit.run
import services.kit.server
import services.kit.snapshots
import totemd.port
from openais.node import bundles
from openais.node.config import QuorumConfig
from openais.node.ipc import Access
from openais.node.model import IpcConfig
from openais.wire import clm, port
from openais.wire.codec import Buffer
from services.ckpt.api import OPERATIONS as CKPT_OPERATIONS
from services.ckpt.state import Checkpoints
from services.clm.api import OPERATIONS as CLM_OPERATIONS
from services.clm.state import Membership, OwnNode
from services.kit.electorate import ballot
from services.kit.machine import Machine, NodeId
from services.kit.replica import Replica
from services.kit.run import ServiceProcess
from tests.sim.cluster import Cluster
from tests.sim.floor.disk import SimJournal, SimSnapshots, os_of, select_of
from tests.sim.floor.system import (
    SimContext,
    SimPoller,
    SimServer,
    SimSocket,
    SimSocketPair,
    System,
    Task,
)
from tests.sim.host import Host
from tests.sim.network import Faults
from tests.sim.trace import Ended
from totemd.protocol.local import Drop, Tell
from totemd.protocol.parameters import RingParameters
from totemd.protocol.seats import SeatLimits

CLIENTS_MAX: Final = 1000
FRAME_SIZE_MAX: Final = 128 << 20
DATA_SIZE_MAX: Final = 64 << 20
SNAPSHOT_TIMEOUT_MS: Final = 60  # some children are too slow
MS: Final = 1_000_000

_now: list[System] = []  # the system of the run in this process


class SimLink:
    """The doors of `openais.link.Link`, turned by the task of an application."""

    def __init__(self, path: Path, handler: Any) -> None:
        system = _now[-1]
        assert system.current is not None
        self._system = system
        self._task = system.current
        self._path = path
        self._handler = handler
        self._socket: SimSocket | None = None
        self._monitor: Any = None

    def open(self) -> None:
        """Begin."""
        self._task.links[self] = None
        self._add()
        self._task.wake()

    def _add(self) -> None:
        self._socket = SimSocket(self._system)
        self._monitor = self._socket.get_monitor_socket(0)
        self._socket.connect(f"ipc://{self._path}")
        self._handler.connected()

    def wake(self) -> None:
        """Something is to be sent."""
        self._task.wake()

    def leave_to_itself(self) -> None:
        """The application does not receive by itself."""
        self._task.wake()

    def turn(self) -> None:
        """Receive and send what there is."""
        socket = self._socket
        if socket is None:
            return
        while socket.inbox:
            self._handler.received(bundles.receive(socket))  # type: ignore[arg-type]
        self._send()
        if self._monitor.poll(0):
            self._monitor.recv_multipart()
            socket.close()
            self._handler.lost()
            self._add()
            self._send()

    def _send(self) -> None:
        elements: list[Buffer] = list(self._handler.outgoing())
        if elements and self._socket is not None:
            bundles.send(self._socket, elements)  # type: ignore[arg-type]

    def close(self) -> None:
        """Send what is outgoing, end the connection."""
        self._send()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def check_process(self, _call: str) -> None:
        """The process is always the same."""


@contextlib.contextmanager
def installed(system: System) -> Iterator[None]:
    """Let all processes of a run use this system."""
    time = SimpleNamespace(monotonic_ns=system.monotonic_ns, time_ns=system.time_ns)
    places: list[tuple[Any, dict[str, Any]]] = [
        (
            services.kit.run,
            {
                "time": time,
                "zmq": SimpleNamespace(Context=lambda: SimContext(system)),
                "IpcServer": SimServer,
                "Poller": lambda: SimPoller(system),
                "Journal": lambda *where: SimJournal(system, *where),
                "Snapshots": type("_Snapshots", (SimSnapshots,), {"system": system}),
                "socket": SimpleNamespace(socketpair=lambda: (SimSocketPair(), SimSocketPair())),
            },
        ),
        (services.kit.server, {"os": system}),
        (services.kit.journal, {"os": os_of(system)}),
        (
            services.kit.snapshots,
            {"os": os_of(system), "select": select_of(system), "time": time},
        ),
        (openais.session, {"Link": SimLink}),
    ]
    before = [(module, {name: getattr(module, name) for name in names}) for module, names in places]
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    _now.append(system)
    try:
        for module, names in places:
            for name, value in names.items():
                setattr(module, name, value)
        yield
    finally:
        _now.pop()
        logging.disable(disabled)
        for module, names in before:
            for name, value in names.items():
                setattr(module, name, value)


class Service:
    """One service process of a node."""

    def __init__(self, stack: Stack, node_id: int, name: str) -> None:
        self.name: Final = name
        self.node_id: Final = node_id
        self.task: Final = Task(stack.system, node_id, name)
        self._observe: Final = stack.observe
        self.process: ServiceProcess | None = None
        self.task.run(lambda: self._start(stack))

    def _start(self, stack: Stack) -> int | None:
        factory, operations = FACTORIES[self.name]
        config: Any = stack.config(self.node_id)
        needs_quorum = self.name != "clm"
        p = ServiceProcess(
            self.name,
            config,
            lambda _config: Replica(
                self.node_id, factory(self), ballot(config), needs_quorum=needs_quorum
            ),
            operations,
            needs_quorum=needs_quorum,
            keep=lambda _discarded: {},
        )
        self.process = p
        p._server.register(p._poller)
        p._group.register(p._poller)
        p._connect()
        self.task.body = self._turn
        return self._turn()

    def _turn(self) -> int:
        p = self.process
        assert p is not None
        p._turn()
        self._observe(self)
        return p._timeout_ms() * MS

    @property
    def replica(self) -> Replica | None:
        """Return the replica of a running process."""
        return self.process._replica if self.process is not None and self.task.alive else None

    @property
    def attached(self) -> bool:
        """True: it is attached to totemd."""
        return self.process is not None and self.task.alive and self.process._attached

    def stop(self) -> None:
        """End in order: what the process does at SIGTERM."""

        def end() -> None:
            p = self.process
            if p is not None:
                p._server.ipc.flush()
                p._last_snapshot()
                p._snapshots.abandon()
                p._group.close()

        self.task.run(end)
        self.task.kill()


def _checkpoints(_service: Service) -> Machine:
    return Checkpoints()


def _membership(service: Service) -> Machine:
    name = f"node{service.node_id}"
    return Membership(
        OwnNode(
            NodeId(service.node_id),
            name,
            f"safNode={name},safCluster=sim",
            clm.AddressFamily.INET,
            f"10.0.0.{service.node_id}",
            1,
            service.task.pid,
        )
    )


FACTORIES: Final[dict[str, tuple[Callable[[Service], Machine], Any]]] = {
    "ckpt": (_checkpoints, CKPT_OPERATIONS),
    "clm": (_membership, CLM_OPERATIONS),
}


class Stack(Cluster):
    """All nodes.

    Args:
        seed: of everything random.
        nodes: how many there are to be; they are not started yet.
        services: names of those that each node runs.
        faults: what the wire does.
        parameters: of the ring.
        limits: of the seats.
        journal_bytes: logged before a service makes a snapshot by itself.
        fork_bytes: size of the state from which on a child writes it.
        quorum: a minority refuses changes.
    """

    def __init__(
        self,
        seed: int,
        nodes: int,
        services: tuple[str, ...],
        faults: Faults,
        parameters: RingParameters,
        limits: SeatLimits,
        journal_bytes: int,
        fork_bytes: int,
        *,
        quorum: bool,
    ) -> None:
        super().__init__(0, seed, faults, parameters, shuffled=True)
        self.nodes: Final = nodes
        self.names: Final = services
        self.seat_limits = limits
        self.journal_bytes: Final = journal_bytes
        self.fork_bytes: Final = fork_bytes
        self.quorum: Final = quorum
        self.system: Final = System(self, random.Random(f"system {seed}"))
        self.ports: Final[dict[int, totemd.port.Port]] = {}
        self.daemons: Final[dict[int, Task]] = {}
        self.services: Final[dict[tuple[int, str], Service]] = {}
        self.observe: Callable[[Service], None] = lambda _service: None

    def config(self, node_id: int) -> Any:
        """Return as much of a node's configuration as its services use."""
        majority = "majority" if self.quorum else "none"
        votes = self.nodes if self.quorum else 0
        quorum = QuorumConfig(
            provider=majority,
            expected_votes=votes,
            votes=1,
            two_node=False,
            wait_for_all=False,
            last_man_standing=False,
            last_man_standing_window_ms=10_000,
            auto_tie_breaker=False,
            auto_tie_breaker_node="lowest",
            allow_downscale=False,
            expected_votes_tracking=False,
            no_quorum_policy="stop",
        )
        return SimpleNamespace(
            totem=SimpleNamespace(node_id=node_id),
            system=SimpleNamespace(run_dir=run_dir(node_id), state_dir=run_dir(node_id)),
            ipc=IpcConfig(
                mode=0o770,
                clients_max=CLIENTS_MAX,
                process_sessions_max=CLIENTS_MAX,
                user_sessions_max=CLIENTS_MAX,
                session_requests_max=1024,
                session_bytes_max=64 << 20,
                session_grace_ms=5000,
                message_size_max_bytes=DATA_SIZE_MAX,
            ),
            service_memory=SimpleNamespace(
                snapshot_log_bytes=self.journal_bytes,
                snapshot_log_entries=8192,
                snapshot_fork_bytes=self.fork_bytes,
                snapshot_timeout_ms=SNAPSHOT_TIMEOUT_MS,
                snapshot_exit_ms=1000,
            ),
            identities=(),
            nodes=(),
            quorum=quorum,
        )

    # totemd

    def boot(
        self, node_id: int, *, address: int | None = None, stranger: bytes | None = None
    ) -> None:
        """Start totemd of a node."""
        task = self.daemons[node_id] = Task(self.system, node_id, "totemd")

        def start() -> None:
            server = SimServer(
                SimContext(self.system),
                run_dir(node_id),
                f"{port.SOCKET_NAME}",
                0o770,
                Access(),
                CLIENTS_MAX,
                FRAME_SIZE_MAX,
                totemd.port.refusal,
            )
            super(Stack, self).boot(node_id)
            door: Any = server
            nobody: Any = None
            self.ports[node_id] = totemd.port.Port(door, self.running[node_id].node, dict, nobody)
            task.body = lambda: self._serve(self.running[node_id], server)

        task.run(start)

    def _serve(self, host: Host, server: SimServer) -> int | None:
        """Serve totemd's local clients, as its loop does."""
        if host.paused_until_ns > self.now_ns:
            return host.paused_until_ns - self.now_ns + MS
        local_ns = host.clock.local_ns(self.now_ns)
        for effects in self.ports[host.address].receive(local_ns):
            self._step(host, effects)
            if host.life.ended is not Ended.RUNNING:
                return None
        server.flush()
        return 0 if server.pending else None

    def _tell(self, host: Host, effect: Tell) -> None:
        self.ports[host.address].tell(effect)
        self.daemons[host.address].wake()

    def _perform_rare(self, host: Host, effect: Any) -> None:
        super()._perform_rare(host, effect)
        if isinstance(effect, Drop):
            self.ports[host.address].drop(effect)

    def _gone(self, host: Host, how: Ended) -> None:
        super()._gone(host, how)
        self.daemons[host.address].kill()

    # Services

    def start_service(self, node_id: int, name: str) -> None:
        """Start a service that does not run."""
        before = self.services.get((node_id, name))
        if before is None or not before.task.alive:
            self.services[node_id, name] = Service(self, node_id, name)

    def running_services(self) -> list[Service]:
        """Return the services that run."""
        return [s for s in self.services.values() if s.task.alive]


def run_dir(node_id: int) -> Path:
    """Return the directory of a node: a name, nothing else."""
    return Path(f"/sim/{node_id}")
