"""Closed process groups for asyncio: iterate over the events of a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from openais import errors
from openais.cpg import QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, TIMEOUT_S
from openais.groups import (
    Address,
    Event,
    GroupConnection,
    decode_name,
    encode_name,
    result,
)
from openais.wire import port as wire
from openais.wire.port import Guarantee
from openais.wire.status import Status

ROOM_POLL_S: Final = 0.005  # between attempts while the queue of messages to send is full


class Cpg:
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
        self._timeout: Final = timeout
        self._loop: Final = asyncio.get_running_loop()
        self._events: Final[asyncio.Queue[tuple[Sequence[Event], int] | None]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._connection: Final = GroupConnection(run_dir, self._push, self._end, rejoin=rejoin)

    async def __aenter__(self) -> Cpg:
        """Attach."""
        opened = asyncio.Event()
        self._connection.begin(lambda: self._call(opened.set))
        try:
            await asyncio.wait_for(opened.wait(), self._timeout)
        except TimeoutError:
            self._connection.close()
            raise self._connection.unreachable() from None
        self._connection.check("cpg.open")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave and close."""
        self.close()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _push(self, events: Sequence[Event], size: int) -> None:
        self._waiting_bytes += size
        self._call(self._events.put_nowait, (events, size))
        if self._waiting_bytes > QUEUE_BYTES_MAX or self._events.qsize() > QUEUE_EVENTS_MAX:
            self._connection.link.pause()

    def _end(self) -> None:
        self._call(self._events.put_nowait, None)

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over the events, for ever; ERR_LIBRARY when totemd is gone."""
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Event]:
        while True:
            item = await self._events.get()
            if item is None:
                self._connection.check("cpg")
                return
            self._waiting_bytes -= item[1]
            if self._connection.link.paused and self._events.empty():
                self._connection.link.resume()
            for event in item[0]:
                yield event

    async def _request(self, call: str, make: Callable[[int], Any]) -> Any:
        future: asyncio.Future[tuple[Status, Any, str]] = self._loop.create_future()

        def done(*answer: Any) -> None:
            self._call(_set, future, answer)

        number = self._connection.ask(call, make, done)
        try:
            return result(call, *await asyncio.wait_for(future, self._timeout))
        except TimeoutError:
            self._connection.forget(number)
            raise errors.AisTimeoutError(call, "totemd did not answer", definite=False) from None

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
        deadline = self._loop.time() + self._timeout
        while True:
            try:
                return self._connection.multicast(guarantee, payload)
            except errors.TryAgainError:
                if self._loop.time() >= deadline:
                    raise
                await asyncio.sleep(ROOM_POLL_S)

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

    @property
    def local_node(self) -> int:
        """Node id of the local node."""
        return self._connection.node_id

    def close(self) -> None:
        """Leave and close; may be repeated."""
        self._connection.close()


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
