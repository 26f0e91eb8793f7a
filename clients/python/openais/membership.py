"""What changed between two views of the membership, in the form a client asked for. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from openais.wire import clm as wire
from openais.wire.clm import AddressFamily, ChangeStep, ClusterChange, Level, TrackFlags

_SAME: Final = ClusterChange.NO_CHANGE


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Address of a node on ring 0 (SaClmNodeAddressT)."""

    family: AddressFamily
    value: str


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One node (SaClmClusterNodeT)."""

    node_id: int
    node_address: NodeAddress
    node_name: str  # plain on handles of level B.01, a distinguished name on newer ones
    member: bool
    boot_timestamp: int  # ns since 1970
    initial_view_number: int  # view in which the node became a member; 0: it never was
    execution_environment: str = ""  # of level B.04; empty: there is no platform management


@dataclass(frozen=True, slots=True)
class Notification:
    """One node and what happened to it (SaClmClusterNotificationT)."""

    cluster_node: ClusterNode
    cluster_change: ClusterChange


@dataclass(frozen=True, slots=True)
class NotificationBuffer:
    """One view, or what changed with it (SaClmClusterNotificationBufferT).

    ``number_of_members`` counts all members, whatever the buffer lists. What follows it is told to
    handles of level B.04 only. A buffer is a value: it stays valid when its client is closed.
    """

    view_number: int
    notification: tuple[Notification, ...]  # by node id
    number_of_members: int
    step: ChangeStep = ChangeStep.COMPLETED
    invocation: int = 0  # for `Client.response`; 0: no answer is wanted
    root_cause_entity: str = ""  # distinguished name of the node that crashed or is administered
    correlation_ids: tuple[int, int, int] = (0, 0, 0)  # not used
    time_supervision: int = 0  # ns until the change happens without an answer, or TIME_UNKNOWN

    def node(self, name: str) -> ClusterNode | None:
        """Return the node of a name, plain or distinguished; None: the buffer lists none."""
        for item in self.notification:
            found = item.cluster_node
            if name == found.node_name or found.node_name.startswith(f"safNode={name},"):
                return found
        return None


def cluster_node(node: wire.Node, level: Level) -> ClusterNode:
    """Return a node as a handle of a level shows it."""
    return ClusterNode(
        node_id=node.node_id,
        node_address=NodeAddress(node.family, node.address),
        node_name=node.name if level is Level.B_01 else node.distinguished_name,
        member=node.member,
        boot_timestamp=node.boot_timestamp_ns,
        initial_view_number=node.initial_view,
    )


def listing(
    view: wire.Membership, flags: int, local_node_id: int, level: Level
) -> NotificationBuffer:
    """Return the present membership; of a node outside it, only the node itself."""
    items = [(node, ClusterChange.NO_CHANGE) for node in view.members]
    if view.outside is not None:
        items = [(view.outside, ClusterChange.LEFT)]
    if flags & TrackFlags.LOCAL:
        items = [item for item in items if item[0].node_id == local_node_id]
    return _buffer(view, items, level)


def changes(
    told: wire.Membership, view: wire.Membership, flags: int, local_node_id: int, level: Level
) -> NotificationBuffer | None:
    """Return what a client that was told one view is to be told of a later one.

    Args:
        told: the last view the client was told.
        view: a later one; those between them may be missing.
        flags: its track flags.
        local_node_id: its node.
        level: the level of its handle.

    Returns:
        None where the flags leave nothing to tell.
    """
    before = {node.node_id: node for node in told.members}
    after = {node.node_id: node for node in view.members}
    if view.outside is not None:
        # A node outside the membership learns that, and nothing of the others.
        if local_node_id not in before:
            return None
        change = _marked(view, local_node_id, ClusterChange.LEFT, level)
        return _buffer(view, [(_departed(before[local_node_id]), change)], level)
    items = [
        (node, _marked(view, n, _change(before.get(n), node), level)) for n, node in after.items()
    ]
    items += [
        (_departed(node), _marked(view, n, ClusterChange.LEFT, level))
        for n, node in before.items()
        if n not in after
    ]
    changed = [item for item in items if item[1] is not ClusterChange.NO_CHANGE]
    if flags & TrackFlags.LOCAL:
        items = changed = [item for item in changed if item[0].node_id == local_node_id]
        if not changed:
            return None
    return _buffer(view, items if flags & TrackFlags.CHANGES else changed, level)


def planned(step: wire.Step, flags: int, level: Level) -> NotificationBuffer:
    """Return what a client is told of a change before it happens, or that it does not.

    Args:
        step: how far the change is.
        flags: the client's track flags.
        level: of its handle.
    """
    node_id = step.planned.node_id
    items = [
        (node, step.planned.change if node.node_id == node_id else ClusterChange.NO_CHANGE)
        for node in step.membership.members
    ]
    if not flags & TrackFlags.CHANGES or flags & TrackFlags.LOCAL:
        items = [item for item in items if item[0].node_id == node_id]
    return dataclasses.replace(
        _buffer(step.membership, items, level),
        step=step.step,
        invocation=step.invocation,
        root_cause_entity=step.root_cause,
        time_supervision=step.time_supervision_ns,
    )


@dataclass(slots=True)
class Following:
    """What a handle follows, and the view it was told last."""

    told: wire.Membership
    flags: int
    local_node_id: int
    level: Level

    def take(self, message: wire.Membership | wire.Step) -> NotificationBuffer | None:
        """Return what a notification of the service tells the application; None: nothing."""
        if isinstance(message, wire.Step):
            return planned(message, self.flags, self.level)
        if message.view <= self.told.view:
            return None
        told, self.told = self.told, message
        return changes(told, message, self.flags, self.local_node_id, self.level)


def _marked(
    view: wire.Membership, node_id: int, seen: ClusterChange, level: Level
) -> ClusterChange:
    """Return the change of a node, where the view says more of it than a comparison shows."""
    if level < Level.B_04 or view.change is None or view.change.node_id != node_id:
        return seen
    expected = {ClusterChange.SHUTDOWN: ClusterChange.LEFT, ClusterChange.UNLOCK: _SAME}
    return view.change.change if expected.get(view.change.change) is seen else seen


def _departed(node: wire.Node) -> wire.Node:
    return dataclasses.replace(node, member=False)


def _change(before: wire.Node | None, after: wire.Node) -> ClusterChange:
    if before is None or before.incarnation != after.incarnation:
        return ClusterChange.JOINED  # another incarnation: it left and joined in views we missed
    # A node of the smaller side of a healed partition goes on with a new initial view.
    if dataclasses.replace(before, initial_view=after.initial_view) != after:
        return ClusterChange.RECONFIGURED
    return ClusterChange.NO_CHANGE


def _buffer(
    view: wire.Membership, items: list[tuple[wire.Node, ClusterChange]], level: Level
) -> NotificationBuffer:
    ordered = sorted(items, key=lambda item: item[0].node_id)
    return NotificationBuffer(
        view.view,
        tuple(Notification(cluster_node(node, level), change) for node, change in ordered),
        len(view.members),
        root_cause_entity=view.root_cause if level is Level.B_04 else "",
    )
