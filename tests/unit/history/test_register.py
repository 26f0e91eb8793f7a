"""The checker of linearizability finds what is wrong, and only that."""

from __future__ import annotations

import random

import pytest

from tests.history.register import Call, Kind, Value, check


def read(client: str, value: Value, begun: int, ended: int) -> Call:
    return Call(client, Kind.READ, value, begun, ended)


def write(client: str, value: Value, begun: int, ended: int | None) -> Call:
    return Call(client, Kind.WRITE, value, begun, ended)


def swap(
    client: str, expected: Value, value: Value, begun: int, ended: int | None, *, succeeded: bool
) -> Call:
    return Call(client, Kind.SWAP, value, begun, ended, expected, succeeded)


def test_a_read_after_a_write_sees_it() -> None:
    assert check([write("a", b"1", 0, 1), read("b", b"1", 2, 3)]) is None


def test_a_read_after_a_write_that_does_not_see_it_is_found() -> None:
    found = check([write("a", b"1", 0, 1), read("b", None, 2, 3)])
    assert found is not None
    assert found.call.client == "b"
    assert found.possible == (b"1",)


@pytest.mark.parametrize("value", [b"1", b"2"])
def test_of_two_writes_at_a_time_either_may_be_last(value: bytes) -> None:
    calls = [write("a", b"1", 0, 10), write("b", b"2", 0, 10), read("c", value, 11, 12)]
    assert check(calls) is None


def test_two_readers_may_not_see_two_writes_in_different_orders() -> None:
    writes = [write("a", b"1", 0, 10), write("b", b"2", 0, 10)]
    one = [read("c", b"1", 11, 12), read("c", b"2", 13, 14)]
    assert check(writes + one) is not None


def test_a_read_during_a_write_may_see_it_or_not_but_not_go_back() -> None:
    slow = write("a", b"1", 0, 100)
    assert check([slow, read("b", None, 1, 2), read("b", b"1", 3, 4)]) is None
    assert check([slow, read("b", b"1", 1, 2), read("b", None, 3, 4)]) is not None


def test_a_write_of_unknown_outcome_may_take_effect_late_or_never() -> None:
    lost = write("a", b"1", 0, None)
    assert check([lost, read("b", None, 10, 11)]) is None
    assert check([lost, read("b", None, 10, 11), read("b", b"1", 12, 13)]) is None


def test_a_write_of_unknown_outcome_does_not_take_effect_twice() -> None:
    calls = [
        write("a", b"1", 0, None),
        read("b", b"1", 10, 11),
        write("b", b"2", 12, 13),
        read("b", b"1", 14, 15),
    ]
    assert check(calls) is not None


def test_a_value_that_nobody_wrote_is_found() -> None:
    assert check([write("a", b"1", 0, 1), read("b", b"9", 2, 3)]) is not None


def test_of_two_swaps_of_one_value_only_one_succeeds() -> None:
    base = [write("a", b"1", 0, 1)]
    won = swap("a", b"1", b"2", 2, 5, succeeded=True)
    assert check([*base, won, swap("b", b"1", b"3", 2, 5, succeeded=False)]) is None
    assert check([*base, won, swap("b", b"1", b"3", 2, 5, succeeded=True)]) is not None
    assert check([*base, swap("b", b"1", b"3", 2, 5, succeeded=False)]) is not None


def test_a_deleted_register_reads_as_nothing() -> None:
    calls = [write("a", b"1", 0, 1), write("a", None, 2, 3), read("b", None, 4, 5)]
    assert check(calls) is None
    assert check([*calls, read("b", b"1", 6, 7)]) is not None


def test_every_history_of_a_true_register_is_linearizable_and_most_altered_ones_are_not() -> None:
    found = 0
    for seed in range(60):
        calls = _history(random.Random(seed))
        assert check(calls) is None, seed
        reads = [n for n, c in enumerate(calls) if c.kind is Kind.READ and c.value is not None]
        number = reads[-1]
        first = calls[0]
        stale = read(
            calls[number].client, first.value, calls[number].begun, calls[number].ended or 0
        )
        found += check([*calls[:number], stale, *calls[number + 1 :]]) is not None
    assert found > 50


def _history(rng: random.Random, count: int = 120, clients: int = 5) -> list[Call]:
    """Return what clients of a register may see whose calls take effect inside their time."""
    busy_until = [0] * clients
    planned = []
    for number in range(count):
        client = rng.randrange(clients)
        begun = busy_until[client] + rng.randint(1, 5)
        effect = begun + rng.randint(0, 10)
        ended = effect + rng.randint(1, 10)
        busy_until[client] = ended
        planned.append((effect, number, client, begun, ended))
    value: Value = None
    calls = []
    for _, number, client, begun, ended in sorted(planned):
        if number == 0 or rng.random() < 0.4:
            value = b"%d" % number
            known = number == 0 or rng.random() < 0.9
            calls.append(write(str(client), value, begun, ended if known else None))
        else:
            calls.append(read(str(client), value, begun, ended))
    return calls
