"""The replicated state of the membership service, several replicas side by side."""

from __future__ import annotations

import pytest

from openais.wire import clm as wire
from openais.wire.clm import Level, TrackFlags
from openais.wire.codec import DecodeError
from openais.wire.port import RingId
from openais.wire.status import Status
from services.clm.state import Membership
from services.kit.machine import REST, Context, NodeId, Report, View
from tests.unit.services.clm.group import Group, own


def node(group: Group, node_id: int) -> wire.Node:
    return next(n for n in group.any().nodes() if n.node_id == node_id)


def test_a_view_number_is_the_ring_sequence_and_a_count_within_the_ring() -> None:
    group = Group(ring=96)
    group.join(own(1))
    assert group.any().describe()["view"] == 100 << 16
    group.join(own(2), same_ring=True)
    assert group.any().describe()["view"] == (100 << 16) + 1
    group.join(own(3))
    assert group.any().describe()["view"] == 104 << 16


def test_clm_42_nodes_that_join_together_come_in_one_view() -> None:
    group = Group()
    group.join(own(1))
    session = group.tracking(1)
    group.join(own(2), own(3))
    assert group.views(session) == [(1, 2, 3)]


def test_clm_43_view_numbers_only_grow() -> None:
    group = Group()
    group.join(own(1), own(2))
    session = group.tracking(1)
    group.leave(2)
    group.join(own(2), same_ring=True)
    group.apart(2)
    away = group.split(2)
    group.merge(away)
    numbers = [view.view for view in group.told[session]]
    assert numbers == sorted(set(numbers))


def test_clm_45_who_joined_later_has_a_larger_initial_view() -> None:
    group = Group()
    group.join(own(1))
    group.join(own(2))
    assert 0 < node(group, 1).initial_view < node(group, 2).initial_view
    assert node(group, 2).initial_view == group.any().describe()["view"]


def test_clm_46_a_node_that_rejoins_has_a_new_initial_view_and_the_others_keep_theirs() -> None:
    group = Group()
    group.join(own(1), own(2))
    first = [node(group, n).initial_view for n in (1, 2)]
    group.leave(2)
    group.join(own(2, incarnation=7))
    assert node(group, 1).initial_view == first[0]
    assert node(group, 2).initial_view > first[1]


def test_clm_47_a_node_that_restarted_unnoticed_leaves_and_joins_in_two_views() -> None:
    group = Group()
    group.join(own(1), own(2))
    session = group.tracking(1)
    group.apart(2, incarnation=9)
    assert group.views(session) == [(1,), (1, 2)]
    synthetic, regular = group.told[session]
    assert synthetic.view == regular.view - 1 == (group.ring << 16) - 1
    assert node(group, 2).incarnation == 9


def test_a_node_that_was_apart_within_one_ring_also_leaves_and_joins() -> None:
    group = Group()
    group.join(own(1), own(2))
    session = group.tracking(1)
    group.ring -= 4  # the group changes, the ring does not
    group.apart(2)
    numbers = [view.view for view in group.told[session]]
    assert numbers == [(group.ring << 16) + 1, (group.ring << 16) + 2]


def test_sessions_of_a_node_that_was_apart_see_the_others_leave_and_join() -> None:
    group = Group()
    group.join(own(1), own(2), own(3))
    session = group.tracking(3)
    group.apart(3)
    assert group.views(session) == [(3,), (1, 2, 3)]
    group.leave(1)
    assert group.views(session)[-1] == (2, 3)


def test_a_life_that_goes_on_after_a_partition_keeps_its_incarnation() -> None:
    # The process may have been restarted from its snapshot: the state knows the node's life.
    group = Group()
    group.join(own(1), own(2), own(3))
    away = group.split(3)
    restarted = Membership(own(3, incarnation=77))
    restarted.load({REST: away.replicas[NodeId(3)].dump(REST)[0]})
    away.replicas[NodeId(3)] = restarted
    group.merge(away)
    assert node(group, 3).incarnation == 3000


