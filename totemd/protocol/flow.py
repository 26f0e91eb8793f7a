"""How many messages a node may multicast while it holds the token."""

from __future__ import annotations


def allowance(
    *, window: int, members: int, max_messages: int, others: int, sent_again: int, room: int
) -> int:
    """Return how many new messages may go out in this visit.

    A share of the window stays reserved for each member, or a node behind greedy ones starves;
    so a rotation carries at most twice the window.

    Args:
        window: messages per rotation, all members.
        members: of the ring.
        max_messages: per visit.
        others: what the others sent in the last rotation.
        sent_again: retransmissions of this visit.
        room: sequence numbers until the gap limit.
    """
    share = max(1, window // members)
    allowed = min(max_messages, max(window - others, share)) - sent_again
    return max(0, min(allowed, room))
