"""Where the token rests: with who sent last, until somebody needs it.

An idle ring's token stays with the originator of the newest message, which everybody knows; that of
a ring on which one node sends a little at a time does not even go round in between.
"""

from __future__ import annotations

from typing import Final

from totemd.protocol.core import NOBODY, OPERATIONAL, SAFE, SEVERAL
from totemd.protocol.effects import Multicast, Unicast
from totemd.protocol.messages import HoldCancel, Token
from totemd.protocol.parameters import MS
from totemd.protocol.repair import Repair
from totemd.protocol.timers import HEARTBEAT, Timer

CANCELS_MAX: Final = 5  # times a hold is cancelled before waiting for the token
CANCEL_WAIT_NS: Final = 2 * MS  # before the first cancel, when the token is probably not held
CANCEL_WAIT_ROTATIONS: Final = 3
SELF_VISITS_MAX: Final = 64  # token visits of a ring of one in one call
STALL_VISITS: Final = 3  # visits with nothing but repairs before the token is paced
PACE_NS: Final = 1 * MS  # doubles with each such visit
PACE_SHIFT_MAX: Final = 8
LINGER_NS: Final = 1 * MS  # that a lone sender keeps the token after its newest message
LINGER_MAX_NS: Final = 60 * MS  # that it keeps it in all: the others wait for news of each other
LINGER_SIZE_MAX: Final = 1400  # bytes of a message after which it does; more is better in turns
LINGER_MESSAGES_MAX: Final = 128  # that it sends meanwhile: the rotation shows if others are behind


