"""The judges can see: for each axiom a history, written by hand, that breaks it and is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim import axioms, group_axioms
from tests.sim.axioms import History
from tests.sim.checkers import judge
from tests.sim.trace import (
    REGULAR,
    SAFE,
    TRANSITIONAL,
    Ended,
    Got,
    Installed,
    Life,
    Originated,
    Record,
    Submitted,
)
from totemd.protocol.groups import ProcessList, encode_list
from totemd.protocol.local import (
    Change,
    ConnectionId,
    Delivered,
    Event,
    Member,
    Reason,
    RingChanged,
    View,
)
from totemd.protocol.messages import RingId
from totemd.protocol.packing import Packer

BOOT = {1: RingId(1, 1), 2: RingId(1, 2), 3: RingId(1, 3)}
A = RingId(5, 1)  # of 1 and 2
B = RingId(9, 1)  # of 1 and 2 again
BOTH = (1, 2)


def regular(ring: RingId, members: tuple[int, ...], joined: tuple[int, ...] = ()) -> Installed:
    return Installed(0, REGULAR, ring, members, None, (), joined)


def transitional(
    ring: RingId, members: tuple[int, ...], old: RingId, left: tuple[int, ...] = ()
) -> Installed:
    return Installed(0, TRANSITIONAL, ring, members, old, left, ())


def sent(ring: RingId, seq: int, delivered: int = 0, guarantee: int = 2) -> Originated:
    return Originated(0, ring, seq, guarantee, frame(seq), delivered)


def got(
    ring: RingId,
    seq: int,
    originator: int = 1,
    guarantee: int = 2,
    *,
    late: bool = False,
) -> Got:
    return Got(0, ring, seq, originator, guarantee, frame(seq), late)


def frame(seq: int) -> bytes:
    packer = Packer(100)
    packer.gate_open = True
    packer.submit(b"\x03 message %d" % seq, 2)
    filled = packer.next_frame()
    assert filled is not None
    return filled[1]


def node(
    node_id: int, *records: Record, ended: Ended = Ended.RUNNING, epoch: int | None = None
) -> Life:
    life = Life(node_id, epoch or node_id, list(records))
    life.ended = ended
    return life


def begin(node_id: int) -> list[Record]:
    other = 3 - node_id
    return [
        regular(BOOT[node_id], (node_id,)),
        transitional(A, (node_id,), BOOT[node_id]),
        regular(A, BOTH, (other,)),
    ]


def onward(members: tuple[int, ...] = BOTH) -> list[Record]:
    left = tuple(n for n in BOTH if n not in members)
    return [transitional(B, members, A, left), regular(B, BOTH, left)]


def healthy() -> list[Life]:
    """Two nodes form a ring, send, and go on together."""
    first = [*begin(1), sent(A, 1), got(A, 1), got(A, 2, 2), *onward(), sent(B, 1), got(B, 1)]
    second = [*begin(2), got(A, 1), sent(A, 2, 1), got(A, 2, 2), *onward(), got(B, 1)]
    return [node(1, *first), node(2, *second)]


BROKEN: dict[str, list[tuple[str, list[Life]]]] = {
    "M1": [("a ring without the node", [node(1, regular(BOOT[1], (2,)))])],
    "M2": [
        (
            "one id, two lists",
            [node(1, regular(A, (1,))), node(2, regular(A, BOTH))],
        )
    ],
    "M3": [
        (
            "smaller after a restart",
            [
                node(1, regular(RingId(9, 1), (1,)), ended=Ended.CRASHED),
                node(1, regular(RingId(8, 1), (1,)), epoch=7),
            ],
        )
    ],
    "M4": [
        (
            "the same ring after a restart",
            [
                node(1, regular(A, (1,)), ended=Ended.CRASHED),
                node(1, regular(A, (1,)), epoch=7),
            ],
        )
    ],
    "M5": [
        ("no transitional one between", [node(1, regular(BOOT[1], (1,)), regular(A, (1,)))]),
        (
            "leads elsewhere",
            [
                node(
                    1,
                    regular(BOOT[1], (1,)),
                    transitional(RingId(7, 1), (1,), BOOT[1]),
                    regular(A, (1,)),
                )
            ],
        ),
        (
            "names another old ring",
            [
                node(
                    1, regular(BOOT[1], (1,)), transitional(A, (1,), RingId(2, 2)), regular(A, (1,))
                )
            ],
        ),
    ],
    "M6": [
        (
            "two sets for one step",
            [node(1, *begin(1), *onward()), node(2, *begin(2), *onward((2,)))],
        ),
        (
            "a member that came from elsewhere",
            [
                node(1, *begin(1), *onward()),
                node(
                    2,
                    regular(BOOT[2], (2,)),
                    transitional(B, (2,), BOOT[2]),
                    regular(B, BOTH, (1,)),
                ),
            ],
        ),
    ],
    "M7": [
        (
            "left is not told",
            [node(1, *begin(1), transitional(B, (1,), A), regular(B, BOTH, (2,)))],
        ),
        (
            "joined is not told",
            [node(1, *begin(1), transitional(B, (1,), A, (2,)), regular(B, BOTH))],
        ),
    ],
    "D1": [
        ("from nowhere", [node(1, *begin(1), got(A, 1))]),
        (
            "another originator",
            [node(1, *begin(1), sent(A, 1), got(A, 1)), node(2, *begin(2), got(A, 1, 2))],
        ),
    ],
    "D2": [
        ("delivered twice", [node(1, *begin(1), sent(A, 1), got(A, 1), got(A, 1))]),
        (
            "one number, two messages",
            [node(1, *begin(1), sent(A, 1)), node(2, *begin(2), sent(A, 1))],
        ),
    ],
    "D3": [
        (
            "a message of the ring before",
            [node(1, *begin(1), sent(A, 1), *onward(), got(A, 1))],
        ),
        ("called late in the regular part", [node(1, *begin(1), sent(A, 1), got(A, 1, late=True))]),
    ],
    "D4": [("own message lost", [node(1, *begin(1), sent(A, 1), *onward())])],
    "D5": [
        (
            "out of order",
            [node(1, *begin(1), sent(A, 1), sent(A, 2), got(A, 2), got(A, 1))],
        )
    ],
    "D6": [("a gap", [node(1, *begin(1), sent(A, 1), sent(A, 2), got(A, 2))])],
    "D7": [
        (
            "one has more",
            [
                node(1, *begin(1), sent(A, 1), got(A, 1), *onward()),
                node(2, *begin(2), *onward()),
            ],
        ),
        (
            "in another part",
            [
                node(1, *begin(1), sent(A, 1), got(A, 1), *onward()),
                node(
                    2,
                    *begin(2),
                    transitional(B, BOTH, A),
                    got(A, 1, late=True),
                    regular(B, BOTH),
                ),
            ],
        ),
    ],
    "D8": [
        (
            "before what its sender knew",
            [
                node(1, *begin(1), sent(A, 1), got(A, 1), ended=Ended.CRASHED),
                node(
                    2,
                    *begin(2),
                    got(A, 1),
                    sent(A, 2, 1),
                    got(A, 2, 2),
                ),
                node(
                    3,
                    regular(A, BOTH),
                    transitional(RingId(9, 3), (3,), A),
                    got(A, 2, 2, late=True),
                    regular(RingId(9, 3), (3,)),
                ),
            ],
        ),
        (
            "not in the order of its sender",
            [node(1, *begin(1), sent(A, 1), sent(A, 2), got(A, 2))],
        ),
    ],
    "D9a": [
        (
            "safe at one only",
            [
                node(1, *begin(1), sent(A, 1, guarantee=SAFE), got(A, 1, guarantee=SAFE)),
                node(
                    2,
                    *begin(2),
                    transitional(RingId(9, 2), (2,), A, (1,)),
                    regular(RingId(9, 2), (2,)),
                ),
            ],
        ),
        (
            "safe in the transitional part at one only",
            [
                node(
                    1,
                    *begin(1),
                    sent(A, 1, guarantee=SAFE),
                    transitional(B, BOTH, A),
                    got(A, 1, guarantee=SAFE, late=True),
                    regular(B, BOTH),
                ),
                node(2, *begin(2), *onward()),
            ],
        ),
    ],
    "D9b": [
        (
            "a member that never came",
            [node(1, *begin(1), sent(A, 1, guarantee=SAFE), got(A, 1, guarantee=SAFE))],
        )
    ],
}


def test_a_healthy_history_breaks_nothing() -> None:
    assert axioms.violations(healthy()) == []


def test_each_axiom_has_a_history_that_breaks_it() -> None:
    assert set(BROKEN) == set(axioms.AXIOMS)


@pytest.mark.parametrize(
    ("axiom", "lives"),
    [
        pytest.param(axiom, lives, id=f"{axiom}-{what.replace(' ', '_')}")
        for axiom, cases in BROKEN.items()
        for what, lives in cases
    ],
)
def test_a_broken_history_is_caught(axiom: str, lives: list[Life]) -> None:
    found = list(axioms.AXIOMS[axiom](History(lives)))
    assert found
    assert {v.axiom for v in found} == {axiom}


# Process groups: one client of node 1, one of node 2, in the group "g" on ring A, then on B.

ONE, TWO = Member(1, 101, 1), Member(2, 102, 2)
C = ConnectionId(1)


def view(ring: RingId, members: tuple[Member, ...], *changes: Change, number: int = 4) -> View:
    left = tuple(c for c in changes if c.member not in members)
    joined = tuple(c for c in changes if c.member in members)
    return View(1, b"g", ring, number, members, left, joined)


def message(sender: Member, text: bytes) -> Delivered:
    return Delivered(1, sender.node_id, sender.pid, text)


def round_frame(ring: RingId) -> bytes:
    packer = Packer(200)
    packer.submit_sync(encode_list(ProcessList(ring, 0, ())))
    filled = packer.next_frame()
    assert filled is not None
    return filled[1]


def parts(ring: RingId, me: int) -> list[Record]:
    """Both parts of the round, sent and delivered."""
    payload = round_frame(ring)
    records: list[Record] = []
    for seq, originator in ((1, 1), (2, 2)):
        if originator == me:
            records.append(Originated(0, ring, seq, 2, payload, seq - 1))
        records.append(Got(0, ring, seq, originator, 2, payload, transitional=False))
    return records


def client(node_id: int, before: list[Event], after: list[Event]) -> Life:
    """A client that was told ``before`` on ring A and ``after`` on ring B."""
    life = node(node_id, *begin(node_id), *parts(A, node_id), *onward(), *parts(B, node_id))
    marks = [r for r in life.records if isinstance(r, Installed)]
    life.streams[C] = [*before, *after]
    life.marks[C] = [(0, marks[0]), (0, marks[1]), (0, marks[2])]
    life.marks[C] += [(len(before), marks[3]), (len(before), marks[4])]
    life.pids[C] = 100 + node_id
    life.submissions = [
        Submitted(C, 1, b"from %d" % node_id, 2),
        Submitted(C, 2, b"again from %d" % node_id, 2),
    ]
    life.ended = Ended.CRASHED
    return life


def usual(node_id: int) -> tuple[list[Event], list[Event]]:
    before: list[Event] = [
        RingChanged(A, BOTH),
        view(A, (ONE,), Change(ONE, Reason.JOIN), number=4),
        view(A, (ONE, TWO), Change(TWO, Reason.JOIN), number=5),
        message(ONE, b"from 1"),
        message(TWO, b"from 2"),
    ]
    if node_id == 2:
        del before[1]
    return before, [RingChanged(B, BOTH), message(ONE, b"again from 1")]


Change_ = Callable[[list[Event], list[Event]], None]


def _swap(before: list[Event], after: list[Event]) -> None:
    before[2], before[3] = before[3], before[2]


def _early(before: list[Event], after: list[Event]) -> None:
    before.insert(1, message(ONE, b"from 1"))


def _stranger(before: list[Event], after: list[Event]) -> None:
    after.append(message(Member(3, 103, 3), b"from 3"))


def _twice(before: list[Event], after: list[Event]) -> None:
    after.append(message(ONE, b"from 1"))


def _unsorted(before: list[Event], after: list[Event]) -> None:
    after.append(view(B, (TWO, ONE), Change(ONE, Reason.JOIN)))


def _unexplained(before: list[Event], after: list[Event]) -> None:
    after.append(view(B, (ONE, TWO, Member(3, 103, 3)), Change(TWO, Reason.JOIN)))


def _two_events(before: list[Event], after: list[Event]) -> None:
    after.insert(0, view(B, (TWO,), Change(ONE, Reason.NODEDOWN)))
    after.insert(1, view(B, (TWO,), Change(Member(3, 103, 3), Reason.NODEDOWN)))


def _left_twice(before: list[Event], after: list[Event]) -> None:
    after.append(view(B, (TWO,), Change(ONE, Reason.LEAVE)))
    after.append(view(B, (TWO,), Change(ONE, Reason.PROCDOWN)))


def _up_before_down(before: list[Event], after: list[Event]) -> None:
    after.insert(0, view(B, (ONE, TWO), Change(ONE, Reason.NODEUP)))
    after.insert(1, view(B, (TWO,), Change(ONE, Reason.NODEDOWN)))


def _message_in_round(before: list[Event], after: list[Event]) -> None:
    after.reverse()


def _down_though_shared(before: list[Event], after: list[Event]) -> None:
    after.insert(0, view(B, (TWO,), Change(ONE, Reason.NODEDOWN)))


def _up_though_shared(before: list[Event], after: list[Event]) -> None:
    after.insert(0, view(B, (ONE, TWO), Change(ONE, Reason.NODEUP)))


def _wrong_nodes(before: list[Event], after: list[Event]) -> None:
    after[0] = RingChanged(B, (1, 2, 3))


def _told_late(before: list[Event], after: list[Event]) -> None:
    after.append(RingChanged(B, BOTH, current=True))


def _died_alone(before: list[Event], after: list[Event]) -> None:
    after.append(view(B, (TWO,), Change(ONE, Reason.PROCDOWN)))


def _no_end(before: list[Event], after: list[Event]) -> None:
    del before[0]


def _other_ring(before: list[Event], after: list[Event]) -> None:
    after.append(RingChanged(A, BOTH))


TOLD: list[tuple[str, Change_]] = [
    ("C1", _swap),
    ("C2", _early),
    ("C3", _stranger),
    ("C3", _twice),
    ("C4", _unsorted),
    ("C4", _unexplained),
    ("C5", _two_events),
    ("C6", _left_twice),
    ("C7", _up_before_down),
    ("C7", _message_in_round),
    ("C8", _wrong_nodes),
    ("C8", _told_late),
    ("C9", _up_though_shared),
    ("C10", _down_though_shared),
    ("C11", _died_alone),
    ("Y1", _no_end),
    ("Y5", _other_ring),
]


def test_healthy_clients_break_nothing() -> None:
    assert judge([client(n, *usual(n)) for n in (1, 2)]) == []


@pytest.mark.parametrize(("rule", "change"), TOLD, ids=lambda x: getattr(x, "__name__", x))
def test_a_broken_stream_is_caught(rule: str, change: Change_) -> None:
    before, after = usual(2)
    change(before, after)
    lives = [client(1, *usual(1)), client(2, before, after)]
    found = group_axioms.RULES[rule](group_axioms.GroupHistory(History(lives)))
    assert rule in {v.axiom for v in found}


def test_processes_of_two_lives_of_one_node_are_caught() -> None:
    before, after = usual(2)
    again = Member(1, 201, 3)
    after.append(view(B, (ONE, again, TWO), Change(again, Reason.JOIN)))
    later = node(1, epoch=3)
    later.pids[C] = again.pid
    lives = [client(1, *usual(1)), client(2, before, after), later]
    found = group_axioms.RULES["C11"](group_axioms.GroupHistory(History(lives)))
    assert {v.axiom for v in found} == {"C11"}


def test_a_client_that_is_not_told_of_a_ring_its_neighbour_knows_is_caught() -> None:
    life = client(1, *usual(1))
    other = ConnectionId(2)
    life.streams[other] = [RingChanged(A, BOTH)]
    life.marks[other] = [(0, m) for _, m in life.marks[C][:3]] + [
        (1, m) for _, m in life.marks[C][3:]
    ]
    life.pids[other] = 102
    found = group_axioms.RULES["C8"](group_axioms.GroupHistory(History([life])))
    assert {v.axiom for v in found} == {"C8"}


def test_a_message_before_the_round_is_caught() -> None:
    lives = [client(n, *usual(n)) for n in (1, 2)]
    lives[0].records.insert(3, Originated(0, A, 3, 2, frame(3), 0))
    found = group_axioms.RULES["Y2"](group_axioms.GroupHistory(History(lives)))
    assert {v.axiom for v in found} == {"Y2"}


def test_a_message_that_a_running_node_never_sent_is_caught() -> None:
    life = client(1, *usual(1))
    life.ended = Ended.RUNNING
    found = group_axioms.RULES["D10"](group_axioms.GroupHistory(History([life])))
    assert {v.axiom for v in found} == {"D10"}


def test_a_safe_message_in_an_agreed_frame_is_caught() -> None:
    life = client(1, *usual(1))
    life.submissions.append(Submitted(C, 3, b"1:1:3:text", 3))
    life.records.append(Originated(0, B, 3, 2, frame(3) + b" 1:1:3:text", 0))
    found = group_axioms.RULES["C12"](group_axioms.GroupHistory(History([life])))
    assert {v.axiom for v in found} == {"C12"}


def test_each_rule_of_groups_has_a_stream_that_breaks_it() -> None:
    assert {rule for rule, _ in TOLD} | {"C12", "Y2", "D10"} == set(group_axioms.RULES)
