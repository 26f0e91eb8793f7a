"""From the filled commit token to the installed ring (Totem paper, section 5; EVS).

Three rules carry the weight: recovered messages enter the old store at once and stay there if the
attempt fails; before the first gap everything is delivered, whoever sent it; what a node promised
in an attempt that failed binds it in the next one.
"""

from __future__ import annotations

from typing import Final

from totemd.protocol.core import SAFE
from totemd.protocol.effects import Cause, Configuration, ConfigurationKind, State, deliver
from totemd.protocol.messages import RETRANSMIT, Commit, Entry, Token
from totemd.protocol.timers import Timer
from totemd.protocol.visits import Visits

GOOD_VISITS: Final = 2  # so that everybody has made its promise before anybody installs


class Recovery(Visits):
    """The RECOVERY state and the installation of a ring."""

    def enter_recovery(self, filled: Commit) -> None:
        """Take up the filled commit token: plan what is exchanged and what is owed."""
        entries = {entry.node: entry for entry in filled.entries}
        trans = tuple(n for n, e in sorted(entries.items()) if e.old_ring == self.installed_ring)
        liars = frozenset(n for n in trans if not self._is_possible(entries[n]))
        if self.me not in trans or liars:
            self._contradicted(entries, liars, denied=self.me not in trans or self.me in liars)
            return
        low = min(entries[n].old_aru for n in trans)
        self.reset_ring()
        self.commit = filled
        self.transitional = trans
        owed = set(trans)
        for n in trans:
            if entries[n].received:
                owed.update(entries[n].obligations)
        self.deliver_set = frozenset(owed)
        self.high_recovered = max(entries[n].high_delivered for n in trans)
        self.recovery_queue = {
            seq: self.old.messages[seq] for seq in sorted(self.old.messages) if seq > low
        }
        # Nothing is released before the install, and each member may send all it has to recover.
        self.new = self._new_store(filled.ring, len(entries))
        self.stats.recoveries += 1
        self.move(State.RECOVERY, Cause.COMMIT_FILLED)
        self.timers.set(Timer.TOKEN_LOSS, self.now_ns + self.token_loss_ns)

    def _is_possible(self, entry: Entry) -> bool:
        """True: a member of this ring may have that much of it, no less than all are known to.

        Nobody numbers further from what he released than a store holds, and he released only
        what this node has: together at most twice that from what this node released.
        """
        released = self.old.released
        most = max(entry.old_aru, entry.high_delivered)
        return released <= entry.old_aru and most <= released + 2 * self.old.limit

    def _contradicted(
        self, entries: dict[int, Entry], liars: frozenset[int], *, denied: bool
    ) -> None:
        """A member claims to have of this ring what it cannot have, or lacks what all have.

        It is another life of a node whose file of ring numbers was lost. It is left out until it
        has had a ring of its own, or no attempt would ever succeed. If what is said of this node
        itself is wrong, a ring of its own is the remedy, too: to gather with the same nodes again
        would end in the same way at once.
        """
        released = self.old.released
        self.stats.protocol_errors += 1
        self.note("protocol_error", what="commit token", nodes=sorted(liars), released=released)
        self.gather(Cause.PROTOCOL_ERROR, frozenset(entries) - {self.me} if denied else liars)

    def recovery_step(self, token: Token) -> bool:
        """Advance the recovery by one token visit; True: install now."""
        assert self.new is not None
        if self.recovery_queue:
            if not token.flags & RETRANSMIT:
                token.flags |= RETRANSMIT
                self.set_retransmit = True
        elif token.flags & RETRANSMIT and self.set_retransmit:
            token.flags &= ~RETRANSMIT
            self.set_retransmit = False
        self.flag_count = 0 if token.flags & RETRANSMIT else self.flag_count + 1
        if self.flag_count == 2:
            self.install_seq = token.seq
        if self.install_seq is None or self.flag_count < 2:
            self.good = 0
            return False
        if self.new.aru >= self.install_seq and not self.promised:
            self.promised = True
            self.received = True
            self.obligations = self.deliver_set
            self.high_delivered_floor = max(self.high_delivered_floor, self.high_recovered)
        settled = self.flag_count >= 3 and token.aru >= self.install_seq
        self.good = self.good + 1 if settled else 0
        return self.good >= GOOD_VISITS

    def install(self) -> None:
        """Deliver what the old ring owes, then the configurations; one atomic step."""
        assert self.new is not None
        old_ring, old_members = self.installed_ring, self.installed_members
        members = self.ring_members
        self._deliver_old_regular()
        left = tuple(n for n in old_members if n not in self.transitional)
        self.emit(
            Configuration(
                ConfigurationKind.TRANSITIONAL, self.ring_id, self.transitional, old_ring, left, ()
            )
        )
        self._deliver_old_transitional()
        self.note_excluded()
        self.source.ring_ended()
        self.installed_ring, self.installed_members = self.ring_id, members
        self.history.append(self.ring_id)
        self.boots_installed = dict(self.boots)
        joined = tuple(n for n in members if n not in self.transitional)
        self.emit(
            Configuration(
                ConfigurationKind.REGULAR,
                self.ring_id,
                members,
                old_ring,
                (),
                joined,
                failed=tuple(n for n in left if n not in self.left_cleanly),
                cause=self.gather_cause,
                took_ns=self.now_ns - self.gather_began_ns,
            )
        )
        self.old = self.new
        self.new = None
        self.proc = set(members)
        self.fail = set()
        self.received = False
        self.obligations = frozenset()
        self.high_delivered_floor = 0
        self.recovery_queue = {}
        self.stats.rings_installed += 1
        self.stats.gathers_in_a_row = 0
        self.move(State.OPERATIONAL, Cause.RECOVERED)
        if self.is_representative:
            self.timers.set(Timer.MERGE, self.now_ns + self.parameters.merge_ns)

    def note_excluded(self) -> None:
        """Overridden by membership."""
        raise NotImplementedError

    def _deliver_old_regular(self) -> None:
        store = self.old
        while (m := store.messages.get(store.delivered + 1)) is not None:
            if m.guarantee == SAFE and m.seq > self.high_recovered and not m.encapsulated:
                break
            store.delivered += 1
            if not m.encapsulated:
                self.emit(deliver(m, transitional=False))

    def _deliver_old_transitional(self) -> None:
        store = self.old
        gap = False
        for seq in range(store.delivered + 1, store.high + 1):
            m = store.messages.get(seq)
            if m is None:
                gap = True
            elif not m.encapsulated and not (gap and m.originator not in self.deliver_set):
                self.emit(deliver(m, transitional=True))