class Idle(Repair):
    """Forward or hold."""

    def visit(self, token: Token) -> None:
        """Overridden by visits."""
        raise NotImplementedError

    def originate(self, token: Token) -> int:
        """Overridden by visits: send what waits, return how many messages that is."""
        raise NotImplementedError

    def deliver_operational(self) -> None:
        """Overridden by visits."""
        raise NotImplementedError

    def pass_on(self, token: Token) -> None:
        """Forward the token, or hold it while nothing happens."""
        token.token_seq += 1
        self.prev_sent_aru = token.aru
        self.prev_sent_seq = token.seq
        if self.state is OPERATIONAL:
            self.lingered = 0
            if self._lone(token):
                self.lingers_until_ns = self.now_ns + min(LINGER_MAX_NS, self.parameters.hold_ns)
                self._hold(token, LINGER_NS)
                return
            hold_ns = self._hold_ns()
            if hold_ns:
                self.stats.tokens_held += self.idle > self.parameters.idle_rotations
                self._hold(token, hold_ns)
                return
        self._forward(token)

    def _hold_ns(self) -> int:
        p = self.parameters
        if self.idle > p.idle_rotations and self.keeper() == self.me:
            return p.hold_ns
        if not self.is_representative:
            return 0
        paced = self.stalled > STALL_VISITS and not p.cancel_token_hold_on_retransmit
        if paced and not self.after_token:
            return min(p.hold_ns, PACE_NS << min(self.stalled - STALL_VISITS, PACE_SHIFT_MAX))
        return p.singleton_ns if self.alone else 0

    def keeper(self) -> int:
        """Return the node with which an idle ring's token rests."""
        return self.newest_of or self.ring_members[0]

    def _lone(self, token: Token) -> bool:
        """True: only this node sends, little and slowly, and nobody waits for the token."""
        store = self.old
        if (
            self.newest_of != self.me
            or store.delivered != token.seq - 1  # not just one message, or a safe one before it
            or self.originated_after_ns * 2 < self.rotation_ns
            or self.lingered >= LINGER_MESSAGES_MAX
            or token.fcc != self.sent_last_visit
            or token.backlog
            or token.aru != token.seq
            or self.alone
        ):
            return False
        newest = store.messages[token.seq]
        return newest.guarantee != SAFE and len(newest.payload) <= LINGER_SIZE_MAX

    def _hold(self, token: Token, hold_ns: int) -> None:
        self.held = token
        self.timers.set(Timer.HOLD, self.now_ns + hold_ns)

    def _forward(self, token: Token) -> None:
        p = self.parameters
        self.send_on(token)
        if p.heartbeat_failures_allowed and self.idle < p.idle_rotations:
            self.timers.set(HEARTBEAT, self.now_ns + p.heartbeat_ns)
        self.send_after_token()

    def send_after_token(self) -> None:
        """Send what this visit numbered and kept back."""
        if self.after_token:
            self._out.extend(map(Multicast, self.after_token))
            self.after_token = []

    def _send_held(self, token: Token) -> None:
        """Send what has come while this node keeps the token as the lone sender."""
        self._originate_held(token)
        self.lingered += 1
        if self.now_ns < self.lingers_until_ns and self._lone(token):
            at_ns = min(self.now_ns + LINGER_NS, self.lingers_until_ns)
            self.timers.set(Timer.HOLD, at_ns)
        else:
            self.held = None
            self.timers.cancel(Timer.HOLD)
            self._forward(token)
        self.deliver_operational()

    def _originate_held(self, token: Token) -> None:
        """Number and send what has come since the visit; it counts as passed on."""
        self.originate(token)
        self.prev_sent_aru = token.aru
        self.prev_sent_seq = token.seq

    def on_hold_over(self) -> None:
        """Let the held token go on."""
        token = self.held
        if token is None:
            return
        self.held = None
        self.timers.cancel(Timer.HOLD)
        if self.alone:
            self.visit(token)
        else:
            self._release(token)

    def _release(self, token: Token) -> None:
        """Forward a held token, with what has come to be sent meanwhile.

        Not a second visit: the safe bound needs two visits with a rotation between them.
        """
        self._originate_held(token)
        self._forward(token)
        self.deliver_operational()

    def on_hold_cancel(self, message: HoldCancel) -> None:
        """Somebody has something to send: neither keep the token nor begin to."""
        if message.ring != self.ring_id:
            return
        self.stats.hold_cancels_received += 1
        self.idle = 0
        if self.held is not None:
            self.on_hold_over()

    def wake(self) -> None:
        """React to something that is to be sent."""
        if self.state is not OPERATIONAL:
            return
        if self.held is not None:
            self.idle = 0
            if self.alone:
                self._visit_self()
            else:
                self._send_held(self.held)
        elif not self.cancels_left:
            self.cancels_left = CANCELS_MAX
            if self.keeper() == self.me:  # it is on its way to this node
                self._cancel_in(self.parameters.hold_cancel_retry_ns)
            elif self._rests():
                self.on_cancel_again()
            else:
                self._cancel_in(max(CANCEL_WAIT_NS, CANCEL_WAIT_ROTATIONS * self.rotation_ns))

    def _rests(self) -> bool:
        """True: the token is probably not on its way."""
        if self.lone_sender == NOBODY:
            return self.idle >= self.parameters.idle_rotations
        return self.lone_sender != SEVERAL

    def _cancel_in(self, wait_ns: int) -> None:
        self.timers.set(Timer.HOLD_CANCEL, self.now_ns + wait_ns)

    def on_gap(self) -> None:
        """Ask a lone sender for the token: something is missing here."""
        if self.lone_sender not in (NOBODY, SEVERAL, self.me) and not self.cancels_left:
            self.cancels_left = CANCELS_MAX
            self.on_cancel_again()

    def on_cancel_again(self) -> None:
        """Ask who has the token for it, a bounded number of times; after the first time all."""
        if not self.cancels_left:
            return
        again = self.cancels_left < CANCELS_MAX
        self.cancels_left -= 1
        self.stats.hold_cancels_sent += 1
        cancel = HoldCancel(self.ring_id)
        keeper = self.keeper()
        if again or keeper == self.me:
            self.emit(Multicast(cancel, again))
        else:
            self.emit(Unicast(keeper, cancel))
        if self.cancels_left:
            self._cancel_in(self.parameters.hold_cancel_retry_ns)

    def _visit_self(self) -> None:
        """Visit until nothing waits: a ring of one has nobody to share the token with."""
        for _ in range(SELF_VISITS_MAX):
            if self.held is None:
                return
            self.on_hold_over()
            settled = self.old.delivered == self.old.high
            if settled and not self.source.backlog_frames():
                return
