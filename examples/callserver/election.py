"""Who is active: the one place where that is decided.

The oldest member of the process group `GROUP` is active, the others stand by. Every member sees
the same members in the same order, so all agree. A manager of components will take this over; then
this module asks it instead.
"""

from __future__ import annotations

from typing import Final

from openais.cpg import ConfigurationChange

GROUP: Final = b"callserver"


def active_member(change: ConfigurationChange) -> tuple[int, int] | None:
    """Return (node_id, pid) of the active component after a membership change."""
    return None if change.oldest is None else (change.oldest.node_id, change.oldest.pid)
