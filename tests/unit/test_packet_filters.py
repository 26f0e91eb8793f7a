"""The packet filters of the test networks, run by a small interpreter of classic BPF."""

from __future__ import annotations

import pytest

from tests.net import filters
from tests.net.filters import DROP, PASS, Rules, mac


def verdict(rules: Rules, frame: bytes, random: int = 1 << 31) -> int:
    """Interpret a program on a frame."""
    count, *lines = rules.program(0).split(",")
    code = [tuple(map(int, line.split())) for line in lines]
    assert len(code) == int(count)
    at, accumulator = 0, 0
    while True:
        kind, if_true, if_false, operand = code[at]
        at += 1
        match kind:
            case filters.LOAD_WORD if operand == filters.RANDOM:
                accumulator = random
            case filters.LOAD_WORD | filters.LOAD_HALF | filters.LOAD_BYTE:
                size = {filters.LOAD_WORD: 4, filters.LOAD_HALF: 2, filters.LOAD_BYTE: 1}[kind]
                accumulator = int.from_bytes(frame[operand : operand + size], "big")
            case filters.LOAD_LENGTH:
                accumulator = len(frame)
            case filters.RETURN:
                return operand
            case _:
                true = {
                    filters.JUMP_EQUAL: accumulator == operand,
                    filters.JUMP_GREATER: accumulator > operand,
                    filters.JUMP_GREATER_OR_EQUAL: accumulator >= operand,
                    filters.JUMP_SET: bool(accumulator & operand),
                }[kind]
                at += if_true if true else if_false


def frame(
    source: int = 1, *, kind: int = 0x0800, size: int = 100, to: str = "02:77:00:00:00:02"
) -> bytes:
    addresses = bytes.fromhex((to + mac(0, source)).replace(":", ""))
    next_header = 17
    return addresses + kind.to_bytes(2, "big") + bytes(6) + bytes([next_header]) + bytes(size - 7)


def test_no_rule_lets_everything_pass() -> None:
    assert verdict(Rules(), frame()) == PASS


@pytest.mark.parametrize("kind", [0x0800, 0x86DD])
def test_a_cut_source_is_dropped_and_no_other(kind: int) -> None:
    rules = Rules(sources_cut={1, 4})
    assert [verdict(rules, frame(n, kind=kind)) for n in (1, 2, 3, 4)] == [DROP, PASS, PASS, DROP]


def test_address_resolution_passes_a_cut() -> None:
    rules = Rules(sources_cut={1}, loss_percent=100.0)
    assert verdict(rules, frame(kind=0x0806)) == PASS
    neighbour = bytearray(frame(kind=0x86DD))
    neighbour[20] = 58
    assert verdict(rules, bytes(neighbour)) == PASS


def test_long_packets_are_dropped_at_the_limit() -> None:
    rules = Rules(size_max=1000)
    assert [verdict(rules, frame(size=n)) for n in (1000, 1001)] == [PASS, DROP]


def test_blocked_multicast_passes_unicast() -> None:
    rules = Rules(multicast_blocked=True)
    assert verdict(rules, frame()) == PASS
    assert verdict(rules, frame(to="01:00:5e:40:01:02")) == DROP


def test_loss_drops_a_share_of_the_random_numbers() -> None:
    rules = Rules(loss_percent=25.0)
    quarter = 1 << 30
    assert verdict(rules, frame(), quarter - 1) == DROP
    assert verdict(rules, frame(), quarter) == PASS


def test_all_rules_together_are_one_program() -> None:
    rules = Rules(1.0, 1000, multicast_blocked=True, sources_cut={1})
    assert verdict(rules, frame(2)) == PASS
    assert verdict(rules, frame(1)) == DROP
    assert verdict(rules, frame(2), 0) == DROP
