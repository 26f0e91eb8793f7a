"""Messages that were lost: asking for them, sending them again, giving up on who cannot get them.

(Totem paper, section 4.2: retransmission; section 5: failure to receive.)
"""

from __future__ import annotations

from typing import Final

from totemd.protocol.core import OPERATIONAL, Core
from totemd.protocol.effects import Cause, Multicast, Unicast
from totemd.protocol.messages import (
    REQUEST_COUNT_MAX,
    REQUESTED_MAX,
    REQUESTS_MAX,
    Request,
    Token,
)
from totemd.protocol.ordering import Store
from totemd.protocol.parameters import MS, RequestLimit

UNICAST_AFTER: Final = 3  # visits that one node asks for a message before it gets it alone, too
REMEMBERED_MAX: Final = 4 * REQUESTED_MAX
VISITS_MIN: Final = 10  # visits without progress that a failure to receive needs in any case


class Repair(Core):
    """Requests in the token."""

    def answer_requests(self, store: Store, token: Token) -> int:
        """Send again what is asked for and held here; what is not stays asked for.

        Returns:
            How many messages were sent.
        """
        if not token.requests:
            if self.sent_again_at:
                self.sent_again_at.clear()
                self.asked.clear()
            return 0
        p = self.parameters
        interval = max(p.retransmission_interval_ns, 2 * self.rotation_ns)
        open_seqs: list[tuple[int, int]] = []
        again = own = 0
        for request in token.requests:
            for seq in range(request.first, request.first + request.count):
                if seq <= store.released:
                    self.stats.protocol_errors += 1  # everybody has it
                    continue
                message = store.messages.get(seq)
                last = self.sent_again_at.get(seq, -interval)
                if message is None or again >= p.max_messages or self.now_ns - last < interval:
                    open_seqs.append((seq, request.requester))
                    continue
                self.sent_again_at[seq] = self.now_ns
                self.emit(Multicast(message, again=True))
                if self._asked_alone(seq, request.requester):
                    self.emit(Unicast(request.requester, message, again=True))
                again += 1
                own += message.originator == self.me
        if own:
            self.source.frames_lost(own)
        self.stats.messages_sent_again += again
        token.requests = runs(open_seqs)
        self._forget_answers(store)
        return again

    def _asked_alone(self, seq: int, requester: int) -> bool:
        """True: multicast does not get through to this one node."""
        before, times = self.asked.get(seq, (requester, 0))
        times = times + 1 if requester and before == requester else 1
        self.asked[seq] = (requester, times)
        return times >= UNICAST_AFTER and requester in self.ring_members and requester != self.me

    def _forget_answers(self, store: Store) -> None:
        if len(self.sent_again_at) > REMEMBERED_MAX:
            for seq in [s for s in self.sent_again_at if s <= store.released]:
                del self.sent_again_at[seq]
                self.asked.pop(seq, None)

    def request_missing(self, store: Store, token: Token) -> None:
        """Ask for what is missing here."""
        upper = token.seq
        if self.state is OPERATIONAL and self._requests_lag:
            upper = min(self.prev_sent_seq, upper)
        if store.aru >= upper:
            if self.misses:
                self.misses.clear()
            return
        before = len(token.requests)
        token.requests = store.missing(
            upper, token.requests, self.me, self.misses, self.parameters.miss_count
        )
        self.stats.messages_requested += sum(r.count for r in token.requests[before:])

    @property
    def _requests_lag(self) -> bool:
        """What was numbered since the last visit here may be on the way, or not be sent yet."""
        p = self.parameters
        return p.accelerated or p.request_limit is RequestLimit.PREVIOUS

    def failed_to_receive(self, token: Token) -> bool:
        """Fail the member that holds aru down for too long; True: the ring is left.

        A paced token makes few visits: those count for the milliseconds they took, or a member
        that is cut off from data would be kept for minutes.
        """
        if token.aru != self.prev_sent_aru or not token.aru_id:
            self.aru_count = 0
            self.aru_since_ns = self.now_ns
            return False
        self.aru_count += 1
        p = self.parameters
        lasted_ns = self.now_ns - self.aru_since_ns
        if lasted_ns < p.fail_recv_ns or token.aru_id == self.me or self.aru_count < VISITS_MIN:
            return False
        if max(self.aru_count, lasted_ns // MS) <= p.fail_recv_count:
            return False
        self.stats.failed_to_receive += 1
        self.note("failed_to_receive", node=token.aru_id, aru=token.aru, seq=token.seq)
        self.gather(Cause.FAILED_TO_RECEIVE, frozenset((token.aru_id,)))
        return True


def runs(open_seqs: list[tuple[int, int]]) -> tuple[Request, ...]:
    """Return requests for (seq, requester), as many as the token takes."""
    requests: list[Request] = []
    for seq, requester in open_seqs:
        last = requests[-1] if requests else None
        if (
            last is not None
            and last.first + last.count == seq
            and last.requester == requester
            and last.count < REQUEST_COUNT_MAX
        ):
            requests[-1] = last._replace(count=last.count + 1)
        elif len(requests) < REQUESTS_MAX:
            requests.append(Request(seq, 1, requester))
    return tuple(requests)
