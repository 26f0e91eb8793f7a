"""Cluster membership: which nodes there are, and who is told when that changes (SAI-AIS-CLM).

Behaviour and errors, function by function, are in docs/clm.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from openais import errors, membership
from openais.errors import AisError
from openais.handle import CallbackQueue, DispatchFlags
from openais.membership import (
    ClusterNode,
    NodeAddress,
    Notification,
    NotificationBuffer,
)
from openais.session import CALL_TIMEOUT_NS, Session
from openais.wire import clm as wire
from openais.wire.clm import LOCAL_NODE_ID, AddressFamily, ClusterChange, Level, TrackFlags
from openais.wire.codec import DecodeError
from openais.wire.status import Status

__all__ = [
    "LOCAL_NODE_ID",
    "AddressFamily",
    "Client",
    "ClusterChange",
    "ClusterNode",
    "DispatchFlags",
    "NodeAddress",
    "Notification",
    "NotificationBuffer",
    "TrackFlags",
]

LevelName = Literal["B.01", "B.02", "B.03", "B.04"]
NodeGetCallback = Callable[[int, ClusterNode | None, Status], None]
TrackCallback = Callable[[NotificationBuffer, int, Status], None]

LEVELS: Final = {
    "B.01": Level.B_01,
    "B.02": Level.B_02,
    "B.03": Level.B_03,
    "B.04": Level.B_04,
}
_TRACK_TAG: Final = "track"


def level_of(name: str) -> Level:
    """Return the level of a name like ``B.04``.

    Raises:
        VersionError: unknown.
    """
    if name not in LEVELS:
        raise errors.VersionError("clm.open", f'level "{name}", known: {", ".join(LEVELS)}')
    return LEVELS[name]


def check_flags(flags: int, level: Level) -> None:
    """Check track flags.

    Raises:
        BadFlagsError: none, unknown, or excluding each other.
    """
    if not wire.flags_legal(flags, level):
        raise errors.BadFlagsError("clm.track", f"flags {int(flags):#x} at level {level.name}")


def check_node_get(node_id: int, timeout_ns: int) -> None:
    """Check the arguments of node_get."""
    if timeout_ns < 0 or node_id == 0:
        raise errors.InvalidParamError("clm.node_get", "timeout_ns >= 0, node_id not 0")
    if timeout_ns == 0:
        raise errors.AisTimeoutError("clm.node_get", "timeout_ns is 0")


class Client:
    """A handle of the membership service (saClmInitialize). Use as a context manager.

    Args:
        node_get_callback: called with (invocation, node or None, status).
        track_callback: called with (buffer, number of members, status).
        level: of SAI-AIS-CLM, which decides names and some errors.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.

    Raises:
        AisError: ERR_TRY_AGAIN, the service does not answer; ERR_ACCESS; ERR_VERSION.
    """

    def __init__(
        self,
        node_get_callback: NodeGetCallback | None = None,
        track_callback: TrackCallback | None = None,
        *,
        level: LevelName = "B.04",
        run_dir: Path | str | None = None,
    ) -> None:
        self._level: Final = level_of(level)
        self._node_get_callback: Final = node_get_callback
        self._track_callback: Final = track_callback
        self._queue: Final = CallbackQueue("clm")
        self._told: wire.Membership | None = None
        self._flags = 0
        self._session: Final = Session(
            "clm", wire.TABLE, run_dir=run_dir, notified=self._changed, gone=self._queue.lost
        )
        self._session.open()

    def __enter__(self) -> Client:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def node_get(
        self, node_id: int = LOCAL_NODE_ID, timeout_ns: int = CALL_TIMEOUT_NS
    ) -> ClusterNode:
        """Return one node of the present view (saClmClusterNodeGet)."""
        check_node_get(node_id, timeout_ns)
        node = self._session.call(
            "node_get", wire.NodeGet(node_id, self._level), timeout_ns=timeout_ns
        )
        return membership.cluster_node(node, self._level)

    def node_get_async(self, invocation: int, node_id: int = LOCAL_NODE_ID) -> None:
        """Ask for one node; the answer comes by callback (saClmClusterNodeGetAsync)."""
        callback = self._node_get_callback
        if callback is None:
            raise errors.InitError("clm.node_get_async", "no node_get_callback was given")
        check_node_get(node_id, CALL_TIMEOUT_NS)

        def done(status: Status, body: bytes) -> None:
            node: ClusterNode | None = None
            try:
                found = self._session.result("node_get", status, body)
                node = membership.cluster_node(found, self._level)
            except AisError:
                pass  # the status tells
            except DecodeError:
                status = Status.ERR_LIBRARY
            self._queue.push(lambda: callback(invocation, node, status))

        self._session.submit(
            "node_get", wire.NodeGet(node_id, self._level), 0, CALL_TIMEOUT_NS, done
        )

    def track(
        self, flags: TrackFlags | int, *, callback: bool = False
    ) -> NotificationBuffer | None:
        """Return the present membership, or follow changes, or both (saClmClusterTrack).

        Args:
            flags: see docs/clm.md.
            callback: the present membership comes by callback, not as the result.
        """
        check_flags(flags, self._level)
        follow = flags & (TrackFlags.CHANGES | TrackFlags.CHANGES_ONLY)
        if (follow or callback) and self._track_callback is None:
            raise errors.InitError("clm.track", "no track_callback was given")
        if follow:
            self._told = None
            view = self._session.call("track", wire.Track(int(flags), self._level))
            self._told, self._flags = view, int(flags)
        else:
            view = self._session.call("track", wire.MembershipGet())
        if not flags & TrackFlags.CURRENT:
            return None
        buffer = membership.listing(view, int(flags), self._session.node_id, self._level)
        if callback:
            self._push(buffer)
            return None
        return buffer

    def track_stop(self) -> None:
        """Stop following changes (saClmClusterTrackStop)."""
        self._session.call("track_stop", wire.TrackStop())
        self._flags = 0
        self._queue.drop(_TRACK_TAG)

    def _changed(self, view: Any) -> None:
        told = self._told
        if not isinstance(view, wire.Membership) or told is None or view.view <= told.view:
            return
        buffer = membership.changes(told, view, self._flags, self._session.node_id, self._level)
        self._told = view
        if buffer is not None:
            self._push(buffer)

    def _push(self, buffer: NotificationBuffer) -> None:
        callback = self._track_callback
        if callback is not None:
            self._queue.push(
                lambda: callback(buffer, buffer.number_of_members, Status.OK), tag=_TRACK_TAG
            )

    @property
    def local_node(self) -> int:
        """Node id of the local node."""
        return self._session.node_id

    def fileno(self) -> int:
        """Return a descriptor that is readable while callbacks wait."""
        return self._queue.fileno()

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run the callbacks that wait, in this thread; return how many."""
        return self._queue.dispatch(flags)

    def close(self) -> None:
        """Finalize; waiting callbacks are dropped. May be repeated."""
        self._session.close()
        self._queue.close()
