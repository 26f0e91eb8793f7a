"""How many messages a node may multicast while it holds the token."""

from __future__ import annotations


def allowance(
    window: int, members: int, max_messages: int, others: int, sent_again: int, room: int
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
    allowed = window - others
    share = window // members or 1
    if allowed < share:
        allowed = share
    if allowed > max_messages:
        allowed = max_messages
    allowed -= sent_again
    if allowed > room:
        allowed = room
    return max(allowed, 0)


def part_of_backlog(window: int, mine: int, mine_before: int, backlog: int) -> int:
    """Return the part of the window that is due to what waits here (Totem paper, section 4.3).

    Args:
        window: messages per rotation, all members.
        mine: frames that wait here.
        mine_before: those that waited at the last visit.
        backlog: of the token as it came, in it what this node told at the last visit.
    """
    everywhere = backlog + mine - mine_before
    if everywhere <= 0:
        return window
    return max(window * mine_before // everywhere, min(mine, 1))
