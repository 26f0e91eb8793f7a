"""Packet filters as classic BPF, which ``tc`` loads: what a port of a test network drops. Pure.

Classic BPF because a kernel that filters packets at all has it (``cls_bpf``), while the qdisc
netem is a module that many kernels are built without; and because replacing a program is atomic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

LOAD_WORD: Final = 0x20  # absolute
LOAD_HALF: Final = 0x28
LOAD_BYTE: Final = 0x30
LOAD_LENGTH: Final = 0x80
JUMP_EQUAL: Final = 0x15
JUMP_GREATER: Final = 0x25
JUMP_GREATER_OR_EQUAL: Final = 0x35
JUMP_SET: Final = 0x45
RETURN: Final = 0x06
RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: 32 random bits
PASS: Final = 0  # TC_ACT_OK
DROP: Final = 2  # TC_ACT_SHOT
ETHERNET_SIZE: Final = 14
SOURCE: Final = 6  # offset of the source address of a frame
ETHERNET_TYPE: Final = 12
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
NEXT_HEADER: Final = ETHERNET_SIZE + 6  # of IPv6
ICMPV6: Final = 58

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def mac(network: int, host: int) -> str:
    """Return the hardware address of a host in a network; the filters know hosts by it."""
    return f"02:77:00:{network:02x}:00:{host:02x}"


@dataclass(slots=True)
class Rules:
    """What one direction of one port drops; ARP and ICMPv6 pass.

    Neighbours must stay known to each other: a host that cannot resolve an address reports
    errors to the sender, which a lossy network does not.
    """

    loss_percent: float = 0.0
    size_max: int = 0  # bytes of an IP packet that still pass; 0: all
    multicast_blocked: bool = False
    sources_cut: set[int] = field(default_factory=set)  # hosts nothing is taken from

    def program(self, network: int) -> str:
        """Return the program as the argument ``bytecode`` of tc."""
        tests: list[list[Instruction]] = []  # each falls through to drop, or jumps over it
        if self.multicast_blocked:
            tests.append([(LOAD_BYTE, 0, 0, 0), (JUMP_SET, 0, 1, 1)])
        if self.size_max:
            limit = self.size_max + ETHERNET_SIZE
            tests.append([(LOAD_LENGTH, 0, 0, 0), (JUMP_GREATER, 0, 1, limit)])
        for host in sorted(self.sources_cut):
            number = int(mac(network, host).replace(":", ""), 16)
            high, low = number >> 16, number & 0xFFFF
            tests.append(
                [
                    (LOAD_WORD, 0, 0, SOURCE),
                    (JUMP_EQUAL, 0, 3, high),
                    (LOAD_HALF, 0, 0, SOURCE + 4),
                    (JUMP_EQUAL, 0, 1, low),
                ]
            )
        if self.loss_percent:
            limit = min(0xFFFFFFFF, int(self.loss_percent / 100 * (1 << 32)))
            tests.append([(LOAD_WORD, 0, 0, RANDOM), (JUMP_GREATER_OR_EQUAL, 1, 0, limit)])
        code: list[Instruction] = [
            (LOAD_HALF, 0, 0, ETHERNET_TYPE),
            (JUMP_EQUAL, 4, 0, IPV4),
            (JUMP_EQUAL, 0, 2, IPV6),
            (LOAD_BYTE, 0, 0, NEXT_HEADER),
            (JUMP_EQUAL, 0, 1, ICMPV6),
            (RETURN, 0, 0, PASS),
        ]
        for test in tests:
            code += [*test, (RETURN, 0, 0, DROP)]
        code.append((RETURN, 0, 0, PASS))
        return ",".join([str(len(code)), *(" ".join(map(str, one)) for one in code)])
