"""Extended virtual synchrony: open groups, and every configuration of the ring.

Members are nodes. Anyone may send to any group, a handle is told the messages of the groups it has
joined, and nobody learns who joined. Messages and configurations reach every handle in the order
of the ring. After openais's EVS; what differs is told in docs/evs.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from openais.configurations import (
    ConfigurationChange,
    Delivery,
    Event,
    EvsConnection,
    Membership,
    group_key,
)
from openais.groupclient import TIMEOUT_S, GroupClient
from openais.handle import DispatchFlags
from openais.portconnection import MESSAGE_SIZE_MAX, Payload
from openais.wire import port as wire
from openais.wire.port import ConfigurationKind, Guarantee, RingId

__all__ = [
    "MESSAGE_SIZE_MAX",
    "ConfigurationChange",
    "ConfigurationKind",
    "Delivery",
    "DispatchFlags",
    "Event",
    "Evs",
    "Guarantee",
    "Membership",
    "RingId",
]


class Evs(GroupClient):
    """One handle.

    Args:
        deliver: called with each message.
        confchg: called with each configuration; first with the regular one of now.
        run_dir: of the node; None: OPENAIS_RUN_DIR, else the default.
        rejoin: go on after totemd was restarted, with the same groups; messages and
            configurations of the time between are lost, and a regular configuration without a
            transitional one tells so. False: every call fails then.
        timeout: seconds to wait for totemd.

    Raises:
        AisError: ERR_TRY_AGAIN, totemd does not answer; ERR_ACCESS.
    """

    _connection: EvsConnection

    def __init__(
        self,
        deliver: Callable[[Delivery], None] | None = None,
        confchg: Callable[[ConfigurationChange], None] | None = None,
        *,
        run_dir: Path | str | None = None,
        rejoin: bool = False,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__("evs")
        self._deliver: Final = deliver
        self._confchg: Final = confchg
        self._delivered: ConfigurationChange | None = None  # the last regular one
        self._connection = EvsConnection(run_dir, self._push, self._queue.lost, rejoin=rejoin)
        self._connection.begin()
        self._connection.wait_open(timeout)

    def _run(self, event: Event) -> None:
        match event:
            case Delivery():
                if self._deliver is not None:
                    self._deliver(event)
            case ConfigurationChange():
                if event.kind is ConfigurationKind.REGULAR:
                    self._delivered = event
                if self._confchg is not None:
                    self._confchg(event)

    def join(self, groups: Iterable[str | bytes], timeout: float = TIMEOUT_S) -> None:
        """Join groups, all or none; those that are joined already stay.

        Args:
            groups: 1 to 50 keys of 32 bytes; shorter ones are filled up with zeros.
            timeout: seconds to wait for totemd.

        Raises:
            AisError: ERR_TOO_MANY_GROUPS, over 50 here or over 256 of this handle;
                ERR_INVALID_PARAM, none, or a key over 32 bytes.
        """
        keys = tuple(group_key("evs.join", group) for group in groups)
        self._connection.request("evs.join", lambda request: wire.EvsJoin(request, keys), timeout)
        self._connection.joined(keys)

    def leave(self, groups: Iterable[str | bytes], timeout: float = TIMEOUT_S) -> None:
        """Leave groups, all or none.

        Raises:
            AisError: ERR_NOT_EXIST, not in one of them; else as `join`.
        """
        keys = tuple(group_key("evs.leave", group) for group in groups)
        self._connection.request("evs.leave", lambda request: wire.EvsLeave(request, keys), timeout)
        self._connection.left(keys)

    def mcast_joined(
        self, payload: Payload, guarantee: Guarantee = Guarantee.AGREED, *, wait: float = 0
    ) -> None:
        """Multicast a message to all groups that this handle has joined.

        Args:
            payload: at most MESSAGE_SIZE_MAX bytes.
            guarantee: AGREED, or SAFE: delivered only when every node of the ring has it.
            wait: seconds to wait while the queue is full.

        Raises:
            AisError: ERR_NOT_EXIST, in no group; ERR_TOO_MANY_GROUPS, in more than 32;
                ERR_TRY_AGAIN, the queue is full; ERR_TOO_BIG; ERR_INVALID_PARAM.
        """
        self._patiently(lambda: self._connection.multicast_joined(guarantee, payload), wait)

    def mcast_groups(
        self,
        groups: Iterable[str | bytes],
        payload: Payload,
        guarantee: Guarantee = Guarantee.AGREED,
        *,
        wait: float = 0,
    ) -> None:
        """Multicast a message to 1 to 32 groups, whether this handle has joined them or not.

        Arguments and errors as `mcast_joined`.
        """
        groups = list(groups)
        self._patiently(lambda: self._connection.multicast_groups(guarantee, groups, payload), wait)

    def membership(self) -> Membership:
        """Return the nodes of the last regular configuration that this handle was told."""
        return self._connection.membership(self._delivered)
