"""The operations of the checkpoint service, one row each."""

from __future__ import annotations

from typing import Final

from openais.wire import ckpt as wire
from services.kit.machine import Operation, Service

OPERATIONS: Final = (
    Operation(wire.Open, Service.ORDERED),
    Operation(wire.Close, Service.ORDERED),
    Operation(wire.Unlink, Service.ORDERED),
    Operation(wire.RetentionDurationSet, Service.ORDERED),
    Operation(wire.ActiveReplicaSet, Service.ORDERED),
    Operation(wire.StatusGet, Service.READ),
    Operation(wire.SectionCreate, Service.ORDERED),
    Operation(wire.SectionDelete, Service.ORDERED),
    Operation(wire.SectionExpirationTimeSet, Service.ORDERED),
    Operation(wire.Write, Service.ORDERED),
    Operation(wire.SectionOverwrite, Service.ORDERED),
    Operation(wire.Read, Service.READ),
    Operation(wire.SectionsGet, Service.READ),
    Operation(wire.SectionGet, Service.READ),
    Operation(wire.Synchronize, Service.ORDERED),
    Operation(wire.CheckpointsGet, Service.READ),
    Operation(wire.CheckpointDump, Service.READ),
    # Extensions
    Operation(wire.SectionPut, Service.ORDERED),
    Operation(wire.SectionDrop, Service.ORDERED),
    Operation(wire.SectionTtlSet, Service.ORDERED),
    Operation(wire.ItemsGet, Service.READ),
    Operation(wire.NamesGet, Service.READ),
    Operation(wire.Watch, Service.ORDERED),
    Operation(wire.Unwatch, Service.ORDERED),
    Operation(wire.Track, Service.ORDERED),
    Operation(wire.TrackStop, Service.ORDERED),
)
