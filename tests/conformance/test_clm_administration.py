"""SAI-AIS-CLM-B.04.01, sections 3.4 and 3.6: administration and its steps, on the pure machine.

Time is that of the ordered operations; all replicas apply each operation and must agree.
"""

from __future__ import annotations

import pytest

from openais.wire import clm as wire
from openais.wire.clm import (
    AdminOperation,
    AdminState,
    ChangeStep,
    Level,
    Response,
    TrackFlags,
)
from openais.wire.status import ONE_SECOND_NS, TIME_UNKNOWN, Status
from services.clm.state import Membership
from services.kit.machine import REST, Caller, Context, NodeId, Waits
from tests.conformance.clm_handles import Handle, group_of
from tests.unit.services.clm.group import Group, own

A, B, C = 1, 2, 3
LOCK, UNLOCK = AdminOperation.LOCK, AdminOperation.UNLOCK
SHUTDOWN, REMOVE = AdminOperation.SHUTDOWN, AdminOperation.REMOVE
CHANGES, ONLY = TrackFlags.CHANGES, TrackFlags.CHANGES_ONLY
START = CHANGES | TrackFlags.START_STEP
VALIDATE = CHANGES | TrackFlags.VALIDATE_STEP
LOCAL = TrackFlags.LOCAL
STEP_START, COMPLETED = ChangeStep.START, ChangeStep.COMPLETED
STEP_VALIDATE, ABORTED = ChangeStep.VALIDATE, ChangeStep.ABORTED


def record(group: Group, node_id: int) -> wire.KnownNode:
    session = group.session(min(group.replicas))
    status, nodes = group.read(session, wire.NodesGet())
    assert status is Status.OK
    assert isinstance(nodes, wire.Nodes)
    return next(n for n in nodes.nodes if n.node_id == node_id)


def test_clm_52_a_lock_waits_for_the_answer_to_start() -> None:
    group = group_of(A, B)
    subscriber, plain = Handle(group, A, START), Handle(group, A, CHANGES)
    operation = plain.begin(LOCK, B)
    (start,) = subscriber.hear()
    assert (start.step, start.invocation > 0) == (STEP_START, True)
    assert start.time_supervision == 50 * ONE_SECOND_NS
    assert start.root_cause_entity == "safNode=n2,safCluster=test"
    assert start.view_number == plain.listing().view_number
    assert start.number_of_members == 2
    assert subscriber.items() == [[(A, "NO_CHANGE"), (B, "LEFT")]]
    assert (plain.hear(), plain.outcome(operation)) == ([], None)
    assert subscriber.respond(start.invocation) is Status.OK
    assert plain.outcome(operation) is Status.OK
    assert subscriber.steps() == [STEP_START, COMPLETED]
    done = plain.hear()[-1]
    assert (done.invocation, done.time_supervision, done.number_of_members) == (0, 0, 1)
    assert done.root_cause_entity == start.root_cause_entity
    assert plain.items() == [[(A, "NO_CHANGE"), (B, "LEFT")]]
    assert done.notification[1].cluster_node.member is False
    assert record(group, B).state is AdminState.LOCKED


def test_clm_53_without_an_answer_the_lock_ends_when_its_time_is_over() -> None:
    group = group_of(A, B)
    subscriber, admin = Handle(group, A, START), Handle(group, A)
    operation = admin.begin(LOCK, B)
    group.expire(49)
    assert admin.outcome(operation) is None
    group.expire(1)
    assert admin.outcome(operation) is Status.ERR_REPAIR_PENDING
    assert subscriber.steps() == [STEP_START, COMPLETED]
    late = subscriber.buffers[0].invocation
    assert subscriber.respond(late) is Status.OK, "an answer to what is over is taken once"
    assert subscriber.respond(late) is Status.ERR_INVALID_PARAM


def test_clm_54_who_cannot_get_ready_does_not_stop_the_lock() -> None:
    group = group_of(A, B)
    first, second = Handle(group, A, START), Handle(group, B, START)
    operation = first.begin(LOCK, B)
    first.respond(first.asked(), Response.ERROR)
    assert first.outcome(operation) is None
    second.respond(second.asked())
    assert first.outcome(operation) is Status.ERR_REPAIR_PENDING
    assert record(group, B).state is AdminState.LOCKED


