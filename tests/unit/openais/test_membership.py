"""What a client is told of two views, by tracking mode (SAI-AIS-CLM-B.04.01, section 3.5.1)."""

from __future__ import annotations

import dataclasses

import pytest

from openais.membership import NotificationBuffer, changes, listing
from openais.wire.clm import AddressFamily, ClusterChange, Level, Membership, Node, TrackFlags

JOINED, LEFT = ClusterChange.JOINED, ClusterChange.LEFT
NO_CHANGE, RECONFIGURED = ClusterChange.NO_CHANGE, ClusterChange.RECONFIGURED
ALL, ONLY, LOCAL = TrackFlags.CHANGES, TrackFlags.CHANGES_ONLY, TrackFlags.LOCAL


def node(node_id: int, *, incarnation: int = 1, initial_view: int = 1) -> Node:
    return Node(
        node_id=node_id,
        name=f"n{node_id}",
        distinguished_name=f"safNode=n{node_id},safCluster=c",
        family=AddressFamily.INET,
        address=f"10.0.0.{node_id}",
        boot_timestamp_ns=5,
        incarnation=incarnation,
        initial_view=initial_view,
        member=True,
    )


def view(number: int, *nodes: Node) -> Membership:
    return Membership(number, nodes)


def told(buffer: NotificationBuffer | None) -> list[tuple[int, ClusterChange]]:
    assert buffer is not None
    return [(item.cluster_node.node_id, item.cluster_change) for item in buffer.notification]


def test_a_listing_has_every_member_unchanged() -> None:
    buffer = listing(view(7, node(1), node(2)), TrackFlags.CURRENT, 1, Level.B_04)
    assert told(buffer) == [(1, NO_CHANGE), (2, NO_CHANGE)]
    assert (buffer.view_number, buffer.number_of_members) == (7, 2)


def test_a_local_listing_has_one_node_and_counts_all_members() -> None:
    buffer = listing(view(7, node(1), node(2)), TrackFlags.CURRENT | LOCAL, 2, Level.B_04)
    assert told(buffer) == [(2, NO_CHANGE)]
    assert buffer.number_of_members == 2


def test_clm_39_all_members_are_told_with_the_one_that_joined_exactly_once() -> None:
    buffer = changes(view(1, node(1)), view(2, node(1), node(2)), ALL, 1, Level.B_04)
    assert told(buffer) == [(1, NO_CHANGE), (2, JOINED)]
    assert buffer is not None
    assert buffer.number_of_members == 2


def test_clm_40_changes_only_has_the_one_that_joined() -> None:
    buffer = changes(view(1, node(1)), view(2, node(1), node(2)), ONLY, 1, Level.B_04)
    assert told(buffer) == [(2, JOINED)]
    assert buffer is not None
    assert buffer.number_of_members == 2


def test_clm_41_a_node_that_left_is_listed_as_last_known_and_no_member() -> None:
    buffer = changes(view(1, node(1), node(2)), view(2, node(1)), ALL, 1, Level.B_04)
    assert told(buffer) == [(1, NO_CHANGE), (2, LEFT)]
    assert buffer is not None
    assert buffer.number_of_members == 1
    gone = buffer.notification[1].cluster_node
    assert not gone.member
    assert gone.initial_view_number == 1


def test_items_are_ordered_by_node_id() -> None:
    buffer = changes(
        view(1, node(1), node(2), node(5)), view(2, node(1), node(3), node(5)), ALL, 1, Level.B_04
    )
    assert told(buffer) == [(1, NO_CHANGE), (2, LEFT), (3, JOINED), (5, NO_CHANGE)]


def test_clm_66_views_that_were_lost_are_told_as_one_change() -> None:
    first = view(1, node(1), node(2), node(3))
    last = view(90, node(1), node(2, incarnation=2), node(4))
    assert told(changes(first, last, ONLY, 1, Level.B_04)) == [(2, JOINED), (3, LEFT), (4, JOINED)]


def test_a_node_with_other_data_was_reconfigured() -> None:
    other = dataclasses.replace(node(2), address="10.0.0.9")
    buffer = changes(view(1, node(1), node(2)), view(2, node(1), other), ONLY, 1, Level.B_04)
    assert told(buffer) == [(2, RECONFIGURED)]


def test_clm_48_the_smaller_sides_own_node_is_unchanged_with_a_new_initial_view() -> None:
    merged = view(9, node(1), node(3, initial_view=9))
    buffer = changes(view(5, node(3)), merged, ALL, 3, Level.B_04)
    assert told(buffer) == [(1, JOINED), (3, NO_CHANGE)]
    assert buffer is not None
    assert buffer.notification[1].cluster_node.initial_view_number == 9


def test_a_view_without_a_change_is_told_with_all_nodes_or_with_none() -> None:
    before, after = view(1, node(1)), view(2, node(1))
    assert told(changes(before, after, ALL, 1, Level.B_04)) == [(1, NO_CHANGE)]
    assert told(changes(before, after, ONLY, 1, Level.B_04)) == []


@pytest.mark.parametrize("mode", [ALL, ONLY])
def test_clm_63_who_follows_its_own_node_is_told_of_nothing_else(mode: TrackFlags) -> None:
    before, after = view(1, node(1), node(2)), view(2, node(1), node(3))
    assert changes(before, after, mode | LOCAL, 1, Level.B_04) is None
    assert told(changes(before, after, mode | LOCAL, 3, Level.B_04)) == [(3, JOINED)]
    assert told(changes(before, after, mode | LOCAL, 2, Level.B_04)) == [(2, LEFT)]


def outside(number: int, who: Node) -> Membership:
    return Membership(number, (), dataclasses.replace(who, member=False, initial_view=0))


def test_clm_50_a_node_outside_the_membership_is_told_of_itself_only() -> None:
    buffer = listing(outside(3, node(2)), TrackFlags.CURRENT, 2, Level.B_04)
    assert told(buffer) == [(2, LEFT)]
    assert buffer.number_of_members == 0
    lost = changes(view(1, node(1), node(2)), outside(3, node(2)), ALL, 2, Level.B_04)
    assert told(lost) == [(2, LEFT)]
    assert changes(outside(3, node(2)), outside(4, node(2)), ALL, 2, Level.B_04) is None


def test_clm_51_a_node_that_becomes_a_member_sees_itself_and_all_others_join() -> None:
    buffer = changes(outside(3, node(2)), view(4, node(1), node(2)), ONLY, 2, Level.B_04)
    assert told(buffer) == [(1, JOINED), (2, JOINED)]


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (Level.B_01, "n1"),
        (Level.B_02, "safNode=n1,safCluster=c"),
        (Level.B_04, "safNode=n1,safCluster=c"),
    ],
)
def test_the_form_of_a_name_follows_the_level(level: Level, name: str) -> None:
    buffer = listing(view(1, node(1)), TrackFlags.CURRENT, 1, level)
    assert buffer.notification[0].cluster_node.node_name == name
