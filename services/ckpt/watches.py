"""Who wants to be told of changes of a checkpoint, and what. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from openais.wire import ckpt as wire
from openais.wire.ckpt import ChangeKind
from services.kit.machine import Effect, Notify, SessionId

TRACK: Final = 0  # the id of the watch that tracking sets up on each open

OpenKey: TypeAlias = tuple[SessionId, int]  # session, handle


@dataclass(slots=True)
class Watch:
    """One watch of one open."""

    section_id: bytes | None  # None: all that begin with the prefix
    prefix: bytes
    data_size_max: int  # bytes of data told with a change; what is larger is told without
    number: int = 0  # of the last notification

    def covers(self, section_id: bytes) -> bool:
        """True: changes of this section are told."""
        if self.section_id is not None:
            return section_id == self.section_id
        return section_id.startswith(self.prefix)

    def report(self, watch: int) -> wire.WatchReport:
        """Return what tells the watch to another replica."""
        return wire.WatchReport(
            watch, self.section_id, self.prefix, self.data_size_max, self.number
        )


Watches: TypeAlias = dict[OpenKey, dict[int, Watch]]


def load(told: wire.WatchReport) -> Watch:
    """Return the watch that a report tells."""
    return Watch(told.section_id, told.prefix, told.data_size_max, told.number)


def tell(
    watches: Watches,
    kind: ChangeKind,
    elements: tuple[wire.ChangedElement, ...],
    version: bytes,
) -> list[Effect]:
    """Return the notifications of one change, in an order that every replica has."""
    told: list[Effect] = []
    for session, handle in sorted(watches):
        for number, watch in sorted(watches[session, handle].items()):
            covered = tuple(_told(e, watch) for e in elements if watch.covers(e.section_id))
            if covered or kind is ChangeKind.REPLACED:
                watch.number += 1
                change = wire.Changed(handle, number, watch.number, kind, covered, version)
                told.append(Notify(session, change))
    return told


def _told(e: wire.ChangedElement, watch: Watch) -> wire.ChangedElement:
    if e.data is None or len(e.data) <= watch.data_size_max:
        return e
    return wire.ChangedElement(e.section_id, e.offset, e.size, None)