@pytest.mark.parametrize("response", [Response.REJECTED, Response.ERROR])
def test_clm_55_a_removal_that_somebody_rejects_is_aborted(response: Response) -> None:
    group = group_of(A, B)
    judge, other = Handle(group, A, VALIDATE), Handle(group, B, VALIDATE)
    starter = Handle(group, A, START)
    before = starter.listing()
    operation = judge.begin(REMOVE, B)
    assert judge.steps() == [STEP_VALIDATE]
    assert judge.buffers[0].time_supervision == TIME_UNKNOWN
    assert judge.respond(judge.asked(), response) is Status.OK
    assert judge.outcome(operation) is Status.ERR_FAILED_OPERATION
    assert judge.steps() == other.steps() == [STEP_VALIDATE, ABORTED]
    assert (judge.buffers[1].invocation, judge.buffers[1].time_supervision) == (0, 0)
    assert starter.hear() == [], "who was asked nothing hears nothing of the end"
    assert starter.listing() == before
    assert other.respond(other.buffers[0].invocation) is Status.OK


def test_a_removal_that_all_accept_goes_on_like_a_lock() -> None:
    group = group_of(A, B)
    both = Handle(group, A, VALIDATE | TrackFlags.START_STEP)
    operation = both.begin(REMOVE, B)
    both.respond(both.asked())
    assert both.steps() == [STEP_VALIDATE, STEP_START]
    both.respond(both.asked())
    assert both.outcome(operation) is Status.OK
    assert both.steps()[-1] is COMPLETED
    assert both.items()[-1] == [(A, "NO_CHANGE"), (B, "LEFT")]


def test_a_judgement_that_does_not_come_counts_as_none() -> None:
    group = group_of(A, B)
    judge = Handle(group, A, VALIDATE)
    operation = judge.begin(REMOVE, B)
    group.expire(50)
    assert judge.outcome(operation) is Status.ERR_FAILED_OPERATION
    assert judge.steps() == [STEP_VALIDATE, ABORTED]


def test_clm_56_an_answer_that_nobody_waits_for_is_refused() -> None:
    group = group_of(A, B)
    subscriber, other = Handle(group, A, START), Handle(group, A, START)
    subscriber.begin(LOCK, B)
    mine = subscriber.asked()
    for invocation in (0, 999, 2**64 - 1, other.asked()):
        assert subscriber.respond(invocation) is Status.ERR_INVALID_PARAM
    assert subscriber.respond(mine) is Status.OK
    assert subscriber.respond(mine) is Status.ERR_INVALID_PARAM
    other.respond(other.asked())
    assert subscriber.asked() == 0, "COMPLETED wants no answer"


def test_clm_57_start_cannot_be_rejected() -> None:
    group = group_of(A, B)
    subscriber = Handle(group, A, START)
    operation = subscriber.begin(LOCK, B)
    invocation = subscriber.asked()
    assert subscriber.respond(invocation, Response.REJECTED) is Status.ERR_INVALID_PARAM
    assert subscriber.outcome(operation) is None
    assert subscriber.respond(invocation) is Status.OK


def test_clm_59_unlock_takes_a_shutdown_back() -> None:
    group = group_of(A, B)
    subscriber, only = Handle(group, A, START), Handle(group, A, ONLY)
    old = Handle(group, A, CHANGES, Level.B_01)
    shutdown = subscriber.begin(SHUTDOWN, B)
    assert subscriber.items() == [[(A, "NO_CHANGE"), (B, "SHUTDOWN")]]
    assert subscriber.buffers[0].time_supervision == TIME_UNKNOWN
    assert record(group, B).state is AdminState.SHUTTING_DOWN
    assert only.administer(UNLOCK, B) is Status.OK
    assert subscriber.outcome(shutdown) is Status.ERR_FAILED_OPERATION
    assert subscriber.steps() == [STEP_START, COMPLETED]
    assert subscriber.items()[-1] == [(A, "NO_CHANGE"), (B, "UNLOCK")]
    assert only.items() == [[(B, "UNLOCK")]]
    assert old.items() == [[(A, "NO_CHANGE"), (B, "NO_CHANGE")]]
    assert record(group, B).state is AdminState.UNLOCKED
    assert group.any().describe()["members"] == 2


