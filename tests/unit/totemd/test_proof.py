"""A recording cannot answer a number drawn now."""

from __future__ import annotations

import itertools

from totemd.proof import HELLO, PENDING_MAX, PER_SECOND, RETRY_NS, Proof

MINE, THEIRS = bytes(12), b"t" * 12
SECOND = 1_000_000_000


def proof(me: int) -> Proof:
    numbers = itertools.count(me * 1_000)
    return Proof(me, lambda size: next(numbers).to_bytes(size, "big"))


def test_an_answer_proves_the_session_that_was_asked() -> None:
    mine, theirs = proof(1), proof(2)
    challenge = mine.heard(2, THEIRS, "two", 0)
    assert challenge is not None
    answer, proved = theirs.receive(challenge, 1, THEIRS, "one", 0)
    assert answer is not None
    assert proved is None
    assert mine.receive(answer, 2, MINE, "two", 0) == (None, THEIRS)
    assert mine.receive(answer, 2, MINE, "two", 0) == (None, None), "once"


def test_an_old_answer_proves_nothing() -> None:
    theirs = proof(2)
    recorded = proof(1).heard(2, THEIRS, "two", 0)
    assert recorded is not None
    answer, _ = theirs.receive(recorded, 1, THEIRS, "one", 0)
    assert answer is not None
    restarted = proof(3)
    fresh = Proof(1, lambda size: b"z" * size)
    assert restarted.receive(answer, 2, MINE, "two", 0) == (None, None)
    assert fresh.heard(2, THEIRS, "two", 0) is not None
    assert fresh.receive(answer, 2, MINE, "two", 0) == (None, None)


def test_only_the_node_and_session_that_were_meant_answer() -> None:
    challenge = proof(1).heard(2, THEIRS, "two", 0)
    assert challenge is not None
    assert proof(3).receive(challenge, 1, THEIRS, "one", 0) == (None, None)
    assert proof(2).receive(challenge, 1, b"another sess", "one", 0) == (None, None)
    for size in range(HELLO.size):
        assert proof(2).receive(challenge[:size], 1, THEIRS, "one", 0) == (None, None)


def test_a_challenge_is_repeated_after_100_ms_with_the_same_number() -> None:
    mine = proof(1)
    first = mine.heard(2, THEIRS, "two", 0)
    assert mine.heard(2, THEIRS, "two", RETRY_NS - 1) is None
    assert mine.heard(2, THEIRS, "two", RETRY_NS) == first


def test_challenges_and_answers_are_limited_per_source() -> None:
    mine = proof(1)
    sent = [mine.heard(k, THEIRS, "flood", 0) for k in range(100)]
    assert len([s for s in sent if s]) == PER_SECOND
    assert mine.heard(200, THEIRS, "another", 0) is not None
    assert mine.heard(201, THEIRS, "flood", SECOND) is not None
    theirs = proof(2)
    challenge = proof(1).heard(2, THEIRS, "two", 0)
    assert challenge is not None
    answers = [theirs.receive(challenge, 1, THEIRS, "one", 0)[0] for _ in range(100)]
    assert len([a for a in answers if a]) == PER_SECOND


def test_what_is_remembered_is_bounded() -> None:
    mine = proof(1)
    for k in range(PENDING_MAX * 2):
        mine.heard(k, THEIRS, f"source{k}", k * SECOND)
    assert len(mine._pending) == PENDING_MAX
    assert len(mine._sources) <= 1024
