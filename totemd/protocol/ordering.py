"""The messages of one ring as one node holds them: gaps, delivery order, release."""

from __future__ import annotations

from typing import Final

from totemd.protocol.messages import (
    REQUEST_COUNT_MAX,
    REQUESTED_MAX,
    REQUESTS_MAX,
    Data,
    Request,
    RingId,
)


class Store:
    """Messages of one ring, by sequence number.

    Invariant: released <= delivered <= aru <= high.
    """

    __slots__ = (
        "aru",
        "delivered",
        "high",
        "limit",
        "messages",
        "payload_bytes",
        "released",
        "ring",
    )

    def __init__(self, ring: RingId, base: int, max_gap_messages: int) -> None:
        self.ring: Final = ring
        self.messages: Final[dict[int, Data]] = {}
        self.limit: Final = 2 * max_gap_messages
        self.aru = base  # every message up to here is present or released
        self.high = base
        self.delivered = base
        self.released = base
        self.payload_bytes = 0

    def add(self, message: Data) -> bool:
        """Keep a message of this ring; False: known already, released, or impossibly far ahead."""
        seq = message.seq
        released = self.released
        messages = self.messages
        if seq <= released or seq in messages or seq > released + self.limit:
            return False
        messages[seq] = message
        self.payload_bytes += len(message.payload)
        if seq > self.high:
            self.high = seq
        if seq == self.aru + 1:
            seq += 1
            while seq in messages:
                seq += 1
            self.aru = seq - 1
        return True

    def extend(self, first: int, own: list[Data]) -> None:
        """Keep the messages ``first`` and following, which this node has just numbered."""
        messages = self.messages
        before = len(messages)
        messages.update(zip(range(first, first + len(own)), own, strict=True))
        assert len(messages) == before + len(own), "a number was given out twice"
        self.payload_bytes += sum([len(m.payload) for m in own])
        last = first + len(own) - 1
        self.high = max(self.high, last)
        if self.aru == first - 1:
            self.aru = last

    def release(self, up_to: int) -> None:
        """Forget what everybody has and this node delivered."""
        up_to = min(up_to, self.delivered)
        if up_to <= self.released:
            return
        pop = self.messages.pop
        released_bytes = 0
        for seq in range(self.released + 1, up_to + 1):
            released_bytes += len(pop(seq).payload)
        self.payload_bytes -= released_bytes
        self.released = up_to

    def missing(
        self, upper: int, asked: tuple[Request, ...], me: int, counts: dict[int, int], after: int
    ) -> tuple[Request, ...]:
        """Return ``asked`` plus requests for what is missing up to ``upper``, within the bounds.

        Args:
            upper: last sequence number that is asked for.
            asked: what the token asks for already.
            me: the node that asks.
            counts: how often each message was missed here; updated.
            after: times a message is missed before it is asked for.
        """
        if self.aru >= upper:
            return asked
        known = {seq for r in asked for seq in range(r.first, r.first + r.count)}
        found: list[list[int]] = []
        room = REQUESTED_MAX - sum(r.count for r in asked)
        for seq in range(self.aru + 1, upper + 1):
            if seq in self.messages or seq in known:
                continue
            counts[seq] = counts.get(seq, 0) + 1
            if counts[seq] < after or room <= 0:
                continue
            if found and sum(found[-1]) == seq and found[-1][1] < REQUEST_COUNT_MAX:
                found[-1][1] += 1
            elif len(asked) + len(found) < REQUESTS_MAX:
                found.append([seq, 1])
            else:
                break
            room -= 1
        shared = (self._shared(request, me) for request in asked)
        return (*shared, *(Request(first, count, me) for first, count in found))

    def _shared(self, request: Request, me: int) -> Request:
        """Return a request without its requester if this node lacks one of its messages, too."""
        if request.requester in (0, me):
            return request
        messages = self.messages
        for seq in range(max(request.first, self.aru + 1), request.first + request.count):
            if seq not in messages:
                return request._replace(requester=0)
        return request

    def check(self) -> None:
        """Assert the invariants."""
        assert self.released <= self.delivered <= self.aru <= self.high
        assert all(seq > self.released for seq in self.messages)