def test_clm_48_both_sides_of_a_partition_go_on_and_see_each_other_join_again() -> None:
    group = Group()
    group.join(own(1), own(2), own(3))
    here, there = group.tracking(1), group.tracking(3)
    before = [node(group, n).initial_view for n in (1, 2)]
    away = group.split(3)
    assert group.views(here) == [(1, 2)]
    assert away.views(there) == [(3,)]
    group.merge(away)
    assert group.views(here)[-1] == (1, 2, 3)
    assert group.views(there)[-1] == (1, 2, 3)
    assert group.told[here][-1] == group.told[there][-1]
    assert [node(group, n).initial_view for n in (1, 2)] == before
    assert node(group, 3).initial_view == group.any().describe()["view"]


def test_clm_65_of_two_nodes_with_one_name_the_later_is_kept_out() -> None:
    group = Group()
    group.join(own(1, name="same"))
    group.join(own(2, name="same"), own(3))
    assert group.any().describe()["nodes_kept_out"] == 1
    assert node(group, 2).initial_view == 0
    assert not node(group, 2).member
    assert node(group, 3).member


def test_of_two_nodes_with_one_name_that_join_together_the_higher_id_is_kept_out() -> None:
    group = Group()
    group.join(own(2, name="same"), own(1, name="same"))
    assert node(group, 1).member
    assert not node(group, 2).member


def test_a_node_that_was_kept_out_becomes_a_member_when_the_name_is_free() -> None:
    group = Group()
    group.join(own(1, name="same"), own(3))
    group.join(own(2, name="same"))
    session = group.tracking(2)
    assert group.read(session, wire.MembershipGet())[1] == wire.Membership(
        group.any().describe()["view"], (), node(group, 2)
    )
    group.leave(1)
    assert group.views(session) == [(2, 3)]
    assert node(group, 2).initial_view == group.any().describe()["view"]


def test_clients_of_a_node_that_is_kept_out_see_only_their_own_node() -> None:
    group = Group()
    group.join(own(1, name="same"))
    group.join(own(2, name="same"))
    session = group.session(2)
    local = wire.NodeGet(wire.LOCAL_NODE_ID, Level.B_02)
    status, found = group.read(session, local)
    assert status is Status.OK
    assert found == node(group, 2)
    assert group.read(session, wire.NodeGet(1, Level.B_02))[0] is Status.ERR_INVALID_PARAM
    for node_id in (1, 2, wire.LOCAL_NODE_ID):
        asked = wire.NodeGet(node_id, Level.B_03)
        assert group.read(session, asked)[0] is Status.ERR_UNAVAILABLE


@pytest.mark.parametrize(
    ("level", "status"),
    [
        (Level.B_01, Status.ERR_INVALID_PARAM),  # CLM-10
        (Level.B_02, Status.ERR_INVALID_PARAM),
        (Level.B_03, Status.ERR_INVALID_PARAM),
        (Level.B_04, Status.ERR_NOT_EXIST),  # CLM-11
    ],
)
def test_clm_10_and_11_a_node_that_is_no_member_is_refused_by_level(
    level: Level, status: Status
) -> None:
    group = Group()
    group.join(own(1))
    session = group.session(1)
    assert group.read(session, wire.NodeGet(9, level)) == (status, None)
    assert group.read(session, wire.NodeGet(0, level)) == (Status.ERR_INVALID_PARAM, None)


def test_clm_02_the_local_id_and_the_nodes_own_id_give_the_same_node() -> None:
    group = Group()
    group.join(own(1), own(2))
    session = group.session(2)
    local = group.read(session, wire.NodeGet(wire.LOCAL_NODE_ID, Level.B_01))
    assert local == group.read(session, wire.NodeGet(2, Level.B_01))
    assert local == (Status.OK, node(group, 2))