def test_a_shutdown_waits_without_limit_and_says_so_when_it_is_over() -> None:
    group = group_of(A, B)
    subscriber, old = Handle(group, A, START), Handle(group, A, CHANGES, Level.B_03)
    operation = subscriber.begin(SHUTDOWN, B)
    group.expire(10**6)
    assert subscriber.outcome(operation) is None
    subscriber.respond(subscriber.asked())
    assert subscriber.outcome(operation) is Status.OK
    assert subscriber.items()[-1] == [(A, "NO_CHANGE"), (B, "SHUTDOWN")]
    assert old.items() == [[(A, "NO_CHANGE"), (B, "LEFT")]]
    assert old.buffers[0].root_cause_entity == ""


def test_a_lock_ends_a_shutdown_and_both_are_answered() -> None:
    group = group_of(A, B)
    subscriber = Handle(group, A, START)
    shutdown = subscriber.begin(SHUTDOWN, B)
    lock = subscriber.begin(LOCK, B)
    assert subscriber.items()[-1] == [(A, "NO_CHANGE"), (B, "LEFT")]
    subscriber.respond(subscriber.asked())
    assert {subscriber.outcome(n) for n in (shutdown, lock)} == {Status.OK}
    assert subscriber.respond(subscriber.buffers[0].invocation) is Status.OK


def test_clm_60_what_is_so_already_is_no_operation() -> None:
    group = group_of(A, B)
    admin = Handle(group, A)
    assert admin.administer(UNLOCK, B) is Status.ERR_NO_OP
    assert admin.administer(LOCK, B) is Status.OK
    for operation in (LOCK, SHUTDOWN, REMOVE):
        assert admin.administer(operation, B) is Status.ERR_NO_OP


def test_a_second_operation_on_a_node_is_refused_while_one_runs() -> None:
    group = group_of(A, B, C)
    subscriber = Handle(group, A, START)
    subscriber.begin(LOCK, B)
    for operation in (LOCK, UNLOCK, SHUTDOWN, REMOVE):
        assert subscriber.administer(operation, B) is Status.ERR_BUSY
    assert subscriber.administer(LOCK, 77) is Status.ERR_NOT_EXIST
    assert subscriber.administer(AdminOperation.ACTION, B) is Status.ERR_NOT_SUPPORTED
    assert subscriber.administer(AdminOperation.RESET, B) is Status.ERR_NOT_SUPPORTED
    subscriber.begin(SHUTDOWN, C)
    assert subscriber.administer(SHUTDOWN, C) is Status.ERR_NO_OP
    assert subscriber.administer(REMOVE, C) is Status.ERR_BUSY
    group.expire(50)
    assert group.any().describe()["operations_running"] == 1


def test_clm_62_a_node_that_is_unlocked_joins_again() -> None:
    group = group_of(A, B)
    here, there = Handle(group, A, CHANGES), Handle(group, B, CHANGES)
    before = there.listing().notification[1].cluster_node.initial_view_number
    here.administer(LOCK, B)
    assert there.items() == [[(B, "LEFT")]]
    assert there.buffers[0].number_of_members == 0
    assert there.node_get()[0] is Status.ERR_UNAVAILABLE
    assert there.administer(UNLOCK, wire.LOCAL_NODE_ID) is Status.OK
    assert here.items()[-1] == [(A, "NO_CHANGE"), (B, "JOINED")]
    assert there.items()[-1] == [(A, "JOINED"), (B, "JOINED")]
    joined = here.buffers[-1].notification[1].cluster_node
    assert joined.initial_view_number == here.buffers[-1].view_number > before


