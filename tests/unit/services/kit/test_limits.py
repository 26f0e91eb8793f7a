"""What a client may use, and the clock of its grace."""

from __future__ import annotations

import dataclasses

from openais.node.ipc import Access, Peer
from services.kit.limits import TURN_NS_MAX, Attached, Limits, ServingClock, Use
from services.kit.machine import SessionId

LIMITS = Limits(
    sessions_max=4,
    process_sessions_max=2,
    user_sessions_max=3,
    session_requests_max=2,
    session_bytes_max=100,
    session_grace_ms=5000,
    body_size_max=1000,
)
SECOND = 1_000_000_000


def use(*peers: Peer) -> Use:
    made = Use(LIMITS)
    for number, peer in enumerate(peers):
        made.attached[session(number)] = Attached(number, peer)
    return made


def session(number: int) -> SessionId:
    return SessionId(b"%16d" % number)


def peer(pid: int, uid: int = 1) -> Peer:
    return Peer(uid, uid, pid)


def test_sessions_are_limited_by_process_by_user_and_on_the_node() -> None:
    assert use(peer(7)).session_rule(peer(7)) is None
    rule = use(peer(7), peer(7)).session_rule(peer(7))
    assert rule == "2 sessions are open of process 7 (ipc.max_process_sessions)"
    rule = use(peer(7), peer(8), peer(9)).session_rule(peer(10))
    assert rule == "3 sessions are open of uid 1 (ipc.max_user_sessions)"
    rule = use(peer(6, 2), peer(7), peer(8), peer(9)).session_rule(peer(10, 3))
    assert rule == "4 sessions are open on this node (ipc.max_clients)"


def test_requests_of_a_session_are_limited_in_number_and_bytes() -> None:
    made = use(peer(7))
    one = session(0)
    assert made.request_rule(one, 5000) is None, "one request always goes"
    made.hold((one, 1), 80)
    assert made.request_rule(one, 20) is None
    assert "hold 80 bytes, limit 100" in str(made.request_rule(one, 21))
    made.hold((one, 2), 1)
    assert "2 requests of this session are unanswered" in str(made.request_rule(one, 1))
    made.release((one, 1))
    made.release((one, 1))
    assert made.attached[one].bytes_held == 1


def test_the_status_shows_what_each_process_uses() -> None:
    made = use(peer(7), peer(7), peer(8, 2))
    made.hold((session(2), 1), 10)
    assert made.report() == [
        {"pid": 8, "uid": 2, "sessions": 1, "requests": 1, "bytes": 10},
        {"pid": 7, "uid": 1, "sessions": 2, "requests": 0, "bytes": 0},
    ]


def test_time_in_which_the_service_did_not_serve_does_not_count() -> None:
    clock = ServingClock()
    clock.turn(0, serving=True)
    clock.turn(SECOND // 2, serving=True)
    assert clock.ns == SECOND // 2
    clock.turn(20 * SECOND, serving=True)  # stopped meanwhile
    assert clock.ns == SECOND // 2 + TURN_NS_MAX
    clock.turn(21 * SECOND, serving=False)
    assert clock.ns == SECOND // 2 + TURN_NS_MAX


def test_administrators_are_root_the_own_user_and_those_named_so() -> None:
    access = Access(frozenset((500, 501)), frozenset(), frozenset((501,)), frozenset((60,)))
    assert access.administers(Peer(0, 0, 1))
    assert access.administers(peer(1, 501))
    assert access.administers(Peer(700, 60, 1))
    assert not access.administers(peer(1, 500))
    assert dataclasses.replace(access).allows(peer(1, 500))
