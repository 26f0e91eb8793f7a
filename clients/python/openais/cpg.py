"""Closed process groups: ordered multicast to the members of a named group.

One connection is in at most one group. Messages and changes of membership reach every member in
one order. After corosync's CPG; what differs is told in docs/cpg.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntFlag
from pathlib import Path
from typing import Final

from openais import errors
from openais.groupclient import TIMEOUT_S, GroupClient
from openais.groups import (
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
from openais.handle import DispatchFlags
from openais.iterations import Description, Iteration, IterationType, descriptions, question
from openais.parts import LARGE_SIZE_MAX
from openais.portconnection import MESSAGE_SIZE_MAX, Payload
from openais.wire import port as wire
from openais.wire.port import Guarantee, Reason, RingId

__all__ = [
    "LARGE_SIZE_MAX",
    "MESSAGE_SIZE_MAX",
    "Address",
    "Change",
    "ConfigurationChange",
    "Cpg",
    "Delivery",
    "Description",
    "DispatchFlags",
    "Event",
    "Flags",
    "Guarantee",
    "Iteration",
    "IterationType",
    "Reason",
    "RingChange",
    "RingId",
]


class Flags(IntFlag):
    """Wishes of a handle (the flags of CPG_MODEL_V1)."""

    DELIVER_INITIAL_TOTEM_CONF = 1  # tell the present ring after the first confchg


def known_flags(flags: int) -> Flags:
    """Return flags.

    Raises:
        InvalidParamError: unknown ones among them.
    """
    unknown = int(flags) & ~int(Flags.DELIVER_INITIAL_TOTEM_CONF)
    if unknown:
        raise errors.InvalidParamError("cpg.open", f"unknown flags {unknown:#x}")
    return Flags(flags)


LEAVE_ON_ITS_WAY: Final = (errors.BusyError, errors.TryAgainError)
LEAVE_POLL_S: Final = 0.005  # between joins while another connection's leave is on its way


class Cpg(GroupClient):
    """One connection to the process groups of the local node.

    Args:
        deliver: called with each message.
        confchg: called with each change of the group's membership.
        totem_confchg: called with each new ring, once its groups are known.
        flags: DELIVER_INITIAL_TOTEM_CONF, tell the present ring after the first confchg too.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.
        rejoin: join again after totemd was restarted, as a new member; messages of the time
            between, and those that were just being sent, are lost. False: every call fails then.
        timeout: seconds to wait for totemd.

    Raises:
        AisError: ERR_TRY_AGAIN, totemd does not answer; ERR_ACCESS; ERR_INVALID_PARAM, flags.
    """

    _connection: GroupConnection

    def __init__(
        self,
        deliver: Callable[[Delivery], None] | None = None,
        confchg: Callable[[ConfigurationChange], None] | None = None,
        totem_confchg: Callable[[RingChange], None] | None = None,
        *,
        flags: Flags | int = 0,
        run_dir: Path | str | None = None,
        rejoin: bool = False,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__("cpg")
        tell_ring = known_flags(flags) & Flags.DELIVER_INITIAL_TOTEM_CONF
        self._deliver: Final = deliver
        self._confchg: Final = confchg
        self._totem_confchg: Final = totem_confchg
        self._connection = GroupConnection(
            run_dir, self._push, self._queue.lost, rejoin=rejoin, tell_ring=bool(tell_ring)
        )
        self._connection.begin()
        self._connection.wait_open(timeout)

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

    @property
    def local_address(self) -> Address:
        """Node and pid of this process, as all members are told them."""
        return self._connection.address

    def join(self, group: str | bytes, timeout: float = TIMEOUT_S) -> None:
        """Join a group; membership begins with the change that lists this process.

        Waits while an earlier leave of this process is on its way.

        Raises:
            AisError: ERR_EXIST, this connection or process is in it; ERR_NAME_TOO_LONG;
                ERR_INVALID_PARAM; ERR_NO_RESOURCES, 128 members; ERR_BUSY, ERR_TRY_AGAIN, the
                earlier leave was not delivered in time.
        """
        name = encode_name(group)
        deadline = time.monotonic() + timeout
        while True:
            begun = self._connection.joining(name)
            try:
                self._connection.request(
                    "cpg.join", lambda n: self._connection.join_message(n, name), timeout
                )
            except errors.AisError as error:
                if begun:
                    self._connection.not_joining()
                left = deadline - time.monotonic()
                if left <= 0 or not isinstance(error, LEAVE_ON_ITS_WAY):
                    raise
                if isinstance(error, errors.BusyError):
                    self._connection.wait_membership(Membership.NONE, left)
                else:  # another connection of this process leaves; there is nothing to wait for
                    time.sleep(min(left, LEAVE_POLL_S))
            else:
                return

    def leave(self, timeout: float = TIMEOUT_S) -> None:
        """Leave the group; the last event is the change that lists this process as left.

        Raises:
            AisError: ERR_NOT_EXIST, in no group.
        """
        deadline = time.monotonic() + timeout
        connection = self._connection
        if connection.membership is Membership.JOINING:
            connection.wait_membership(Membership.JOINED, timeout)
        begun = connection.leaving()
        try:
            # What was sent before stays before.
            if not connection.wait_drained(max(deadline - time.monotonic(), 0)):
                raise errors.AisTimeoutError("cpg.leave", "messages wait for the ring")
            connection.request("cpg.leave", lambda request: wire.Leave(request, b"-"), timeout)
        except errors.AisError:
            if begun:
                connection.not_leaving()
            raise

    def mcast(
        self,
        payload: Payload,
        guarantee: Guarantee = Guarantee.AGREED,
        *,
        wait: float = 0,
    ) -> None:
        """Multicast a message of at most LARGE_SIZE_MAX bytes to the group.

        A message over MESSAGE_SIZE_MAX is sent in parts: the call returns when it is delivered.

        Args:
            payload: the message; the buffer may be used again after the call.
            guarantee: AGREED, or SAFE: delivered only when every node of the ring has it.
            wait: seconds to wait while the queue is full; for a message in parts, to wait for its
                delivery, 0 is then 10 s.

        Raises:
            AisError: ERR_TRY_AGAIN, the queue is full; ERR_NOT_EXIST, in no group; ERR_TOO_BIG;
                ERR_INVALID_PARAM, no such guarantee. In parts also ERR_INTERRUPT, the group
                changed meanwhile and nobody was delivered the message: send it again;
                ERR_TIMEOUT, not known whether it was delivered.
        """
        data = payload if type(payload) is bytes else bytes(payload)
        if len(data) > MESSAGE_SIZE_MAX:
            self._connection.multicast_large(guarantee, data, wait or TIMEOUT_S)
        else:
            self._patiently(lambda: self._connection.multicast(guarantee, data), wait)

    def iterate(
        self,
        kind: IterationType,
        group: str | bytes | None = None,
        timeout: float = TIMEOUT_S,
    ) -> Iteration:
        """Return an iteration over groups and members as they are now.

        Args:
            kind: NAME_ONLY, ONE_GROUP, ALL.
            group: with ONE_GROUP.
            timeout: seconds to wait for totemd.

        Raises:
            AisError: ERR_INVALID_PARAM, kind or group; ERR_NAME_TOO_LONG.
        """
        answer = self._connection.request("cpg.iterate", question(kind, group), timeout)
        return Iteration(self._connection, descriptions(kind, answer))

    def members(self, group: str | bytes, timeout: float = TIMEOUT_S) -> tuple[Address, ...]:
        """Return the members of any group.

        Raises:
            AisError: ERR_NAME_TOO_LONG; ERR_INVALID_PARAM, the empty name.
        """
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