def test_clm_63_who_follows_its_own_node_hears_when_it_is_locked() -> None:
    group = group_of(A, B)
    handle = Handle(group, A, LOCAL | ONLY)
    group.join(own(C))
    handle.administer(LOCK, C)
    assert handle.hear() == []
    handle.administer(LOCK, A)
    assert handle.items() == [[(A, "LEFT")]]


def test_steps_of_other_nodes_do_not_reach_who_follows_its_own() -> None:
    group = group_of(A, B)
    mine = Handle(group, A, LOCAL | START)
    theirs = Handle(group, B, LOCAL | START)
    mine.begin(LOCK, B)
    assert mine.hear() == []
    assert theirs.items() == [[(B, "LEFT")]]


def test_clm_64_the_death_of_who_is_asked_lets_the_operation_go_on() -> None:
    group = group_of(A, B)
    subscriber, admin = Handle(group, A, START), Handle(group, A, ONLY)
    operation = admin.begin(LOCK, B)
    group.close(subscriber.session)
    assert admin.outcome(operation) is Status.OK
    assert admin.items() == [[(B, "LEFT")]]


def test_track_stop_counts_as_the_answer_and_forgets_what_was_asked() -> None:
    group = group_of(A, B)
    subscriber, admin = Handle(group, A, START), Handle(group, A)
    operation = admin.begin(LOCK, B)
    invocation = subscriber.asked()
    assert subscriber.stop() is Status.OK
    assert admin.outcome(operation) is Status.OK
    subscriber.track(START)
    assert subscriber.respond(invocation) is Status.ERR_INVALID_PARAM


def test_the_death_of_the_node_of_who_is_asked_lets_the_operation_go_on() -> None:
    group = group_of(A, B, C)
    Handle(group, C, START)
    admin = Handle(group, A, CHANGES)
    operation = admin.begin(LOCK, B)
    group.leave(C)
    assert admin.outcome(operation) is Status.OK
    assert admin.items()[-1] == [(A, "NO_CHANGE"), (C, "LEFT")]


def test_a_node_that_dies_while_it_is_being_locked_is_locked() -> None:
    group = group_of(A, B)
    subscriber = Handle(group, A, START)
    operation = subscriber.begin(LOCK, B)
    group.leave(B)
    assert subscriber.outcome(operation) is Status.OK
    assert record(group, B).state is AdminState.LOCKED
    group.join(own(B))
    assert subscriber.items()[-1] == [(A, "NO_CHANGE")]
    assert group.any().describe()["nodes_locked"] == 1


def test_a_node_that_is_away_is_locked_without_anybody_hearing_of_it() -> None:
    group = group_of(A, B)
    subscriber = Handle(group, A, START)
    group.leave(B)
    told = len(subscriber.hear())
    assert subscriber.administer(LOCK, B) is Status.OK
    assert len(subscriber.hear()) == told
    group.join(own(B, incarnation=5))
    assert [n.member for n in group.any().nodes()] == [True, False]


def test_the_locked_node_goes_on_when_all_others_leave_and_stays_locked() -> None:
    group = group_of(A, B)
    admin = Handle(group, B)
    admin.administer(LOCK, B)
    group.leave(A)
    assert group.any().describe()["members"] == 0
    assert admin.administer(UNLOCK, B) is Status.OK
    assert group.any().describe()["members"] == 1


def test_at_a_merge_the_newer_administrative_state_counts_then_the_locked_one() -> None:
    group = group_of(A, B, C)
    here = Handle(group, A)
    away = group.split(C)
    there = Handle(away, C)
    assert here.administer(LOCK, C) is Status.OK
    for operation in (LOCK, UNLOCK, LOCK):
        assert there.administer(operation, B) is Status.OK
    assert here.administer(LOCK, B) is Status.OK
    assert here.administer(UNLOCK, B) is Status.OK
    group.merge(away)
    assert record(group, B).state is AdminState.LOCKED
    assert record(group, C).state is AdminState.LOCKED
    assert group.any().describe()["members"] == 1


