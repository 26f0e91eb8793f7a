"""One run of a cluster by a plan: workload, faults, then a quiet end and judgement."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Final

from tests.sim import liveness
from tests.sim.axioms import AxiomError, Violation
from tests.sim.checkers import check_all
from tests.sim.cluster import Cluster
from tests.sim.host import Clock, Host
from tests.sim.network import MS, Faults, between
from tests.sim.plan import GROUPS, Action, Plan, draw
from totemd.protocol.effects import Moved
from totemd.protocol.local import ConnectionId, Delivered, Refused

KEY: Final = b"simulated key of a cluster under test" * 4
FLAPS: Final = 4  # cuts of one flapping partition
UNHEARD_MS: Final = (0.3, 3.0)  # from the first message that nobody hears to the crash
UNHEARD_MESSAGES: Final = 3
QUEUE_MAX: Final = 1000  # messages that wait at a node before a burst is left out


class RandomRun:
    """Drives a cluster by a plan.

    Args:
        seed: decides everything.
        mix: name of a file of faults; None: the seed chooses.
        plan: instead of drawing one.
    """

    def __init__(self, seed: int, mix: str | None = None, plan: Plan | None = None) -> None:
        self.plan: Final = plan or draw(seed, mix)
        p = self.plan
        self.random = random.Random(f"run {p.seed}")
        self.cluster: Final = Cluster(
            0,
            p.seed,
            p.faults,
            p.parameters,
            key=KEY if p.sealed else None,
            shuffled=True,
        )
        self.processes: Final[dict[int, list[ConnectionId]]] = {}  # by epoch of the node
        self.groups: Final[dict[tuple[int, ConnectionId], bytes]] = {}
        self.sent = 0
        self.quiet = False
        self.settled_ns = 0
        self._budgets = [t.budget for t in p.triggers]
        self._persist_kills: set[int] = set()
        self._leaving: set[int] = set()
        c = self.cluster
        c.on_moved = self._moved
        c.on_persist = self._persisted
        for node in range(1, p.nodes + 1):
            c.clocks[node] = Clock(node * 1_000_000, p.skews[node - 1])
            c.costs[node] = p.costs[node - 1]

    def run(self) -> Cluster:
        """Run to the quiet end and judge.

        Raises:
            AssertionError: something is violated; an AxiomError names what.
        """
        c, p = self.cluster, self.plan
        for node in range(1, p.nodes + 1):
            delay_ns = int(self.random.random() * p.run_ns * 0.3) if p.late else 0
            c.at(delay_ns, lambda n=node: self._boot(n))  # type: ignore[misc]
        for _, action in p.happening():
            c.at(action.at_ns, lambda a=action: self._act(a))  # type: ignore[misc]
        c.run(p.run_ns)
        self._heal()
        liveness.settle(c, p.faults.tail_ns)
        self.settled_ns = c.now_ns
        self._everybody_sends()
        liveness.stay_quiet(c, self.settled_ns)
        check_all(c)
        return c

    # What is done

    def _act(self, action: Action) -> None:
        if self.quiet:
            return
        table: dict[str, Callable[[Action], None]] = {
            "join": self._join,
            "send": self._send,
            "exit": self._exit,
            "leave_group": self._leave_group,
            "crash": self._crash,
            "crash_lost_disk": self._crash,
            "crash_persist": lambda a: self._persist_kills.add(a.node),
            "pause": self._pause,
            "pause_all": self._pause_all,
            "leave": self._leave,
            "leave_many": self._leave_many,
            "restart_all": self._restart_all,
            "clog": self._clog,
            "narrow": lambda a: self._block(self.cluster.wire.narrow(a.node), a.duration_ns),
            "force_gather": self._force_gather,
            "storm": lambda a: self._block(self.cluster.wire.storm(a.value), a.duration_ns),
            "mute": self._mute,
            "lie": self._lie,
            "unheard": self._unheard,
        }
        handler = table.get(action.kind, self._cut)
        handler(action)

    def _boot(self, node: int) -> None:
        if node not in self.cluster.running and not self.quiet:
            self.cluster.boot(node)

    def _again(self, node: int, delay_ns: int) -> None:
        self.cluster.at(delay_ns, lambda: self._boot(node))

    def _block(self, number: int, duration_ns: int) -> None:
        self.cluster.at(duration_ns, lambda: self.cluster.wire.unblock(number))

    def _cut(self, a: Action) -> None:
        wire = self.cluster.wire
        everybody = range(1, self.plan.nodes + 1)
        around = {(a.node, n) for n in everybody} | {(n, a.node) for n in everybody}
        match a.kind:
            case "partition":
                self._block(wire.block(between(*map(set, a.sides))), a.duration_ns)
            case "flapping":
                again = a._replace(kind="partition")
                for k in range(FLAPS):
                    self.cluster.at(2 * k * a.duration_ns, lambda: self._act(again))
            case "one_way":
                pairs = {(a.node, a.peer)} if a.peer else {(a.node, n) for n in everybody}
                self._block(wire.block(pairs), a.duration_ns)
            case "pair":
                pairs = {(a.node, a.peer), (a.peer, a.node)}
                self._block(wire.block(pairs), a.duration_ns)
            case "dead_multicast":
                self._block(wire.block(around, unicast=False), a.duration_ns)
            case "dead_unicast":
                self._block(wire.block(around, multicast=False), a.duration_ns)
            case _:
                raise AssertionError(f"no fault {a.kind}")

    def _crash(self, a: Action) -> None:
        if a.node in self.cluster.running:
            if a.number % 2:
                self.cluster.save_peers(a.node)
            self._kill(self.cluster.running[a.node], a.duration_ns)
            if a.kind == "crash_lost_disk":
                self.cluster.lose_disk(a.node)

    def _kill(self, host: Host, down_ns: int) -> None:
        self.cluster.crash(host.address)
        self._again(host.address, max(down_ns, MS))

    def _pause(self, a: Action) -> None:
        if a.node in self.cluster.running:
            self.cluster.pause(a.node, a.duration_ns, at_work=bool(a.number % 2))

    def _pause_all(self, a: Action) -> None:
        for node in list(self.cluster.running):
            self.cluster.pause(node, a.duration_ns, at_work=bool(a.number % 2))

    def _leave(self, a: Action) -> None:
        if a.node in self.cluster.running:
            self._leaving.add(self.cluster.running[a.node].life.epoch)
            self.cluster.leave(a.node)
            self._again(a.node, a.duration_ns + 600 * MS)

    def _leave_many(self, a: Action) -> None:
        for node in list(self.cluster.running):
            if node != a.node or a.number % 2:
                self._leave(a._replace(node=node))

    def _restart_all(self, a: Action) -> None:
        for host in list(self.cluster.running.values()):
            self._kill(host, a.duration_ns)

    def _force_gather(self, a: Action) -> None:
        host = self.cluster.running.get(a.node)
        if host is not None:
            local_ns = host.clock.local_ns(self.cluster.now_ns)
            self.cluster.perform(a.node, host.node.ring.force_gather(local_ns))

    def _clog(self, a: Action) -> None:
        if a.node in self.cluster.running:
            self.cluster.clog(a.node)
            self.cluster.at(a.duration_ns, lambda: self.cluster.unclog(a.node))

    def _mute(self, a: Action) -> None:
        """Let a member serve the token and say nothing, not even what its processes are."""
        if a.node in self.cluster.running:
            self.cluster.running[a.node].mute_until_ns = self.cluster.now_ns + a.duration_ns

    def _lie(self, a: Action) -> None:
        """Let a member deny what it acknowledged, as one that lost its memory would."""
        if a.node in self.cluster.running:
            self.cluster.running[a.node].lie_until_ns = self.cluster.now_ns + a.duration_ns

    def _unheard(self, a: Action) -> None:
        """Leave a gap: nobody hears what a node sends before it dies, others send after it."""
        if a.node not in self.cluster.running:
            return
        everybody = range(1, self.plan.nodes + 1)
        pairs = {(a.node, n) for n in everybody}
        end_ns = int(self.random.uniform(*UNHEARD_MS) * MS)
        self._block(self.cluster.wire.block(pairs, unicast=False), end_ns)
        burst = a._replace(kind="send", sizes=(100,) * UNHEARD_MESSAGES)
        for node in everybody:
            delay_ns = 0 if node == a.node else int(self.random.random() * end_ns)
            sent = burst._replace(node=node)
            self.cluster.at(delay_ns, lambda s=sent: self._act(s))  # type: ignore[misc]
        self.cluster.at(end_ns, lambda: self._act(a._replace(kind="crash", number=0)))

    # Triggers

    def _moved(self, host: Host, moved: Moved) -> bool:
        if self.quiet:
            return False
        for k, trigger in enumerate(self.plan.triggers):
            if trigger.state is not moved.new or not self._budgets[k]:
                continue
            if self.random.random() >= trigger.probability:
                continue
            self._budgets[k] -= 1
            if trigger.kind == "crash":
                self._again(host.address, max(trigger.duration_ns, MS))
                return True
            self._pull(trigger.kind, host, trigger.duration_ns)
        return False

    def _pull(self, kind: str, host: Host, duration_ns: int) -> None:
        wire = self.cluster.wire
        everybody = list(range(1, self.plan.nodes + 1))
        match kind:
            case "partition":
                side = {n for n in everybody if self.random.random() < 0.5}
                self._block(wire.block(between(side, set(everybody) - side)), duration_ns)
            case "one_way":
                peer = self.random.choice(everybody)
                self._block(wire.block({(host.address, peer)}), duration_ns)
            case "storm":
                self._block(wire.storm(0.7), duration_ns)
            case "mute" | "lie":
                self._act(Action(0, kind, host.address, 0, duration_ns))
            case "drop_token":
                host.tokens_to_drop += 1
            case "pause":
                node = host.address
                self.cluster.at(0, lambda: self._pause(Action(0, "pause", node, 0, duration_ns)))
            case _:
                raise AssertionError(f"no trigger {kind}")

    def _persisted(self, host: Host) -> bool:
        if self.quiet or host.address not in self._persist_kills:
            return False
        self._persist_kills.discard(host.address)
        self._again(host.address, 5 * MS)
        return True

    # Workload

    def _mine(self, node: int) -> list[ConnectionId]:
        host = self.cluster.running.get(node)
        return [] if host is None else self.processes.setdefault(host.life.epoch, [])

    def _join(self, a: Action) -> None:
        host = self.cluster.running.get(a.node)
        if host is None or host.node.ring.leave_copies is not None:
            return
        group = GROUPS[a.number % len(GROUPS)]
        connection = self.cluster.attach(a.node, join=group)
        self.groups[host.life.epoch, connection] = group
        if a.node in self.cluster.running:
            self._mine(a.node).append(connection)

    def _send(self, a: Action) -> None:
        host = self.cluster.running.get(a.node)
        if host is None or host.life.epoch in self._leaving:
            return
        if not self._mine(a.node):
            self._join(a)
        waiting = host.node.packer.queued_bytes
        for k, size in enumerate(a.sizes):
            mine = self._mine(a.node)
            if not mine or waiting > QUEUE_MAX * 1300 or a.node not in self.cluster.running:
                return
            safe = (a.number * 31 + k * 7) % 100 < a.value * 100
            self._multicast(a.node, mine[(a.number + k) % len(mine)], size, 3 if safe else 2)

    def _multicast(self, node: int, connection: ConnectionId, size: int, guarantee: int) -> None:
        self.sent += 1
        epoch = self.cluster.running[node].life.epoch
        body = b"%d:%d:%d:" % (node, epoch, self.sent)
        body += bytes((self.sent & 0xFF,)) * max(0, size - len(body) - 4)
        payload = body + zlib.crc32(body).to_bytes(4, "big")
        self.cluster.multicast(node, connection, payload, guarantee)

    def _exit(self, a: Action) -> None:
        mine = self._mine(a.node)
        if mine:
            self.cluster.exit(a.node, mine.pop(a.number % len(mine)))

    def _leave_group(self, a: Action) -> None:
        mine = self._mine(a.node)
        if mine:
            host = self.cluster.running[a.node]
            connection = mine[a.number % len(mine)]
            stream = host.life.streams[connection]
            self.cluster.leave_group(a.node, connection, self.groups[host.life.epoch, connection])
            if not isinstance(stream[-1], Refused):
                mine.remove(connection)

    # The end

    def _heal(self) -> None:
        c = self.cluster
        self.quiet = True
        c.wire.heal()
        c.wire.faults = Faults(delay_min_ns=50_000, delay_max_ns=150_000)
        for node in range(1, self.plan.nodes + 1):
            c.unclog(node)
            c.costs[node] = 0
            host = c.running.get(node)
            if host is None:
                c.boot(node)
            else:
                host.cost_ns = 0
                host.tokens_to_drop = host.mute_until_ns = host.lie_until_ns = 0
                c.end_pause(node)

    def _everybody_sends(self) -> None:
        """Let each node send into the idle ring: it gets its turn at once."""
        c = self.cluster
        connections = {node: c.attach(node, join=b"final") for node in sorted(c.running)}
        c.run(100 * MS)
        for node, connection in connections.items():  # the token rests with another one each time
            stream = c.running[node].life.streams[connection]
            owed = 2 + sum(isinstance(event, Delivered) for event in stream)
            for guarantee in (2, 3):
                self._multicast(node, connection, 100, guarantee)
            c.run(liveness.turn_ns(c))
            if sum(isinstance(event, Delivered) for event in stream) != owed:
                raise AxiomError([Violation("L2", node, None, 0, "no turn in an idle ring")])
            c.run(100 * MS)
