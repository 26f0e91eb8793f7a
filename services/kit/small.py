"""A machine whose state is one object: what such machines have in common. Pure.

In a merge the winning side's state is taken as a whole. A service with many or large objects
implements `services.kit.machine.Machine` itself, as the checkpoint service does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from openais.wire.codec import Buffer, DecodeError, pack_state, unpack_state
from services.kit.machine import (
    REST,
    Context,
    Effect,
    Foreign,
    NodeId,
    Objects,
    Report,
    SessionId,
    Summary,
    View,
)


class SmallMachine(ABC):
    """What is left to a service: `apply`, `read`, `session_closed`, and the abstract methods.

    Whatever changes the state calls `touch` first.
    """

    merges_losers: Final = False

    def __init__(self) -> None:
        self.objects: Final = Objects()
        self.touch()

    def touch(self) -> None:
        """Say that the state is about to change."""
        self.objects.touch(REST)

    @abstractmethod
    def values(self) -> Any:
        """Return the whole state as lists of plain values, equal for equal states: sort."""

    @abstractmethod
    def restore(self, values: Any) -> None:
        """Replace the whole state by what `values` returned on another replica."""

    @abstractmethod
    def holdings(self, session: SessionId) -> bytes:
        """Tell what a session has, for `resumed`; nothing of what it waits for."""

    @abstractmethod
    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        """Give a session what it had, as far as that is still there."""

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        """Tell what the sessions of this node have."""
        return pack_state([[session, self.holdings(session)] for session in sessions])

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        """Give the sessions of nodes that return what they had."""
        effects: list[Effect] = []
        for node_id in sorted(reports):
            its = replace(context, sender=node_id)
            for session, holdings in unpack_state(reports[node_id].content):
                effects += self.resumed(SessionId(session), holdings, its)
        return effects

    def speak(self, version: int) -> None:
        """Go on in a version of the protocol; what is dumped may be another then."""
        self.touch()

    def deadline_ns(self) -> int | None:
        """Return None: nothing expires; see `services.kit.timers`."""
        return None

    def expired(self, now_ns: int) -> list[Any]:
        """Return nothing: nothing expires."""
        return []

    def names(self) -> Iterable[bytes]:
        """Return the name of the one object."""
        return (REST,)

    def dump(self, name: bytes) -> list[bytes]:
        """Return the whole state."""
        return [pack_state(self.values())] if name == REST else []

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace the whole state.

        Raises:
            DecodeError: damaged.
        """
        data = changes.get(REST)
        if data is None:
            return
        self.touch()
        try:
            self.restore(unpack_state(data))
        except (TypeError, ValueError, IndexError) as error:
            raise DecodeError(f"state: {error}") from error

    def summary(self, name: bytes) -> Summary:
        """Refuse: there is no object that could be merged."""
        raise AssertionError(f"no object {name!r}")

    def tombstones(self) -> Sequence[bytes]:
        """Return nothing: the winning side's state is taken as a whole."""
        return ()

    def merge(self, foreign: Sequence[Foreign], context: Context) -> None:
        """Refuse: there is no object that could be merged."""
        raise AssertionError("nothing to merge")

    @abstractmethod
    def check(self) -> None:
        """Assert every invariant."""

    def describe(self) -> dict[str, int]:
        """Return counts for the status."""
        return {}
