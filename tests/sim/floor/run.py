"""One run of the services' floor by a plan: work, faults, a quiet end, judgement."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from openais.wire import ckpt as wire
from services.kit.effects import State
from services.kit.machine import Caller, Context, NodeId, SessionId
from tests.sim.floor import judge
from tests.sim.floor.clients import Client, History
from tests.sim.floor.plan import Action, Plan, draw
from tests.sim.floor.records import RING_NS, Records
from tests.sim.floor.stack import Service, Stack, installed
from tests.sim.floor.system import Task
from tests.sim.network import MS, between
from totemd.protocol.parameters import RingParameters
from totemd.protocol.seats import SeatLimits

LIVE_NS: Final = 12_000 * MS  # all replicas are live with equal digests so long after the faults
BOOT_NS: Final = 12_000 * MS
FINISH_NS: Final = 25_000 * MS  # the last calls have ended
EXPIRY_NS: Final = 4_000 * MS  # what expires is gone so long after the last of it was to
RESTART_NS: Final = 20 * MS  # a supervisor starts what died
NO_CHECK: Final = ("restarts",)  # mixes in which a seat's log always tells everything

WORK: Final = (
    ("write", 0.22),
    ("read", 0.22),
    ("write_own", 0.1),
    ("read_local", 0.12),
    ("delete", 0.03),
    ("pair", 0.08),
    ("pair_read", 0.08),
    ("append", 0.08),
    ("expire", 0.07),
)


def chosen(number: float) -> str:
    """Return the kind of work at a number in 0..1."""
    for what, share in WORK:
        number -= share
        if number < 0:
            return what
    return WORK[0][0]


class FloorRun:
    """Drives the stacks of all nodes by a plan.

    Args:
        seed: decides everything.
        mix: kind of trouble; None: the seed chooses.
        plan: instead of drawing one.
    """

    def __init__(
        self,
        seed: int,
        mix: str | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.plan: Final = plan or draw(seed, mix)
        p = self.plan
        self.random: Final = random.Random(f"floor {p.seed}")
        self.cluster: Final = Stack(
            p.seed,
            p.nodes,
            p.services,
            p.faults,
            RingParameters(),
            SeatLimits(log_bytes_max=p.log_bytes),
            p.journal_bytes,
            p.fork_bytes,
            quorum=p.quorum,
        )
        self.history: Final = History()
        self.records: Final = Records()
        self.apps: Final[dict[int, Task]] = {}
        self.clients: Final[list[Client]] = []
        self.quiet = False
        self.healed_ns = 0
        self._crashed_nodes: set[int] = set()
        self.cluster.observe = self.records.observe

    def run(self) -> Stack:
        """Run to the quiet end and judge.

        Raises:
            AssertionError: something is violated; a `judge.FloorError` names what.
        """
        c, p = self.cluster, self.plan
        with installed(c.system):
            for node in range(1, p.nodes + 1):
                c.at(self.random.randint(1, 50) * MS, lambda n=node: self._boot(n))  # type: ignore[misc]
            c.wait(lambda: len(self._live("ckpt")) == p.nodes and self._agree(), BOOT_NS)
            for node in range(1, p.nodes + 1):
                self._start_app(node)
            for action in p.actions:
                c.at(action.at_ns, lambda a=action: self._act(a))  # type: ignore[misc]
            c.run(p.run_ms * MS)
            self._heal()
            self._end()
            judge.judge(self)
        return c

    # Nodes

    def _boot(self, node: int) -> None:
        c = self.cluster
        if node not in c.running:
            c.boot(node)
        for name in self.plan.services:
            self._start(node, name)

    def _start(self, node: int, name: str) -> None:
        c = self.cluster
        if node in self._crashed_nodes:
            return
        before = c.services.get((node, name))
        if before is not None and before.task.alive:
            return
        c.start_service(node, name)
        service = c.services[node, name]
        self.records.started(service, c.now_ns)
        self._supervise(service, RESTART_NS)

    def _supervise(self, service: Service, down_ns: int) -> None:
        def died() -> None:
            self.records.ended(service, self.cluster.now_ns)
            self.cluster.at(down_ns, lambda: self._start(service.node_id, service.name))

        def gave_up(error: Exception) -> None:
            told = f"{service.name}@{service.node_id}: {error}"
            self.records.given_up.append((self.cluster.now_ns, told))

        service.task.died = died
        service.task.gave_up = gave_up
        if not service.task.alive:
            died()

    def _start_app(self, node: int) -> None:
        if self.quiet or node in self._crashed_nodes:
            return
        task = Task(self.cluster.system, node, "app")
        self.apps[node] = task

        def body() -> int | None:
            for link in list(task.links):
                link.turn()
            return None

        task.body = body
        p = self.plan
        for _ in range(p.clients):
            name = f"c{len(self.clients)}"
            client = Client(
                self.cluster,
                task,
                name,
                self.history,
                chosen,
                p.think_ms * MS,
                p.timeout_ms,
                safe=p.safe,
            )
            self.clients.append(client)

    # Faults

    def _may_lose(self, node: int) -> bool:
        """True: enough other nodes have the state, so this one may lose its memory."""
        p = self.plan
        if p.mix in NO_CHECK:
            return True
        needed = p.nodes - (p.nodes // 2 + 1) + 1 if p.quorum else 1
        return all(
            len([n for n in self._holders(name) if n != node]) >= needed for name in p.services
        )

    def _holders(self, name: str) -> list[int]:
        found = []
        for (node, service_name), service in self.cluster.services.items():
            replica = service.replica
            if service_name != name or replica is None or replica.view is None:
                continue
            if replica.state is State.LIVE or self.plan.mix != "memory":
                found.append(node)
        return found

    def _live(self, name: str) -> list[int]:
        return [
            node
            for node in self._holders(name)
            if (r := self.cluster.services[node, name].replica) is not None and r.serving
        ]

    def _agree(self) -> bool:
        """True: all replicas of each service are settled in one view, with one state."""
        for name in self.plan.services:
            found = set()
            for node in range(1, self.plan.nodes + 1):
                service = self.cluster.services.get((node, name))
                replica = service.replica if service is not None else None
                if replica is None or not replica.serving or not replica.settled:
                    return False
                assert replica.view is not None
                if len(replica.view.members) != self.plan.nodes:
                    return False
                found.add((replica.component, replica.applied, replica.digest()))
            if len(found) != 1:
                return False
        return True

    def _act(self, a: Action) -> None:
        if self.quiet:
            return
        table: dict[str, Callable[[Action], None]] = {
            "service_kill": self._service_kill,
            "service_kill_at": self._service_kill_at,
            "service_stop": self._service_stop,
            "service_pause": self._service_pause,
            "disk_full": self._disk_full,
            "totemd_crash": self._totemd_crash,
            "totemd_pause": self._totemd_pause,
            "both_crash": self._both_crash,
            "node_crash": self._node_crash,
            "app_kill": self._app_kill,
            "partition": self._partition,
            "storm": self._storm,
        }
        table[a.kind](a)

    def _service(self, a: Action) -> Service:
        names = self.plan.services
        return self.cluster.services[a.node, names[a.number % len(names)]]

    def _service_kill(self, a: Action) -> None:
        service = self._service(a)
        if service.task.alive and self._may_lose(a.node):
            self._supervise(service, a.duration_ns)
            service.task.kill()

    def _service_kill_at(self, a: Action) -> None:
        service = self._service(a)
        if service.task.alive:
            self._supervise(service, a.duration_ns)
            service.task.may_die = lambda: not self.quiet and self._may_lose(a.node)
            service.task.kill_at = (a.call, a.number)

    def _service_stop(self, a: Action) -> None:
        service = self._service(a)
        if service.task.alive and self._may_lose(a.node):
            self._supervise(service, a.duration_ns)
            service.stop()

    def _service_pause(self, a: Action) -> None:
        now_ns = self.cluster.now_ns
        self.records.pause(now_ns, now_ns + a.duration_ns)
        self._service(a).task.pause(a.duration_ns)

    def _disk_full(self, a: Action) -> None:
        refuses = self.cluster.system.disk_refuses
        refuses.add(a.node)
        self.cluster.at(a.duration_ns, lambda: refuses.discard(a.node))

    def _totemd_crash(self, a: Action) -> None:
        alive = all(
            (s := self.cluster.services.get((a.node, name))) is not None and s.task.alive
            for name in self.plan.services
        )
        if a.node in self.cluster.running and (alive or self._may_lose(a.node)):
            self.records.totemd_died(a.node, self.cluster.now_ns)
            if not alive:
                self._forgotten(a.node)
            self.cluster.crash(a.node)
            self.cluster.at(a.duration_ns, lambda: self._boot_again(a.node))

    def _boot_again(self, node: int) -> None:
        if node not in self.cluster.running and node not in self._crashed_nodes:
            self.cluster.boot(node)

    def _totemd_pause(self, a: Action) -> None:
        if a.node in self.cluster.running:
            now_ns = self.cluster.now_ns
            self.records.pause(now_ns, now_ns + a.duration_ns + RING_NS)
            self.cluster.pause(a.node, a.duration_ns)

    def _both_crash(self, a: Action) -> None:
        if a.node not in self.cluster.running or not self._may_lose(a.node):
            return
        self._totemd_crash(a)
        self._forgotten(a.node)
        for name in self.plan.services:
            service = self.cluster.services[a.node, name]
            if service.task.alive:
                self._supervise(service, a.duration_ns + self.random.randint(-100, 100) * MS)
                service.task.kill()

    def _forgotten(self, node: int) -> None:
        for name in self.plan.services:
            self.records.forgotten.append((self.cluster.now_ns, node, name))

    def _node_crash(self, a: Action) -> None:
        if a.node not in self.cluster.running or not self._may_lose(a.node):
            return
        self._crashed_nodes.add(a.node)
        self.apps[a.node].kill()
        for name in self.plan.services:
            service = self.cluster.services[a.node, name]
            service.task.died = lambda: None
            service.task.kill()
            self.records.ended(service, self.cluster.now_ns)
        self.records.totemd_died(a.node, self.cluster.now_ns)
        self.cluster.crash(a.node)

        def back() -> None:
            self._crashed_nodes.discard(a.node)
            self._boot(a.node)
            self._start_app(a.node)

        self.cluster.at(a.duration_ns, back)

    def _app_kill(self, a: Action) -> None:
        if a.node in self._crashed_nodes:
            return
        self.apps[a.node].kill()

        def back() -> None:
            if not self.apps[a.node].alive:
                self._start_app(a.node)

        self.cluster.at(a.duration_ns, back)

    def _partition(self, a: Action) -> None:
        c = self.cluster
        number = c.wire.block(between(*map(set, a.sides)))
        self.records.cut(c.now_ns, c.now_ns + a.duration_ns)
        c.at(a.duration_ns, lambda: c.wire.unblock(number))

    def _storm(self, a: Action) -> None:
        c = self.cluster
        number = c.wire.storm(0.7)
        self.records.cut(c.now_ns, c.now_ns + a.duration_ns)
        c.at(a.duration_ns, lambda: c.wire.unblock(number))

    # The end

    def _heal(self) -> None:
        c = self.cluster
        self.quiet = True
        for client in self.clients:
            client.stopped = True
        c.wire.heal()
        c.wire.faults.loss = 0.0
        c.system.disk_refuses.clear()
        for address in list(c.running):
            c.end_pause(address)
        for service in c.running_services():
            service.task.kill_at = None
        self._crashed_nodes.clear()
        for node in range(1, self.plan.nodes + 1):
            self._boot(node)
        self.healed_ns = c.now_ns

    def _end(self) -> None:
        """Wait until the replicas agree, all calls are over and all is expired."""
        c = self.cluster
        try:
            c.wait(self._agree, LIVE_NS)
        except AssertionError as error:
            raise judge.FloorError([judge.Violation("E", self._told())]) from error
        c.run(FINISH_NS)
        last = max((e.value for e in self.history.events if e.what in EXPIRING), default=0)
        c.run(max(0, last - c.now_ns) + EXPIRY_NS)
        try:
            c.wait(self._agree, LIVE_NS)
        except AssertionError as error:
            raise judge.FloorError([judge.Violation("E", self._told())]) from error

    def _told(self) -> str:
        told = []
        for (node, name), service in sorted(self.cluster.services.items()):
            r = service.replica
            if r is None:
                told.append(f"{name}@{node} does not run")
                continue
            members = r.view.members if r.view is not None else ()
            told.append(
                f"{name}@{node} {r.state.value} view {members} component {r.component} "
                f"applied {r.applied} attached {service.attached} settled {r.settled} "
                f"replaying {r.replaying}"
            )
        return "the replicas do not agree in time: " + "; ".join(told)

    def look(self, node: int, operation: Any) -> Any:
        """Return what the replica of a node answers to a read."""
        replica = self.cluster.services[node, "ckpt"].replica
        assert replica is not None
        assert replica.view is not None
        caller = Caller(NodeId(node), SessionId(b"audit"), 1)
        context = Context(self.cluster.system.time_ns(), NodeId(node), caller, replica.view)
        return replica.machine.read(operation, context).result

    def dump(self, node: int, name: bytes) -> dict[bytes, bytes] | None:
        """Return the sections of a checkpoint as a node has them; None: there is none."""
        answer = self.look(node, wire.CheckpointDump(name))
        if answer is None:
            return None
        return {s.section.section_id: s.data for s in answer.sections}


EXPIRING: Final = ("expiring", "extend")
