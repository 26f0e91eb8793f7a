"""What does the ring core cost, without sockets, seal and codec?

The core of one node of three is fed by hand: tokens, messages of its neighbours, its own frames.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bench.options import Options
from bench.report import Report
from totemd.protocol.effects import Effect, Multicast, State, Unicast
from totemd.protocol.messages import Data, Message, Token
from totemd.protocol.parameters import RingParameters
from totemd.protocol.ring import Ring

NODES: Final = (1, 2, 3)
UNDER_TEST: Final = 2  # not the representative, so it never holds the token
STEP_NS: Final = 100_000  # between two events
SETTLE_STEPS_MAX: Final = 10_000
PAYLOAD: Final = bytes(1_300)
FRAMES: Final = 17  # per visit
RECEIVED: Final = 34  # messages of the others per visit


class Frames:
    """An endless or empty queue."""

    def __init__(self) -> None:
        self.left = 0

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return one frame while some are left."""
        if not self.left:
            return None
        self.left -= 1
        return 2, PAYLOAD

    def backlog_frames(self) -> int:
        """Return what is left."""
        return self.left

    def ring_ended(self) -> None:
        """Keep what is left."""


class Feed:
    """A ring of three whose second node is under test."""

    def __init__(self) -> None:
        self.frames = Frames()
        self.now_ns = 1
        self._orders = dict.fromkeys(NODES, 0)
        self._rings = {
            n: Ring(RingParameters(), n, 1, 1000, 1, self.frames if n == UNDER_TEST else Frames())
            for n in NODES
        }
        self._form()
        self.ring = self._rings[UNDER_TEST]
        self.token_seq = self.ring.my_token_seq
        self.seq = self.ring.prev_sent_seq

    def _form(self) -> None:
        queue: deque[tuple[int, int, Message]] = deque()
        for n, ring in self._rings.items():
            self._queue(queue, n, ring.start(self.now_ns))
        for _ in range(SETTLE_STEPS_MAX):
            if not queue:
                break
            sender, receiver, message = queue.popleft()
            self.now_ns += STEP_NS
            effects = self._rings[receiver].receive(
                message, sender, self.order(sender), self.now_ns
            )
            self._queue(queue, receiver, effects)
        assert all(r.state is State.OPERATIONAL for r in self._rings.values())

    def _queue(
        self, queue: deque[tuple[int, int, Message]], node: int, effects: list[Effect]
    ) -> None:
        for effect in effects:
            if isinstance(effect, Multicast):
                queue.extend((node, n, effect.message) for n in NODES if n != node)
            elif isinstance(effect, Unicast):
                queue.append((node, effect.node_id, effect.message))

    def order(self, sender: int) -> tuple[int, int]:
        """Return the next position in a sender's order."""
        self._orders[sender] += 1
        return (1, self._orders[sender])

    def token(self) -> Token:
        """Return the token as it comes from the predecessor, everything received by all."""
        self.token_seq += len(NODES)
        return Token(self.ring.ring_id, self.token_seq, self.seq, self.seq, 0, 0, 0, 0, ())

    def data(self) -> Data:
        """Return the next message of the predecessor."""
        self.seq += 1
        return Data(self.ring.ring_id, self.seq, 1, 2, 0, 1, PAYLOAD)


def timed(feed: Feed, messages: list[Message]) -> int:
    """Let the core receive messages; return the nanoseconds it took."""
    ring, now_ns = feed.ring, feed.now_ns
    orders = [feed.order(1) for _ in messages]
    begun = time.perf_counter_ns()
    for message, order in zip(messages, orders, strict=True):
        now_ns += STEP_NS
        ring.receive(message, 1, order, now_ns)
    took = time.perf_counter_ns() - begun
    feed.now_ns = now_ns
    return took


def idle_visit(rounds: int) -> float:
    """A token visit with nothing to send."""
    feed = Feed()
    return timed(feed, [feed.token() for _ in range(rounds)]) / rounds


def sending_visit(rounds: int) -> float:
    """A token visit that sends 17 frames and releases those of the visit before last."""
    feed = Feed()
    took = 0
    for _ in range(rounds):
        feed.frames.left = FRAMES
        took += timed(feed, [feed.token()])
        feed.seq = feed.ring.prev_sent_seq
    return took / rounds


def receive(rounds: int) -> float:
    """A message of another node, agreed: kept and delivered; the token comes after every 34."""
    feed = Feed()
    took = 0
    for _ in range(rounds):
        took += timed(feed, [feed.data() for _ in range(RECEIVED)])
        timed(feed, [feed.token()])
    assert feed.ring.old.delivered == feed.seq
    return took / rounds / RECEIVED


def deadline(rounds: int) -> float:
    """The question when the core wants to be woken."""
    feed = Feed()
    timed(feed, [feed.token()])
    begun = time.perf_counter_ns()
    for _ in range(rounds):
        feed.ring.deadline_ns()
    return (time.perf_counter_ns() - begun) / rounds


WIDTHS: Final = (36, 8, 14)
MEASURES: Final[tuple[tuple[str, Callable[[int], float], str], ...]] = (
    ("P1 token visit, idle", idle_visit, "25, stretch 12"),
    ("   token visit, 17 frames sent", sending_visit, "-"),
    ("P2 message received and delivered", receive, "10, stretch 5"),
    ("   next deadline", deadline, "-"),
)


def main(options: Options) -> None:
    """Measure and print."""
    rounds, repeat = (500, 3) if options.quick else (2_000, 9)
    repeat = options.repeat or repeat
    title = f"one node of three, best of {repeat} repetitions"
    report = Report("core", title, keep=options.keep)
    report.row(["", "us", "target, us"], WIDTHS)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for name, measure, target in MEASURES:
            best = min(measure(rounds) for _ in range(repeat))
            report.row([name, f"{best / 1_000:.2f}", target], WIDTHS)
    finally:
        if collecting:
            gc.enable()
    report.close()
