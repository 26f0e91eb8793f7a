"""A group of replicas of the membership service without a network: what the kit does, in order."""

from __future__ import annotations

from openais.wire import clm as wire
from openais.wire.port import Reason, RingId
from openais.wire.status import ONE_SECOND_NS, Status
from services.clm.state import Membership, Ordered, OwnNode, Read
from services.kit.machine import (
    REST,
    Answer,
    Caller,
    Context,
    Effect,
    NodeId,
    Notify,
    Report,
    SessionId,
    View,
)


def own(
    node_id: int,
    *,
    name: str | None = None,
    incarnation: int | None = None,
    configured: bool = True,
) -> OwnNode:
    """Return the data of a node; everything follows from its id."""
    text = name or f"n{node_id}"
    return OwnNode(
        node_id=NodeId(node_id),
        name=text,
        distinguished_name=f"safNode={text},safCluster=test",
        family=wire.AddressFamily.INET,
        address=f"10.0.0.{node_id}",
        boot_timestamp_ns=1_000_000 + node_id,
        incarnation=node_id * 1000 if incarnation is None else incarnation,
        configured=configured,
    )


class Group:
    """The replicas of one partition; every operation is applied by all, and all must agree."""

    def __init__(self, ring: int = 4) -> None:
        self.ring = ring
        self.replicas: dict[NodeId, Membership] = {}
        self.sessions: dict[SessionId, NodeId] = {}
        self.told: dict[SessionId, list[wire.Membership]] = {}
        self.heard: dict[SessionId, list[wire.Membership | wire.Step | wire.Eviction]] = {}
        self.answers: dict[tuple[SessionId, int], tuple[Status, object]] = {}
        self.quorate = True
        self.now_ns = 1
        self.view = View(RingId(ring, 0), (), (), ())
        self._number = 0

    def join(self, *nodes: OwnNode, same_ring: bool = False) -> None:
        """Let nodes join with an empty memory, in one view."""
        for node in nodes:
            machine = Membership(node)
            if self.replicas:
                machine.load({REST: self.any().dump(REST)[0]})
            self.replicas[node.node_id] = machine
        reports = {n.node_id: Report(n.node_id, Membership(n).report(())) for n in nodes}
        self._change(tuple(n.node_id for n in nodes), (), reports, same_ring=same_ring)

    def leave(self, *node_ids: int) -> None:
        """Let nodes die, in one view."""
        gone = tuple(NodeId(n) for n in node_ids)
        for node_id in gone:
            del self.replicas[node_id]
        self._change((), gone, {})

    def apart(self, node_id: int, *, incarnation: int | None = None) -> None:
        """Let a node return that was apart meanwhile: one view in which it left and joined."""
        node = NodeId(node_id)
        replica = self.replicas[node]
        report = replica.report(self._sessions_of(node))
        if incarnation is not None:
            report = Membership(own(node_id, incarnation=incarnation)).report(())
        replica.load({REST: self.any(other_than=node).dump(REST)[0]})
        self._change((node,), (node,), {node: Report(node, report)})

    def merge(self, other: Group) -> None:
        """Take in another partition; this side's state wins."""
        reports = {
            n: Report(n, replica.report(other._sessions_of(n)))
            for n, replica in other.replicas.items()
        }
        for node_id, replica in other.replicas.items():
            replica.load({REST: self.any().dump(REST)[0]})
            self.replicas[node_id] = replica
        self.sessions |= other.sessions
        self.told |= other.told
        self.heard |= other.heard
        self.ring = max(self.ring, other.ring)
        self._change(tuple(other.replicas), (), reports)

    def split(self, *node_ids: int) -> Group:
        """Cut nodes off; return their partition, which has seen the others leave."""
        away = Group(self.ring)
        gone = tuple(NodeId(n) for n in node_ids)
        for node_id in gone:
            away.replicas[node_id] = self.replicas.pop(node_id)
        away.view, away._number = self.view, self._number
        away.sessions = dict(self.sessions)
        away.told = {s: list(self.told[s]) for s, n in self.sessions.items() if n in gone}
        away.heard = {s: list(self.heard.get(s, ())) for s in away.told}
        rest = tuple(self.replicas)
        self._change((), gone, {})
        away._change((), rest, {})
        return away

    def call(self, session: SessionId, operation: Ordered) -> tuple[Status, object]:
        """Order one operation of a session; return its answer."""
        number = self.begin(session, operation)
        return self.answers.pop((session, number))

    def begin(self, session: SessionId, operation: Ordered) -> int:
        """Order one operation of a session that may be answered later; return its number."""
        context = self._context(session)
        self._perform([replica.apply(operation, context) for replica in self._all()])
        return self._number

    def expire(self, seconds: int) -> None:
        """Let time pass; what is due is ordered, as the oldest member proposes it."""
        self.now_ns += seconds * ONE_SECOND_NS
        for operation in self.any().expired(self.now_ns):
            context = Context(self.now_ns, self.view.members[0], None, self.view)
            self._perform([replica.apply(operation, context) for replica in self._all()])

    def read(self, session: SessionId, operation: Read) -> tuple[Status, object]:
        """Read at the node of a session."""
        answer = self.replicas[self.sessions[session]].read(operation, self._context(session))
        return answer.status, answer.result

    def session(self, node_id: int) -> SessionId:
        """Open a session at a node."""
        session = SessionId(f"session {len(self.sessions):08}".encode())
        self.sessions[session] = NodeId(node_id)
        self.told[session] = []
        return session

    def tracking(self, node_id: int, flags: wire.TrackFlags = wire.TrackFlags.CHANGES) -> SessionId:
        """Open a session at a node and let it follow changes."""
        session = self.session(node_id)
        status, _ = self.call(session, wire.Track(flags, wire.Level.B_04))
        assert status is Status.OK
        return session

    def close(self, session: SessionId) -> None:
        """Close a session."""
        context = self._context(session)
        self._perform([replica.session_closed(session, context) for replica in self._all()])

    def any(self, other_than: int = 0) -> Membership:
        """Return one of the replicas."""
        return next(r for n, r in sorted(self.replicas.items()) if n != other_than)

    def views(self, session: SessionId) -> list[tuple[int, ...]]:
        """Return the members of each view a session was told."""
        return [tuple(n.node_id for n in view.members) for view in self.told[session]]

    def _sessions_of(self, node_id: NodeId) -> tuple[SessionId, ...]:
        return tuple(s for s, n in self.sessions.items() if n == node_id)

    def _all(self) -> list[Membership]:
        return [replica for _, replica in sorted(self.replicas.items())]

    def _context(self, session: SessionId) -> Context:
        self._number += 1
        node_id = self.sessions[session]
        return Context(self.now_ns, node_id, Caller(node_id, session, self._number), self.view)

    def _change(
        self,
        joined: tuple[NodeId, ...],
        left: tuple[NodeId, ...],
        reports: dict[NodeId, Report],
        *,
        same_ring: bool = False,
    ) -> None:
        if not same_ring:
            self.ring += 4
        members = tuple(sorted(self.replicas))
        self.view = View(
            RingId(self.ring, members[0]),
            members,
            tuple(sorted(joined)),
            tuple((n, Reason.NODEDOWN) for n in sorted(left)),
            quorate=self.quorate,
        )
        context = Context(self.now_ns, members[0], None, self.view)
        for session, node_id in sorted(self.sessions.items()):
            if node_id in left:
                self._perform([r.session_closed(session, context) for r in self._all()])
        self._perform([r.view_changed(self.view, reports, context) for r in self._all()])

    def _perform(self, all_effects: list[list[Effect]]) -> None:
        self._agree(all_effects)
        for effect in all_effects[0]:
            match effect:
                case Answer(caller, status, result):
                    self.answers[caller.session, caller.number] = (status, result)
                case Notify(session, message):
                    self.heard.setdefault(session, []).append(message)
                    if isinstance(message, wire.Membership):
                        self.told[session].append(message)

    def _agree(self, all_effects: list[list[Effect]]) -> None:
        assert all(effects == all_effects[0] for effects in all_effects)
        dumps = {replica.dump(REST)[0] for replica in self._all()}
        assert len(dumps) == 1, "replicas differ"
        for replica in self._all():
            replica.check()
            restored = Membership(replica._own)
            restored.load({REST: replica.dump(REST)[0]})
            assert restored.dump(REST)[0] == replica.dump(REST)[0]
