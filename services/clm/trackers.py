"""Who follows the membership, and which questions they have not answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from openais.wire import clm as wire
from openais.wire.clm import ChangeStep
from services.clm.snapshot import QuestionsState, TrackerState
from services.kit.machine import NodeId, SessionId

ASKED_MAX: Final = 1024  # open questions of one session; of older ones the answer is not known


@dataclass(slots=True)
class Tracker:
    """What one session follows."""

    node_id: NodeId
    flags: int = 0  # TrackFlags; 0: it follows nothing, but is asked before an eviction
    evictions: bool = False
    asked: dict[int, ChangeStep] = field(default_factory=dict)  # by invocation, oldest first

    @property
    def local(self) -> bool:
        """True: it hears of its own node only."""
        return bool(self.flags & wire.TrackFlags.LOCAL)


class Trackers:
    """All sessions that follow the membership. Iterates in the order of their ids."""

    def __init__(self) -> None:
        self._open: dict[SessionId, Tracker] = {}
        self.issued = 0  # the newest invocation, over all sessions

    def __iter__(self) -> Iterator[tuple[SessionId, Tracker]]:
        return iter(sorted(self._open.items()))

    def __len__(self) -> int:
        return sum(1 for tracker in self._open.values() if tracker.flags)

    def follow(self, session: SessionId, node_id: NodeId, flags: int) -> None:
        """Begin to follow, or follow otherwise."""
        self._open.setdefault(session, Tracker(node_id)).flags = flags

    def ask_evictions(self, session: SessionId, node_id: NodeId) -> None:
        """Ask a session before its node is taken out."""
        self._open.setdefault(session, Tracker(node_id)).evictions = True

    def stop(self, session: SessionId) -> bool:
        """End the following; False: it did not follow. Questions of steps are forgotten."""
        tracker = self._open.get(session)
        if tracker is None or not tracker.flags:
            return False
        tracker.flags = 0
        if not tracker.evictions:  # a handle has questions of steps or of evictions, never both
            del self._open[session]
        return True

    def find(self, session: SessionId) -> Tracker | None:
        """Return what a session follows; None: nothing."""
        return self._open.get(session)

    def close(self, session: SessionId) -> None:
        """Forget a session."""
        self._open.pop(session, None)

    def following(self) -> list[tuple[SessionId, Tracker]]:
        """Return those that follow changes."""
        return [(session, tracker) for session, tracker in self if tracker.flags]

    def ask(self, session: SessionId, step: ChangeStep) -> int:
        """Note a question; return its invocation, which is never 0."""
        self.issued += 1
        asked = self._open[session].asked
        asked[self.issued] = step
        while len(asked) > ASKED_MAX:
            del asked[next(iter(asked))]
        return self.issued

    def asked(self, session: SessionId, invocation: int) -> ChangeStep | None:
        """Return the step of an open question of a session; None: there is none."""
        tracker = self._open.get(session)
        return None if tracker is None else tracker.asked.get(invocation)

    def answered(self, session: SessionId, invocation: int) -> None:
        """Note the answer to an open question."""
        del self._open[session].asked[invocation]

    def report(self, sessions: tuple[SessionId, ...]) -> tuple[wire.Tracker, ...]:
        """Return what some sessions follow, for `reopen`."""
        return tuple(
            _packed(session, self._open[session])
            for session in sorted(sessions)
            if session in self._open
        )

    def reopen(self, node_id: NodeId, reported: tuple[wire.Tracker, ...]) -> None:
        """Replace what is known of the sessions of a node by what it reports."""
        for session in [s for s, tracker in self._open.items() if tracker.node_id == node_id]:
            del self._open[session]
        for one in reported:
            asked = {question.invocation: question.step for question in one.asked}
            self._open[SessionId(one.session)] = Tracker(node_id, one.flags, one.evictions, asked)
            self.issued = max(self.issued, *asked, 0)

    def dump(self) -> tuple[tuple[TrackerState, ...], tuple[QuestionsState, ...]]:
        """Return what is followed, and what is asked."""
        follow = tuple(TrackerState(s, t.node_id, t.flags) for s, t in self if t.flags)
        asked = tuple(
            QuestionsState(s, t.node_id, t.evictions, _questions(t))
            for s, t in self
            if t.evictions or t.asked
        )
        return follow, asked

    def load(
        self,
        followed: tuple[TrackerState, ...],
        questions: tuple[QuestionsState, ...],
        issued: int,
    ) -> None:
        """Replace everything by what was dumped."""
        self._open = {}
        for one in followed:
            self.follow(SessionId(one.session), NodeId(one.node_id), one.flags)
        for more in questions:
            session = SessionId(more.session)
            tracker = self._open.setdefault(session, Tracker(NodeId(more.node_id)))
            tracker.evictions = more.evictions
            tracker.asked = {question.invocation: question.step for question in more.asked}
        self.issued = issued

    def check(self) -> None:
        """Assert every invariant."""
        for tracker in self._open.values():
            assert tracker.flags or tracker.evictions, "a session that follows nothing"
            assert not tracker.flags or tracker.flags & wire.TRACKING, "no kind of change followed"
            assert all(0 < n <= self.issued for n in tracker.asked), "a question nobody asked"


def _packed(session: SessionId, tracker: Tracker) -> wire.Tracker:
    return wire.Tracker(session, tracker.flags, tracker.evictions, _questions(tracker))


def _questions(tracker: Tracker) -> tuple[wire.Asked, ...]:
    return tuple(wire.Asked(invocation, step) for invocation, step in tracker.asked.items())