def test_before_the_first_view_a_node_is_asked_to_try_again() -> None:
    machine = Membership(own(1))
    group = Group()
    group.replicas[NodeId(1)] = machine
    session = group.session(1)
    asked = wire.NodeGet(wire.LOCAL_NODE_ID, Level.B_04)
    assert group.read(session, asked)[0] is Status.ERR_TRY_AGAIN


def test_clm_31_the_answer_to_track_is_the_view_the_first_change_is_relative_to() -> None:
    group = Group()
    group.join(own(1))
    session = group.session(1)
    status, answer = group.call(session, wire.Track(TrackFlags.CHANGES, Level.B_01))
    assert status is Status.OK
    assert isinstance(answer, wire.Membership)
    group.join(own(2))
    assert [view.view > answer.view for view in group.told[session]] == [True]


def test_clm_34_stopping_what_does_not_run_is_refused() -> None:
    group = Group()
    group.join(own(1))
    session = group.session(1)
    assert group.call(session, wire.TrackStop())[0] is Status.ERR_NOT_EXIST
    group.call(session, wire.Track(TrackFlags.CHANGES, Level.B_01))
    assert group.call(session, wire.TrackStop())[0] is Status.OK
    assert group.call(session, wire.TrackStop())[0] is Status.ERR_NOT_EXIST
    group.join(own(2))
    assert group.told[session] == []


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (0, Level.B_04),  # CLM-26
        (TrackFlags.CHANGES | TrackFlags.CHANGES_ONLY, Level.B_04),  # CLM-27
        (0x40, Level.B_04),  # CLM-28
        (0x80 | TrackFlags.CHANGES, Level.B_04),
        (TrackFlags.LOCAL, Level.B_04),  # CLM-29
        (0x10, Level.B_04),
        (TrackFlags.CURRENT | 0x20, Level.B_04),
        (0x10 | TrackFlags.CHANGES, Level.B_01),  # CLM-30
        (TrackFlags.LOCAL | TrackFlags.CHANGES, Level.B_02),
        (TrackFlags.CURRENT, Level.B_04),  # an ordered request that follows nothing
    ],
)
def test_clm_26_to_30_illegal_track_flags_are_refused(flags: int, level: Level) -> None:
    group = Group()
    group.join(own(1))
    session = group.session(1)
    assert group.call(session, wire.Track(int(flags), level))[0] is Status.ERR_BAD_FLAGS
    assert group.any().describe()["sessions_tracking"] == 0


def test_clm_63_a_session_that_follows_its_own_node_hears_nothing_of_others() -> None:
    group = Group()
    group.join(own(1), own(2))
    session = group.tracking(1, TrackFlags.LOCAL | TrackFlags.CHANGES_ONLY)
    group.join(own(3))
    group.apart(2)
    group.leave(2)
    assert group.told[session] == []
    group.apart(1)
    assert group.views(session) == [(1,), (1, 3)]


def test_a_closed_session_is_told_nothing_more() -> None:
    group = Group()
    group.join(own(1))
    session = group.tracking(1)
    group.close(session)
    group.join(own(2))
    assert group.told[session] == []


def test_a_report_that_cannot_be_read_leaves_its_node_out_and_the_others_go_on() -> None:
    machine = Membership(own(1))
    view = View(RingId(4, 1), (NodeId(1), NodeId(2)), (NodeId(1), NodeId(2)), ())
    reports = {
        NodeId(1): Report(NodeId(1), machine.report(())),
        NodeId(2): Report(NodeId(2), b"\x91\x7f"),
    }
    machine.view_changed(view, reports, Context(1, NodeId(1), None, view))
    assert [n.node_id for n in machine.nodes()] == [1]
    machine.check()


def test_a_damaged_snapshot_is_refused() -> None:
    machine = Membership(own(1))
    with pytest.raises(DecodeError):
        machine.load({REST: b"\x92\x01\x01"})


def test_nothing_expires() -> None:
    machine = Membership(own(1))
    assert machine.deadline_ns() is None
    assert machine.expired(5) == []
