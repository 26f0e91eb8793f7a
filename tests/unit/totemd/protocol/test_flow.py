"""How many messages a visit may send."""

from __future__ import annotations

from totemd.protocol.flow import allowance, part_of_backlog


def test_a_quiet_ring_gives_a_visit_all_it_may_send() -> None:
    assert allowance(50, 3, 17, others=0, sent_again=0, room=1_000) == 17


def test_what_the_others_sent_and_what_was_repaired_is_taken_off() -> None:
    assert allowance(50, 3, 50, others=20, sent_again=0, room=1_000) == 30
    assert allowance(50, 3, 50, others=20, sent_again=4, room=1_000) == 26


def test_a_share_stays_for_every_member_behind_greedy_ones() -> None:
    assert allowance(50, 5, 17, others=200, sent_again=0, room=1_000) == 10
    assert allowance(50, 100, 17, others=200, sent_again=0, room=1_000) == 1


def test_the_gap_limit_is_a_limit() -> None:
    assert allowance(50, 3, 17, others=0, sent_again=0, room=3) == 3
    assert allowance(50, 3, 17, others=0, sent_again=0, room=-3) == 0


def test_the_backlog_shares_the_window_and_never_shuts_out() -> None:
    assert part_of_backlog(40, mine=10, mine_before=10, backlog=40) == 10
    assert part_of_backlog(40, mine=10, mine_before=0, backlog=400) == 1
    assert part_of_backlog(40, mine=0, mine_before=0, backlog=400) == 0
    assert part_of_backlog(40, mine=0, mine_before=10, backlog=0) == 40
