"""The messages of one ring as one node holds them: gaps, delivery order, release."""

from __future__ import annotations

from typing import Final

from totemd.protocol.messages import REQUEST_COUNT_MAX, REQUESTS_MAX, Data, Request, RingId


class Store:
    """Messages of one ring, by sequence number.

    Invariant: released <= delivered <= high and delivered <= aru <= high.
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
        if seq <= self.released or seq in self.messages or seq > self.released + self.limit:
            return False
        self.messages[seq] = message
        self.payload_bytes += len(message.payload)
        if seq > self.high:
            self.high = seq
        if seq == self.aru + 1:
            aru = seq + 1
            messages = self.messages
            while aru in messages:
                aru += 1
            self.aru = aru - 1
        return True

    def release(self, up_to: int) -> None:
        """Forget what everybody has and this node delivered."""
        up_to = min(up_to, self.delivered)
        for seq in range(self.released + 1, up_to + 1):
            self.payload_bytes -= len(self.messages.pop(seq).payload)
        self.released = max(self.released, up_to)

    def missing(
        self, upper: int, asked: tuple[Request, ...], me: int, counts: dict[int, int], after: int
    ) -> tuple[Request, ...]:
        """Return ``asked`` plus requests for what is missing up to ``upper``, within the bounds."""
        if self.aru >= upper:
            return asked
        known = {seq for r in asked for seq in range(r.first, r.first + r.count)}
        runs: list[list[int]] = []
        room = 1024 - len(known)
        for seq in range(self.aru + 1, upper + 1):
            if seq in self.messages or seq in known:
                continue
            counts[seq] = counts.get(seq, 0) + 1
            if counts[seq] < after or room <= 0:
                continue
            room -= 1
            if runs and runs[-1][0] + runs[-1][1] == seq and runs[-1][1] < REQUEST_COUNT_MAX:
                runs[-1][1] += 1
            elif len(asked) + len(runs) < REQUESTS_MAX:
                runs.append([seq, 1])
        return (*asked, *(Request(first, count, me) for first, count in runs))

    def check(self) -> None:
        """Assert the invariants."""
        assert self.released <= self.delivered <= self.high
        assert self.delivered <= self.aru <= self.high or self.high == self.aru
        assert all(seq > self.released for seq in self.messages)
