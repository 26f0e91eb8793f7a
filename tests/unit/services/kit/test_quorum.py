"""Which part of a cluster may act, from the votes of its members."""

from __future__ import annotations

import itertools

import pytest

from openais.wire.codec import pack_state, unpack_state
from services.kit.quorum import NO_QUORUM, Ballot, Quorum, TieBreak


def electorate(count: int, ballot: Ballot) -> Quorum:
    """Return the count of a cluster that was together once."""
    made = Quorum()
    made.install(range(1, count + 1), dict.fromkeys(range(1, count + 1), ballot))
    return made


def side(of: Quorum, *members: int) -> Quorum:
    """Return the count of the part of a cluster that these members are."""
    made = Quorum()
    made.load(unpack_state(pack_state(of.values())))
    made.reduce(members)
    made.install(members, {})
    return made


def test_without_a_provider_every_part_is_quorate() -> None:
    whole = electorate(3, NO_QUORUM)
    assert side(whole, 3).quorate
    assert not whole.configured


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_at_most_one_part_of_any_partition_is_quorate(count: int) -> None:
    # Danger: two parts that act lose the writes of one of them.
    for tie_break in TieBreak:
        whole = electorate(count, Ballot(1, count, tie_break=tie_break, tie_breakers=(2, 1)))
        assert whole.quorate
        everybody = range(1, count + 1)
        for cut in itertools.product((0, 1, 2), repeat=count):
            parts = [[n for n, c in zip(everybody, cut, strict=True) if c == k] for k in range(3)]
            assert sum(side(whole, *part).quorate for part in parts if part) <= 1


def test_a_majority_goes_on_and_shrinks_to_the_majority_of_all() -> None:
    whole = electorate(5, Ballot(1, 5))
    three = side(whole, 1, 2, 3)
    assert three.quorate
    assert not side(three, 1, 2).quorate, "two of five, though most of the last view"


def test_votes_count_not_nodes() -> None:
    heavy = {1: Ballot(3, 5), 2: Ballot(1, 5), 3: Ballot(1, 5)}
    whole = Quorum()
    whole.install(heavy, heavy)
    assert side(whole, 1).quorate
    assert not side(whole, 2, 3).quorate


def test_a_node_that_is_not_in_the_view_yet_does_not_count() -> None:
    whole = electorate(3, Ballot(1, 3))
    whole.reduce({1, 4, 5})
    assert not whole.quorate
    assert whole.votes == 1


def test_the_ballot_with_the_most_expected_votes_rules() -> None:
    # Danger: a node with an outdated file makes a minority quorate.
    made = Quorum()
    made.install((1, 2), {1: Ballot(1, 1), 2: Ballot(1, 5)})
    assert not made.quorate
    assert made.rules.needed == 3


def test_one_of_two_nodes_is_enough_where_two_node_says_so() -> None:
    whole = electorate(2, Ballot(1, 2, two_node=True))
    assert side(whole, 2).quorate
    assert not side(electorate(2, Ballot(1, 2)), 2).quorate


def test_wait_for_all_is_over_for_good_when_all_were_together() -> None:
    ballot = Ballot(1, 3, wait_for_all=True)
    made = Quorum()
    assert not made.install((1, 2), dict.fromkeys((1, 2), ballot))
    assert made.install((1, 2, 3), dict.fromkeys((1, 2, 3), ballot))
    assert side(made, 1, 2).quorate


@pytest.mark.parametrize(
    ("tie_break", "winner"),
    [(TieBreak.LOWEST, (1, 2)), (TieBreak.HIGHEST, (3, 4)), (TieBreak.LISTED, (3, 4))],
)
def test_of_two_halves_the_one_with_the_tie_breaker_goes_on(
    tie_break: TieBreak, winner: tuple[int, ...]
) -> None:
    whole = electorate(4, Ballot(1, 4, tie_break=tie_break, tie_breakers=(9, 3)))
    assert [half for half in ((1, 2), (3, 4)) if side(whole, *half).quorate] == [winner]


def test_halves_without_a_quorate_past_wait_for_each_other() -> None:
    made = Quorum()
    made.install((1, 2), dict.fromkeys((1, 2), Ballot(1, 4, tie_break=TieBreak.LOWEST)))
    assert not made.quorate


def test_with_the_policy_ignore_a_minority_acts_and_is_shown_as_one() -> None:
    part = side(electorate(3, Ballot(1, 3, ignored=True)), 3)
    assert part.acts
    assert not part.quorate


def test_the_count_survives_a_snapshot() -> None:
    ballot = Ballot(2, 7, wait_for_all=True, tie_break=TieBreak.LISTED, tie_breakers=(3, 1))
    whole = electorate(3, ballot)
    again = Quorum()
    again.load(unpack_state(pack_state(whole.values())))
    assert again.values() == whole.values()
    assert (again.quorate, again.rules) == (whole.quorate, ballot)
