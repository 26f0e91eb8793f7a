"""Real `Node` cores on a virtual clock. Every run is a function of its seed."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import Any

from tests.sim.network import Faults, Wire
from totemd.protocol.effects import (
    Configuration,
    Deliver,
    Moved,
    Multicast,
    Noted,
    Persist,
    Retired,
    Unicast,
)
from totemd.protocol.local import (
    Accepted,
    ConnectionId,
    Delivered,
    DeliveredOwn,
    Drop,
    Event,
    Refused,
    RingChanged,
    Tell,
    View,
)
from totemd.protocol.messages import decode, encode
from totemd.protocol.node import Node
from totemd.protocol.parameters import RingParameters
from totemd.protocol.seats import SeatLimits

PAYLOAD_SIZE_MAX = 1300
GROUP = b"simulated"
PID_BASE = 100
STEPS_MAX = 3_000_000


@dataclass(slots=True)
class Life:
    """What one node did from one start to its crash; judged by the checkers."""

    node_id: int
    epoch: int
    ring_log: list[Deliver | Configuration] = field(default_factory=list)
    streams: dict[ConnectionId, list[Event]] = field(default_factory=dict)
    submitted: list[bytes] = field(default_factory=list)
    crashed: bool = False
    retired: bool = False


@dataclass(slots=True)
class _Running:
    node: Node
    life: Life
    packets: int = 0
    connections: int = 0
    paused_until_ns: int = 0


class Cluster:
    """A cluster under test.

    Args:
        nodes: how many; their ids are 1..nodes.
        seed: of everything random.
        faults: what the wire does.
    """

    def __init__(
        self,
        nodes: int,
        seed: int = 0,
        faults: Faults | None = None,
        parameters: RingParameters | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.wire = Wire(self.random, faults or Faults())
        self.parameters = parameters or RingParameters()
        self.now_ns = 1
        self.running: dict[int, _Running] = {}
        self.lives: list[Life] = []
        self.disk: dict[int, int] = {}
        self.notes: list[tuple[int, int, Any]] = []
        self._events: list[tuple[int, int, int, int, bytes]] = []
        self._epoch = 0
        self._serial = 0
        for node_id in range(1, nodes + 1):
            self.boot(node_id)

    def boot(self, node_id: int) -> None:
        """Start a node with what its disk holds."""
        self._epoch += 1
        life = Life(node_id, self._epoch)
        self.lives.append(life)
        node = Node(
            self.parameters,
            node_id,
            self._epoch,
            self.disk.get(node_id, 1000),
            PAYLOAD_SIZE_MAX,
            SeatLimits(),
        )
        running = _Running(node, life)
        self.running[node_id] = running
        absorb = node._absorb

        def spy(effects: list[Any]) -> None:
            life.ring_log.extend(e for e in effects if isinstance(e, Deliver | Configuration))
            absorb(effects)

        node._absorb = spy  # type: ignore[method-assign]
        self.perform(node_id, node.start(self.now_ns))

    def crash(self, node_id: int) -> None:
        """Kill a node; its disk stays."""
        self.running.pop(node_id).life.crashed = True

    def pause(self, node_id: int, duration_ns: int) -> None:
        """Stop scheduling a node for a while."""
        self.running[node_id].paused_until_ns = self.now_ns + duration_ns

    def node(self, node_id: int) -> Node:
        """Return a running core."""
        return self.running[node_id].node

    def attach(self, node_id: int, *, join: bytes = GROUP) -> ConnectionId:
        """Attach an application process and let it join a group."""
        r = self.running[node_id]
        r.connections += 1
        connection = ConnectionId(r.connections)
        r.life.streams[connection] = []
        self.perform(node_id, r.node.attach_process(connection, PID_BASE + connection, self.now_ns))
        self.perform(node_id, r.node.join(connection, 1, join, self.now_ns))
        return connection

    def multicast(
        self, node_id: int, connection: ConnectionId, payload: bytes, guarantee: int = 2
    ) -> None:
        """Multicast from a process."""
        r = self.running[node_id]
        r.life.submitted.append(payload)
        request = len(r.life.submitted)
        self.perform(
            node_id, r.node.multicast(connection, request, guarantee, payload, self.now_ns)
        )

    def perform(self, node_id: int, effects: list[Any]) -> None:
        """Do what a core asks for."""
        r = self.running[node_id]
        for effect in effects:
            match effect:
                case Multicast():
                    others = [n for n in self.running if n != node_id]
                    self._send(r, others, encode(effect.message))
                case Unicast():
                    self._send(r, [effect.node_id], encode(effect.message))
                case Persist():
                    self.disk[node_id] = max(self.disk.get(node_id, 0), effect.ring_seq)
                case Tell():
                    event = effect.event
                    if isinstance(event, DeliveredOwn):
                        payload = r.life.submitted[event.request - 1]
                        pid = PID_BASE + effect.connection
                        event = Delivered(event.index, node_id, pid, payload)
                    r.life.streams.setdefault(effect.connection, []).append(event)
                case Retired():
                    r.life.retired = True
                    del self.running[node_id]
                case Moved() | Noted() | Drop():
                    self.notes.append((self.now_ns, node_id, effect))
                case _:
                    pass

    def _send(self, r: _Running, receivers: list[int], data: bytes) -> None:
        r.packets += 1
        header = r.life.epoch << 40 | r.packets
        for receiver in receivers:
            if receiver not in self.running:
                continue
            for delay in self.wire.arrivals(r.life.node_id, receiver):
                self._serial += 1
                heapq.heappush(
                    self._events,
                    (
                        self.now_ns + delay,
                        self._serial,
                        header << 16 | r.life.node_id,
                        self.running[receiver].life.epoch << 16 | receiver,
                        self.wire.damage(data),
                    ),
                )

    def run(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        end = self.now_ns + duration_ns
        for _ in range(STEPS_MAX):
            timer = min(((self._due(r), n) for n, r in self.running.items()), default=(end + 1, 0))
            arrival = self._events[0][0] if self._events else end + 1
            if min(timer[0], arrival) > end:
                self.now_ns = end
                return
            if timer[0] <= arrival:
                self.now_ns = max(self.now_ns, timer[0])
                self._expire(timer[1])
            else:
                self._arrive()
        raise AssertionError("the cluster does not come to rest")

    def _due(self, r: _Running) -> int:
        deadline = r.node.deadline_ns()
        assert deadline is not None, "a node without a timer sleeps for ever"
        return max(deadline, r.paused_until_ns)

    def _expire(self, node_id: int) -> None:
        r = self.running[node_id]
        if r.paused_until_ns and self.now_ns >= r.paused_until_ns:
            r.paused_until_ns = 0
            late = self.now_ns - (r.node.deadline_ns() or self.now_ns)
            self.perform(node_id, r.node.pause(max(late, 0), self.now_ns))
        self.perform(node_id, r.node.expire(self.now_ns))
        r.node.check()

    def _arrive(self) -> None:
        at, _, source, target, data = heapq.heappop(self._events)
        receiver, epoch = target & 0xFFFF, target >> 16
        r = self.running.get(receiver)
        if r is None or r.life.epoch != epoch or not data:
            return
        if at < r.paused_until_ns:
            self._serial += 1
            late = (r.paused_until_ns + 1, self._serial, source, target, data)
            heapq.heappush(self._events, late)
            return
        self.now_ns = max(self.now_ns, at)
        sender, header = source & 0xFFFF, source >> 16
        order = (header >> 40, header & (1 << 40) - 1)
        self.perform(receiver, r.node.receive(decode(data), sender, order, self.now_ns))
        r.node.check()

    def wait(self, condition: Any, limit_ns: int) -> int:
        """Run until a condition holds; return how long it took in ns."""
        begin = self.now_ns
        while not condition():
            assert self.now_ns - begin < limit_ns, "the condition did not come true in time"
            self.run(1_000_000)
        return self.now_ns - begin

    def one_ring(self) -> bool:
        """True: all running nodes are in one ring and its groups are known."""
        ids = tuple(sorted(self.running))
        return all(
            r.node.groups.nodes == ids
            and r.node.ring.members == ids
            and r.node.packer.gate_open
            and r.node.ring.state.value == "operational"
            for r in self.running.values()
        )


def payloads(stream: list[Event]) -> list[bytes]:
    """Return what was delivered on a stream."""
    return [bytes(e.payload) for e in stream if isinstance(e, Delivered)]


__all__ = ["Accepted", "Cluster", "Life", "Refused", "RingChanged", "View", "payloads"]
