"""Ids that a machine gives out: 64 bits, the same on every replica, never given twice. Pure.

An id is the node of the session that asked, and a count of that node. Sides of a partition have
other nodes, so they cannot give the same id; where they meet, each node's larger count goes on. A
machine keeps the counts in its state, puts `values` into its report, and gives what others reported
to `join`. Counts begin anew only when no node of the cluster remembers any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.kit.machine import NodeId

COUNT_BITS: Final = 32
RESERVED: Final = 1000  # ids up to it are never given, whatever the node


class Identifiers:
    """The counts of all nodes."""

    def __init__(self) -> None:
        self._counts: Final[dict[int, int]] = {}

    def take(self, node_id: NodeId) -> int:
        """Give an id to a session of a node."""
        count = self._counts.get(node_id, RESERVED) + 1
        assert count < 1 << COUNT_BITS, f"node {node_id} has used up its ids"
        self._counts[node_id] = count
        return node_id << COUNT_BITS | count

    def join(self, values: Iterable[tuple[int, int]]) -> None:
        """Take up the counts that another replica knows."""
        for node_id, count in values:
            self._counts[node_id] = max(count, self._counts.get(node_id, 0))

    def values(self) -> list[list[int]]:
        """Return all counts as plain values, canonical."""
        return [[node_id, count] for node_id, count in sorted(self._counts.items())]

    def restore(self, values: Iterable[tuple[int, int]]) -> None:
        """Replace all counts by what `values` returned."""
        self._counts.clear()
        self.join(values)
