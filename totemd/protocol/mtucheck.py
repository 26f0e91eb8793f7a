"""Whether datagrams as long as netmtu pass on the only link of a node. Pure.

Tokens and joins are short: over a path that loses long datagrams a ring forms and then delivers
nothing long. Several links are probed all the time and such a path is left; a single link is not.
So each new ring asks each of its members until an answer of full length has come, and names who
gives short answers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from totemd.protocol.links import LinkEffect, LinkMoved, LinkState, SendProbe
from totemd.protocol.messages import PROBE_SIZE_MIN, Probe, ProbeKind
from totemd.protocol.parameters import MS

LINK: Final = 0  # the only one
TRIES: Final = 5  # in a row of which only the short probe is answered
AGAIN_NS: Final = 10_000 * MS  # between two tries of a path that is known to be bad
NODES_PER_STEP: Final = 8  # asked at once; more wait, so that a large ring is not flooded


@dataclass(slots=True)
class _Asked:
    due_ns: int = 0  # of the next try
    sent_ns: int = 0  # of the last; 0: none yet
    short: bool = False  # it was answered
    in_a_row: int = 0  # tries of which only that was
    bad: bool = False


class MtuCheck:
    """The members of one ring.

    Args:
        node_id: of this node, which is not asked.
        size_max: bytes of a probe that fills the MTU.
        interval_ns: between two tries.
    """

    def __init__(self, node_id: int, size_max: int, interval_ns: int) -> None:
        self._me: Final = node_id
        self._size_max: Final = size_max
        self._interval_ns: Final = interval_ns
        self._asked: dict[int, _Asked] = {}

    def set_members(self, members: tuple[int, ...]) -> None:
        """Begin to ask the members of a new ring; of whom is known to be bad that is kept."""
        before = self._asked
        self._asked = {
            node: _Asked(bad=node in before and before[node].bad)
            for node in members
            if node != self._me
        }

    def deadline_ns(self) -> int | None:
        """Return when to call `expire`; None: never, everybody has answered."""
        return min((asked.due_ns for asked in self._asked.values()), default=None)

    def expire(self, now_ns: int) -> list[LinkEffect]:
        """Judge the tries that are over and begin others."""
        effects: list[LinkEffect] = []
        due = [node for node, asked in self._asked.items() if asked.due_ns <= now_ns]
        for node in due[:NODES_PER_STEP]:
            effects += self._judge(node, self._asked[node])
            effects += self._ask(node, self._asked[node], now_ns)
        for node in due[NODES_PER_STEP:]:
            self._asked[node].due_ns = now_ns + self._interval_ns // NODES_PER_STEP
        return effects

    def _judge(self, node: int, asked: _Asked) -> list[LinkEffect]:
        asked.in_a_row = asked.in_a_row + 1 if asked.short else 0
        if asked.bad or asked.in_a_row < TRIES:
            return []
        asked.bad = True
        return [LinkMoved(LINK, node, LinkState.UP, LinkState.MTU_BAD)]

    def _ask(self, node: int, asked: _Asked, now_ns: int) -> list[LinkEffect]:
        asked.short = False
        asked.sent_ns = now_ns
        asked.due_ns = now_ns + (AGAIN_NS if asked.bad else self._interval_ns)
        return [
            SendProbe(LINK, node, Probe(ProbeKind.PING, LINK, size, now_ns, 0))
            for size in (PROBE_SIZE_MIN, self._size_max)
        ]

    def answered(self, node: int, probe: Probe) -> list[LinkEffect]:
        """Take an answer; one of full length ends the questions."""
        asked = self._asked.get(node)
        if asked is None or probe.echo_ns != asked.sent_ns:
            return []
        if probe.size != self._size_max:
            asked.short = True
            return []
        del self._asked[node]
        return [LinkMoved(LINK, node, LinkState.MTU_BAD, LinkState.UP)] if asked.bad else []
