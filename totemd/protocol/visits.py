"""The token and the messages: order and delivery (Totem paper, section 4; accelerated ring, 2016).

A node fixes the numbers of all it sends in a visit. With much to send the token goes on before
the last of it: the next node works while this one still sends.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from totemd.protocol.core import NOBODY, OPERATIONAL, RECOVERY, SAFE, SEVERAL
from totemd.protocol.effects import Cause, Deliver, Multicast, Unicast
from totemd.protocol.flow import allowance, part_of_backlog
from totemd.protocol.idle import Idle
from totemd.protocol.messages import (
    COUNT_MAX,
    ENCAPSULATED,
    POST,
    SEQ_MAX,
    Data,
    DecodeError,
    Token,
    decode,
    encode_data,
)
from totemd.protocol.ordering import Store
from totemd.protocol.parameters import Flow
from totemd.protocol.timers import HEARTBEAT, HOLD_CANCEL, NEVER, TOKEN_LOSS, TOKEN_RETRANSMIT

SEQ_RESERVE: Final = 1 << 16  # numbers that a ring may still give out when it is ended for want
DUPLICATE_AGE_NS: Final = 1_000_000  # a token younger than this may be on the way
OUTLIER: Final = 8  # times the smoothed rotation
LONE_OUTLIER: Final = 2
TOKEN_TIMES_TOLD: Final = 5

_tuple: Final = tuple.__new__


class Visits(Idle):
    """What a node does while it holds the token, and with each message."""

    def on_data_operational(self, m: Data) -> None:
        """Keep a message of this ring and deliver what is in order now."""
        if m.ring != self.ring_id:
            self.foreign(m.ring, Cause.FOREIGN_MESSAGE)
            return
        stats = self.stats
        stats.messages_received += 1
        store = self.old
        held = self.held
        if (held is not None and m.seq > held.seq) or m.originator not in self.ring_members:
            self._unnumbered(m)
            return
        if not store.add(m):
            stats.messages_duplicate += 1
            if m.originator == self.me:
                self.source.frames_lost(1)  # somebody else sent it again
            return
        if m.seq > self.evidence_above:
            self.token_arrived()
        if m.seq == store.high:
            self._newest_of(m.originator)
        if m.visit > self.priority_above and m.originator == self.sender == self.predecessor:
            self._raise_priority(m)
        if store.aru > store.delivered:
            self.deliver_operational()
        elif store.aru < m.seq:
            self.on_gap()

    def _newest_of(self, sender: int) -> None:
        """Remember who sent the newest message, and who else did since the last visit."""
        self.newest_of = sender
        if self.lone_sender != sender:
            self.lone_sender = sender if self.lone_sender == NOBODY else SEVERAL

    def _unnumbered(self, m: Data) -> None:
        """Drop a message that cannot be: the token is here, or its sender in no ring of ours."""
        self.stats.protocol_errors += 1
        self.note_peer("protocol_error", self.sender, what="data", seq=m.seq)

    def _raise_priority(self, m: Data) -> None:
        """What the predecessor sends now is younger than the token that is on the way to us."""
        if not self.priority_flags or m.flags & self.priority_flags:
            self.token_first = True

    def on_data_gather(self, m: Data) -> None:
        """Keep a message of the installed ring; another ring's is a reason to gather with it."""
        if m.ring == self.installed_ring:
            self._keep(self.old, m)
        else:
            self.foreign(m.ring, Cause.FOREIGN_MESSAGE)

    def on_data_commit(self, _message: Data) -> None:
        """Old traffic may not enter the store between commit and recovery."""

    def on_data_recovery(self, m: Data) -> None:
        """Keep a message of the new ring; open it if it carries one of the old ring."""
        assert self.new is not None
        if m.ring != self.ring_id:
            return
        self._keep(self.new, m)
        if m.seq > self.evidence_above:
            self.token_arrived()
        if m.flags & ENCAPSULATED:
            self._recovered(m)

    def _keep(self, store: Store, m: Data) -> None:
        self.stats.messages_received += 1
        if not store.add(m):
            self.stats.messages_duplicate += 1
        elif m.seq == store.high and store is self.new:
            self.newest_of = m.originator

    def _recovered(self, m: Data) -> None:
        try:
            inner = decode(m.payload)
        except DecodeError:
            self.stats.protocol_errors += 1
            return
        if isinstance(inner, Data) and inner.ring == self.installed_ring and not inner.encapsulated:
            self.old.add(inner)
            self.recovery_queue.pop(inner.seq, None)

    # The token

    def on_token(self, token: Token) -> None:
        """Take the token from the member before this one, and from nobody else.

        The seal does not say to whom a datagram was sent: an eavesdropper could pass the token of
        two others on to a third, and there would be two.
        """
        if self.sender == self.predecessor:
            self.visit(token)
        else:
            self.stats.tokens_astray += 1

    def visit(self, token: Token) -> None:
        """Serve one token visit (Totem paper, section 4.2)."""
        if token.ring != self.ring_id:
            return
        if token.token_seq <= self.my_token_seq:
            self._duplicate_token()
            return
        operational = self.state is OPERATIONAL
        store = self.old if operational else self.new
        assert store is not None
        jumps = token.token_seq > self.my_token_seq + len(self.ring_members)
        if jumps or not store.high <= token.seq <= store.released + store.limit:
            self._contradiction(token, store)
            return
        self.my_token_seq = token.token_seq
        self._token_came()
        self._count_idle(token)
        again = self.answer_requests(store, token)
        fresh = self._originate(store, token, again)
        self._account(token, again + fresh)
        self._set_aru(store, token)
        self.request_missing(store, token)
        if self.failed_to_receive(token):
            return
        install = not operational and self.recovery_step(token)
        self._raise_safe_bound(token.aru)
        if install:
            self.install()
            self.idle = 0
        if token.seq > SEQ_MAX - SEQ_RESERVE and self._numbers_used_up(token):
            return
        self.pass_on(token)
        if self.state is OPERATIONAL:
            self.deliver_operational()
            self.old.release(self.safe_to)

    def _set_aru(self, store: Store, token: Token) -> None:
        if store.aru < token.aru or token.aru_id in (0, self.me):
            token.aru = store.aru
            token.aru_id = 0 if store.aru == token.seq else self.me

    def _raise_safe_bound(self, aru: int) -> None:
        """Everybody has what this node sent as aru on two visits in a row."""
        before = self.prev_sent_aru
        if before is not None:
            self.safe_to = max(self.safe_to, min(before, aru))

    def _contradiction(self, token: Token, store: Store) -> None:
        """Drop a token that denies numbers which were given out, or jumps: its loss ends the ring.

        What is missing is looked up number by number: after a jump that would not end.
        """
        self.stats.protocol_errors += 1
        self.note("protocol_error", what="token", seq=token.seq, known=store.high)

    def _duplicate_token(self) -> None:
        """The predecessor has no evidence that the token arrived: perhaps mine got lost."""
        self.stats.tokens_duplicate += 1
        now_ns = self.now_ns
        if (
            self.timers.armed(TOKEN_RETRANSMIT)
            and type(self.last_sent) is Token
            and now_ns - self.last_sent_ns > DUPLICATE_AGE_NS
            and now_ns - self.sent_on_duplicate_ns >= self.parameters.token_retransmit_ns // 4
        ):
            self.sent_on_duplicate_ns = now_ns
            self.stats.tokens_sent_again += 1
            self.emit(Unicast(self.last_sent_to, self.last_sent, again=True))

    def _token_came(self) -> None:
        now_ns = self.now_ns
        self.stats.tokens_received += 1
        self.visits += 1
        self.lone_before, self.lone_sender = self.lone_sender, NOBODY
        self.token_first = self.grace_given = False
        self.priority_above = self.visits - self.is_representative
        self.cancels_left = 0
        self.evidence_above = NEVER
        timers = self.timers
        timers.cancel(HOLD_CANCEL, TOKEN_RETRANSMIT, HEARTBEAT)
        timers.set(TOKEN_LOSS, now_ns + self.token_loss_ns)
        if self.last_visit_ns:
            self._measure(now_ns - self.last_visit_ns, now_ns - self.last_sent_ns)
        self.last_visit_ns = now_ns
        self.token_times_ns.append(now_ns)

    def _measure(self, interval_ns: int, rotation_ns: int) -> None:
        """Smooth the rotation time of the busy ring; report a late token.

        Args:
            interval_ns: since the token came last.
            rotation_ns: since it went on.
        """
        p = self.parameters
        if interval_ns * 100 > self.token_loss_ns * p.token_warning_percent > 0:
            self._report_late()
        if self.idle >= p.idle_rotations:
            return
        if not self.rotation_ns:
            self.rotation_ns = rotation_ns
        else:
            # The lone sender may have kept the token.
            outlier_ns = (LONE_OUTLIER if self.lone_before > NOBODY else OUTLIER) * self.rotation_ns
            self.rotation_ns += (min(rotation_ns, outlier_ns) - self.rotation_ns) // 8
        self.stats.rotation_us = self.rotation_ns // 1_000

    def _report_late(self) -> None:
        self.stats.tokens_late += 1
        times = [*self.token_times_ns, self.now_ns]
        gaps = [(b - a) // 1_000_000 for a, b in pairwise(times)][-TOKEN_TIMES_TOLD:]
        self.note(
            "token_late",
            intervals_ms=",".join(map(str, gaps)),
            timeout_ms=self.token_loss_ns // 1_000_000,
        )

    def _count_idle(self, token: Token) -> None:
        if token.seq != self.prev_sent_seq or self.visits == 1:
            self.idle = self.stalled = 0
        elif token.aru == token.seq and not token.requests:
            self.idle += 1
            self.stalled = 0
        else:
            self.idle = 0
            self.stalled = 0 if token.aru != self.prev_sent_aru else self.stalled + 1

    def originate(self, token: Token) -> int:
        """Number and send what waits for a token that was held; see `Idle`."""
        # Single messages of a lone sender are no burst that could overflow a buffer.
        burst = self.sent_last_visit - self.lingered
        fresh = self._originate(self.old, token, burst)
        self._account(token, self.sent_last_visit + fresh)
        self._set_aru(self.old, token)
        return fresh

    def _originate(self, store: Store, token: Token, again: int) -> int:
        """Number the frames of this visit; send those that go before the token."""
        frames = self._frames(self._allowed(store, token, again), store)
        if not frames:
            return 0
        self.idle = self.stalled = 0  # a lone sender sees its own numbers come back unchanged
        p = self.parameters
        count = before = len(frames)
        flags = ENCAPSULATED
        if self.state is OPERATIONAL:
            flags = 0
            if count > p.accel_min and not self.alone:
                before = max(0, count - p.accelerated_window_messages)
        ring, me, visit = self.ring_id, self.me, self.visits
        first = token.seq + 1
        messages = [
            _tuple(Data, (ring, seq, me, guarantee, flags, visit, payload))
            for seq, (guarantee, payload) in enumerate(frames[:before], first)
        ]
        self._out += [_tuple(Multicast, (m, False)) for m in messages]
        if before < count:
            flags |= POST
            self.after_token = [
                _tuple(Data, (ring, seq, me, guarantee, flags, visit, payload))
                for seq, (guarantee, payload) in enumerate(frames[before:], first + before)
            ]
            messages += self.after_token
        store.extend(first, messages)
        self._newest_of(me)
        self.originated_after_ns = self.now_ns - self.originated_ns
        self.originated_ns = self.now_ns
        token.seq += count
        self.stats.messages_sent += count
        return count

    def _allowed(self, store: Store, token: Token, again: int) -> int:
        p = self.parameters
        allowed = allowance(
            self.window,
            len(self.ring_members),
            p.max_messages,
            token.fcc - self.sent_last_visit,
            again,
            min(token.aru + p.max_gap_messages, SEQ_MAX) - token.seq,
        )
        if p.flow is Flow.BACKLOG and self.state is OPERATIONAL:
            mine = self.source.backlog_frames()
            before = self.backlog_last_visit
            allowed = min(allowed, part_of_backlog(self.window, mine, before, token.backlog))
        return allowed

    def _frames(self, allowed: int, store: Store) -> list[tuple[int, bytes]]:
        """Take what may be sent: of the source, in recovery of the messages of the old ring."""
        frames: list[tuple[int, bytes]] = []
        if self.state is RECOVERY:
            queue = self.recovery_queue
            while queue and len(frames) < allowed:
                message = queue.pop(next(iter(queue)))
                frames.append((SAFE - 1, encode_data(message)))
            return frames
        room_bytes = self.parameters.max_unstable_bytes - store.payload_bytes
        next_frame = self.source.next_frame
        while len(frames) < allowed and room_bytes > 0:
            frame = next_frame()
            if frame is None:
                break
            room_bytes -= len(frame[1])
            frames.append(frame)
        return frames

    def _account(self, token: Token, sent: int) -> None:
        if sent != self.sent_last_visit:
            fcc = token.fcc + sent - self.sent_last_visit
            token.fcc = max(0, min(fcc, COUNT_MAX))
            self.sent_last_visit = sent
        if self.state is OPERATIONAL:
            backlog = self.source.backlog_frames()
        else:
            backlog = len(self.recovery_queue)
        if backlog != self.backlog_last_visit:
            waiting = token.backlog + backlog - self.backlog_last_visit
            token.backlog = max(0, min(waiting, COUNT_MAX))
            self.backlog_last_visit = backlog

    def _numbers_used_up(self, token: Token) -> bool:
        """End the ring before its numbers end; True: this node did."""
        if self.state is not OPERATIONAL or not self.is_representative:
            return False
        self.note("sequence_numbers_used_up", seq=token.seq)
        self.gather(Cause.FORCED)
        return True

    def on_retransmit_due(self) -> None:
        """Send the token, or commit token, again: it may be lost."""
        if self.last_sent is None or self.held is not None:
            return
        self.stats.tokens_sent_again += 1
        self.emit(Unicast(self.last_sent_to, self.last_sent, again=True))
        self.retransmit_ns = min(2 * self.retransmit_ns, self.parameters.token_retransmit_ns)
        self.timers.set(TOKEN_RETRANSMIT, self.now_ns + self.retransmit_ns)

    # Delivery

    def deliver_operational(self) -> None:
        """Deliver what is in order, safe messages only when everybody has them."""
        store = self.old
        messages = store.messages
        out = self._out
        safe_to = self.safe_to
        last = store.aru
        seq = store.delivered
        while seq < last:
            m = messages[seq + 1]
            if not m.flags & ENCAPSULATED:
                guarantee = m.guarantee
                if guarantee == SAFE and seq >= safe_to:
                    break
                out.append(
                    _tuple(
                        Deliver,
                        (m.ring, seq + 1, m.originator, guarantee, m.payload, False),
                    )
                )
            seq += 1
        store.delivered = seq
