"""Handles of the membership service without a network: the replicas, and what a client makes."""

from __future__ import annotations

from openais.membership import Following, NotificationBuffer, listing
from openais.wire import clm as wire
from openais.wire.clm import (
    AdminOperation,
    ChangeStep,
    ClusterChange,
    Level,
    Response,
    TrackFlags,
)
from openais.wire.status import Status
from services.kit.machine import SessionId
from tests.unit.services.clm.group import Group, own

Items = list[tuple[int, str]]


def group_of(*node_ids: int) -> Group:
    """Return nodes that joined one after the other."""
    group = Group()
    for node_id in node_ids:
        group.join(own(node_id))
    return group


class Handle:
    """One handle at a node.

    Args:
        group: where its node is.
        node_id: its node.
        flags: what it follows; 0: nothing.
        level: of the specification.
    """

    def __init__(
        self, group: Group, node_id: int, flags: int = 0, level: Level = Level.B_04
    ) -> None:
        self.group = group
        self.level = level
        self.node_id = node_id
        self.session: SessionId = group.session(node_id)
        self.buffers: list[NotificationBuffer] = []
        self._following: Following | None = None
        self._heard = 0
        if flags:
            self.track(flags)

    def track(self, flags: int) -> None:
        """Follow, or follow otherwise."""
        self.hear()
        status, view = self.group.call(self.session, wire.Track(int(flags), self.level))
        assert status is Status.OK
        assert isinstance(view, wire.Membership)
        self._following = Following(view, int(flags), self.node_id, self.level)
        if flags & TrackFlags.CURRENT:
            self.buffers.append(listing(view, int(flags), self.node_id, self.level))

    def stop(self) -> Status:
        """Follow no longer."""
        self.hear()
        self._following = None
        return self.group.call(self.session, wire.TrackStop())[0]

    def hear(self) -> list[NotificationBuffer]:
        """Take what was told; return all buffers so far."""
        messages = self.group.heard.get(self.session, [])
        for message in messages[self._heard :]:
            if self._following is None or isinstance(message, wire.Eviction):
                continue
            buffer = self._following.take(message)
            if buffer is not None:
                self.buffers.append(buffer)
        self._heard = len(messages)
        return self.buffers

    def items(self) -> list[Items]:
        """Return the node ids and changes of every buffer so far."""
        return [items(buffer) for buffer in self.hear()]

    def steps(self) -> list[ChangeStep]:
        """Return the step of every buffer so far."""
        return [buffer.step for buffer in self.hear()]

    def asked(self) -> int:
        """Return the invocation of the newest buffer."""
        return self.hear()[-1].invocation

    def evictions(self) -> list[wire.Eviction]:
        """Return the eviction callbacks so far."""
        heard = self.group.heard.get(self.session, [])
        return [message for message in heard if isinstance(message, wire.Eviction)]

    def respond(self, invocation: int, response: Response = Response.OK) -> Status:
        """Answer a step."""
        return self.group.call(self.session, wire.Respond(invocation, response))[0]

    def begin(self, operation: AdminOperation, node_id: int) -> int:
        """Begin an administrative operation; return the number for `outcome`."""
        return self.group.begin(self.session, wire.Administer(operation, node_id))

    def outcome(self, number: int) -> Status | None:
        """Return how an operation ended; None: not yet."""
        answer = self.group.answers.get((self.session, number))
        return None if answer is None else answer[0]

    def administer(self, operation: AdminOperation, node_id: int) -> Status | None:
        """Do an administrative operation."""
        return self.outcome(self.begin(operation, node_id))

    def node_get(self, node_id: int = wire.LOCAL_NODE_ID) -> tuple[Status, wire.Node | None]:
        """Ask for a node."""
        status, node = self.group.read(self.session, wire.NodeGet(node_id, self.level))
        assert node is None or isinstance(node, wire.Node)
        return status, node

    def listing(self, flags: int = TrackFlags.CURRENT) -> NotificationBuffer:
        """Return the present membership."""
        status, view = self.group.read(self.session, wire.MembershipGet(self.level))
        assert status is Status.OK
        assert isinstance(view, wire.Membership)
        return listing(view, int(flags), self.node_id, self.level)


def items(buffer: NotificationBuffer) -> Items:
    """Return the node ids and changes of a buffer."""
    return [(n.cluster_node.node_id, n.cluster_change.name) for n in buffer.notification]


def all_are(change: ClusterChange, *node_ids: int) -> Items:
    """Return items with one change."""
    return [(node_id, change.name) for node_id in node_ids]
