"""Whether the members of a view may act for the whole cluster. Pure, equal on every replica.

Each member announces its ballot: its votes, and the rules its configuration names. The rules of
the ballot with the most expected votes count, so a node with an outdated configuration cannot
make a small part quorate. Two quorate parts always share a member that has the state; therefore the
steps made with a quorum are one history, and the state with the most of them is the one to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final


class TieBreak(IntEnum):
    """Which of two equal halves goes on."""

    NONE = 0
    LOWEST = 1  # the one with the lowest node of the last quorate view
    HIGHEST = 2
    LISTED = 3  # the one with the first node of a list that was in the last quorate view


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one node brings to the count."""

    votes: int = 1
    expected_votes: int = 0  # of the whole cluster; 0: no quorum is configured
    two_node: bool = False  # one of two nodes is enough
    wait_for_all: bool = False  # not quorate before all votes were together once
    tie_break: TieBreak = TieBreak.NONE
    tie_breakers: tuple[int, ...] = ()  # of LISTED
    ignored: bool = False  # the policy "ignore": counted and shown, but changes are taken

    @property
    def needed(self) -> int:
        """Return how many votes are a quorum."""
        return 1 if self.two_node else self.expected_votes // 2 + 1


NO_QUORUM: Final = Ballot()


class Quorum:
    """The ballots of the members and what was decided by them; part of the replicated state."""

    def __init__(self) -> None:
        self.ballots: dict[int, Ballot] = {}
        self.all_seen = False
        self.steps = 0  # of the state, made with a quorum
        self.last: tuple[int, ...] = ()  # members of the last quorate view
        self.quorate = True  # the members that are present now may act
        self.present: tuple[int, ...] = ()

    @property
    def rules(self) -> Ballot:
        """Return the ballot whose rules count."""
        best = NO_QUORUM
        for node in sorted(self.ballots):
            if self.ballots[node].expected_votes > best.expected_votes:
                best = self.ballots[node]
        return best

    @property
    def configured(self) -> bool:
        """True: somebody asks for a quorum."""
        return self.rules.expected_votes > 0

    @property
    def votes(self) -> int:
        """Return the votes that are present."""
        return self._votes(self.present)

    @property
    def acts(self) -> bool:
        """True: changes are taken."""
        return self.quorate or self.rules.ignored

    def install(self, members: Iterable[int], ballots: Mapping[int, Ballot]) -> bool:
        """Count the members of a view that comes into force; return whether it is quorate.

        Args:
            members: of the view.
            ballots: those that were announced; of other members the known ones stay.
        """
        nodes = tuple(sorted(members))
        known = self.ballots | dict(ballots)
        self.ballots = {n: known.get(n, NO_QUORUM) for n in nodes}
        if self.configured and self._votes(nodes) >= self.rules.expected_votes:
            self.all_seen = True
        self.reduce(nodes)
        self.step()
        if self.configured and self.quorate:
            self.last = nodes
        return self.quorate

    def step(self) -> None:
        """Count a step of the state: an entry applied, a view that comes into force."""
        if self.configured and self.quorate:
            self.steps += 1

    def reached_by(self, holders: Collection[int], ballots: Mapping[int, Ballot]) -> bool:
        """Tell whether these members, or no part of a view with these ballots, would be quorate."""
        whole = Quorum()
        whole.all_seen, whole.last = self.all_seen, self.last
        if not whole.install(ballots, ballots) or whole.rules.ignored:
            return True
        whole.reduce(holders)
        return whole.quorate

    def reduce(self, members: Collection[int]) -> None:
        """Learn which members of the view in force are still present; newcomers do not count."""
        self.present = tuple(n for n in sorted(self.ballots) if n in members)
        self.quorate = not self.configured or self._reached(self.present)

    def _votes(self, nodes: Iterable[int]) -> int:
        return sum(self.ballots[n].votes for n in nodes if n in self.ballots)

    def _reached(self, nodes: tuple[int, ...]) -> bool:
        rules = self.rules
        if rules.wait_for_all and not self.all_seen:
            return False
        votes = self._votes(nodes)
        if votes >= rules.needed:
            return True
        return 2 * votes == rules.expected_votes and self._breaker(rules) in nodes

    def _breaker(self, rules: Ballot) -> int | None:
        if not self.last:
            return None
        match rules.tie_break:
            case TieBreak.LOWEST:
                return self.last[0]
            case TieBreak.HIGHEST:
                return self.last[-1]
            case TieBreak.LISTED:
                return next((n for n in rules.tie_breakers if n in self.last), None)
            case TieBreak.NONE:
                return None

    def values(self) -> list[Any]:
        """Return everything that replicas share as plain values, canonical."""
        ballots = [[n, self.ballots[n]] for n in sorted(self.ballots)]
        return [ballots, self.all_seen, self.steps, list(self.last)]

    def load(self, values: list[Any]) -> None:
        """Replace everything by what another replica had."""
        ballots, self.all_seen, self.steps, last = values
        self.ballots = {node: _ballot(ballot) for node, ballot in ballots}
        self.last = tuple(last)
        self.reduce(tuple(self.ballots))

    def check(self) -> None:
        """Assert every invariant."""
        assert set(self.present) <= set(self.ballots)
        assert all(ballot.votes >= 0 for ballot in self.ballots.values())


def _ballot(values: list[Any]) -> Ballot:
    votes, expected, two_node, wait_for_all, tie_break, tie_breakers, ignored = values
    breakers = tuple(tie_breakers)
    return Ballot(votes, expected, two_node, wait_for_all, TieBreak(tie_break), breakers, ignored)
