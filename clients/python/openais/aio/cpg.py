"""Closed process groups for asyncio: iterate over the events of a group."""

from __future__ import annotations

import asyncio
from pathlib import Path

from openais import errors
from openais.aio.groupclient import ROOM_POLL_S, GroupClient
from openais.groupclient import TIMEOUT_S
from openais.groups import Address, Event, GroupConnection, decode_name, encode_name
from openais.wire import port as wire
from openais.wire.port import Guarantee


class Cpg(GroupClient[Event]):
    """One connection to the process groups of the local node.

    Use with ``async with``; iterate over it for events. Arguments as `openais.cpg.Cpg`.
    """

    def __init__(
        self,
        *,
        run_dir: Path | str | None = None,
        rejoin: bool = False,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__(timeout)
        self._connection = GroupConnection(run_dir, self._push, self._end, rejoin=rejoin)

    async def join(self, group: str | bytes) -> None:
        """Join a group; see `openais.cpg.Cpg.join`."""
        name = encode_name(group)
        self._connection.joining(name)
        try:
            await self._request("cpg.join", lambda request: wire.Join(request, name))
        except errors.AisError:
            self._connection.not_joining()
            raise

    async def leave(self) -> None:
        """Leave the group, after the messages that wait here have gone."""
        deadline = self._loop.time() + self._timeout
        while not self._connection.drained:
            if self._loop.time() >= deadline:
                raise errors.AisTimeoutError("cpg.leave", "messages wait for the ring")
            await asyncio.sleep(ROOM_POLL_S)
        await self._request("cpg.leave", lambda request: wire.Leave(request, b"-"))

    async def mcast(self, payload: bytes, guarantee: Guarantee = Guarantee.AGREED) -> None:
        """Multicast a message; waits while the queue is full, up to the timeout."""
        await self._patiently(lambda: self._connection.multicast(guarantee, payload))

    async def members(self, group: str | bytes) -> tuple[Address, ...]:
        """Return the members of any group."""
        name = encode_name(group)
        answer: wire.Members = await self._request(
            "cpg.members", lambda request: wire.MembersQuery(request, name)
        )
        return tuple(Address(m.node_id, m.pid) for m in answer.members)

    async def groups(self) -> dict[str, tuple[Address, ...]]:
        """Return all groups and their members."""
        answer: wire.Groups = await self._request("cpg.groups", wire.GroupsQuery)
        return {
            decode_name(g.group): tuple(Address(m.node_id, m.pid) for m in g.members)
            for g in answer.groups
        }
