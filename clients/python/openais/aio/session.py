"""A session with one service, awaited."""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from openais.errors import AisError
from openais.session import (
    CALL_TIMEOUT_NS,
    OPEN_TIMEOUT_NS,
    REPLY_GRACE_NS,
    Session,
)
from openais.wire.codec import Table
from openais.wire.status import ONE_SECOND_NS, Status


class AsyncSession:
    """Wraps a `Session`; belongs to the running loop, whose thread sends and receives.

    Args:
        service: its name.
        table: its protocol.
        run_dir: of the node.
        notified: called in the loop with each notification.
        gone: called in the loop when the session is lost for good, with the error of all calls.
        outlives_membership: see `Session`.
        missed: called in the loop with how many notifications were dropped.
        paced: see `Session`.
    """

    def __init__(
        self,
        service: str,
        table: Table,
        *,
        run_dir: Path | str | None = None,
        notified: Callable[[Any], None] | None = None,
        gone: Callable[[AisError], None] | None = None,
        outlives_membership: bool = False,
        missed: Callable[[int], None] | None = None,
        paced: bool = False,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self.session: Final = Session(
            service,
            table,
            run_dir=run_dir,
            notified=(lambda message: self._post(notified, message)) if notified else None,
            gone=(lambda error: self._post(gone, error)) if gone else None,
            outlives_membership=outlives_membership,
            missed=(lambda count: self._post(missed, count)) if missed else None,
            paced=paced,
        )

        self._thread: Final = threading.get_ident()
        self._watch: select.epoll | None = None

    def _post(self, function: Callable[..., object], *arguments: object) -> None:
        if threading.get_ident() == self._thread:
            self._loop.call_soon(function, *arguments)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _attend(self) -> None:
        """Receive in the loop from now on."""
        self._watch = select.epoll()
        self.session.link.attend(self._watch, lambda: self._post(self._serve))
        self._loop.add_reader(self._watch.fileno(), self._serve)

    def _serve(self) -> None:
        if self._watch is not None:
            self.session.link.serve()

    @property
    def node_id(self) -> int:
        """Node id of the local node."""
        return self.session.node_id

    async def open(self, timeout_ns: int = OPEN_TIMEOUT_NS) -> None:
        """Wait until the service has opened the session; see `Session.open`."""
        opened = asyncio.Event()
        self.session.begin(lambda: self._post(opened.set))
        try:
            await asyncio.wait_for(opened.wait(), timeout_ns / ONE_SECOND_NS)
        except TimeoutError:
            self.session.close()
            raise self.session.unreachable() from None
        self.session.check("open")
        self._attend()

    async def call(
        self, call: str, message: object, *, flags: int = 0, timeout_ns: int = CALL_TIMEOUT_NS
    ) -> Any:
        """Do one request; see `Session.call`."""
        future: asyncio.Future[tuple[Status, bytes]] = self._loop.create_future()

        def done(status: Status, body: bytes) -> None:
            if threading.get_ident() == self._thread:
                _set(future, (status, body))
            else:
                self._post(_set, future, (status, body))

        number = self.session.send(call, message, flags, timeout_ns, done)
        try:
            seconds = (timeout_ns + REPLY_GRACE_NS) / ONE_SECOND_NS
            answer = await asyncio.wait_for(future, seconds)
        except TimeoutError:
            raise self.session.late(call, number) from None
        except asyncio.CancelledError:
            self.session.abandon(number)
            raise
        return self.session.result(call, *answer)

    def forget(self, call: str, message: object) -> None:
        """Do one request whose answer nobody waits for."""
        try:
            self.session.submit(call, message, 0, CALL_TIMEOUT_NS, lambda _status, _body: None)
        except AisError:
            return  # the session is gone, and what it had open with it

    def close(self) -> None:
        """Close the session; may be repeated."""
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self.session.link.leave_to_itself()
        self.session.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
