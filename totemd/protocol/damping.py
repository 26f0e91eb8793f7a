"""Nodes that come and go: how long this node does not begin to merge with them.

Under a cut between two nodes of one network a ring forms and breaks for ever. A hold-off concerns
only what this node begins; joins of others are always honoured, or two healthy rings whose
hold-offs end at different times would never meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW: Final = 10  # times token + consensus: exclusions further apart are no flapping
SHIFT_MAX: Final = 16


@dataclass(slots=True)
class HoldOff:
    """One node that was excluded."""

    count: int  # exclusions in a row
    last_ns: int
    until_ns: int  # 0: none


class HoldOffs:
    """The exclusions of one node's rings.

    Args:
        unit_ns: token plus consensus timeout, the shortest hold-off.
        max_ns: the longest; 0: none at all.
    """

    def __init__(self, unit_ns: int, max_ns: int) -> None:
        self._unit_ns: Final = unit_ns
        self._max_ns: Final = max_ns
        self.window_ns: Final = WINDOW * unit_ns
        self._nodes: dict[int, HoldOff] = {}
        self._last: tuple[int, ...] = ()  # excluded together by the newest ring that excluded any

    def exclude(self, nodes: set[int], now_ns: int) -> None:
        """Remember who was failed for a ring that is installed."""
        if not nodes:
            return
        self._last = tuple(sorted(nodes))
        self._nodes = {n: h for n, h in self._nodes.items() if self._recent(h, now_ns)}
        for node in self._last:
            before = self._nodes.get(node)
            count = before.count + 1 if before is not None else 1
            until_ns = 0
            if count > 1 and self._max_ns:
                wait_ns = self._unit_ns << min(count - 2, SHIFT_MAX)
                until_ns = now_ns + min(self._max_ns, wait_ns)
            self._nodes[node] = HoldOff(count, now_ns, until_ns)

    def _recent(self, h: HoldOff, now_ns: int) -> bool:
        return now_ns - max(h.last_ns, h.until_ns) <= self.window_ns

    def damped(self, node: int, now_ns: int) -> bool:
        """True: do not begin to merge with this node yet."""
        hold_off = self._nodes.get(node)
        return hold_off is not None and now_ns < hold_off.until_ns

    def held(self, now_ns: int) -> tuple[int, ...]:
        """Return the nodes that are damped, sorted."""
        return tuple(sorted(node for node in self._nodes if self.damped(node, now_ns)))

    def clear(self, node: int) -> None:
        """Forget a node: it started anew."""
        self._nodes.pop(node, None)

    def link_up(self, node: int) -> None:
        """Forget all who were excluded together with a node that can be reached again."""
        if node in self._last:
            for excluded in self._last:
                self.clear(excluded)

    def clear_all(self) -> None:
        """Forget everybody."""
        self._nodes.clear()
