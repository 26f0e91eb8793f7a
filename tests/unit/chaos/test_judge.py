"""For each rule of chaos: a history that keeps it, and one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.chaos.history import Operation, Outcome, Record, Writer, read_all
from tests.chaos.judge import Apart, judge

S = 1_000_000_000


def call(
    client: str,
    operation: Operation,
    value: str | None,
    begun_s: float,
    ended_s: float | None,
    outcome: Outcome = Outcome.DONE,
) -> Record:
    ended_ns = None if ended_s is None else int(ended_s * S)
    section = "" if operation is Operation.APPEND else "s"
    return Record(client, 1, operation, "safe", section, value, int(begun_s * S), ended_ns, outcome)


def rules(records: list[Record], apart: tuple[Apart, ...] = (), **found: list[str]) -> list[str]:
    return [violation.rule for violation in judge(records, found, apart)]


def test_a_read_of_what_was_written_is_fine() -> None:
    written = call("n1c1", Operation.PUT, "a", 1, 2)
    assert rules([written, call("n2c1", Operation.READ, "a", 3, 4)]) == []


def test_an_acknowledged_write_that_nobody_finds_is_lost() -> None:
    written = call("n1c1", Operation.PUT, "a", 1, 2)
    lost = call("n2c1", Operation.READ, None, 3, 4, Outcome.ABSENT)
    assert "safe/s: not linearizable" in rules([written, lost])[0]


def test_a_write_of_unknown_outcome_may_be_found_or_not() -> None:
    unknown = call("n1c1", Operation.PUT, "a", 1, 11, Outcome.UNKNOWN)
    absent = call("n2c1", Operation.READ, None, 12, 13, Outcome.ABSENT)
    found = call("n2c1", Operation.READ, "a", 14, 15)
    assert rules([unknown, absent, found]) == []
    assert len(rules([unknown, found, call("n2c1", Operation.DELETE, None, 16, 17), found])) == 0


def test_a_refused_write_must_not_be_found() -> None:
    refused = call("n1c1", Operation.PUT, "a", 1, 2, Outcome.REFUSED)
    assert rules([refused, call("n2c1", Operation.READ, "a", 3, 4)]) != []


def test_only_one_of_two_creates_succeeds() -> None:
    first = call("n1c1", Operation.CREATE, "a", 1, 2)
    present = call("n2c1", Operation.CREATE, "b", 3, 4, Outcome.PRESENT)
    assert rules([first, present]) == []
    assert rules([first, call("n2c1", Operation.CREATE, "b", 3, 4)]) != []


def test_a_swap_succeeds_on_what_was_read_and_on_nothing_else() -> None:
    written = call("n1c1", Operation.PUT, "a", 1, 2)
    swapped = replace(call("n2c1", Operation.SWAP, "b", 3, 4), expected="a")
    failed = replace(call("n3c1", Operation.SWAP, "c", 5, 6, Outcome.OTHER), expected="a")
    assert rules([written, swapped, failed]) == []
    twice = replace(call("n3c1", Operation.SWAP, "c", 5, 6), expected="a")
    assert "not linearizable" in rules([written, swapped, twice])[0]
    unknown = replace(call("n2c1", Operation.SWAP, "b", 3, 4, Outcome.UNKNOWN), expected="a")
    assert rules([written, unknown, twice]) == []


def test_an_append_is_there_once_or_if_nobody_knows_at_most_once() -> None:
    done = call("n1c0", Operation.APPEND, "a", 1, 2)
    unknown = call("n2c0", Operation.APPEND, "b", 1, 2, Outcome.UNKNOWN)
    assert rules([done, unknown], n1=["a"]) == []
    assert rules([done, unknown], n1=["b", "a"]) == []
    assert "0 times, not 1..1" in rules([done, unknown], n1=["b"])[0]
    assert "2 times, not 1..1" in rules([done, unknown], n1=["a", "a"])[0]
    assert "2 times, not 0..1" in rules([done, unknown], n1=["a", "b", "b"])[0]
    assert "which nobody appended" in rules([done], n1=["a", "torn"])[0]


def test_a_call_that_never_returns_is_a_fault() -> None:
    assert "never returned" in rules([call("n1c1", Operation.PUT, "a", 1, None)])[0]


def test_calls_of_clients_that_were_ended_at_work_are_of_unknown_outcome() -> None:
    under_way = call("n1c1", Operation.PUT, "a", 1, None, Outcome.UNKNOWN)
    assert judge([under_way], {}, finished=False) == []


def test_a_handle_may_break_only_after_a_long_silence() -> None:
    served = call("n1c1", Operation.PUT, "a", 1, 2)
    early = call("n1c1", Operation.PUT, "b", 3, 6, Outcome.BROKEN)
    late = call("n1c1", Operation.PUT, "b", 3, 8, Outcome.BROKEN)
    assert "a handle broke" in rules([served, early])[0]
    assert rules([served, late]) == []
    answered = call("n1c2", Operation.PUT, "c", 3, 5)
    assert "a handle broke" in rules([served, answered, late])[0], "the service lived"
    elsewhere = call("n2c2", Operation.PUT, "c", 3, 5)
    assert rules([served, elsewhere, late]) == []


def test_sides_that_worked_apart_may_lose_but_not_invent() -> None:
    written = call("n1c1", Operation.PUT, "a", 1, 2)
    lost = call("n2c1", Operation.READ, None, 3, 4, Outcome.ABSENT)
    invented = call("n2c1", Operation.READ, "b", 3, 4)
    appended = call("n1c0", Operation.APPEND, "c", 1, 2)
    apart = (Apart(1 * S, 2 * S),)
    assert rules([written, lost, appended], apart, n1=[]) == []
    assert "found what nobody wrote" in rules([written, invented], apart)[0]
    assert "2 times, not 0..1" in rules([appended], apart, n1=["c", "c"])[0]
    before = (Apart(5 * S, 6 * S),)
    assert "not linearizable" in rules([written, lost], before)[0], "it was not apart then"


def test_a_history_survives_its_client(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "n1c1")
    done = call("n1c1", Operation.READ, None, 1, None, Outcome.UNKNOWN)
    writer.begin(done)
    writer.end(1, 2 * S, Outcome.DONE, "a", "")
    writer.begin(Record("n1c1", 2, Operation.PUT, "safe", "s", "b", 3 * S))
    writer.close()
    with writer.path.open("a", encoding="utf-8") as file:
        file.write('[2, 4, "do')
    first, second = read_all(tmp_path)
    assert (first.value, first.outcome, first.ended_ns) == ("a", Outcome.DONE, 2 * S)
    assert (second.value, second.outcome, second.ended_ns) == ("b", Outcome.UNKNOWN, None)
