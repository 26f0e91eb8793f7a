"""One simulated node: the real core under a simulated shell - clock, disk, seal, receive queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tests.sim.trace import REGULAR, UNKNOWN, Got, Installed, Life, Originated
from totemd import seal
from totemd.protocol.effects import Configuration, Deliver, Effect, Moved, Multicast, Persist
from totemd.protocol.local import ConnectionId
from totemd.protocol.messages import ENCAPSULATED, Commit, Data, Message, RingId, decode
from totemd.protocol.node import Node
from totemd.protocol.ring import Ring

EFFECTS: Final = "list[Effect]"
RECEIVE_QUEUE_MAX: Final = 4096  # datagrams; a socket drops what comes on top
NEVER: Final = 1 << 100
DOORS: Final = tuple(  # of the ring: what returns effects
    name
    for name, method in vars(Ring).items()
    if not name.startswith("_") and getattr(method, "__annotations__", {}).get("return") == EFFECTS
)
assert "receive" in DOORS
STOPS: Final = (Multicast, Persist, Moved)  # effects at which a node may be killed


class Clock:
    """A node's own monotonic clock: another zero, and not quite the right speed.

    Args:
        offset_ns: what it shows at virtual time 0.
        per_thousand: how much faster it runs.
    """

    __slots__ = ("_offset_ns", "_rate")

    def __init__(self, offset_ns: int = 0, per_thousand: int = 0) -> None:
        self._offset_ns = offset_ns
        self._rate = 1000 + per_thousand

    def local_ns(self, virtual_ns: int) -> int:
        """Return what the clock shows."""
        if self._rate == 1000:
            return virtual_ns + self._offset_ns
        return virtual_ns * self._rate // 1000 + self._offset_ns

    def virtual_ns(self, local_ns: int) -> int:
        """Return the first virtual time at which the clock shows at least this."""
        if self._rate == 1000:
            return local_ns - self._offset_ns
        return -((self._offset_ns - local_ns) * 1000 // self._rate)


class Datagram:
    """What was sent once and may arrive many times."""

    __slots__ = ("data", "message", "multicast", "order", "sender", "source")

    def __init__(
        self, source: int, sender: int, order: tuple[int, int], data: bytes, *, multicast: bool
    ) -> None:
        self.source = source  # address
        self.sender = sender  # node id
        self.order = order
        self.data = data
        self.multicast = multicast
        self.message: Any = None  # decoded once, if that is the same for all


class Host:
    """A running node.

    Args:
        address: on the wire; the node id, but for the twin of a node.
        node: the core.
        life: is written.
        clock: of this node.
        now: returns the virtual time.
    """

    def __init__(
        self, address: int, node: Node, life: Life, clock: Clock, now: Callable[[], int]
    ) -> None:
        self.address: Final = address
        self.node: Final = node
        self.life: Final = life
        self.clock: Final = clock
        self.neighbours = 0  # the address of a node of this cluster, less its id
        self.packets = 0
        self.connections = 0
        self.wake_ns = NEVER
        self.paused_until_ns = 0
        self.paused_since_ns = 0
        self.busy_until_ns = 0
        self.cost_ns = 0  # of one datagram
        self.data_inbox: Final[deque[Datagram]] = deque()
        self.token_inbox: Final[deque[Datagram]] = deque()
        self.tokens_to_drop = 0
        self.mute_until_ns = 0  # until then it serves the token and has nothing to say
        self.lie_until_ns = 0  # until then it claims to have nothing of its ring
        self.sealer: seal.Sealer | None = None
        self.opener: seal.Opener | None = None
        self._now: Final = now
        self._originated: tuple[RingId, int] = (node.ring.installed_ring, 0)
        self._delivered = 0
        self._stops: list[tuple[Effect, int]] = []
        self.installed: Installed
        ring: Any = node.ring
        door: Any = node
        packer: Any = node.packer
        packer.next_frame = partial(self._next_frame, node.packer.next_frame)
        door.attach_process = partial(self._attached, node.attach_process)
        door.detach = partial(self._closed, node.detach)
        door.disconnected = partial(self._closed, node.disconnected)
        for name in DOORS:
            setattr(ring, name, partial(self._tapped, getattr(ring, name)))

    def queue(self, datagram: Datagram) -> None:
        """Let a datagram wait in its socket; a full one drops it."""
        inbox = self.data_inbox if datagram.multicast else self.token_inbox
        if len(inbox) < RECEIVE_QUEUE_MAX:
            inbox.append(datagram)

    def next_datagram(self) -> Datagram | None:
        """Take what the shell reads next: data before the token, unless the core says so."""
        inboxes = [self.data_inbox, self.token_inbox]
        if self.node.ring.token_first:
            inboxes.reverse()
        return next((inbox.popleft() for inbox in inboxes if inbox), None)

    @property
    def waiting(self) -> bool:
        """True: something waits in a socket."""
        return bool(self.data_inbox or self.token_inbox)

    def _next_frame(
        self, method: Callable[[], tuple[int, bytes] | None]
    ) -> tuple[int, bytes] | None:
        return None if self._now() < self.mute_until_ns else method()

    def said(self, message: Message, base: int) -> Message:
        """Return what a member sends for a message of its core: the same, unless it lies."""
        if type(message) is not Commit or self._now() >= self.lie_until_ns:
            return message
        me = self.life.node_id
        entries = tuple(
            replace(e, old_aru=base) if e.node == me and e.old_ring is not None else e
            for e in message.entries
        )
        return replace(message, entries=entries)

    def _attached(
        self,
        method: Callable[[ConnectionId, int, int], list[Any]],
        connection: ConnectionId,
        pid: int,
        now_ns: int,
    ) -> list[Any]:
        life = self.life
        life.streams[connection] = []
        life.marks[connection] = [(0, self.installed)]
        life.pids[connection] = pid
        return method(connection, pid, now_ns)

    def _closed(
        self,
        method: Callable[[ConnectionId, int], list[Any]],
        connection: ConnectionId,
        now_ns: int,
    ) -> list[Any]:
        self.life.closed.add(connection)
        return method(connection, now_ns)

    def _tapped(self, method: Callable[..., list[Effect]], *arguments: Any) -> list[Effect]:
        effects = method(*arguments)
        if effects:
            self._record(effects)
        return effects

    def _record(self, effects: list[Effect]) -> None:
        records = self.life.records
        now_ns = self._now()
        for effect in effects:
            kind = type(effect)
            if isinstance(effect, Deliver):
                if effect.originator == self.life.node_id:
                    self._known_late(effect.ring, effect.seq, effect.guarantee, effect.payload)
                self._delivered = effect.seq
                records.append(
                    Got(
                        now_ns,
                        effect.ring,
                        effect.seq,
                        effect.originator,
                        effect.guarantee,
                        bytes(effect.payload),
                        effect.transitional,
                    )
                )
            elif isinstance(effect, Configuration):
                self._configured(effect, now_ns)
            elif kind in STOPS:
                if isinstance(effect, Multicast) and isinstance(effect.message, Data):
                    self._sent(effect.message, now_ns)
                self._stops.append((effect, len(records)))

    def _configured(self, c: Configuration, now_ns: int) -> None:
        record = Installed(now_ns, c.kind, c.ring, c.members, c.old_ring, c.left, c.joined)
        self.life.records.append(record)
        if c.kind is REGULAR:
            self.installed = record
            self._delivered = self.node.ring.parameters.seq_base

    def _sent(self, m: Data, now_ns: int) -> None:
        """A frame sent for the first time is originated; later it is sent again."""
        if m.flags & ENCAPSULATED:
            inner = decode(m.payload)
            if isinstance(inner, Data) and inner.originator == self.life.node_id:
                self._known_late(inner.ring, inner.seq, inner.guarantee, inner.payload)
        elif m.originator == self.life.node_id and (m.ring, m.seq) > self._originated:
            self._originated = (m.ring, m.seq)
            self.life.records.append(
                Originated(now_ns, m.ring, m.seq, m.guarantee, bytes(m.payload), self._delivered)
            )

    def _known_late(
        self, ring: RingId, seq: int, guarantee: int, payload: bytes | memoryview
    ) -> None:
        """A frame that was numbered, but not sent before its node left the ring."""
        if (ring, seq) > self._originated:
            self._originated = (ring, seq)
            self.life.records.append(
                Originated(self._now(), ring, seq, guarantee, bytes(payload), UNKNOWN)
            )

    def forget_steps(self) -> None:
        """A step is performed to its end."""
        if self._stops:
            self._stops.clear()

    def cut_after(self, effect: Effect) -> None:
        """The node dies right after this effect: nothing later of the step has happened."""
        for known, count in self._stops:
            if known is effect:
                del self.life.records[count:]
                return
