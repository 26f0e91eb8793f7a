"""From the configuration of a node to its ballot."""

from __future__ import annotations

from typing import Final

from openais.node.config import NodeConfig, QuorumConfig
from services.kit.quorum import NO_QUORUM, Ballot, TieBreak

_TIE_BREAKS: Final = {"lowest": TieBreak.LOWEST, "highest": TieBreak.HIGHEST}


def ballot(config: NodeConfig) -> Ballot:
    """Return what a node brings to the count of votes."""
    quorum = config.quorum
    if quorum.provider == "none":
        return NO_QUORUM
    listed = {node.node_id: node.quorum_votes for node in config.nodes}
    tie_break, tie_breakers = _tie_break(quorum)
    return Ballot(
        listed.get(config.totem.node_id, quorum.votes),
        quorum.expected_votes,
        quorum.two_node,
        quorum.wait_for_all,
        tie_break,
        tie_breakers,
        quorum.no_quorum_policy == "ignore",
    )


def _tie_break(quorum: QuorumConfig) -> tuple[TieBreak, tuple[int, ...]]:
    breaker = quorum.auto_tie_breaker_node
    if not quorum.auto_tie_breaker:
        return TieBreak.NONE, ()
    if isinstance(breaker, str):
        return _TIE_BREAKS[breaker], ()
    return TieBreak.LISTED, breaker
