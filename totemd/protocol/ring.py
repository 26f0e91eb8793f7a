"""The Totem single ring: one value that is stepped, messages in, effects out.

It knows the protocol of one ring: membership, total order, recovery. It refuses to know sockets,
clocks, disks, keys, and what the messages mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from totemd.protocol.core import GATHER, OPERATIONAL, Order
from totemd.protocol.effects import Cause, Configuration, ConfigurationKind, Effect, State
from totemd.protocol.membership import LEAVE_COPIES, LEAVE_DRAIN_NS, STARVED_NS, Membership
from totemd.protocol.messages import (
    Commit,
    Data,
    HoldCancel,
    Join,
    Leave,
    MergeDetect,
    Message,
    Token,
)
from totemd.protocol.timers import Timer

LOOPBACK_STEPS_MAX: Final = 1000  # messages to oneself handled in one call
DUE_TIMERS_MAX: Final = 32  # timers served in one call

Handler = Callable[["Ring", Any], None]


class Ring(Membership):
    """One node's part of the ring; arguments as `Core`."""

    _handlers: dict[type, Handler]  # of the present state

    def start(self, now_ns: int) -> list[Effect]:
        """Deliver the boot configuration, this node alone, and look for others."""
        self.now_ns = self.booted_ns = now_ns
        self._handlers = HANDLERS[self.state]
        ring, members = self.installed_ring, self.installed_members
        self.emit(Configuration(ConfigurationKind.REGULAR, ring, members, None, (), ()))
        self.gather(Cause.BOOT)
        return self._finish()

    def receive(self, message: Message, sender: int, order: Order, now_ns: int) -> list[Effect]:
        """Handle one message.

        Args:
            message: decoded, authenticated.
            sender: the node that transmitted it, not always its originator.
            order: strictly increasing in the sender's order of sending.
            now_ns: monotonic.
        """
        if self.gone:
            return []  # an answer would bring this node back
        self.now_ns = now_ns
        self.sender = sender
        self.order = order
        self._handlers[type(message)](self, message)
        return self._finish()

    def submitted(self, now_ns: int) -> list[Effect]:
        """React to the source having something to send."""
        self.now_ns = now_ns
        if not self.gone:
            self.wake()
        return self._finish()

    def deadline_ns(self) -> int | None:
        """Return when `expire` wants to be called; None: never."""
        return self.timers.deadline_ns()

    def expire(self, now_ns: int) -> list[Effect]:
        """Serve the timers that are due."""
        self.now_ns = now_ns
        for _ in range(DUE_TIMERS_MAX):
            deadline_ns = self.timers.deadline_ns()
            timer = self.timers.pop_due(now_ns)
            if timer is None or deadline_ns is None:
                break
            late_ns = now_ns - deadline_ns
            if late_ns >= STARVED_NS and self.waits_longer(timer, late_ns):
                continue
            TIMER_TABLE[self.state, timer](self)
            self._drain()
        return self._finish()

    def leave(self, now_ns: int) -> list[Effect]:
        """Leave on purpose: what was accepted goes out first, then the others are told."""
        self.now_ns = now_ns
        if self.leave_copies is None:
            self.leave_copies = LEAVE_COPIES
            self.leave_deadline_ns = now_ns + LEAVE_DRAIN_NS
            self.on_leave_due()
        return self._finish()

    def pause(self, gap_ns: int, now_ns: int) -> list[Effect]:
        """Learn that this process was not scheduled for ``gap_ns``.

        What it did not hear in that time accuses nobody. After a token timeout the others have
        gone on without it, so it asks to be taken in again, and for a moment does not listen to
        what they proposed meanwhile.
        """
        if self.gone:
            return []
        self.now_ns = now_ns
        self.stats.pauses += 1
        self.note("paused", gap_ms=gap_ns // 1_000_000)
        self.not_scheduled(gap_ns)
        if gap_ns >= self.token_loss_ns:
            self.deaf_until_ns = now_ns + self.parameters.join_ns
            self._start_over(Cause.PAUSE)
        return self._finish()

    def force_gather(self, now_ns: int) -> list[Effect]:
        """Form the ring anew, on an operator's command."""
        if self.gone:
            return []
        self.now_ns = now_ns
        self._start_over(Cause.FORCED)
        return self._finish()

    def fail_members(self, nodes: frozenset[int], cause: Cause, now_ns: int) -> list[Effect]:
        """Form the ring anew without members that do not do their part."""
        failing = nodes.intersection(self.installed_members) - {self.me}
        if self.gone or self.state is not OPERATIONAL or not failing:
            return []
        self.now_ns = now_ns
        self.gather(cause, failing)
        return self._finish()

    def link_up(self, node_id: int, now_ns: int) -> list[Effect]:
        """Learn that a node can be reached again: the cut that excluded it has healed."""
        self.now_ns = now_ns
        self.hold_offs.link_up(node_id)
        self.note("link_up", node=node_id)
        return self._finish()

    def link_down(self, node_id: int, now_ns: int) -> list[Effect]:
        """Learn that no link reaches a node. The ring stays: the loss of the token decides."""
        self.now_ns = now_ns
        self.note("link_down", node=node_id)
        return self._finish()

    def clear_hold_offs(self, now_ns: int) -> list[Effect]:
        """Merge with whoever is there, on an operator's command."""
        self.now_ns = now_ns
        self.hold_offs.clear_all()
        return self._finish()

    def _start_over(self, cause: Cause) -> None:
        if self.state is GATHER:
            self.hear_anew()
            self.gather_again(cause)
        else:
            self.gather(cause)

    def check(self) -> None:
        """Assert every invariant."""
        self.old.check()
        assert self.me in self.proc
        assert self.me not in self.fail
        assert self.me in self.installed_members
        assert (self.new is not None) == (self.state is State.RECOVERY)
        assert self.ring_id.seq >= self.installed_ring.seq
        if self.state is State.OPERATIONAL:
            assert self.ring_id == self.installed_ring == self.old.ring
        if self.new is not None:
            self.new.check()
            assert self.new.ring == self.ring_id
            assert self.new.delivered == self.parameters.seq_base

    def move(self, new: State, cause: Cause) -> None:
        """Change the state, and with it who handles what."""
        super().move(new, cause)
        self._handlers = HANDLERS[new]

    def _drain(self) -> None:
        for _ in range(LOOPBACK_STEPS_MAX):
            if not self._loopback:
                return
            self.sender = self.me
            message = self._loopback.popleft()
            self._handlers[type(message)](self, message)
        raise AssertionError("a ring of one does not come to rest")

    def _finish(self) -> list[Effect]:
        if self._loopback:
            self._drain()
        out = self._out
        self._out = []
        return out


S = State

TABLE: Final[dict[tuple[State, type], Handler]] = {
    (S.OPERATIONAL, Data): Ring.on_data_operational,
    (S.OPERATIONAL, Token): Ring.on_token,
    (S.OPERATIONAL, MergeDetect): Ring.on_merge_detect,
    (S.OPERATIONAL, Join): Ring.on_join_operational,
    (S.OPERATIONAL, Leave): Ring.on_leave,
    (S.OPERATIONAL, Commit): Ring.ignore,
    (S.OPERATIONAL, HoldCancel): Ring.on_hold_cancel,
    (S.GATHER, Data): Ring.on_data_gather,
    (S.GATHER, Token): Ring.ignore,
    (S.GATHER, MergeDetect): Ring.on_merge_detect,
    (S.GATHER, Join): Ring.on_join_gather,
    (S.GATHER, Leave): Ring.on_leave,
    (S.GATHER, Commit): Ring.on_commit_gather,
    (S.GATHER, HoldCancel): Ring.ignore,
    (S.COMMIT, Data): Ring.on_data_commit,
    (S.COMMIT, Token): Ring.ignore,
    (S.COMMIT, MergeDetect): Ring.ignore,
    (S.COMMIT, Join): Ring.on_join_commit,
    (S.COMMIT, Leave): Ring.on_leave,
    (S.COMMIT, Commit): Ring.on_commit_commit,
    (S.COMMIT, HoldCancel): Ring.ignore,
    (S.RECOVERY, Data): Ring.on_data_recovery,
    (S.RECOVERY, Token): Ring.on_token,
    (S.RECOVERY, MergeDetect): Ring.ignore,
    (S.RECOVERY, Join): Ring.on_join_recovery,
    (S.RECOVERY, Leave): Ring.on_leave,
    (S.RECOVERY, Commit): Ring.on_commit_recovery,
    (S.RECOVERY, HoldCancel): Ring.ignore,
}
TIMER_TABLE: Final[dict[tuple[State, Timer], Callable[[Ring], None]]] = {
    (S.OPERATIONAL, Timer.HEARTBEAT): Ring.on_heartbeat_due,
    (S.OPERATIONAL, Timer.SEND_JOIN): Ring.ignore,
    (S.OPERATIONAL, Timer.TOKEN_LOSS): Ring.on_token_loss,
    (S.OPERATIONAL, Timer.TOKEN_RETRANSMIT): Ring.on_retransmit_due,
    (S.OPERATIONAL, Timer.HOLD): Ring.on_hold_over,
    (S.OPERATIONAL, Timer.HOLD_CANCEL): Ring.on_cancel_again,
    (S.OPERATIONAL, Timer.JOIN): Ring.ignore,
    (S.OPERATIONAL, Timer.CONSENSUS): Ring.ignore,
    (S.OPERATIONAL, Timer.MERGE): Ring.on_merge_due,
    (S.OPERATIONAL, Timer.LEAVE): Ring.on_leave_due,
    (S.GATHER, Timer.HEARTBEAT): Ring.ignore,
    (S.GATHER, Timer.SEND_JOIN): Ring.on_send_join_due,
    (S.GATHER, Timer.TOKEN_LOSS): Ring.on_commit_missing,
    (S.GATHER, Timer.TOKEN_RETRANSMIT): Ring.ignore,
    (S.GATHER, Timer.HOLD): Ring.ignore,
    (S.GATHER, Timer.HOLD_CANCEL): Ring.ignore,
    (S.GATHER, Timer.JOIN): Ring.on_join_due,
    (S.GATHER, Timer.CONSENSUS): Ring.on_consensus_due,
    (S.GATHER, Timer.MERGE): Ring.ignore,
    (S.GATHER, Timer.LEAVE): Ring.on_leave_due,
    (S.COMMIT, Timer.HEARTBEAT): Ring.ignore,
    (S.COMMIT, Timer.SEND_JOIN): Ring.ignore,
    (S.COMMIT, Timer.TOKEN_LOSS): Ring.on_token_loss,
    (S.COMMIT, Timer.TOKEN_RETRANSMIT): Ring.on_retransmit_due,
    (S.COMMIT, Timer.HOLD): Ring.ignore,
    (S.COMMIT, Timer.HOLD_CANCEL): Ring.ignore,
    (S.COMMIT, Timer.JOIN): Ring.ignore,
    (S.COMMIT, Timer.CONSENSUS): Ring.ignore,
    (S.COMMIT, Timer.MERGE): Ring.ignore,
    (S.COMMIT, Timer.LEAVE): Ring.on_leave_due,
    (S.RECOVERY, Timer.HEARTBEAT): Ring.on_heartbeat_due,
    (S.RECOVERY, Timer.SEND_JOIN): Ring.ignore,
    (S.RECOVERY, Timer.TOKEN_LOSS): Ring.on_token_loss,
    (S.RECOVERY, Timer.TOKEN_RETRANSMIT): Ring.on_retransmit_due,
    (S.RECOVERY, Timer.HOLD): Ring.ignore,
    (S.RECOVERY, Timer.HOLD_CANCEL): Ring.ignore,
    (S.RECOVERY, Timer.JOIN): Ring.ignore,
    (S.RECOVERY, Timer.CONSENSUS): Ring.ignore,
    (S.RECOVERY, Timer.MERGE): Ring.ignore,
    (S.RECOVERY, Timer.LEAVE): Ring.on_leave_due,
}
HANDLERS: Final = {
    state: {kind: handler for (of, kind), handler in TABLE.items() if of is state}
    for state in State
}
assert set(TABLE) == {(s, m) for s in State for m in Message.__args__}
assert set(TIMER_TABLE) == {(s, t) for s in State for t in Timer}
