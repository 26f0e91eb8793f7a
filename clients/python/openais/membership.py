"""What changed between two views of the membership, in the form a client asked for. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from openais.wire import clm as wire
from openais.wire.clm import AddressFamily, ClusterChange, Level, TrackFlags


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


@dataclass(frozen=True, slots=True)
class Notification:
    """One node and what happened to it (SaClmClusterNotificationT)."""

    cluster_node: ClusterNode
    cluster_change: ClusterChange


@dataclass(frozen=True, slots=True)
class NotificationBuffer:
    """One view, or what changed with it (SaClmClusterNotificationBufferT).

    ``number_of_members`` counts all members, whatever the buffer lists.
    """

    view_number: int
    notification: tuple[Notification, ...]  # by node id
    number_of_members: int


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
        return _buffer(view, [(_departed(before[local_node_id]), ClusterChange.LEFT)], level)
    items = [(node, _change(before.get(node_id), node)) for node_id, node in after.items()]
    items += [(_departed(node), ClusterChange.LEFT) for n, node in before.items() if n not in after]
    changed = [item for item in items if item[1] is not ClusterChange.NO_CHANGE]
    if flags & TrackFlags.LOCAL:
        items = changed = [item for item in changed if item[0].node_id == local_node_id]
        if not changed:
            return None
    return _buffer(view, items if flags & TrackFlags.CHANGES else changed, level)


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
    )
