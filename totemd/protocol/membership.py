"""Who is in the ring: gather, consensus, commit (Totem paper, section 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from totemd.protocol.core import (
    COMMIT,
    GATHER,
    OPERATIONAL,
    RECOVERY,
    RING_SEQ_STEP,
)
from totemd.protocol.effects import Cause, Persist, Retired
from totemd.protocol.messages import (
    NODES_MAX,
    OFFSET_MAX,
    Commit,
    Entry,
    Join,
    Leave,
    MergeDetect,
    RingId,
    Token,
)
from totemd.protocol.recovery import Recovery
from totemd.protocol.timers import Timer

LEAVE_COPIES: Final = 3
LEAVE_INTERVAL_NS: Final = 5_000_000
LEAVE_LINGER_NS: Final = 20_000_000  # after the last copy, before the process may exit
LEAVE_DRAIN_NS: Final = 500_000_000
MERGE_BUSY: Final = 10  # times the merge interval while the ring's messages tell of it
TIMED_OUT_NOTED: Final = 3  # gathers that end by a timeout before the network is suspected

# What rests on time: none of it may count the time that this process was not scheduled.
VERDICTS: Final = (Timer.TOKEN_LOSS, Timer.HEARTBEAT, Timer.CONSENSUS)
STARVED_NS: Final = 10_000_000  # a timer that is served so late shows that this machine is busy
GRACE: Final = 4  # times as long as it was late a verdict is put off, once


class Membership(Recovery):
    """The GATHER and COMMIT states."""

    def gather(self, cause: Cause, failing: frozenset[int] = frozenset()) -> None:
        """Leave the ring, or begin again: propose a membership.

        Args:
            cause: for the log.
            failing: who is not to be in it.
        """
        self.timers.cancel_all(keep=(Timer.LEAVE, Timer.SEND_JOIN))
        self.send_after_token()  # numbered, so everybody would wait for it
        if self.state in (COMMIT, RECOVERY):
            self.proc = set(self.ring_members)
            self.fail &= self.left_cleanly
        begins = self.state is not GATHER or cause is Cause.BOOT
        if self.state is OPERATIONAL or cause is Cause.BOOT:
            self.gather_cause = cause
            self.gather_began_ns = self.now_ns
        if begins:
            self.hear_anew()
            self.stats.gathers += 1
            self.stats.gathers_in_a_row += 1
        self.new = None
        self.commit = None
        self.last_sent = None
        self.held = None
        self.grace_given = False
        self.token_first = False
        self.recovery_queue = {}
        self.fail |= failing
        self.proc |= failing | {self.me}
        self.fail.discard(self.me)
        if begins:
            self.move(GATHER, cause)
        self.consensus = {self.me}
        for node in self.proc:
            self.since.setdefault(node, self.now_ns)
        self._propose()
        self.timers.set(Timer.JOIN, self.now_ns + self.parameters.join_ns)
        self.timers.set(Timer.CONSENSUS, self.now_ns + self.parameters.consensus_ns)
        if self.proc - self.fail == {self.me}:
            self._check_consensus()

    def hear_anew(self) -> None:
        """Forget who spoke since the gathering began."""
        self.heard = {self.me}
        self.since = {}
        self.reaching.clear()

    def _propose(self) -> None:
        """Send a join, at once or so that a delay makes one of several."""
        delay_ns = self.parameters.send_join_max_ns(len(self.proc))
        if not delay_ns:
            self.on_send_join_due()
        elif not self.timers.armed(Timer.SEND_JOIN):
            self.timers.set(Timer.SEND_JOIN, self.now_ns + self.jitter.below(delay_ns + 1))

    def on_send_join_due(self) -> None:
        """Tell what this node proposes now."""
        self.stats.joins_sent += 1
        proc, fail = tuple(sorted(self.proc)), tuple(sorted(self.fail))
        self.multicast(
            Join(self.ring_id, self.boot_epoch, self.max_seq, proc, fail, self.agreed_on)
        )

    # Joins

    def on_join_operational(self, j: Join) -> None:
        """A join while the ring works: somebody new, or somebody who lost it."""
        if not self._in_order(j):
            return
        q = self.sender
        stale = (
            q in self.installed_members
            and j.ring.seq < self.installed_ring.seq
            and j.boot_epoch == self.boots_installed.get(q)
        )
        if self.me in j.fail or stale:
            self.stats.joins_stale += 1
            return
        if not self._admits(j):
            return
        self._process(j)
        if self.state is OPERATIONAL:
            self.gather(Cause.JOIN)
            self._count_consensus(j)
        self.heard.add(q)

    def on_join_gather(self, j: Join) -> None:
        """A join while gathering."""
        if self._in_order(j) and self._admits(j):
            self.heard.add(self.sender)
            self._process(j)

    def on_join_commit(self, j: Join) -> None:
        """A join from a member of the commit that has moved on."""
        if not self._in_order(j):
            return
        assert self.commit is not None
        entry = next((e for e in self.commit.entries if e.node == self.sender), None)
        if entry is None:
            return
        moved_on = j.ring.seq >= self.ring_id.seq
        sets = (frozenset(j.proc), frozenset(j.fail))
        if moved_on or (entry.old_ring is None and sets != self.agreed_sets):
            self._follow(j)

    def on_join_recovery(self, j: Join) -> None:
        """A join from a member of the forming ring that has moved on."""
        moved_on = self._in_order(j) and j.ring.seq >= self.ring_id.seq
        if moved_on and self.sender in self.ring_members:
            self._follow(j)

    def _follow(self, j: Join) -> None:
        if self._admits(j):
            self.gather(Cause.JOIN)
            self.heard.add(self.sender)
            self._process(j)

    def _in_order(self, message: Join | Leave) -> bool:
        """Learn about the sender; False: a newer join of it overtook this one."""
        sender = self.sender
        self.stats.joins_received += 1
        if self.now_ns < self.deaf_until_ns:
            self.stats.joins_stale += 1
            return False
        last = self.last_join.get(sender)
        if self.order <= last if last is not None else len(self.last_join) >= NODES_MAX:
            self.stats.joins_stale += 1
            return False
        self.last_join[sender] = self.order
        if self.boots.get(sender, message.boot_epoch) < message.boot_epoch:
            self.hold_offs.clear(sender)
        self.boots[sender] = message.boot_epoch
        self.max_seq = max(self.max_seq, message.max_seq)
        if message.agreed_on not in (0, self.agreed_on):
            self.note_peer(
                "parameters_differ", sender, mine=self.agreed_on, theirs=message.agreed_on
            )
        if isinstance(message, Join):
            self.left_cleanly.discard(sender)
        if self.me in message.proc:
            self.hears_me.add(sender)
        else:
            self.hears_me.discard(sender)
        return True

    def _admits(self, j: Join) -> bool:
        """True: the ring that this join proposes is not too large."""
        return self._room_for(self.proc.union(j.proc, j.fail))

    def _room_for(self, nodes: set[int]) -> bool:
        if len(nodes) <= self.parameters.max_nodes:
            return True
        self.note_peer(
            "too_many_nodes", self.sender, nodes=len(nodes), limit=self.parameters.max_nodes
        )
        return False

    def _process(self, j: Join) -> None:
        q = self.sender
        if self._count_consensus(j) or q in self.fail:
            return
        proc, fail = frozenset(j.proc), frozenset(j.fail)
        if proc <= self.proc and fail <= self.fail:
            return  # q will catch up with the join of this node
        self.proc |= proc
        if self.me in fail:
            fail = frozenset((q,))
            self.accused_until_ns = self.now_ns + self.parameters.join_ns
        self.gather(Cause.JOIN, fail)
        self._count_consensus(j)

    def _count_consensus(self, j: Join) -> bool:
        """Note that the sender agrees, if it does; True: it proposes what this node does."""
        if self.proc != set(j.proc) or self.fail != set(j.fail):
            return False
        if self.state is GATHER:
            self.consensus.add(self.sender)
            self._check_consensus()
        return True

    def on_leave(self, message: Leave) -> None:
        """A member goes on purpose: the others reconfigure at once."""
        if not self._in_order(message):
            return
        q = self.sender
        current = self.proc if self.state in (OPERATIONAL, GATHER) else set(self.ring_members)
        if q not in current or q in self.fail:
            return
        self.left_cleanly.add(q)
        self.gather(Cause.LEAVE, frozenset((q,)))

    # Consensus

    def _check_consensus(self) -> None:
        live = self.proc - self.fail
        if self.state is not GATHER or not live <= self.consensus:
            return
        p = self.parameters
        if self.now_ns < self.accused_until_ns:
            return  # the next join comes then
        if min(live) != self.me:
            if not self.timers.armed(Timer.TOKEN_LOSS):
                self.timers.cancel(Timer.CONSENSUS)
                wait_ns = p.token_loss_ns(len(live))
                self.timers.set(Timer.TOKEN_LOSS, self.now_ns + wait_ns)
        elif len(live) > 1 or self.now_ns - self.booted_ns >= p.startup_wait_ns:
            seq = max(self.max_seq, self.ring_id.seq) + RING_SEQ_STEP
            entries = tuple(Entry(node) for node in sorted(live))
            self._enter_commit(Commit(RingId(seq, self.me), 0, 0, entries))

    def on_join_due(self) -> None:
        """Repeat the join; fail who said nothing at all for too long."""
        p = self.parameters
        quiet = frozenset(
            q
            for q in self.proc - self.fail - self.heard
            if p.silent_fail_ns and self.now_ns - self.since[q] >= p.silent_fail_ns
        )
        if quiet:
            self.stats.members_silent += len(quiet)
            self._timed_out()
            self.gather_again(Cause.SILENT, quiet)
            return
        self.on_send_join_due()
        self.timers.set(Timer.JOIN, self.now_ns + p.join_ns)
        self._check_consensus()

    def on_consensus_due(self) -> None:
        """Fail who has not agreed in time."""
        missing = frozenset(self.proc - self.fail - self.consensus)
        if missing:
            self.stats.consensus_timeouts += 1
            self._timed_out()
            self.gather_again(Cause.CONSENSUS_TIMEOUT, missing)

    def on_commit_missing(self) -> None:
        """Everybody agreed, but the representative sent no commit token: it may be dead."""
        missing = frozenset(self.proc - self.fail - self.consensus)
        self._timed_out()
        self.hear_anew()
        self.gather_again(Cause.COMMIT_TIMEOUT, missing)

    def on_token_loss(self) -> None:
        """The token, or the commit token, is lost."""
        self.stats.tokens_lost += 1
        if self.state is not OPERATIONAL:
            self._timed_out()
        self.gather(Cause.TOKEN_LOST)

    def on_heartbeat_due(self) -> None:
        """The token of a busy ring stays away: it is lost, whatever its timeout says."""
        self.stats.tokens_lost += 1
        self.gather(Cause.HEARTBEAT_LOST)

    def gather_again(self, cause: Cause, failing: frozenset[int] = frozenset()) -> None:
        """Propose anew while gathering; the state stays, the cause is told."""
        self.move(GATHER, cause)
        self.gather(cause, failing)

    def _timed_out(self) -> None:
        """Suspect the network when one gather after another ends by a timeout."""
        recent_ns = self.now_ns - self.timed_out_ns
        self.timed_out_ns = self.now_ns
        if recent_ns > self.hold_offs.window_ns:
            self.timed_out_in_a_row = 0
        self.timed_out_in_a_row += 1
        self.stats.gathers_timed_out += 1
        if self.timed_out_in_a_row % TIMED_OUT_NOTED == 0:
            others = sorted(self.proc - {self.me})
            peers = (f"{q}:{self._reach(q)}" for q in others)
            self.note("continuous_gather", times=self.timed_out_in_a_row, peers=",".join(peers))

    def _reach(self, q: int) -> str:
        if q not in self.heard | self.reaching:
            return "silent"
        return "hears_me" if q in self.hears_me else "deaf"

    # Commit token

    def _enter_commit(self, ct: Commit) -> None:
        mine = Entry(
            self.me,
            self.installed_ring,
            self.old.aru,
            max(self.old.delivered, self.high_delivered_floor),
            self.received,
            tuple(sorted(self.obligations)) if self.received else (),
        )
        entries = tuple(mine if e.node == self.me else e for e in ct.entries)
        filled = replace(ct, token_seq=ct.token_seq + 1, index=ct.index + 1, entries=entries)
        self.agreed_sets = (frozenset(self.proc), frozenset(self.fail))
        self.ring_id = ct.ring
        self.max_seq = max(self.max_seq, ct.ring.seq)
        self.emit(Persist(ct.ring.seq))
        self.reset_ring()
        self.adopt_members(tuple(entry.node for entry in entries))
        self.commit = filled
        self.stats.commits += 1
        self.timers.cancel(Timer.JOIN, Timer.SEND_JOIN, Timer.CONSENSUS)
        self.move(COMMIT, Cause.CONSENSUS)
        self._pass_commit(filled)

    def _pass_commit(self, ct: Commit) -> None:
        self.timers.set(Timer.TOKEN_LOSS, self.now_ns + self.token_loss_ns)
        self.send_on(ct)

    def on_commit_gather(self, ct: Commit) -> None:
        """The first pass: fill in what this node has."""
        nodes = [entry.node for entry in ct.entries]
        agreed = set(nodes) == self.proc - self.fail and ct.ring.seq > self.ring_id.seq
        if self.now_ns < self.deaf_until_ns:
            return
        if not agreed or ct.index == len(nodes) or nodes[ct.index] != self.me:
            return
        liars = self._far_from(ct)
        if liars:
            self.stats.protocol_errors += 1
            self.note("protocol_error", what="commit token", nodes=sorted(liars))
            self.gather_again(Cause.PROTOCOL_ERROR, liars)
        else:
            self._enter_commit(ct)

    def _far_from(self, ct: Commit) -> frozenset[int]:
        """Return who claims a position in the ring of this node that a commit token cannot tell.

        No ring is so long that its members are so far apart: the file of ring numbers of one is
        lost, or it is broken.
        """
        mine = self.old.aru
        return frozenset(
            e.node
            for e in ct.entries
            if e.old_ring == self.installed_ring
            and max(abs(e.old_aru - mine), abs(e.high_delivered - mine)) > OFFSET_MAX
        )

    def on_commit_commit(self, ct: Commit) -> None:
        """The second pass: everybody has filled in."""
        if self.sender != self.predecessor:
            self.stats.tokens_astray += 1
            return
        if ct.ring != self.ring_id or ct.index != len(ct.entries):
            return
        self.enter_recovery(ct)
        if self.state is not RECOVERY:
            return
        passed = replace(ct, token_seq=ct.token_seq + 1)
        self.pass_two_seq = passed.token_seq
        self._pass_commit(passed)

    def on_commit_recovery(self, ct: Commit) -> None:
        """The commit token is back at the representative: start the ring, once."""
        due = self.pass_two_seq + len(ct.entries) - 1
        mine = ct.ring == self.ring_id and self.is_representative
        if self.sender != self.predecessor:
            self.stats.tokens_astray += 1
            return
        if not mine or self.started or ct.token_seq < due:
            return
        self.started = True
        base = self.parameters.seq_base
        self.visit(Token(self.ring_id, 0, base, base, 0, 0, 0, 0, ()))

    # Other rings

    def foreign(self, ring: RingId, cause: Cause) -> None:
        """Traffic of another ring: gather with its sender, unless it is late or damped."""
        if self.now_ns < self.deaf_until_ns:
            return
        q = self.sender
        late = q in self.installed_members and ring.seq < self.installed_ring.seq
        if ring in self.history or late:
            self.stats.foreign_stale += 1
        elif self.hold_offs.damped(q, self.now_ns):
            self.stats.members_damped += 1
        elif (self.state is OPERATIONAL or q not in self.proc) and self._room_for(self.proc | {q}):
            self.proc.add(q)
            self.gather(cause)
            self.reaching.add(q)

    def on_merge_detect(self, m: MergeDetect) -> None:
        """Another ring tells of itself."""
        self.stats.merges_received += 1
        if m.ring != self.ring_id:
            self.foreign(m.ring, Cause.MERGE_DETECTED)

    def on_merge_due(self) -> None:
        """Tell of this ring; under traffic its messages do, so more rarely."""
        if not self.is_representative:
            return
        self.stats.merges_sent += 1
        self.multicast(MergeDetect(self.ring_id, self.installed_members))
        wait_ns = self.parameters.merge_ns * (1 if self.idle else MERGE_BUSY)
        self.timers.set(Timer.MERGE, self.now_ns + wait_ns)

    def note_excluded(self) -> None:
        """Remember who was failed for this ring; a clean leave is no failure."""
        if self.timed_out_ns < self.gather_began_ns:
            self.timed_out_in_a_row = 0
        self.hold_offs.exclude(self.fail - self.left_cleanly, self.now_ns)

    # Going

    @property
    def gone(self) -> bool:
        """True: the others were told that this node leaves; it says nothing else any more."""
        return self.leave_copies is not None and self.leave_copies < LEAVE_COPIES

    def on_leave_due(self) -> None:
        """One step of an announced leave: drain, send copies, linger, retire."""
        assert self.leave_copies is not None
        if self.leave_copies < 0:
            self.timers.cancel_all()
            self.emit(Retired())
            return
        if not self.gone and self._drains():
            self.timers.set(Timer.LEAVE, self.now_ns + LEAVE_INTERVAL_NS)
            return
        self.timers.cancel_all()
        if self.leave_copies == 0:
            self.leave_copies = -1
            self.timers.set(Timer.LEAVE, self.now_ns + LEAVE_LINGER_NS)
            return
        proc, fail = tuple(sorted(self.proc | {self.me})), tuple(sorted(self.fail))
        self.multicast(
            Leave(self.ring_id, self.boot_epoch, self.max_seq, proc, fail, self.agreed_on)
        )
        self.leave_copies -= 1
        self.timers.set(Timer.LEAVE, self.now_ns + LEAVE_INTERVAL_NS)

    def _drains(self) -> bool:
        """True: what was accepted is still being sent and delivered, and there is time left."""
        frames = self.source.backlog_frames()
        undelivered = self.old.high - self.old.delivered
        if not frames and not undelivered:
            return False
        if self.now_ns < self.leave_deadline_ns:
            return True
        self.note("leave_incomplete", frames_unsent=frames, messages_undelivered=undelivered)
        return False

    # Time that did not count

    def not_scheduled(self, gap_ns: int) -> None:
        """Take a time out of every wait that ends in a verdict: this node could not hear."""
        self.timers.postpone(gap_ns, *VERDICTS)
        self.since = {q: min(at + gap_ns, self.now_ns) for q, at in self.since.items()}
        self.aru_since_ns = min(self.aru_since_ns + gap_ns, self.now_ns)
        if self.last_visit_ns:
            self.last_visit_ns = min(self.last_visit_ns + gap_ns, self.now_ns)

    def waits_longer(self, timer: Timer, late_ns: int) -> bool:
        """Put a verdict off once, when this node is so late itself that others may be, too.

        Nodes of one busy machine are late together: a token that takes too long is no loss yet.
        """
        if timer is Timer.JOIN:
            self.since = {q: min(at + late_ns, self.now_ns) for q, at in self.since.items()}
        if timer not in VERDICTS or self.grace_given:
            return False
        self.grace_given = True
        self.stats.verdicts_put_off += 1
        self.timers.set(timer, self.now_ns + min(GRACE * late_ns, self.token_loss_ns // 2))
        return True

    def ignore(self, _message: object = None) -> None:
        """An event that means nothing in this state."""
