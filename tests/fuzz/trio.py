"""Three real nodes on a wire in virtual time, told things no correct node says.

A node that has the key may be broken. Whatever it sends that decodes, the others drop or answer
with a new ring; none of them ends (the ring's rule for impossible content).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import deque

from totemd.protocol.effects import Multicast, State, Unicast
from totemd.protocol.local import ConnectionId
from totemd.protocol.messages import Commit, Data, DecodeError, Message, Token, decode, encode
from totemd.protocol.node import Effect, Node
from totemd.protocol.parameters import MS, RingParameters
from totemd.protocol.seats import SeatLimits

IDS = (1, 2, 3)
HOP_NS = MS // 20
PAYLOAD_SIZE_MAX = 1_300
FORMED_STEPS_MAX = 20_000
STEPS_PER_INPUT = 4
WIRE_MAX = 500  # messages on the way; more are lost
SAMPLES_MAX = 400
AHEAD_MAX = 3  # how far a number is moved from the one that is due
GROUP = b"fuzz"
MULTICASTS = 12  # of each node, one larger than the other


class Trio:
    """Three nodes in one ring, with a member of a group at each."""

    def __init__(self) -> None:
        self.now_ns = MS
        self.sent: list[bytes] = []  # what the nodes said, for samples
        self._wire: deque[tuple[int, int, int, int, bytes]] = deque()
        self._packets = 0
        parameters = RingParameters()
        self.nodes = {
            n: Node(parameters, n, 10 + n, 1_000, PAYLOAD_SIZE_MAX, SeatLimits()) for n in IDS
        }
        for n, node in self.nodes.items():
            self._perform(n, node.start(self.now_ns))
        for _ in range(FORMED_STEPS_MAX):
            if self._formed():
                break
            self.step()
        else:
            raise AssertionError("three nodes without a fault form no ring")
        for n, node in self.nodes.items():
            connection = ConnectionId(n)
            self._perform(n, node.attach_process(connection, 100 + n, self.now_ns))
            self._perform(n, node.join(connection, 1, GROUP, self.now_ns))
            for request in range(1, MULTICASTS + 1):
                payload = bytes(request * 100)
                self._perform(n, node.multicast(connection, request, 2, payload, self.now_ns))
        for _ in range(SAMPLES_MAX):
            self.step()

    def _formed(self) -> bool:
        return all(
            node.ring.state is State.OPERATIONAL and node.ring.members == IDS
            for node in self.nodes.values()
        )

    def _perform(self, sender: int, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Multicast):
                receivers = [n for n in IDS if n != sender]
            elif isinstance(effect, Unicast):
                receivers = [effect.node_id]
            else:
                continue
            data = encode(effect.message)
            assert _decodable(effect.message) is not None, f"nobody can read {effect.message}"
            if len(self.sent) < SAMPLES_MAX:
                self.sent.append(data)
            for receiver in receivers:
                self._packets += 1
                if receiver in self.nodes and len(self._wire) < WIRE_MAX:
                    at_ns = self.now_ns + HOP_NS
                    self._wire.append((at_ns, self._packets, sender, receiver, data))

    def step(self) -> None:
        """Let the next thing happen: a message arrives or a timer ends."""
        due = min(((node.deadline_ns(), n) for n, node in self.nodes.items()), key=_at)
        if self._wire and self._wire[0][0] <= _at(due):
            at_ns, packet, sender, receiver, data = self._wire.popleft()
            self.now_ns = max(self.now_ns, at_ns)
            node, message = self.nodes[receiver], decode(data)
            self._perform(receiver, node.receive(message, sender, (1, packet), self.now_ns))
        elif due[0] is not None:
            self.now_ns = max(self.now_ns, due[0])
            self._perform(due[1], self.nodes[due[1]].expire(self.now_ns))

    def tell(self, data: bytes) -> str:
        """Let a node say something to another; return what became of the two.

        Raises:
            DecodeError: it says nothing.
        """
        check = zlib.crc32(data)
        sender, receiver = IDS[check % 3], IDS[(check + 1) % 3]
        node = self.nodes[receiver]
        message = _decodable(_timely(decode(data), node, check >> 8)) or decode(data)
        self._packets += 1
        before = node.ring.state
        effects = node.receive(message, sender, (1, self._packets), self.now_ns)
        self._perform(receiver, effects)
        for _ in range(STEPS_PER_INPUT):
            self.step()
        after = node.ring.state
        return f"{type(message).__name__}: {before.value} to {after.value}"


def _decodable(message: Message) -> Message | None:
    try:
        return decode(encode(message))
    except DecodeError:
        return None


def _at(due: tuple[int | None, int]) -> int:
    return due[0] if due[0] is not None else 1 << 62


def _timely(message: Message, node: Node, choice: int) -> Message:
    """Move half of the messages to the ring and the number that are due, or near them."""
    if choice & 1:
        return message
    ahead = (choice >> 1) % (2 * AHEAD_MAX) - AHEAD_MAX + 1
    ring = node.ring
    match message:
        case Token():
            number = max(0, ring.my_token_seq + ahead)
            seq = message.seq if choice & 64 else max(0, ring.old.high + ahead)
            return dataclasses.replace(message, ring=ring.ring_id, token_seq=number, seq=seq)
        case Data():
            seq = max(1, ring.old.high + ahead)
            return message._replace(ring=ring.ring_id, seq=seq)
        case Commit():
            return dataclasses.replace(message, ring=ring.ring_id, token_seq=max(0, ahead))
        case _:
            return message
