"""Extended virtual synchrony for asyncio: iterate over messages and configurations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from openais.aio.groupclient import GroupClient
from openais.configurations import (
    ConfigurationChange,
    Event,
    EvsConnection,
    Membership,
    group_key,
)
from openais.groupclient import TIMEOUT_S
from openais.portconnection import Payload
from openais.wire import port as wire
from openais.wire.port import ConfigurationKind, Guarantee


class Evs(GroupClient[Event]):
    """One handle.

    Use with ``async with``; iterate over it for events, the first of which is the regular
    configuration of now. Arguments as `openais.evs.Evs`.
    """

    def __init__(
        self,
        *,
        run_dir: Path | str | None = None,
        rejoin: bool = False,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__(timeout)
        self._delivered: ConfigurationChange | None = None  # the last regular one
        self._evs: Final = EvsConnection(run_dir, self._push, self._end, rejoin=rejoin)
        self._connection = self._evs

    def _taken(self, event: Event) -> None:
        if isinstance(event, ConfigurationChange) and event.kind is ConfigurationKind.REGULAR:
            self._delivered = event

    async def join(self, groups: Iterable[str | bytes]) -> None:
        """Join groups, all or none; see `openais.evs.Evs.join`."""
        keys = tuple(group_key("evs.join", group) for group in groups)
        await self._request("evs.join", lambda request: wire.EvsJoin(request, keys))
        self._evs.joined(keys)

    async def leave(self, groups: Iterable[str | bytes]) -> None:
        """Leave groups, all or none; see `openais.evs.Evs.leave`."""
        keys = tuple(group_key("evs.leave", group) for group in groups)
        await self._request("evs.leave", lambda request: wire.EvsLeave(request, keys))
        self._evs.left(keys)

    async def mcast_joined(self, payload: Payload, guarantee: Guarantee = Guarantee.AGREED) -> None:
        """Multicast to all joined groups; waits while the queue is full, up to the timeout."""
        await self._patiently(lambda: self._evs.multicast_joined(guarantee, payload))

    async def mcast_groups(
        self,
        groups: Iterable[str | bytes],
        payload: Payload,
        guarantee: Guarantee = Guarantee.AGREED,
    ) -> None:
        """Multicast to groups, joined or not; waits as `mcast_joined`."""
        groups = list(groups)
        await self._patiently(lambda: self._evs.multicast_groups(guarantee, groups, payload))

    def membership(self) -> Membership:
        """Return the nodes of the last regular configuration that the iteration gave out."""
        return self._evs.membership(self._delivered)