def test_a_shutdown_on_a_side_that_lost_its_memory_is_over() -> None:
    group = group_of(A, B, C)
    away = group.split(C)
    Handle(away, C, START).begin(SHUTDOWN, C)
    group.merge(away)
    assert record(group, C).state is AdminState.LOCKED


def test_questions_survive_a_merge_on_the_losing_side() -> None:
    group = group_of(A, B, C)
    away = group.split(C)
    subscriber = Handle(away, C, START)
    subscriber.begin(SHUTDOWN, A)  # a node of which this side knows only the name
    away.replicas[NodeId(C)].check()
    operation = subscriber.begin(LOCK, C)
    invocation = subscriber.asked()
    assert subscriber.outcome(operation) is None
    group.merge(away)
    subscriber.group = group
    assert subscriber.respond(invocation) in (Status.OK, Status.ERR_UNAVAILABLE)


def test_a_minority_cannot_administer() -> None:
    group = group_of(A, B)
    group.quorate = False
    group.leave(B)
    admin = Handle(group, A)
    assert admin.administer(LOCK, B) is Status.ERR_UNAVAILABLE


def test_the_eviction_callback_of_level_b_03_comes_on_the_node_concerned_only() -> None:
    group = group_of(A, B)
    there, here = Handle(group, B, 0, Level.B_03), Handle(group, A, 0, Level.B_03)
    for handle in (there, here):
        assert group.call(handle.session, wire.Evictions())[0] is Status.OK
    operation = here.begin(LOCK, B)
    assert here.evictions() == []
    (eviction,) = there.evictions()
    assert (eviction.invocation > 0, eviction.operation) == (True, LOCK)
    assert here.outcome(operation) is None
    assert there.respond(eviction.invocation, Response.ERROR) is Status.OK
    assert here.outcome(operation) is Status.ERR_REPAIR_PENDING


def test_who_tracks_and_stops_is_still_asked_before_an_eviction() -> None:
    group = group_of(A, B)
    there = Handle(group, B, CHANGES, Level.B_03)
    group.call(there.session, wire.Evictions())
    assert there.stop() is Status.OK
    assert there.stop() is Status.ERR_NOT_EXIST
    there.begin(SHUTDOWN, B)
    assert len(there.evictions()) == 1


def test_questions_of_one_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.clm.trackers.ASKED_MAX", 4)
    group = group_of(A, B)
    subscriber = Handle(group, A, START)
    for _ in range(6):
        subscriber.begin(SHUTDOWN, B)
        subscriber.begin(UNLOCK, B)
    first, second, *_ = [b.invocation for b in subscriber.hear() if b.invocation]
    for invocation in (first, second):
        assert subscriber.respond(invocation) is Status.ERR_INVALID_PARAM
    assert len(wire.TABLE.decode(group.any().report((subscriber.session,))).trackers[0].asked) == 4


def test_a_group_with_an_older_member_has_the_older_snapshot() -> None:
    machine = Membership(own(A))
    machine.speak(1)
    assert machine.dump(REST)[0] == b"\x94\x01\x00\x90\x90"
    machine.speak(2)
    assert len(machine.dump(REST)[0]) > 5


def test_nodes_can_be_administered_as_soon_as_the_last_one_is_upgraded() -> None:
    group = group_of(A, B)
    admin = Handle(group, A)
    for version in (1, 2):
        for replica in group.replicas.values():
            replica.speak(version)
    assert admin.administer(LOCK, B) is Status.OK


def test_an_operation_goes_on_when_nobody_waits_for_its_end_any_more() -> None:
    group = group_of(A, B)
    subscriber = Handle(group, A, START)
    number = subscriber.begin(LOCK, B)
    caller = Caller(NodeId(A), subscriber.session, number)
    context = Context(group.now_ns, NodeId(A), caller, group.view)
    assert isinstance(group.any(), Waits)
    for replica in group.replicas.values():
        assert replica.cancelled(caller, context) == []
    subscriber.respond(subscriber.asked())
    assert subscriber.outcome(number) is None
    assert subscriber.items()[-1] == [(A, "NO_CHANGE"), (B, "LEFT")]
