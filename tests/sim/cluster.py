"""Real `Node` cores on a virtual clock. Every run is a function of its seed.

The cluster is the shell of every node: it performs effects, keeps disks, measures pauses. What a
shell must guarantee, it guarantees; everything else may go wrong.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.sim.host import NEVER, Clock, Datagram, Host
from tests.sim.invariants import Invariants
from tests.sim.network import MS, US, Faults, Wire
from tests.sim.trace import Ended, Installed, Life, Submitted, digest
from totemd import seal
from totemd.protocol.effects import (
    Configuration,
    KeptOut,
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
from totemd.protocol.messages import Commit, Message, Token, decode, encode
from totemd.protocol.node import Node
from totemd.protocol.parameters import RingParameters
from totemd.protocol.seats import SeatLimits

PAYLOAD_SIZE_MAX = 1300
GROUP = b"simulated"
PIDS_PER_LIFE: Final = 10_000  # so that a pid tells the incarnation of its node
DATAGRAM_SIZE: Final = 1000  # bytes of a sealed one: most frames are a block of two
STEPS_MAX: Final = 5_000_000
CHECK_EVERY: Final = 64  # events between two looks at all invariants of a core
PAUSE_NS: Final = 100 * MS  # the shell tells the core of a gap longer than this
CAPTURED_MAX: Final = 256  # datagrams an eavesdropper keeps
WALL_S: Final = 1_700_000_000  # seconds of the calendar at virtual time 0
NO_SEQ: Final = -1  # a disk that was lost


class Cluster:
    """A cluster under test.

    Args:
        nodes: how many; their ids are 1..nodes.
        seed: of everything random.
        faults: what the wire does.
        parameters: of all nodes.
        key: seal every datagram with this key; None: no seal.
        shuffled: events of one instant happen in random order, not in that of their making.
    """

    def __init__(
        self,
        nodes: int,
        seed: int = 0,
        faults: Faults | None = None,
        parameters: RingParameters | None = None,
        *,
        key: bytes | None = None,
        shuffled: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.wire = Wire(self.random, faults or Faults())
        self.parameters = parameters or RingParameters()
        self.now_ns = 1
        self.running: dict[int, Host] = {}
        self.lives: list[Life] = []
        self.disk: dict[int, int] = {}
        self.clocks: dict[int, Clock] = {}
        self.costs: dict[int, int] = {}
        self.config_versions: dict[int, int] = {}
        self.seat_limits = SeatLimits()
        self.notes: list[tuple[int, int, Any]] = []
        self.on_moved: Callable[[Host, Moved], bool] = lambda _host, _moved: False
        self.on_persist: Callable[[Host], bool] = lambda _host: False
        self.invariants = Invariants(self.parameters)
        self.events = 0
        self.datagrams = 0
        self._key = None if key is None else seal.ClusterKey(key, "simulated")
        self._shuffled = shuffled
        self._heap: list[tuple[int, int, Any, Any]] = []
        self._clogged: dict[int, list[Datagram]] = {}
        self._captured: deque[Datagram] = deque(maxlen=CAPTURED_MAX)
        self._peers: dict[int, dict[int, seal.Session]] = {}
        self._epoch = 0
        self._serial = 0
        self._crc = 0
        self._killed: Host | None = None
        for node_id in range(1, nodes + 1):
            self.boot(node_id)

    # Nodes

    def boot(
        self, node_id: int, *, address: int | None = None, stranger: bytes | None = None
    ) -> None:
        """Start a node with what its disk holds.

        Args:
            node_id: of the node.
            address: on the wire, if there is a second node of that id.
            stranger: key of another cluster on the same wire, that this one is of.
        """
        where = node_id if address is None else address
        assert where not in self.running, f"{where} is running"
        self._epoch += 1
        life = Life(node_id, self._epoch, stranger=stranger is not None)
        self.lives.append(life)
        stored = self.disk.get(node_id, 1000)
        if stored == NO_SEQ:
            stored = (WALL_S + self.now_ns // 1_000_000_000 + 2 * self._epoch) << 8
        node = Node(
            self.parameters,
            node_id,
            self._epoch,
            stored,
            PAYLOAD_SIZE_MAX,
            self.seat_limits,
            config_version=self.config_versions.get(node_id, 0),
        )
        self.disk[node_id] = stored + 1  # before the first datagram leaves
        host = Host(where, node, life, self.clocks.get(where, Clock()), lambda: self.now_ns)
        host.cost_ns = self.costs.get(where, 0)
        key = self._key
        if stranger is not None:
            host.neighbours = where - node_id
            key = seal.ClusterKey(stranger, "another")
        if key is not None:
            session = (self._epoch, self._epoch.to_bytes(4, "big"))
            host.sealer = seal.Sealer(key, seal.AES_256_GCM, node_id, session, DATAGRAM_SIZE)
            host.opener = seal.Opener(
                [key], seal.AES_256_GCM, node_id, (session, 0), self._peers.get(where)
            )
        self.running[where] = host
        self._step(host, node.start(host.clock.local_ns(self.now_ns)))

    def crash(self, address: int) -> None:
        """Kill a node; its disk stays."""
        self._gone(self.running[address], Ended.CRASHED)

    def lose_disk(self, node_id: int) -> None:
        """The file of the ring numbers is gone or torn: the next start has to notice."""
        self.disk[node_id] = NO_SEQ

    def _gone(self, host: Host, how: Ended) -> None:
        host.life.ended = how
        host.wake_ns = NEVER
        del self.running[host.address]
        self._clogged.pop(host.address, None)
        self._killed = host

    def pause(self, address: int, duration_ns: int, *, at_work: bool = False) -> None:
        """Stop scheduling a node for a while; what arrives waits in its sockets.

        Args:
            address: of the node.
            duration_ns: of the gap.
            at_work: it is stopped outside of its poll, so the whole gap counts as one.
        """
        host = self.running[address]
        if not host.paused_until_ns:
            host.paused_since_ns = self.now_ns if at_work else 0
        host.paused_until_ns = max(host.paused_until_ns, self.now_ns + duration_ns)
        self.at(duration_ns, lambda: self._resume(host))

    def end_pause(self, address: int) -> None:
        """Schedule a node again now."""
        host = self.running[address]
        if host.paused_until_ns:
            host.paused_until_ns = self.now_ns
            self._resume(host)

    def _resume(self, host: Host) -> None:
        if host.life.ended is not Ended.RUNNING or self.now_ns < host.paused_until_ns:
            return
        if not host.paused_until_ns:
            return
        due = host.clock.virtual_ns(host.node.deadline_ns() or 0)
        began = host.paused_since_ns or due  # in its poll it slept till then of its own accord
        host.paused_until_ns = 0
        gap_ns = self.now_ns - began
        if gap_ns > PAUSE_NS:
            self._step(host, host.node.pause(gap_ns, host.clock.local_ns(self.now_ns)))
        self._drain(host)
        if host.life.ended is Ended.RUNNING:
            self._wake(host)

    def clog(self, address: int) -> None:
        """Hold back everything that would arrive at a node."""
        self._clogged.setdefault(address, [])

    def unclog(self, address: int) -> None:
        """Let what was held back arrive, in any order."""
        waiting = self._clogged.pop(address, [])
        self.random.shuffle(waiting)
        for position, datagram in enumerate(waiting):
            self._push(self.now_ns + 1 + position * 10 * US, address, datagram)

    def node(self, address: int) -> Node:
        """Return a running core."""
        return self.running[address].node

    # Processes

    def attach(self, address: int, *, join: bytes | None = GROUP, pid: int = 0) -> ConnectionId:
        """Attach an application process and let it join a group, or none."""
        host = self.running[address]
        host.connections += 1
        connection = ConnectionId(host.connections)
        pid = pid or host.life.epoch * PIDS_PER_LIFE + connection
        local_ns = host.clock.local_ns(self.now_ns)
        self._step(host, host.node.attach_process(connection, pid, local_ns))
        if join is not None:
            self._step(host, host.node.join(connection, 1, join, local_ns))
        return connection

    def multicast(
        self, address: int, connection: ConnectionId, payload: bytes, guarantee: int = 2
    ) -> None:
        """Multicast from a process."""
        host = self.running[address]
        host.life.submissions.append(
            Submitted(connection, len(host.life.submissions) + 1, payload, guarantee)
        )
        request = len(host.life.submissions)
        local_ns = host.clock.local_ns(self.now_ns)
        self._step(host, host.node.multicast(connection, request, guarantee, payload, local_ns))

    def leave_group(self, address: int, connection: ConnectionId, name: bytes = GROUP) -> None:
        """Let a process leave its group."""
        host = self.running[address]
        local_ns = host.clock.local_ns(self.now_ns)
        self._step(host, host.node.leave_group(connection, 0, name, local_ns))

    def exit(self, address: int, connection: ConnectionId) -> None:
        """Kill a process: its connection is lost."""
        host = self.running[address]
        self._step(host, host.node.disconnected(connection, host.clock.local_ns(self.now_ns)))

    def leave(self, address: int) -> None:
        """Let a node leave the ring on purpose."""
        host = self.running[address]
        self._step(host, host.node.leave(host.clock.local_ns(self.now_ns)))

    # Effects

    def perform(self, address: int, effects: Sequence[Any]) -> None:
        """Do what a core asks for."""
        self._step(self.running[address], effects)

    def _step(self, host: Host, effects: Sequence[Any]) -> None:
        if effects:
            self._perform(host, effects)
        host.forget_steps()
        if host.life.ended is Ended.RUNNING:
            self._arm(host)

    def _perform(self, host: Host, effects: Sequence[Any]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Unicast:
                self._unicast(host, effect.node_id, effect.message)
            elif kind is Multicast:
                for datagram in self._datagrams(host, effect.message, multicast=True):
                    for address in self._addresses(host):
                        self._send(host, address, datagram)
            elif kind is Tell:
                self._tell(host, effect)
            else:
                self._perform_rare(host, effect)
                if host.life.ended is not Ended.RUNNING:
                    host.cut_after(effect)
                    return

    def _tell(self, host: Host, effect: Tell) -> None:
        event = effect.event
        life = host.life
        if type(event) is DeliveredOwn:
            payload = life.submissions[event.request - 1].payload
            pid = life.pids[effect.connection]
            event = Delivered(event.index, life.node_id, pid, payload)
        elif type(event) is Delivered:
            event.payload = bytes(event.payload)
        life.streams.setdefault(effect.connection, []).append(event)

    def _perform_rare(self, host: Host, effect: Any) -> None:
        match effect:
            case Persist():
                node_id = host.life.node_id
                self.disk[node_id] = max(self.disk[node_id], effect.ring_seq)
                if self.on_persist(host):
                    self._gone(host, Ended.CRASHED)
            case Configuration():
                self._mark(host, effect)
            case Retired():
                self._gone(host, Ended.RETIRED)
            case Moved():
                self.notes.append((self.now_ns, host.life.node_id, effect))
                host.node.ring.check()
                if self.on_moved(host, effect):
                    self._gone(host, Ended.CRASHED)
            case Noted() | Drop() | KeptOut():
                self.notes.append((self.now_ns, host.life.node_id, effect))
            case _:
                raise AssertionError(f"no way to perform {effect}")

    def _mark(self, host: Host, c: Configuration) -> None:
        mark = Installed(self.now_ns, c.kind, c.ring, c.members, c.old_ring, c.left, c.joined)
        for connection, stream in host.life.streams.items():
            host.life.marks.setdefault(connection, []).append((len(stream), mark))

    def _addresses(self, host: Host) -> list[int]:
        return [address for address in self.running if address != host.address]

    def _unicast(self, host: Host, node_id: int, message: Message) -> None:
        if host.tokens_to_drop and isinstance(message, Token | Commit):
            host.tokens_to_drop -= 1
            return
        for datagram in self._datagrams(host, message, multicast=False):
            self._send(host, node_id + host.neighbours, datagram)

    def _datagrams(self, host: Host, message: Message, *, multicast: bool) -> list[Datagram]:
        host.packets += 1
        self.invariants.sent(message)
        data = encode(host.said(message, self.parameters.seq_base))
        self._crc = zlib.crc32(data, self._crc)
        life = host.life
        order = (life.epoch, host.packets)
        datagrams = [
            Datagram(host.address, life.node_id, order, piece, multicast=multicast)
            for piece in ([data] if host.sealer is None else host.sealer.seal(data))
        ]
        self.datagrams += len(datagrams)
        if self.wire.faults.replay:
            self._captured.extend(datagrams)
        return datagrams

    def _send(self, host: Host, address: int, datagram: Datagram) -> None:
        wire = self.wire
        for delay in wire.arrivals(
            host.address, address, len(datagram.data), multicast=datagram.multicast
        ):
            arriving = datagram
            if wire.faults.corrupt:
                data = wire.damage(datagram.data)
                if data is not datagram.data:
                    if host.sealer is None:
                        continue  # the seal would drop it
                    arriving = Datagram(
                        host.address,
                        datagram.sender,
                        datagram.order,
                        data,
                        multicast=datagram.multicast,
                    )
            self._push(self.now_ns + delay, address, arriving)
            if wire.faults.replay and wire.random.random() < wire.faults.replay:
                self._push(self.now_ns + 2 * delay, address, wire.random.choice(self._captured))

    # Time

    def _push(self, at_ns: int, target: Any, what: Any) -> None:
        self._serial += 1
        tie = self._serial
        if self._shuffled:
            tie |= self.random.getrandbits(20) << 40
        heapq.heappush(self._heap, (at_ns, tie, target, what))

    def at(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Do something later."""
        self._push(self.now_ns + delay_ns, None, call)

    def _arm(self, host: Host) -> None:
        deadline = host.node.deadline_ns()
        assert deadline is not None, f"node {host.life.node_id} sleeps for ever"
        at_ns = host.clock.virtual_ns(deadline)
        if at_ns < host.wake_ns:
            host.wake_ns = at_ns
            self._push(max(at_ns, self.now_ns), host, None)

    def run(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        end = self.now_ns + duration_ns
        heap, pop = self._heap, heapq.heappop
        running = self.running
        for _ in range(STEPS_MAX):
            if not heap or heap[0][0] > end:
                self.now_ns = end
                return
            at_ns, _, target, what = pop(heap)
            self.now_ns = at_ns
            if type(target) is int:
                host = running.get(target)
                if host is not None:
                    self._arrive(host, what)
            elif target is None:
                what()
            elif at_ns >= target.wake_ns:
                target.wake_ns = NEVER
                self._wake(target)
        raise AssertionError("the cluster does not come to rest")

    def _wake(self, host: Host) -> None:
        if host.paused_until_ns > self.now_ns:
            return  # armed again when it resumes
        local_ns = host.clock.local_ns(self.now_ns)
        deadline = host.node.deadline_ns()
        if deadline is None or deadline > local_ns:
            self._arm(host)
            return
        self.events += 1
        self._step(host, host.node.expire(local_ns))
        self._check(host)

    def _arrive(self, host: Host, datagram: Datagram) -> None:
        if host.address in self._clogged:
            self._clogged[host.address].append(datagram)
        elif host.paused_until_ns > self.now_ns or host.waiting:
            host.queue(datagram)
        elif host.busy_until_ns > self.now_ns:
            host.queue(datagram)
            self.at(host.busy_until_ns - self.now_ns, lambda: self._drain(host))
        else:
            self._take(host, datagram)

    def _drain(self, host: Host) -> None:
        while host.life.ended is Ended.RUNNING and host.paused_until_ns <= self.now_ns:
            datagram = host.next_datagram()
            if datagram is None:
                return
            self._take(host, datagram)
            if host.busy_until_ns > self.now_ns and host.waiting:
                self.at(host.busy_until_ns - self.now_ns, lambda: self._drain(host))
                return

    def _take(self, host: Host, datagram: Datagram) -> None:
        self.events += 1
        if host.cost_ns:
            host.busy_until_ns = self.now_ns + host.cost_ns
        local_ns = host.clock.local_ns(self.now_ns)
        if host.opener is not None:
            data, source = datagram.data, str(datagram.source)
            for sender, order, plain in host.opener.open_train(data, len(data), source, local_ns):
                self._receive(host, decode(plain), sender, order)
            return
        message = datagram.message
        if message is None:
            message = decode(datagram.data)
            if type(message) is not Token:  # a token is changed by who holds it
                datagram.message = message
        self._receive(host, message, datagram.sender, datagram.order)

    def _receive(self, host: Host, message: Message, sender: int, order: tuple[int, int]) -> None:
        local_ns = host.clock.local_ns(self.now_ns)
        ring = host.node.ring
        number = message.token_seq if type(message) is Token else 0  # the core counts it up
        before = ring.my_token_seq
        effects = host.node.receive(message, sender, order, local_ns)
        if type(message) is Token and before != ring.my_token_seq == number:
            self.invariants.accepted(host, message.ring, number)
        self._step(host, effects)
        self._check(host)

    def _check(self, host: Host) -> None:
        if self.events % CHECK_EVERY == 0:
            host.node.check()

    def save_peers(self, address: int) -> None:
        """Make durable which sessions a node has accepted, as its shell does now and then."""
        opener = self.running[address].opener
        if opener is not None:
            self._peers[address] = opener.sessions()

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

    def digest(self) -> str:
        """Return a hash of the run so far."""
        return digest(self.lives, self._crc)


def payloads(stream: list[Event]) -> list[bytes]:
    """Return what was delivered on a stream."""
    return [bytes(e.payload) for e in stream if isinstance(e, Delivered)]


__all__ = [
    "Accepted",
    "Cluster",
    "Life",
    "Refused",
    "RingChanged",
    "View",
    "payloads",
]
