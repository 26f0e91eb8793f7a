"""What the asyncio handles of CPG and EVS have in common: events, requests, patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Generic, Self, TypeVar

from openais import errors
from openais.groupclient import behind
from openais.portconnection import PortConnection, result
from openais.wire.status import Status

ROOM_POLL_S: Final = 0.005  # between attempts while the queue of messages to send is full
Event = TypeVar("Event")


class GroupClient(Generic[Event]):
    """A handle over whose events one iterates.

    Args:
        timeout: seconds that anything waits.

    Attributes:
        context: whatever the application wants to find here again.
    """

    _connection: PortConnection

    def __init__(self, timeout: float) -> None:
        self.context: Any = None
        self._timeout: Final = timeout
        self._loop: Final = asyncio.get_running_loop()
        self._events: Final[asyncio.Queue[tuple[Sequence[Event], int] | None]] = asyncio.Queue()
        self._waiting_bytes = 0

    async def __aenter__(self) -> Self:
        """Attach."""
        opened = asyncio.Event()
        self._connection.begin(lambda: self._call(opened.set))
        try:
            await asyncio.wait_for(opened.wait(), self._timeout)
        except TimeoutError:
            self._connection.close()
            raise self._connection.unreachable() from None
        self._connection.check(f"{self._connection.NAME}.open")
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
        if behind(self._connection, self._events.qsize(), self._waiting_bytes):
            self._connection.link.pause()

    def _end(self) -> None:
        self._call(self._events.put_nowait, None)

    def _taken(self, event: Event) -> None:
        """Learn which event the iteration gives out next."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over the events, for ever; ERR_LIBRARY when totemd is gone."""
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Event]:
        while True:
            item = await self._events.get()
            if item is None:
                self._connection.check(self._connection.NAME)
                return
            self._waiting_bytes -= item[1]
            if self._connection.link.paused and self._events.empty():
                self._connection.link.resume()
            for event in item[0]:
                self._taken(event)
                yield event

    async def _request(self, call: str, make: Callable[[int], Any]) -> Any:
        future: asyncio.Future[tuple[Status, Any, str]] = self._loop.create_future()

        def done(*answer: Any) -> None:
            self._call(_set, future, answer)

        number = self._connection.ask(call, make, done)
        if self._connection.link.paused:
            self._connection.link.resume()  # the answer comes behind what is not read yet
        try:
            return result(call, *await asyncio.wait_for(future, self._timeout))
        except TimeoutError:
            self._connection.forget(number)
            raise errors.AisTimeoutError(call, "totemd did not answer", definite=False) from None

    async def _patiently(self, queue: Callable[[], None]) -> None:
        """Queue a message; while the queue is full, wait up to the timeout for room."""
        deadline = self._loop.time() + self._timeout
        while True:
            try:
                return queue()
            except errors.TryAgainError:
                if self._loop.time() >= deadline:
                    raise
                await asyncio.sleep(ROOM_POLL_S)

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
