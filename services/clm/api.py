"""The operations of the membership service, one row each."""

from __future__ import annotations

from typing import Final

from openais.wire import clm as wire
from services.kit.machine import Operation, Service

OPERATIONS: Final = (
    Operation(wire.NodeGet, Service.READ),
    Operation(wire.MembershipGet, Service.READ),
    Operation(wire.Track, Service.ORDERED),
    Operation(wire.TrackStop, Service.ORDERED),
    Operation(wire.Evictions, Service.ORDERED),
    Operation(wire.Respond, Service.ORDERED),
    Operation(wire.Administer, Service.ORDERED),
    Operation(wire.NodesGet, Service.READ),
)
