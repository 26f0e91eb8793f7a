"""A machine of checkpoints and a clock of its own: time passes when a test says so."""

from __future__ import annotations

from typing import Any

from openais.wire import ckpt as wire
from openais.wire.port import RingId
from openais.wire.status import TIME_END, Status
from services.ckpt.state import Checkpoints
from services.kit.machine import Answer, Caller, Context, NodeId, Notify, SessionId, View

VIEW = View(RingId(4, 1), (NodeId(1), NodeId(2)), (), ())
MANY = wire.Attributes(1, 0, 1_000, 8, 100, 8)
RWC = 7


class Bench:
    """A machine, and a clock that moves by one with each operation."""

    def __init__(self) -> None:
        self.machine = Checkpoints()
        self.now_ns = 1_000_000
        self.told: list[Notify] = []

    def context(self, session: bytes = b"s1", node: int = 1) -> Context:
        self.now_ns += 1
        caller = Caller(NodeId(node), SessionId(session), 1)
        return Context(self.now_ns, NodeId(node), caller, VIEW)

    def do(self, operation: Any, session: bytes = b"s1", node: int = 1) -> Answer:
        answer, *told = self.machine.apply(operation, self.context(session, node))
        assert isinstance(answer, Answer)
        self.told += [effect for effect in told if isinstance(effect, Notify)]
        self.machine.check()
        return answer

    def ask(self, operation: Any, session: bytes = b"s1") -> Answer:
        return self.machine.read(operation, self.context(session))

    def opened(
        self,
        handle: int = 1,
        name: bytes = b"n",
        attributes: wire.Attributes = MANY,
        **where: Any,
    ) -> None:
        operation = wire.Open(handle, name, RWC, attributes, wire.Level.B_02)
        assert self.do(operation, **where).status is Status.OK

    def expire(self) -> int:
        """Do what is due; return how much it was."""
        operations = self.machine.expired(self.now_ns)
        for operation in operations:
            told = self.machine.apply(operation, Context(self.now_ns, NodeId(1), None, VIEW))
            self.told += [effect for effect in told if isinstance(effect, Notify)]
            self.machine.check()
        return len(operations)

    def wait(self, duration_ns: int) -> int:
        """Let time pass; do what becomes due, each at its time; return how much it was."""
        end_ns = self.now_ns + duration_ns
        count = 0
        while (due_ns := self.machine.deadline_ns()) is not None and due_ns <= end_ns:
            self.now_ns = max(self.now_ns, due_ns)
            count += self.expire()
        self.now_ns = end_ns
        return count


def create(handle: int, section: bytes, expiration_ns: int = TIME_END) -> wire.SectionCreate:
    return wire.SectionCreate(handle, section, expiration_ns, b"data")
