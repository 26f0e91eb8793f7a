"""SAI-AIS-CLM-B.04.01, section 3.5: views and what handles are told of them, on the pure machine.

The replicas are real, the network is not: joining, dying, splitting and merging happen in an order
that the test decides. The same with real processes, as far as processes matter: test_clm.py.
"""

from __future__ import annotations

import pytest

from openais.wire import clm as wire
from openais.wire.clm import ClusterChange, Level, TrackFlags
from openais.wire.status import Status
from services.kit.machine import Report
from tests.conformance.clm_handles import Handle, all_are, group_of, items
from tests.unit.services.clm.group import Group, own

A, B, C = 1, 2, 3
CHANGES, ONLY = TrackFlags.CHANGES, TrackFlags.CHANGES_ONLY
CURRENT, LOCAL = TrackFlags.CURRENT, TrackFlags.LOCAL
LEVELS = list(Level)


def initial_views(handle: Handle) -> dict[int, int]:
    nodes = [n.cluster_node for n in handle.listing().notification]
    return {n.node_id: n.initial_view_number for n in nodes}


@pytest.mark.parametrize("level", LEVELS)
def test_clm_39_changes_lists_all_members_and_the_one_that_joined_once(level: Level) -> None:
    group = group_of(A)
    handle = Handle(group, A, CHANGES, level)
    group.join(own(B))
    assert handle.items() == [[(A, "NO_CHANGE"), (B, "JOINED")]]
    assert handle.buffers[0].number_of_members == 2


@pytest.mark.parametrize("level", LEVELS)
def test_clm_40_changes_only_lists_the_one_that_joined(level: Level) -> None:
    group = group_of(A)
    handle = Handle(group, A, ONLY, level)
    group.join(own(B))
    assert handle.items() == [[(B, "JOINED")]]
    assert handle.buffers[0].number_of_members == 2


@pytest.mark.parametrize("level", LEVELS)
def test_clm_41_a_node_that_died_is_listed_as_left_and_not_a_member(level: Level) -> None:
    group = group_of(A, B)
    handle = Handle(group, A, CHANGES, level)
    known = handle.listing().notification[1].cluster_node
    group.leave(B)
    (buffer,) = handle.hear()
    assert items(buffer) == [(A, "NO_CHANGE"), (B, "LEFT")]
    assert buffer.number_of_members == 1
    left = buffer.notification[1].cluster_node
    assert (left.member, left.initial_view_number) == (False, known.initial_view_number)
    cause = "safNode=n2,safCluster=test" if level is Level.B_04 else ""
    assert buffer.root_cause_entity == cause


def test_clm_42_nodes_that_join_in_one_configuration_come_in_one_callback() -> None:
    group = group_of(A)
    handle = Handle(group, A, ONLY)
    group.join(own(B), own(C))
    assert handle.items() == [[(B, "JOINED"), (C, "JOINED")]]
    group.leave(B, C)
    assert handle.items()[-1] == [(B, "LEFT"), (C, "LEFT")]
    assert handle.buffers[-1].root_cause_entity == "", "there is no one cause"


def test_clm_43_view_numbers_strictly_increase() -> None:
    group = group_of(A, B)
    handle = Handle(group, A, CURRENT | CHANGES)
    group.leave(B)
    group.join(own(B), same_ring=True)
    group.apart(B)
    handle.administer(wire.AdminOperation.LOCK, B)
    handle.administer(wire.AdminOperation.UNLOCK, B)
    away = group.split(B)
    away.join(own(7), own(8))
    group.merge(away)
    numbers = [buffer.view_number for buffer in handle.hear()]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 8


def test_clm_44_equal_flags_and_view_numbers_mean_equal_buffers() -> None:
    group = group_of(A, B)
    for flags in (CHANGES, ONLY):
        here, there = Handle(group, A, flags), Handle(group, B, flags)
        group.join(own(C))
        here.administer(wire.AdminOperation.LOCK, C)
        group.leave(C)
        assert here.hear() == there.hear()


