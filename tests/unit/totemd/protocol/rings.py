"""Rings without a cluster: every message is carried, dropped or kept by the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from totemd.protocol.effects import (
    Configuration,
    Deliver,
    Effect,
    Moved,
    Multicast,
    Noted,
    State,
    Unicast,
)
from totemd.protocol.messages import Data, Message, Request, Token, decode, encode
from totemd.protocol.parameters import MS, RingParameters
from totemd.protocol.ring import Ring

US = 1_000
HOP_NS = 50 * US
STEPS_MAX = 200_000
EffectT = TypeVar("EffectT")
Keep = Callable[[int, int, Message], bool]


class Frames:
    """What waits to be sent."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.backlog = 0  # told beside what waits
        self.lost = 0

    def put(self, count: int, payload: bytes = b"x", guarantee: int = 2) -> None:
        self.waiting.extend([(guarantee, payload)] * count)

    def next_frame(self) -> tuple[int, bytes] | None:
        return self.waiting.popleft() if self.waiting else None

    def backlog_frames(self) -> int:
        return len(self.waiting) + self.backlog

    def frames_lost(self, count: int) -> None:
        self.lost += count

    def ring_ended(self) -> None:
        pass


class Rings:
    """Several nodes on a wire with one fixed delay, in virtual time."""

    def __init__(self, *nodes: int, parameters: RingParameters | None = None) -> None:
        self.now_ns = 1 * MS
        self.parameters = parameters or RingParameters()
        self.rings: dict[int, Ring] = {}
        self.frames: dict[int, Frames] = {}
        self.log: dict[int, list[Effect]] = {}
        self.wire: deque[tuple[int, int, int, int, bytes]] = deque()  # at, packet, from, to
        self.keep: Keep = lambda _sender, _receiver, _message: True
        self.packets = 0
        for node in nodes:
            self.boot(node)

    def boot(self, node: int, epoch: int = 1, stored: int = 1000) -> Ring:
        self.frames[node] = Frames()
        self.log[node] = []
        ring = Ring(self.parameters, node, epoch, stored, epoch, self.frames[node])
        self.rings[node] = ring
        self.do(node, ring.start(self.now_ns))
        return ring

    def do(self, node: int, effects: list[Effect]) -> list[Effect]:
        self.log[node] += effects
        for effect in effects:
            if isinstance(effect, Multicast):
                for receiver in list(self.rings):
                    if receiver != node:
                        self._carry(node, receiver, effect.message)
            elif isinstance(effect, Unicast):
                self._carry(node, effect.node_id, effect.message)
        self.rings[node].check()
        return effects

    def _carry(self, sender: int, receiver: int, message: Message) -> None:
        if self.keep(sender, receiver, message):
            self.packets += 1
            at_ns = self.now_ns + HOP_NS
            self.wire.append((at_ns, self.packets, sender, receiver, encode(message)))

    def run(self, duration_ns: int) -> None:
        end_ns = self.now_ns + duration_ns
        for _ in range(STEPS_MAX):
            if not self._step(end_ns):
                return
        raise AssertionError("the rings do not come to rest")

    def _step(self, end_ns: int) -> bool:
        due = [(r.deadline_ns() or end_ns + 1, n) for n, r in self.rings.items()]
        timer_ns, node = min(due)
        arrival_ns = self.wire[0][0] if self.wire else end_ns + 1
        if min(timer_ns, arrival_ns) > end_ns:
            self.now_ns = end_ns
            return False
        if timer_ns < arrival_ns:
            self.now_ns = max(self.now_ns, timer_ns)
            self.do(node, self.rings[node].expire(self.now_ns))
        else:
            at_ns, packet, sender, receiver, data = self.wire.popleft()
            self.now_ns = max(self.now_ns, at_ns)
            if receiver in self.rings:
                self.hear(receiver, sender, decode(data), packet)
        return True

    def hear(
        self, receiver: int, sender: int, message: Message, packet: int | None = None
    ) -> list[Effect]:
        self.packets += packet is None
        order = (1, packet or self.packets)
        effects = self.rings[receiver].receive(message, sender, order, self.now_ns)
        return self.do(receiver, effects)

    def until(self, condition: Callable[[], bool], limit_ns: int = 20_000 * MS) -> None:
        end_ns = self.now_ns + limit_ns
        while not condition():
            assert self._step(end_ns), "the condition does not come true"

    def form(self) -> Rings:
        """Run until all nodes are in one ring."""
        self.until(lambda: self.one_ring(*self.rings))
        return self

    def one_ring(self, *nodes: int) -> bool:
        return all(
            self.rings[n].state is State.OPERATIONAL and self.rings[n].members == tuple(nodes)
            for n in nodes
        )

    def all(self, node: int, kind: type[EffectT]) -> list[EffectT]:
        return [e for e in self.log[node] if isinstance(e, kind)]

    def notes(self, node: int) -> list[str]:
        return [n.event for n in self.all(node, Noted)]

    def delivered(self, node: int) -> list[bytes]:
        return [bytes(d.payload) for d in self.all(node, Deliver)]

    def causes(self, node: int) -> list[str]:
        return [m.cause.name for m in self.all(node, Moved)]

    def configurations(self, node: int) -> list[tuple[int, ...]]:
        return [c.members for c in self.all(node, Configuration)]


class Lone(Rings):
    """A ring of three, of which the test plays all but the second node."""

    def __init__(self, parameters: RingParameters | None = None) -> None:
        super().__init__(1, 2, 3, parameters=parameters)
        self.form()
        self.run(1 * MS)
        self.ring = self.rings[2]
        self.source = self.frames[2]
        self.wire.clear()
        self.keep = lambda _sender, _receiver, _message: False
        self.token_seq = self.ring.my_token_seq
        self.log[2].clear()

    def data(self, seq: int, originator: int = 1, flags: int = 0, visit: int = 1) -> Data:
        return Data(self.ring.ring_id, seq, originator, 2, flags, visit, b"%d" % seq)

    def token(
        self,
        seq: int,
        aru: int | None = None,
        aru_id: int = 0,
        requests: tuple[Request, ...] = (),
        **fields: int,
    ) -> list[Effect]:
        """Let the next token come, 50 us after what was last."""
        self.now_ns += HOP_NS
        self.token_seq += 3
        aru = seq if aru is None else aru
        token = Token(self.ring.ring_id, self.token_seq, seq, aru, aru_id, 0, 0, 0, requests)
        for name, value in fields.items():
            setattr(token, name, value)
        return self.hear(2, 1, token)


def sent_token(effects: list[Effect]) -> Token:
    """Return the token that was sent."""
    (token,) = [
        e.message for e in effects if isinstance(e, Unicast) and isinstance(e.message, Token)
    ]
    return token


def sent(effects: list[Effect]) -> list[str]:
    """Return what was sent, in order: "token", or the number of a message."""
    return [
        "token" if isinstance(e.message, Token) else str(getattr(e.message, "seq", e.message))
        for e in effects
        if isinstance(e, Unicast | Multicast)
    ]
