"""Cluster membership for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from openais import errors, membership
from openais.aio.session import AsyncSession
from openais.clm import (
    ADMINISTRATION_TIMEOUT_NS,
    check_administer,
    check_flags,
    check_node_get,
    check_response,
    level_of,
)
from openais.membership import ClusterNode, NotificationBuffer
from openais.session import CALL_TIMEOUT_NS
from openais.wire import clm as wire
from openais.wire.clm import (
    LOCAL_NODE_ID,
    AdminOperation,
    Level,
    Nodes,
    Response,
    TrackFlags,
)
from openais.wire.session import RequestFlag
from openais.wire.status import Status

VIEWS_WAITING_MAX: Final = 64  # more are told as one change


class Client:
    """A handle of the membership service. Use with ``async with``; see `openais.clm.Client`."""

    def __init__(self, *, level: str = "B.04", run_dir: Path | str | None = None) -> None:
        self._level: Final = level_of(level)
        self._views: Final[asyncio.Queue[wire.Membership | wire.Step | errors.AisError]] = (
            asyncio.Queue()
        )
        self._session: Final = AsyncSession(
            "clm", wire.TABLE, run_dir=run_dir, notified=self._changed, gone=self._gone
        )

    async def __aenter__(self) -> Client:
        """Open."""
        await self._session.open()
        try:
            if self._level >= Level.B_03:
                asked = wire.MembershipGet(self._level)
                await self._session.call("open", asked, flags=RequestFlag.LOCAL)
        except errors.AisError:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _changed(self, message: Any) -> None:
        if isinstance(message, wire.Membership | wire.Step):
            while self._views.qsize() >= VIEWS_WAITING_MAX:
                self._views.get_nowait()
            self._views.put_nowait(message)

    def _gone(self, error: errors.AisError) -> None:
        self._views.put_nowait(error)

    async def node_get(
        self, node_id: int = LOCAL_NODE_ID, timeout_ns: int = CALL_TIMEOUT_NS
    ) -> ClusterNode:
        """Return one node of the present view."""
        self._session.session.check("node_get")
        check_node_get(node_id, timeout_ns)
        node = await self._session.call(
            "node_get", wire.NodeGet(node_id, self._level), timeout_ns=timeout_ns
        )
        return membership.cluster_node(node, self._level)

    async def members(self) -> NotificationBuffer:
        """Return the present membership."""
        view = await self._session.call("track", wire.MembershipGet(self._level))
        flags = int(TrackFlags.CURRENT)
        return membership.listing(view, flags, self._session.node_id, self._level)

    async def watch(
        self, flags: TrackFlags | int = TrackFlags.CURRENT | TrackFlags.CHANGES
    ) -> AsyncIterator[NotificationBuffer]:
        """Iterate over the membership: now, with CURRENT, then each change. One at a time."""
        self._session.session.check("watch")
        check_flags(flags, self._level)
        told: wire.Membership = await self._session.call(
            "track", wire.Track(int(flags), self._level)
        )
        node_id = self._session.node_id
        following = membership.Following(told, int(flags), node_id, self._level)
        if flags & TrackFlags.CURRENT:
            yield membership.listing(told, int(flags), node_id, self._level)
        while True:
            message = await self._views.get()
            if isinstance(message, errors.AisError):
                raise message
            buffer = following.take(message)
            if buffer is not None:
                yield buffer

    async def stop(self) -> None:
        """Stop following changes; what is not iterated over yet is dropped."""
        await self._session.call("track_stop", wire.TrackStop())
        while not self._views.empty():
            self._views.get_nowait()

    async def response(self, invocation: int, answer: Response | Status) -> None:
        """Answer a step; see `openais.clm.Client.response`."""
        self._session.session.check("response")
        response = check_response(self._level, invocation, answer)
        await self._session.call("response", wire.Respond(invocation, response))

    async def administer(
        self,
        operation: AdminOperation,
        node_id: int,
        timeout_ns: int = ADMINISTRATION_TIMEOUT_NS,
    ) -> None:
        """Lock, unlock, shut down, remove or reset a node; see `openais.clm.Client.administer`."""
        self._session.session.check("administer")
        check_administer(self._level, node_id)
        asked = wire.Administer(operation, node_id)
        await self._session.call(operation.name.lower(), asked, timeout_ns=timeout_ns)

    async def nodes(self) -> Nodes:
        """Return every known node with its administrative state."""
        self._session.session.check("nodes")
        check_administer(self._level, LOCAL_NODE_ID)
        found: Nodes = await self._session.call("nodes", wire.NodesGet())
        return found

    @property
    def local_node(self) -> int:
        """Node id of the local node."""
        return self._session.node_id

    def close(self) -> None:
        """Finalize; may be repeated."""
        self._session.close()
