"""Cluster membership: which nodes there are, and who is told when that changes (SAI-AIS-CLM).

Behaviour and errors, function by function, are in docs/clm.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from openais import errors, membership
from openais.errors import AisError
from openais.handle import CallbackQueue, DispatchFlags
from openais.levels import Version, negotiate
from openais.membership import (
    ClusterNode,
    NodeAddress,
    Notification,
    NotificationBuffer,
)
from openais.session import CALL_TIMEOUT_NS, Session
from openais.wire import clm as wire
from openais.wire.clm import (
    LOCAL_NODE_ID,
    AddressFamily,
    AdminOperation,
    AdminState,
    ChangeStep,
    ClusterChange,
    KnownNode,
    Level,
    Nodes,
    Response,
    TrackFlags,
)
from openais.wire.codec import DecodeError
from openais.wire.session import RequestFlag
from openais.wire.status import ONE_SECOND_NS, Status

__all__ = [
    "LOCAL_NODE_ID",
    "AddressFamily",
    "AdminOperation",
    "AdminState",
    "ChangeStep",
    "Client",
    "ClusterChange",
    "ClusterNode",
    "DispatchFlags",
    "KnownNode",
    "NodeAddress",
    "Nodes",
    "Notification",
    "NotificationBuffer",
    "Response",
    "Status",
    "TrackFlags",
]

NodeGetCallback = Callable[[int, ClusterNode | None, Status], None]
TrackCallback = Callable[[NotificationBuffer, int, Status], None]
EvictionCallback = Callable[[int, AdminOperation], None]

SERVED: Final = Version("B", 4, 1)
CALLBACKS_WAITING_MAX: Final = 1024  # track callbacks; more become one
ADMINISTRATION_TIMEOUT_NS: Final = 90 * ONE_SECOND_NS  # longer than a node waits for its users

_TRACK_TAG: Final = "track"
_INVOCATION_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF


def level_of(name: str) -> Level:
    """Return the level of a name like ``B.04``.

    Raises:
        VersionError: not served; its ``detail`` is the version that is.
    """
    return Level(negotiate("clm.open", name, SERVED))


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


def check_response(level: Level, invocation: int, answer: Response | Status) -> Response:
    """Check the arguments of response; return what is sent.

    Raises:
        VersionError: the level has no such call.
        InvalidParamError: no such answer at this level, or no possible invocation.
    """
    if level < Level.B_03:
        raise errors.VersionError("clm.response", f"levels B.03 and B.04, not {level.name}")
    if not 0 < invocation <= _INVOCATION_MAX:
        raise errors.InvalidParamError("clm.response", f"invocation {invocation} expects no answer")
    known: dict[Response | Status, Response] = (
        {response: response for response in Response}
        if level is Level.B_04
        else {Status.OK: Response.OK, Status.ERR_FAILED_OPERATION: Response.ERROR}
    )
    found = next((known[k] for k in known if k is answer), None)
    if found is None:
        names = ", ".join(str(k) for k in known)
        raise errors.InvalidParamError("clm.response", f"{answer!r} at {level.name}, not {names}")
    return found


def check_administer(level: Level, node_id: int) -> None:
    """Check the level and the arguments of an administrative call.

    Raises:
        VersionError: below level B.04.
        InvalidParamError: node id 0.
    """
    if level < Level.B_04:
        raise errors.VersionError("clm.administer", f"level B.04, not {level.name}")
    if node_id == 0:
        raise errors.InvalidParamError("clm.administer", "node_id is not 0")


def check_room(view: wire.Membership, flags: int, items_max: int | None) -> None:
    """Raise NoSpaceError, with the size needed as its detail, where a listing is too long."""
    needed = wire.listed(view, flags)
    if items_max is not None and needed > items_max:
        failure = errors.NoSpaceError("clm.track", f"{needed} items, room for {items_max}")
        failure.detail = needed
        raise failure


class Client:
    """A handle of the membership service (saClmInitialize). Use as a context manager.

    Args:
        node_get_callback: called with (invocation, node or None, status).
        track_callback: called with (buffer, number of members, status).
        eviction_callback: called with (invocation, operation) before the local node is taken out;
            answer with `response`. Level B.03 only: newer ones track with START_STEP.
        level: of SAI-AIS-CLM, which decides names and some errors.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.

    Raises:
        AisError: ERR_TRY_AGAIN, the service does not answer; ERR_ACCESS; ERR_VERSION;
            ERR_UNAVAILABLE, levels B.03 and B.04: the node is not configured.
    """

    def __init__(
        self,
        node_get_callback: NodeGetCallback | None = None,
        track_callback: TrackCallback | None = None,
        eviction_callback: EvictionCallback | None = None,
        *,
        level: str = "B.04",
        run_dir: Path | str | None = None,
    ) -> None:
        self._level: Final = level_of(level)
        if eviction_callback is not None and self._level is not Level.B_03:
            raise errors.VersionError("clm.open", f"an eviction_callback is of B.03, not {level}")
        self._node_get_callback: Final = node_get_callback
        self._track_callback: Final = track_callback
        self._eviction_callback: Final = eviction_callback
        self._queue: Final = CallbackQueue("clm")
        self._lock: Final = threading.Lock()  # of what follows
        self._following: membership.Following | None = None
        self._early: list[Any] | None = None  # told while `track` is under way
        self._waiting = 0  # track callbacks in the queue
        self._skipped: wire.Membership | None = None  # the newest view that found no room
        self._session: Final = Session(
            "clm", wire.TABLE, run_dir=run_dir, notified=self._changed, gone=self._queue.lost
        )
        try:
            self._session.open()
            if self._level >= Level.B_03:
                self._session.call("open", wire.MembershipGet(self._level), flags=RequestFlag.LOCAL)
            if eviction_callback is not None:
                self._session.call("open", wire.Evictions())
        except AisError:
            self.close()
            raise

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
        self._session.check("node_get")
        check_node_get(node_id, timeout_ns)
        node = self._session.call(
            "node_get", wire.NodeGet(node_id, self._level), timeout_ns=timeout_ns
        )
        return membership.cluster_node(node, self._level)

    def node_get_async(self, invocation: int, node_id: int = LOCAL_NODE_ID) -> None:
        """Ask for one node; the answer comes by callback (saClmClusterNodeGetAsync)."""
        self._session.check("node_get_async")
        check_node_get(node_id, CALL_TIMEOUT_NS)
        callback = self._node_get_callback
        if callback is None:
            raise errors.InitError("clm.node_get_async", "no node_get_callback was given")

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
        self,
        flags: TrackFlags | int,
        *,
        callback: bool = False,
        items_max: int | None = None,
    ) -> NotificationBuffer | None:
        """Return the present membership, or follow changes, or both (saClmClusterTrack).

        Args:
            flags: see docs/clm.md.
            callback: the present membership comes by callback, not as the result.
            items_max: the caller has room for so many nodes only; None: for any number. Counts
                with CURRENT and without ``callback``.

        Raises:
            NoSpaceError: more than ``items_max`` nodes, how many is its detail; nothing is begun.
        """
        self._session.check("track")
        listed = bool(flags & TrackFlags.CURRENT) and not callback
        if not listed:
            items_max = None
        if items_max is not None and items_max < 1:
            raise errors.InvalidParamError("clm.track", f"items_max {items_max}, at least 1")
        check_flags(flags, self._level)
        follow = flags & wire.TRACKING
        calls_back = callback and flags & TrackFlags.CURRENT
        if (follow or calls_back) and self._track_callback is None:
            raise errors.InitError("clm.track", "no track_callback was given")
        if follow:
            return self._follow(int(flags), items_max, callback=callback)
        view = self._session.call("track", wire.MembershipGet(self._level))
        check_room(view, int(flags), items_max)
        buffer = membership.listing(view, int(flags), self._session.node_id, self._level)
        if listed:
            return buffer
        with self._lock:
            self._push(buffer)
        return None

    def _follow(
        self, flags: int, items_max: int | None, *, callback: bool
    ) -> NotificationBuffer | None:
        """Begin to follow; what is told before the answer is here is kept until then."""
        with self._lock:
            self._early = []
        view: wire.Membership | None = None
        try:
            asked = wire.Track(flags, self._level, items_max or 0)
            view = self._session.call("track", asked)
        except errors.NoSpaceError as failure:
            if isinstance(failure.detail, wire.Membership):
                check_room(failure.detail, flags, items_max)
            raise
        finally:
            buffer = self._followed(view, flags, callback=callback)
        return buffer

    def _followed(
        self, view: wire.Membership | None, flags: int, *, callback: bool
    ) -> NotificationBuffer | None:
        """Go on as asked for, or, if nothing came of it, as before."""
        buffer = None
        with self._lock:
            early, self._early = self._early or [], None
            if view is not None:
                for message in early:  # of before, in the form asked for before
                    if isinstance(message, wire.Membership) and message.view <= view.view:
                        self._tell(message)
                node_id = self._session.node_id
                self._following = membership.Following(view, flags, node_id, self._level)
                self._skipped = None
                if flags & TrackFlags.CURRENT:
                    buffer = membership.listing(view, flags, node_id, self._level)
                    if callback:
                        self._push(buffer)
                        buffer = None
            for message in early:
                self._tell(message)
        return buffer

    def track_stop(self) -> None:
        """Stop following changes (saClmClusterTrackStop)."""
        self._session.call("track_stop", wire.TrackStop())
        with self._lock:
            self._following = self._skipped = None
            self._queue.drop(_TRACK_TAG)
            self._waiting = 0

    def _changed(self, message: Any) -> None:
        """Take a notification, in the background thread."""
        if isinstance(message, wire.Eviction):
            callback = self._eviction_callback
            if callback is not None:
                asked = message
                self._queue.push(lambda: callback(asked.invocation, asked.operation))
            return
        with self._lock:
            if self._early is not None:
                self._early.append(message)
            else:
                self._tell(message)

    def _tell(self, message: wire.Membership | wire.Step) -> None:
        """Queue what a notification tells; where too much waits, keep the newest view only."""
        if self._following is None:
            return
        if self._skipped is not None or self._waiting >= CALLBACKS_WAITING_MAX:
            if isinstance(message, wire.Membership):
                self._skipped = message
            return
        buffer = self._following.take(message)
        if buffer is not None:
            self._push(buffer)

    def _push(self, buffer: NotificationBuffer) -> None:
        self._waiting += 1
        self._queue.push(lambda: self._call_back(buffer), tag=_TRACK_TAG)

    def _call_back(self, buffer: NotificationBuffer) -> None:
        with self._lock:
            self._waiting = max(self._waiting - 1, 0)
            skipped, self._skipped = self._skipped, None
            if skipped is not None:
                self._tell(skipped)
        callback = self._track_callback
        assert callback is not None, "checked before anything is queued"
        callback(buffer, buffer.number_of_members, Status.OK)

    def response(self, invocation: int, answer: Response | Status) -> None:
        """Answer a step or an eviction (saClmResponse, saClmResponse_4).

        Args:
            invocation: of the buffer with the step, or of the eviction callback.
            answer: level B.04: a `Response`; level B.03: Status.OK or ERR_FAILED_OPERATION.
        """
        self._session.check("response")
        response = check_response(self._level, invocation, answer)
        self._session.call("response", wire.Respond(invocation, response))

    # Administration

    def administer(
        self,
        operation: AdminOperation,
        node_id: int,
        timeout_ns: int = ADMINISTRATION_TIMEOUT_NS,
    ) -> None:
        """Lock, unlock, shut down, remove or reset a node; return when it is done.

        Raises:
            AisError: ERR_NO_OP, ERR_BUSY, ERR_NOT_EXIST, ERR_FAILED_OPERATION, ERR_REPAIR_PENDING,
                ERR_NOT_SUPPORTED, ERR_UNAVAILABLE; ERR_TIMEOUT: it goes on all the same.
        """
        self._session.check("administer")
        check_administer(self._level, node_id)
        asked = wire.Administer(operation, node_id)
        self._session.call(operation.name.lower(), asked, timeout_ns=timeout_ns)

    def nodes(self) -> Nodes:
        """Return every known node with its administrative state."""
        self._session.check("nodes")
        check_administer(self._level, LOCAL_NODE_ID)
        found: Nodes = self._session.call("nodes", wire.NodesGet())
        return found

    @property
    def level(self) -> Level:
        """Which edition of the specification the handle follows."""
        return self._level

    @property
    def version(self) -> Version:
        """The version that is served, whatever level was asked for."""
        return SERVED

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
