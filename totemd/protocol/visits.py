"""The token and the messages: order, requests, delivery, idle ring (Totem paper, section 4)."""

from __future__ import annotations

from typing import Final

from totemd.protocol.core import SAFE, Core
from totemd.protocol.effects import Cause, Deliver, State
from totemd.protocol.flow import allowance
from totemd.protocol.messages import (
    ENCAPSULATED,
    Commit,
    Data,
    DecodeError,
    HoldCancel,
    Request,
    Token,
    decode,
    encode_data,
)
from totemd.protocol.ordering import Store
from totemd.protocol.timers import Timer

CANCELS_MAX: Final = 5  # times a hold is cancelled before waiting for the token
SELF_VISITS_MAX: Final = 64  # token visits of a ring of one in one call
STALL_VISITS: Final = 3  # visits with nothing but repairs before the token is paced
STALL_SHIFT_MAX: Final = 8


class Visits(Core):
    """What a node does while it holds the token, and with each message."""

    def on_data_operational(self, m: Data) -> None:
        """Keep a message of this ring and deliver what is in order now."""
        if m.ring != self.ring_id:
            self.foreign(m.ring)
            return
        self._keep(self.old, m)
        self.deliver_operational()

    def on_data_gather(self, m: Data) -> None:
        """Keep a message of the installed ring; another ring's is a reason to gather with it."""
        if m.ring == self.installed_ring:
            self._keep(self.old, m)
        else:
            self.foreign(m.ring)

    def on_data_recovery(self, m: Data) -> None:
        """Keep a message of the new ring; open it if it carries one of the old ring."""
        assert self.new is not None
        if m.ring != self.ring_id:
            return
        self._keep(self.new, m)
        self._evidence(m.seq)
        if m.encapsulated:
            self._recovered(m)

    def _keep(self, store: Store, m: Data) -> None:
        self.stats.messages_received += 1
        if not store.add(m):
            self.stats.messages_duplicate += 1
        elif self.state is State.OPERATIONAL:
            self._evidence(m.seq)

    def _evidence(self, seq: int) -> None:
        """Cancel the retransmission of the token: its receiver has gone on."""
        sent = self.last_sent
        if isinstance(sent, Commit) or (sent is not None and seq > sent.seq):
            self.timers.cancel(Timer.TOKEN_RETRANSMIT)

    def _recovered(self, m: Data) -> None:
        try:
            inner = decode(m.payload)
        except DecodeError:
            self.stats.protocol_errors += 1
            return
        if isinstance(inner, Data) and inner.ring == self.installed_ring and not inner.encapsulated:
            self.old.add(inner)
            self.recovery_queue.pop(inner.seq, None)

    def foreign(self, ring: object) -> None:
        """Overridden by membership."""
        raise NotImplementedError

    def recovery_step(self, token: Token) -> bool:
        """Overridden by recovery."""
        raise NotImplementedError

    def install(self) -> None:
        """Overridden by recovery."""
        raise NotImplementedError

    def gather(self, cause: Cause) -> None:
        """Overridden by membership."""
        raise NotImplementedError

    # The token

    def on_token(self, token: Token) -> None:
        """Serve one token visit (Totem paper, section 4.2)."""
        if token.ring != self.ring_id:
            return
        if token.token_seq <= self.my_token_seq:
            self.stats.tokens_duplicate += 1
            return
        self.stats.tokens_received += 1
        self.my_token_seq = token.token_seq
        self.visits += 1
        self._measure_rotation()
        self._token_came()
        store = self.old if self.state is State.OPERATIONAL else self.new
        assert store is not None
        self._count_idle(token)
        requests, again = self._answer_requests(store, token)
        fresh = self._originate(store, token, again)
        if fresh:
            self.idle = 0  # a lone sender sees its own sequence number come back unchanged
        self._account(token, again + fresh)
        self._lower_or_raise_aru(store, token)
        token.requests = self._request_missing(store, token, requests)
        if self._failed_to_receive(token):
            return
        install = self.state is State.RECOVERY and self.recovery_step(token)
        if self.prev_sent_aru is not None:
            self.safe_to = max(self.safe_to, min(self.prev_sent_aru, token.aru))
        if install:
            self.install()
            self.idle = 0
        self._forward_or_hold(token)
        if self.state is State.OPERATIONAL:
            self.deliver_operational()
            self.old.release(self.safe_to)

    def _token_came(self) -> None:
        self.cancels_left = 0
        self.timers.cancel(Timer.HOLD_CANCEL, Timer.TOKEN_RETRANSMIT)
        self.timers.set(Timer.TOKEN_LOSS, self.now_ns + self.token_loss_ns())

    def _measure_rotation(self) -> None:
        if self.last_visit_ns and self.idle < self.parameters.idle_rotations:
            sample = self.now_ns - self.last_visit_ns
            if not self.rotation_ns:
                self.rotation_ns = sample
            elif sample <= 8 * self.rotation_ns:
                self.rotation_ns += (sample - self.rotation_ns) // 8
            else:
                self.rotation_ns += self.rotation_ns // 8
        self.last_visit_ns = self.now_ns

    def _count_idle(self, token: Token) -> None:
        unchanged = self.visits > 1 and token.seq == self.prev_sent_seq
        quiet = not token.requests and token.aru == token.seq
        self.idle = self.idle + 1 if unchanged and quiet else 0
        progress = not unchanged or quiet or self.prev_sent_aru != token.aru
        self.stalled = 0 if progress else self.stalled + 1

    def _answer_requests(self, store: Store, token: Token) -> tuple[tuple[Request, ...], int]:
        """Send again what is asked for and held here; return what stays asked for."""
        if not token.requests:
            if self.sent_again_at:
                self.sent_again_at.clear()
            return (), 0
        interval = max(self.parameters.retransmission_interval_ns, 2 * self.rotation_ns)
        open_seqs: list[tuple[int, int]] = []
        again = 0
        again_max = self.parameters.max_messages
        for request in token.requests:
            for seq in range(request.first, request.first + request.count):
                message = store.messages.get(seq)
                last = self.sent_again_at.get(seq, -interval)
                if seq <= store.released:
                    self.stats.protocol_errors += 1
                elif message is None or again >= again_max or self.now_ns - last < interval:
                    open_seqs.append((seq, request.requester))
                else:
                    self.sent_again_at[seq] = self.now_ns
                    self.multicast(message)
                    again += 1
        self.stats.messages_sent_again += again
        return _runs(open_seqs), again

    def _originate(self, store: Store, token: Token, again: int) -> int:
        p = self.parameters
        members = len(self.commit.entries) if self.commit else len(self.installed_members)
        room = token.aru + p.max_gap_messages - token.seq
        if store.payload_bytes > p.max_unstable_bytes:
            room = 0
        allowed = allowance(
            window=p.window(members),
            members=members,
            max_messages=p.max_messages,
            others=token.fcc - self.sent_last_visit,
            sent_again=again,
            room=room,
        )
        sent = 0
        while sent < allowed:
            frame = self._next_frame()
            if frame is None:
                break
            guarantee, flags, payload = frame
            token.seq += 1
            m = Data(self.ring_id, token.seq, self.me, guarantee, flags, self.visits, payload)
            store.add(m)
            self.multicast(m)
            sent += 1
        self.stats.messages_sent += sent
        return sent

    def _next_frame(self) -> tuple[int, int, bytes] | None:
        if self.state is State.OPERATIONAL:
            frame = self.source.next_frame()
            return None if frame is None else (frame[0], 0, frame[1])
        for seq in self.recovery_queue:
            return SAFE - 1, ENCAPSULATED, encode_data(self.recovery_queue.pop(seq))
        return None

    def _account(self, token: Token, sent: int) -> None:
        token.fcc = max(0, token.fcc + sent - self.sent_last_visit)
        self.sent_last_visit = sent
        if self.state is State.OPERATIONAL:
            backlog = self.source.backlog_frames()
        else:
            backlog = len(self.recovery_queue)
        token.backlog = max(0, token.backlog + backlog - self.backlog_last_visit)
        self.backlog_last_visit = backlog

    def _lower_or_raise_aru(self, store: Store, token: Token) -> None:
        if store.aru < token.aru or token.aru_id in (0, self.me):
            token.aru = store.aru
            token.aru_id = 0 if token.aru == token.seq else self.me

    def _request_missing(
        self, store: Store, token: Token, requests: tuple[Request, ...]
    ) -> tuple[Request, ...]:
        operational = self.state is State.OPERATIONAL
        upper = min(self.prev_sent_seq, token.seq) if operational else token.seq
        if store.aru >= upper:
            if self.misses:
                self.misses.clear()
            return requests
        wanted = store.missing(upper, requests, self.me, self.misses, self.parameters.miss_count)
        self.stats.messages_requested += len(wanted) - len(requests)
        return wanted

    def _failed_to_receive(self, token: Token) -> bool:
        """Fail the member that holds aru down for too long; True: the ring is left."""
        if token.aru != self.prev_sent_aru or token.aru_id == 0:
            self.aru_count = 0
            self.aru_since_ns = self.now_ns
            return False
        self.aru_count += 1
        p = self.parameters
        lasted = self.now_ns - self.aru_since_ns >= p.fail_recv_ns
        if self.aru_count <= p.fail_recv_count or not lasted or token.aru_id == self.me:
            return False
        self.stats.failed_to_receive += 1
        self.note("failed_to_receive", node=token.aru_id, aru=token.aru)
        self.fail.add(token.aru_id)
        self.gather(Cause.FAILED_TO_RECEIVE)
        return True

    def _forward_or_hold(self, token: Token) -> None:
        token.token_seq += 1
        self.prev_sent_aru = token.aru
        self.prev_sent_seq = token.seq
        p = self.parameters
        holding = self.state is State.OPERATIONAL and self.me == self.ring_id.representative
        if holding and self.idle > p.idle_rotations:
            self._hold(token, p.hold_ns)
        elif holding and self.stalled > STALL_VISITS:
            shift = min(self.stalled - STALL_VISITS, STALL_SHIFT_MAX)
            self._hold(token, min(p.hold_ns, p.singleton_ns << shift))
        else:
            self.forward(token)

    def _hold(self, token: Token, hold_ns: int) -> None:
        self.stats.tokens_held += 1
        self.held = token
        self.timers.set(Timer.HOLD, self.now_ns + hold_ns)

    def forward(self, token: Token) -> None:
        """Pass the token on; a ring of one keeps it until something is to be sent."""
        operational = self.state is State.OPERATIONAL
        members = self.installed_members
        if not operational and self.commit is not None:
            members = tuple(entry.node for entry in self.commit.entries)
        to = self.successor(members)
        if to == self.me and operational:
            self.held = token
            self.timers.set(Timer.HOLD, self.now_ns + self.parameters.singleton_ns)
            return
        self.remember_sent(to, token)
        self.unicast(to, token)

    def on_hold_over(self) -> None:
        """Let the held token go on."""
        token = self.held
        if token is None:
            return
        self.held = None
        self.timers.cancel(Timer.HOLD)
        if self.successor(self.installed_members) == self.me:
            self.on_token(token)
        else:
            self._release(token)

    def _release(self, token: Token) -> None:
        """Forward a held token, with what has come to be sent meanwhile.

        Not a second visit: the safe bound needs two visits with a rotation between them.
        """
        before = token.seq
        fresh = self._originate(self.old, token, 0)
        self._account(token, self.sent_last_visit + fresh)
        if fresh:
            self.idle = 0
            if token.aru == before or token.aru_id == self.me:
                self._lower_or_raise_aru(self.old, token)
            elif token.aru_id == 0:
                token.aru_id = self.me
        self.prev_sent_aru = token.aru
        self.prev_sent_seq = token.seq
        self.timers.set(Timer.TOKEN_LOSS, self.now_ns + self.token_loss_ns())
        self.forward(token)
        self.deliver_operational()

    def on_hold_cancel(self, message: HoldCancel) -> None:
        """Somebody has something to send."""
        if message.ring == self.ring_id and self.held is not None:
            self.idle = 0
            self.on_hold_over()

    def wake(self) -> None:
        """React to something that is to be sent."""
        if self.state is not State.OPERATIONAL:
            return
        if self.held is not None:
            self.idle = 0
            if len(self.installed_members) == 1:
                self._visit_self()
            else:
                self.on_hold_over()
        elif self.me != self.ring_id.representative and not self.cancels_left:
            self.cancels_left = CANCELS_MAX
            if self.idle >= self.parameters.idle_rotations:
                self.on_cancel_again()
            else:
                wait = max(2_000_000, 3 * self.rotation_ns)
                self.timers.set(Timer.HOLD_CANCEL, self.now_ns + wait)

    def on_cancel_again(self) -> None:
        """Ask the representative for the token, a bounded number of times."""
        if self.state is not State.OPERATIONAL or not self.cancels_left:
            return
        self.cancels_left -= 1
        self.unicast(self.ring_id.representative, HoldCancel(self.ring_id))
        wait = self.parameters.hold_cancel_retry_ns
        if self.cancels_left:
            self.timers.set(Timer.HOLD_CANCEL, self.now_ns + wait)

    def _visit_self(self) -> None:
        """Visit until nothing waits: a ring of one has nobody to share the token with."""
        for _ in range(SELF_VISITS_MAX):
            if self.held is None:
                return
            self.on_hold_over()
            settled = self.old.delivered == self.old.high
            if settled and not self.source.backlog_frames():
                return

    def on_retransmit_due(self) -> None:
        """Send the token, or commit token, again: it may be lost."""
        if self.last_sent is None or self.held is not None:
            return
        self.stats.tokens_sent_again += 1
        self.unicast(self.last_sent_to, self.last_sent)
        self.retransmit_ns = min(2 * self.retransmit_ns, self.parameters.token_retransmit_ns)
        self.timers.set(Timer.TOKEN_RETRANSMIT, self.now_ns + self.retransmit_ns)

    # Delivery

    def deliver_operational(self) -> None:
        """Deliver what is in order, safe messages only when everybody has them."""
        store = self.old
        messages = store.messages
        seq = store.delivered + 1
        while (m := messages.get(seq)) is not None:
            if not m.flags & ENCAPSULATED:
                if m.guarantee == SAFE and seq > self.safe_to:
                    break
                self._out.append(
                    Deliver(m.ring, seq, m.originator, m.guarantee, m.payload, transitional=False)
                )
            seq += 1
        store.delivered = seq - 1


def _runs(open_seqs: list[tuple[int, int]]) -> tuple[Request, ...]:
    runs: list[list[int]] = []
    for seq, requester in open_seqs:
        if runs and runs[-1][0] + runs[-1][1] == seq and runs[-1][2] == requester:
            runs[-1][1] += 1
        else:
            runs.append([seq, 1, requester])
    return tuple(Request(*run) for run in runs)
