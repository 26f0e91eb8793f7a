"""Closed process groups for asyncio: iterate over the events of a group."""

from __future__ import annotations

import asyncio
from pathlib import Path

from openais import errors
from openais.aio.groupclient import ROOM_POLL_S, GroupClient
from openais.cpg import LEAVE_ON_ITS_WAY, LEAVE_POLL_S, Flags, known_flags
from openais.groupclient import TIMEOUT_S
from openais.groups import (
    Address,
    Event,
    GroupConnection,
    Membership,
    decode_name,
    encode_name,
)
from openais.iterations import Iteration, IterationType, descriptions, question
from openais.portconnection import MESSAGE_SIZE_MAX, Payload
from openais.wire import port as wire
from openais.wire.port import Guarantee


class Cpg(GroupClient[Event]):
    """One connection to the process groups of the local node.

    Use with ``async with``; iterate over it for events. Arguments as `openais.cpg.Cpg`.
    """

    _connection: GroupConnection

    def __init__(
        self,
        *,
        flags: Flags | int = 0,
        run_dir: Path | str | None = None,
        rejoin: bool = False,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__(timeout)
        tell_ring = known_flags(flags) & Flags.DELIVER_INITIAL_TOTEM_CONF
        self._connection = GroupConnection(
            run_dir, self._push, self._end, rejoin=rejoin, tell_ring=bool(tell_ring)
        )

    @property
    def local_address(self) -> Address:
        """Node and pid of this process, as all members are told them."""
        return self._connection.address

    async def join(self, group: str | bytes) -> None:
        """Join a group; see `openais.cpg.Cpg.join`."""
        name = encode_name(group)
        deadline = self._loop.time() + self._timeout
        while True:
            begun = self._connection.joining(name)
            try:
                await self._request("cpg.join", lambda n: self._connection.join_message(n, name))
            except errors.AisError as error:
                if begun:
                    self._connection.not_joining()
                if self._loop.time() >= deadline or not isinstance(error, LEAVE_ON_ITS_WAY):
                    raise
                await asyncio.sleep(LEAVE_POLL_S)
            else:
                return

    async def leave(self) -> None:
        """Leave the group, after the messages that wait here have gone."""
        connection = self._connection
        deadline = self._loop.time() + self._timeout
        while connection.membership is Membership.JOINING and self._loop.time() < deadline:
            await asyncio.sleep(ROOM_POLL_S)
        begun = connection.leaving()
        try:
            while not connection.drained:
                if self._loop.time() >= deadline:
                    raise errors.AisTimeoutError("cpg.leave", "messages wait for the ring")
                await asyncio.sleep(ROOM_POLL_S)
            await self._request("cpg.leave", lambda request: wire.Leave(request, b"-"))
        except errors.AisError:
            if begun:
                connection.not_leaving()
            raise

    async def mcast(
        self,
        payload: Payload,
        guarantee: Guarantee = Guarantee.AGREED,
    ) -> None:
        """Multicast a message; waits while the queue is full, up to the timeout.

        A message over MESSAGE_SIZE_MAX is sent in parts, as by `openais.cpg.Cpg.mcast`.
        """
        data = payload if type(payload) is bytes else bytes(payload)
        if len(data) > MESSAGE_SIZE_MAX:
            send = self._connection.multicast_large
            await asyncio.to_thread(send, guarantee, data, self._timeout)
        else:
            await self._patiently(lambda: self._connection.multicast(guarantee, data))

    async def iterate(self, kind: IterationType, group: str | bytes | None = None) -> Iteration:
        """Return an iteration over groups and members; see `openais.cpg.Cpg.iterate`."""
        answer = await self._request("cpg.iterate", question(kind, group))
        return Iteration(self._connection, descriptions(kind, answer))

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
