"""Who is in the ring: gather, consensus, commit (Totem paper, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from totemd.protocol.core import RING_SEQ_STEP, Order
from totemd.protocol.effects import Cause, Persist, Retired, State
from totemd.protocol.messages import (
    Commit,
    Data,
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
FLAP_WINDOW: Final = 10  # times token + consensus


@dataclass(slots=True)
class HoldOff:
    """A node that keeps being excluded is not merged with for a while."""

    count: int = 0
    last_ns: int = 0
    until_ns: int = 0


class Membership(Recovery):
    """The GATHER and COMMIT states."""

    hold_offs: dict[int, HoldOff]
    sender: int  # of the message being handled

    def gather(self, cause: Cause) -> None:
        """Leave the ring, or begin again: propose a membership."""
        self.timers.cancel(*(t for t in Timer if t is not Timer.LEAVE))
        if self.state in (State.COMMIT, State.RECOVERY) and self.commit is not None:
            self.proc = {entry.node for entry in self.commit.entries}
            self.fail &= self.left_cleanly
        if self.state is not State.GATHER or cause is Cause.BOOT:
            self.heard = {self.me}
            self.since = {}
            self.stats.gathers += 1
            self.stats.gathers_in_a_row += 1
        self.new = None
        self.commit = None
        self.last_sent = None
        self.held = None
        self.recovery_queue = {}
        self.proc.add(self.me)
        self.fail.discard(self.me)
        if self.state is not State.GATHER or cause is Cause.BOOT:
            self.move(State.GATHER, cause)
        self.consensus = {self.me}
        for node in self.proc:
            self.since.setdefault(node, self.now_ns)
        self._send_join()
        self.timers.set(Timer.JOIN, self.now_ns + self.parameters.join_ns)
        self.timers.set(Timer.CONSENSUS, self.now_ns + self.parameters.consensus_ns)
        if self.proc - self.fail == {self.me}:
            self._check_consensus()

    def _send_join(self) -> None:
        proc, fail = tuple(sorted(self.proc)), tuple(sorted(self.fail))
        self.multicast(Join(self.ring_id, self.boot_epoch, self.max_seq, proc, fail))

    # Joins

    def on_join_operational(self, j: Join) -> None:
        """A join while the ring works: somebody new, or somebody who lost it."""
        q = self.sender
        stale = (
            q in self.installed_members
            and j.ring.seq < self.installed_ring.seq
            and j.boot_epoch == self.boots_installed.get(q)
        )
        if self.me in j.fail or stale:
            self.stats.joins_stale += 1
            return
        self._process(j)
        if self.state is State.OPERATIONAL:
            self.gather(Cause.JOIN)

    def on_join_gather(self, j: Join) -> None:
        """A join while gathering."""
        self.heard.add(self.sender)
        self._process(j)

    def on_join_commit(self, j: Join) -> None:
        """A join from a member of the commit that has moved on."""
        assert self.commit is not None
        entry = next((e for e in self.commit.entries if e.node == self.sender), None)
        if entry is None:
            return
        moved_on = j.ring.seq >= self.ring_id.seq
        sets = (frozenset(j.proc), frozenset(j.fail))
        if moved_on or (entry.old_ring is None and sets != self.agreed_sets):
            self.gather(Cause.JOIN)
            self.heard.add(self.sender)
            self._process(j)

    def on_join_recovery(self, j: Join) -> None:
        """A join from a member of the forming ring that has moved on."""
        assert self.commit is not None
        members = {entry.node for entry in self.commit.entries}
        if self.sender in members and j.ring.seq >= self.ring_id.seq:
            self.gather(Cause.JOIN)
            self.heard.add(self.sender)
            self._process(j)

    def accept_order(self, sender: int, order: Order, message: Join | Leave) -> bool:
        """Drop joins that were overtaken by newer ones of the same sender."""
        self.stats.joins_received += 1
        if order <= self.last_join.get(sender, (-1, -1)):
            self.stats.joins_stale += 1
            return False
        self.last_join[sender] = order
        if self.boots.get(sender, message.boot_epoch) < message.boot_epoch:
            self.hold_offs.pop(sender, None)
        self.boots[sender] = message.boot_epoch
        self.max_seq = max(self.max_seq, message.max_seq)
        if isinstance(message, Join):
            self.left_cleanly.discard(sender)
        return True

    def _process(self, j: Join) -> None:
        q = self.sender
        proc, fail = set(j.proc), set(j.fail)
        if proc == self.proc and fail == self.fail:
            self.consensus.add(q)
            self._check_consensus()
            return
        if q in self.fail or (proc <= self.proc and fail <= self.fail):
            return
        self.proc |= proc
        if self.me in fail:
            self.fail.add(q)
        else:
            self.fail |= fail
        self.gather(Cause.JOIN)
        if proc == self.proc and fail == self.fail and self.state is State.GATHER:
            self.consensus.add(q)

    def on_leave(self, message: Leave) -> None:
        """A member goes on purpose: the others reconfigure at once."""
        q = self.sender
        current = self.proc if self.state in (State.OPERATIONAL, State.GATHER) else set()
        if self.commit is not None and self.state in (State.COMMIT, State.RECOVERY):
            current = {entry.node for entry in self.commit.entries}
        if q not in current or q in self.fail:
            return
        self.left_cleanly.add(q)
        self.proc = set(current) | {q}
        self.fail.add(q)
        self.gather(Cause.LEAVE)

    # Consensus

    def _check_consensus(self) -> None:
        live = self.proc - self.fail
        if self.state is not State.GATHER or not live <= self.consensus:
            return
        p = self.parameters
        if min(live) != self.me:
            if not self.timers.armed(Timer.TOKEN_LOSS):
                self.timers.cancel(Timer.CONSENSUS)
                wait = p.token_loss_ns(len(live))
                self.timers.set(Timer.TOKEN_LOSS, self.now_ns + wait)
        elif len(live) > 1 or self.now_ns - self.booted_ns >= p.startup_wait_ns:
            seq = max(self.max_seq, self.ring_id.seq) + RING_SEQ_STEP
            entries = tuple(Entry(node) for node in sorted(live))
            self._enter_commit(Commit(RingId(seq, self.me), 0, 0, entries))

    def on_join_due(self) -> None:
        """Repeat the join; fail who said nothing at all for too long."""
        p = self.parameters
        quiet = {
            q
            for q in self.proc - self.fail - self.heard
            if p.silent_fail_ns and self.now_ns - self.since[q] >= p.silent_fail_ns
        }
        if quiet:
            self.stats.members_silent += len(quiet)
            self.fail |= quiet
            self.gather(Cause.SILENT)
            return
        self._send_join()
        self.timers.set(Timer.JOIN, self.now_ns + p.join_ns)
        self._check_consensus()

    def on_consensus_due(self) -> None:
        """Fail who has not agreed in time."""
        missing = self.proc - self.fail - self.consensus
        if missing:
            self.fail |= missing
            self.gather(Cause.CONSENSUS_TIMEOUT)

    def on_commit_missing(self) -> None:
        """Everybody agreed, but the representative sent no commit token."""
        self.fail |= self.proc - self.fail - self.consensus
        self.heard = {self.me}
        self.since = {}
        self.gather(Cause.COMMIT_TIMEOUT)

    def on_token_loss(self) -> None:
        """The token, or the commit token, is lost."""
        self.stats.tokens_lost += 1
        self.gather(Cause.TOKEN_LOST)

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
        self.commit = filled
        self.stats.commits += 1
        self.timers.cancel(Timer.JOIN, Timer.CONSENSUS)
        self.move(State.COMMIT, Cause.CONSENSUS)
        self._pass_commit(filled)

    def _pass_commit(self, ct: Commit) -> None:
        to = self.successor(tuple(entry.node for entry in ct.entries))
        self.remember_sent(to, ct)
        self.timers.set(Timer.TOKEN_LOSS, self.now_ns + self.token_loss_ns())
        self.unicast(to, ct)

    def on_commit_gather(self, ct: Commit) -> None:
        """The first pass: fill in what this node has."""
        nodes = [entry.node for entry in ct.entries]
        agreed = set(nodes) == self.proc - self.fail and ct.ring > self.ring_id
        if agreed and ct.index < len(nodes) and nodes[ct.index] == self.me:
            self._enter_commit(ct)

    def on_commit_commit(self, ct: Commit) -> None:
        """The second pass: everybody has filled in."""
        if ct.ring != self.ring_id or ct.index != len(ct.entries):
            return
        self.enter_recovery(ct)
        if self.state is not State.RECOVERY:
            return
        passed = replace(ct, token_seq=ct.token_seq + 1)
        self.pass_two_seq = passed.token_seq
        self._pass_commit(passed)

    def on_commit_recovery(self, ct: Commit) -> None:
        """The commit token is back at the representative: start the ring, once."""
        due = self.pass_two_seq + len(ct.entries) - 1
        mine = ct.ring == self.ring_id and self.me == ct.ring.representative
        if not mine or self.started or ct.token_seq < due:
            return
        self.started = True
        base = self.parameters.seq_base
        self.on_token(Token(self.ring_id, 0, base, base, 0, 0, 0, 0, ()))

    # Other rings

    def foreign(self, ring: object) -> None:
        """Traffic of another ring: gather with its sender, unless it is late or damped."""
        assert isinstance(ring, RingId)
        q = self.sender
        late = q in self.installed_members and ring.seq < self.installed_ring.seq
        if ring in self.history or late:
            self.stats.foreign_stale += 1
        elif self._damped(q):
            self.stats.members_damped += 1
        elif self.state is State.OPERATIONAL or q not in self.proc:
            self.proc.add(q)
            self.gather(Cause.FOREIGN_MESSAGE)

    def on_merge_detect(self, m: MergeDetect) -> None:
        """Another ring tells of itself."""
        if m.ring != self.ring_id:
            self.foreign(m.ring)

    def on_merge_due(self) -> None:
        """Tell of this ring; under traffic its messages do, so more rarely."""
        if self.me != self.ring_id.representative:
            return
        busy = self.idle == 0
        self.multicast(MergeDetect(self.ring_id, self.installed_members))
        wait = self.parameters.merge_ns * (10 if busy else 1)
        self.timers.set(Timer.MERGE, self.now_ns + wait)

    def _damped(self, node: int) -> bool:
        hold_off = self.hold_offs.get(node)
        return hold_off is not None and self.now_ns < hold_off.until_ns

    def note_excluded(self) -> None:
        """Remember who was failed for this ring: who keeps coming and going is damped."""
        p = self.parameters
        unit = p.token_ns + p.consensus_ns
        for node in sorted(self.fail - self.left_cleanly):
            h = self.hold_offs.setdefault(node, HoldOff())
            recent = h.last_ns and self.now_ns - max(h.last_ns, h.until_ns) <= FLAP_WINDOW * unit
            h.count = h.count + 1 if recent else 1
            h.last_ns = self.now_ns
            h.until_ns = 0
            if h.count >= 2:
                wait = min(p.flap_max_ns, unit << min(h.count - 2, 16))
                h.until_ns = self.now_ns + wait

    # Going

    def on_leave_due(self) -> None:
        """One step of an announced leave: drain, send copies, linger, retire."""
        assert self.leave_copies is not None
        if self.leave_copies < 0:
            self.timers.cancel(*Timer)
            self.emit(Retired())
            return
        waiting = self.source.backlog_frames() or self.old.delivered < self.old.high
        if self.leave_copies == LEAVE_COPIES and waiting and self.now_ns < self.leave_deadline_ns:
            self.timers.set(Timer.LEAVE, self.now_ns + LEAVE_INTERVAL_NS)
            return
        if self.leave_copies == 0:
            self.leave_copies = -1
            self.timers.set(Timer.LEAVE, self.now_ns + LEAVE_LINGER_NS)
            return
        self.timers.cancel(*Timer)
        proc, fail = tuple(sorted(self.proc | {self.me})), tuple(sorted(self.fail))
        self.multicast(Leave(self.ring_id, self.boot_epoch, self.max_seq, proc, fail))
        self.leave_copies -= 1
        self.timers.set(Timer.LEAVE, self.now_ns + LEAVE_INTERVAL_NS)

    def ignore(self, _message: object = None) -> None:
        """An event that means nothing in this state."""

    def on_data_commit(self, _message: Data) -> None:
        """Old traffic may not enter the store between commit and recovery."""
