"""Cluster membership for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from openais import errors, membership
from openais.aio.session import AsyncSession
from openais.clm import LevelName, check_flags, check_node_get, level_of
from openais.membership import ClusterNode, NotificationBuffer
from openais.session import CALL_TIMEOUT_NS
from openais.wire import clm as wire
from openais.wire.clm import LOCAL_NODE_ID, TrackFlags

VIEWS_WAITING_MAX: Final = 64  # more are told as one change


class Client:
    """A handle of the membership service. Use with ``async with``; see `openais.clm.Client`."""

    def __init__(self, *, level: LevelName = "B.04", run_dir: Path | str | None = None) -> None:
        self._level: Final = level_of(level)
        self._views: Final[asyncio.Queue[wire.Membership | errors.AisError]] = asyncio.Queue()
        self._session: Final = AsyncSession(
            "clm", wire.TABLE, run_dir=run_dir, notified=self._changed, gone=self._gone
        )

    async def __aenter__(self) -> Client:
        """Open."""
        await self._session.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _changed(self, message: Any) -> None:
        if isinstance(message, wire.Membership):
            while self._views.qsize() >= VIEWS_WAITING_MAX:
                self._views.get_nowait()
            self._views.put_nowait(message)

    def _gone(self, error: errors.AisError) -> None:
        self._views.put_nowait(error)

    async def node_get(
        self, node_id: int = LOCAL_NODE_ID, timeout_ns: int = CALL_TIMEOUT_NS
    ) -> ClusterNode:
        """Return one node of the present view."""
        check_node_get(node_id, timeout_ns)
        node = await self._session.call(
            "node_get", wire.NodeGet(node_id, self._level), timeout_ns=timeout_ns
        )
        return membership.cluster_node(node, self._level)

    async def members(self) -> NotificationBuffer:
        """Return the present membership."""
        view = await self._session.call("track", wire.MembershipGet())
        flags = int(TrackFlags.CURRENT)
        return membership.listing(view, flags, self._session.node_id, self._level)

    async def watch(
        self, flags: TrackFlags | int = TrackFlags.CURRENT | TrackFlags.CHANGES
    ) -> AsyncIterator[NotificationBuffer]:
        """Iterate over the membership: now, with CURRENT, then each change. One at a time."""
        check_flags(flags, self._level)
        told: wire.Membership = await self._session.call(
            "track", wire.Track(int(flags), self._level)
        )
        node_id = self._session.node_id
        if flags & TrackFlags.CURRENT:
            yield membership.listing(told, int(flags), node_id, self._level)
        while True:
            view = await self._views.get()
            if isinstance(view, errors.AisError):
                raise view
            if view.view <= told.view:
                continue
            buffer = membership.changes(told, view, int(flags), node_id, self._level)
            told = view
            if buffer is not None:
                yield buffer

    @property
    def local_node(self) -> int:
        """Node id of the local node."""
        return self._session.node_id

    def close(self) -> None:
        """Finalize; may be repeated."""
        self._session.close()