def test_clm_45_who_joined_later_has_the_larger_initial_view_on_all_nodes() -> None:
    group = group_of(A, B)
    seen = [initial_views(Handle(group, node)) for node in (A, B)]
    assert seen[0] == seen[1]
    assert seen[0][A] < seen[0][B]


def test_clm_46_a_node_that_rejoins_has_a_larger_initial_view_the_others_keep_theirs() -> None:
    group = group_of(A, B)
    handle = Handle(group, A)
    before = initial_views(handle)
    group.leave(B)
    group.join(own(B, incarnation=4))
    after = initial_views(handle)
    assert after[B] > before[B]
    assert after[A] == before[A]


def test_clm_47_a_node_that_restarted_unnoticed_leaves_then_joins() -> None:
    group = group_of(A, B)
    handle = Handle(group, A, CHANGES)
    group.apart(B, incarnation=9)
    assert handle.items() == [
        [(A, "NO_CHANGE"), (B, "LEFT")],
        [(A, "NO_CHANGE"), (B, "JOINED")],
    ]


def test_clm_48_without_quorum_both_sides_go_on_and_see_each_other_join_at_the_merge() -> None:
    group = group_of(A, B, C)
    here, there = Handle(group, A, ONLY), Handle(group, C, ONLY)
    before = initial_views(here)
    away = group.split(C)
    there.group = away
    assert here.items() == [[(C, "LEFT")]]
    assert there.items() == [all_are(ClusterChange.LEFT, A, B)]
    assert there.buffers[0].number_of_members == 1
    group.merge(away)
    there.group = group
    assert here.items()[-1] == [(C, "JOINED")]
    assert there.items()[-1] == all_are(ClusterChange.JOINED, A, B)
    after = initial_views(there)
    assert (after[A], after[B]) == (before[A], before[B])
    assert after[C] > before[C]


def minority(group: Group) -> Group:
    away = group.split(C)
    away.quorate = False
    away.ring += 4  # the same nodes, once more, and now they know that they are too few
    away._change((), (), {})
    return away


def test_clm_49_on_a_node_without_quorum_nodes_cannot_be_got() -> None:
    group = group_of(A, B, C)
    handles = {level: Handle(group, C, 0, level) for level in LEVELS}
    away = minority(group)
    for level, handle in handles.items():
        handle.group = away
        status, node = handle.node_get()
        if level >= Level.B_03:
            assert status is Status.ERR_UNAVAILABLE
        else:
            assert node is not None
            assert (status, node.member, node.initial_view) == (Status.OK, False, 0)
            assert handle.node_get(A)[0] is Status.ERR_INVALID_PARAM


def test_clm_50_on_a_node_without_quorum_a_listing_has_the_local_node_only() -> None:
    group = group_of(A, B, C)
    away = minority(group)
    buffer = Handle(away, C).listing()
    assert items(buffer) == [(C, "LEFT")]
    assert buffer.number_of_members == 0
    assert buffer.notification[0].cluster_node.member is False


def test_clm_51_the_handle_of_a_minority_is_told_when_its_node_is_a_member_again() -> None:
    group = group_of(A, B, C)
    handle, other = Handle(group, C, CHANGES), Handle(group, A, ONLY)
    away = minority(group)
    handle.group = away
    left = handle.items()
    assert left[-1] == [(C, "LEFT")]
    assert handle.buffers[-1].number_of_members == 0
    group.merge(away)
    assert handle.items() == [*left, all_are(ClusterChange.JOINED, A, B, C)]
    assert other.items() == [[(C, "LEFT")], [(C, "JOINED")]]


def test_clm_31_the_listing_comes_first_and_changes_are_relative_to_it() -> None:
    group = group_of(A)
    handle = Handle(group, A, CURRENT | CHANGES)
    group.join(own(B))
    assert handle.items() == [[(A, "NO_CHANGE")], [(A, "NO_CHANGE"), (B, "JOINED")]]


def test_clm_32_another_mode_replaces_the_mode_the_restriction_and_the_steps() -> None:
    group = group_of(A, B)
    handle = Handle(group, A, CHANGES | LOCAL | TrackFlags.START_STEP)
    handle.track(ONLY)
    handle.begin(wire.AdminOperation.LOCK, B)
    assert handle.items() == [[(B, "LEFT")]]


