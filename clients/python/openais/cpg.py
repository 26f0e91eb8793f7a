"""Closed process groups: ordered multicast to the members of a named group.

One connection is in at most one group. Messages and changes of membership reach every member in
one order. After corosync's CPG; what differs is told in docs/sdk.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from openais import errors
from openais.groups import (
    MESSAGE_SIZE_MAX,
    Address,
    Change,
    ConfigurationChange,
    Delivery,
    Event,
    GroupConnection,
    Membership,
    RingChange,
    decode_name,
    encode_name,
)
from openais.handle import CallbackQueue, DispatchFlags
from openais.wire import port as wire
from openais.wire.port import Guarantee, Reason, RingId

__all__ = [
    "MESSAGE_SIZE_MAX",
    "Address",
    "Change",
    "ConfigurationChange",
    "Cpg",
    "Delivery",
    "DispatchFlags",
    "Event",
    "Guarantee",
    "Reason",
    "RingChange",
    "RingId",
]

QUEUE_BYTES_MAX: Final = 8 << 20  # of events that wait here; more stays with totemd
QUEUE_EVENTS_MAX: Final = 10_000
TIMEOUT_S: Final = 10.0


class Cpg:
    """One connection to the process groups of the local node.

    Args:
        deliver: called with each message.
        confchg: called with each change of the group's membership.
        totem_confchg: called with each new ring.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.
        rejoin: join again after totemd was restarted, as a new member; messages of the time
            between, and those that were just being sent, are lost. False: every call fails then.
        timeout: seconds to wait for totemd.

    Raises:
        AisError: ERR_TRY_AGAIN, totemd does not answer; ERR_ACCESS.
    """

    def __init__(
        self,
        deliver: Callable[[Delivery], None] | None = None,
        confchg: Callable[[ConfigurationChange], None] | None = None,
        totem_confchg: Callable[[RingChange], None] | None = None,
        *,
        run_dir: Path | str | None = None,
        rejoin: bool = False,
        timeout: float = TIMEOUT_S,
    ) -> None:
        self._deliver: Final = deliver
        self._confchg: Final = confchg
        self._totem_confchg: Final = totem_confchg
        self._queue: Final = CallbackQueue("cpg")
        self._connection: Final = GroupConnection(
            run_dir, self._push, self._queue.lost, rejoin=rejoin
        )
        self._connection.begin()
        self._connection.wait_open(timeout)

    def __enter__(self) -> Cpg:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _push(self, events: Sequence[Event], size: int) -> None:
        self._queue.push_all(self._run, events, size)
        if len(self._queue) > QUEUE_EVENTS_MAX or self._queue.bytes_waiting > QUEUE_BYTES_MAX:
            self._connection.link.pause()

    def _run(self, event: Event) -> None:
        match event:
            case Delivery():
                if self._deliver is not None:
                    self._deliver(event)
            case ConfigurationChange():
                if self._confchg is not None:
                    self._confchg(event)
            case RingChange():
                if self._totem_confchg is not None:
                    self._totem_confchg(event)

    def join(self, group: str | bytes, timeout: float = TIMEOUT_S) -> None:
        """Join a group; membership begins with the change that lists this process.

        Raises:
            AisError: ERR_EXIST, this connection or process is in it; ERR_NAME_TOO_LONG;
                ERR_INVALID_PARAM; ERR_NO_RESOURCES, 128 members.
        """
        name = encode_name(group)
        deadline = time.monotonic() + timeout
        while True:
            self._connection.joining(name)
            try:
                self._connection.request(
                    "cpg.join", lambda request: wire.Join(request, name), timeout
                )
            except (errors.BusyError, errors.TryAgainError):
                self._connection.not_joining()
                left = deadline - time.monotonic()
                if left <= 0 or not self._connection.wait_membership(Membership.NONE, left):
                    raise
            except errors.AisError:
                self._connection.not_joining()
                raise
            else:
                return

    def leave(self, timeout: float = TIMEOUT_S) -> None:
        """Leave the group; the last event is the change that lists this process as left.

        Raises:
            AisError: ERR_NOT_EXIST, in no group.
        """
        if self._connection.membership is Membership.JOINING:
            self._connection.wait_membership(Membership.JOINED, timeout)
        if not self._connection.wait_drained(timeout):  # what was sent before stays before
            raise errors.AisTimeoutError("cpg.leave", "messages wait for the ring")
        self._connection.request("cpg.leave", lambda request: wire.Leave(request, b"-"), timeout)

    def mcast(
        self, payload: bytes, guarantee: Guarantee = Guarantee.AGREED, *, wait: float = 0
    ) -> None:
        """Multicast a message of at most MESSAGE_SIZE_MAX bytes to the group.

        Args:
            payload: the message.
            guarantee: AGREED, or SAFE: delivered only when every node of the ring has it.
            wait: seconds to wait while the queue is full.

        Raises:
            AisError: ERR_TRY_AGAIN, the queue is full; ERR_NOT_EXIST, in no group; ERR_TOO_BIG.
        """
        deadline = time.monotonic() + wait
        while True:
            try:
                self._connection.multicast(guarantee, payload)
            except errors.TryAgainError:
                left = deadline - time.monotonic()
                if left <= 0 or not self._connection.wait_room(left):
                    raise
            else:
                return

    def members(self, group: str | bytes, timeout: float = TIMEOUT_S) -> tuple[Address, ...]:
        """Return the members of any group."""
        name = encode_name(group)
        answer: wire.Members = self._connection.request(
            "cpg.members", lambda request: wire.MembersQuery(request, name), timeout
        )
        return tuple(Address(m.node_id, m.pid) for m in answer.members)

    def groups(self, timeout: float = TIMEOUT_S) -> dict[str, tuple[Address, ...]]:
        """Return all groups and their members."""
        answer: wire.Groups = self._connection.request("cpg.groups", wire.GroupsQuery, timeout)
        return {
            decode_name(g.group): tuple(Address(m.node_id, m.pid) for m in g.members)
            for g in answer.groups
        }

    @property
    def local_node(self) -> int:
        """Node id of the local node."""
        return self._connection.node_id

    @property
    def flow_controlled(self) -> bool:
        """True: a multicast of maximum size would be refused with ERR_TRY_AGAIN."""
        return self._connection.full

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait."""
        return self._queue.fileno()

    def dispatch(self, flags: DispatchFlags | int = DispatchFlags.ALL) -> int:
        """Run the callbacks of events that wait, in this thread; return how many.

        Raises:
            AisError: ERR_LIBRARY, totemd is gone; ERR_BAD_HANDLE; ERR_TRY_AGAIN with
                ONE_NONBLOCKING when nothing waits.
        """
        try:
            return self._queue.dispatch(flags)
        finally:
            if self._connection.link.paused:
                self._connection.link.resume()

    def close(self) -> None:
        """Leave and close; waiting events are dropped. May be repeated."""
        self._connection.close()
        self._queue.close()