def test_clm_63_who_follows_its_own_node_hears_nothing_of_others() -> None:
    group = group_of(A)
    handles = [Handle(group, A, LOCAL | mode) for mode in (CHANGES, ONLY)]
    group.join(own(B))
    group.leave(B)
    assert [handle.hear() for handle in handles] == [[], []]
    listed = handles[0].listing(CURRENT | LOCAL)
    assert items(listed) == [(A, "NO_CHANGE")]


def test_clm_65_of_two_nodes_with_one_name_the_later_is_no_member() -> None:
    group = group_of(A)
    handle = Handle(group, A, ONLY)
    group.join(own(B, name="n1"))
    assert handle.items() == [[]]
    assert handle.listing().number_of_members == 1
    assert items(Handle(group, B).listing()) == [(B, "LEFT")]


def test_clm_67_two_handles_of_one_process_are_told_in_their_own_forms() -> None:
    group = group_of(A)
    every, only = Handle(group, A, CHANGES), Handle(group, A, ONLY, Level.B_01)
    group.join(own(B))
    assert every.items() == [[(A, "NO_CHANGE"), (B, "JOINED")]]
    assert only.items() == [[(B, "JOINED")]]
    names = [b.notification[-1].cluster_node.node_name for b in (*every.buffers, *only.buffers)]
    assert names == ["safNode=n2,safCluster=test", "n2"]


def test_clm_68_a_handle_that_is_closed_is_told_nothing_the_other_goes_on() -> None:
    group = group_of(A)
    closed, other = Handle(group, A, CHANGES), Handle(group, A, CHANGES)
    group.close(closed.session)
    group.join(own(B))
    assert (closed.hear(), len(other.hear())) == ([], 1)


def test_a_change_of_the_view_without_a_change_of_members_is_told() -> None:
    group = group_of(A)
    every, only = Handle(group, A, CHANGES), Handle(group, A, ONLY)
    group.join(own(B, name="n1"))
    assert every.items() == [[(A, "NO_CHANGE")]]
    assert only.items() == [[]]
    assert only.buffers[0].number_of_members == 1


def test_a_node_that_is_not_on_the_list_of_its_configuration_is_no_member() -> None:
    group = group_of(A)
    group.join(own(B, configured=False))
    here = Handle(group, A)
    assert here.listing().number_of_members == 1
    for level in LEVELS:
        there = Handle(group, B, 0, level)
        status, _ = group.read(there.session, wire.MembershipGet(level))
        refused = level >= Level.B_03
        assert status is (Status.ERR_UNAVAILABLE if refused else Status.OK)
        track = wire.Track(int(CHANGES), level)
        assert group.call(there.session, track)[0] is status


def test_a_caller_with_too_little_room_begins_nothing() -> None:
    group = group_of(A, B)
    handle = Handle(group, A)
    asked = wire.Track(int(CURRENT | CHANGES), Level.B_04, 1)
    status, view = group.call(handle.session, asked)
    assert status is Status.ERR_NO_SPACE
    assert isinstance(view, wire.Membership)
    assert len(view.members) == 2
    assert handle.stop() is Status.ERR_NOT_EXIST
    roomy = wire.Track(int(CURRENT | CHANGES), Level.B_04, 2)
    assert group.call(handle.session, roomy)[0] is Status.OK


def test_a_report_of_an_older_member_is_understood() -> None:
    group = group_of(A)
    machine = group.any()
    report = wire.TABLE.decode(machine.report(()))
    older = wire.TABLE.encode(report, 1)
    assert wire.TABLE.decode(older).configured is True
    assert len(older) < len(Report(machine.own_node_id, machine.report(())).content)


def test_a_buffer_finds_nodes_by_plain_and_by_distinguished_name() -> None:
    group = group_of(A, B)
    for level in LEVELS:
        buffer = Handle(group, A, 0, level).listing()
        found = buffer.node("n2")
        assert found is not None
        assert found.node_id == B
        assert buffer.node(found.node_name) == found
        assert buffer.node("n") is None
