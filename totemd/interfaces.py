"""What the kernel says of the interface that has an address: asked again and again."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from openais.node.machine import OwnAddress, own_addresses

SIOCGIFFLAGS: Final = 0x8913
SIOCGIFMTU: Final = 0x8921
IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40  # has a carrier
NAME_SIZE_MAX: Final = 15
_REQUEST: Final = struct.Struct("16si20x")  # struct ifreq: name, value


@dataclass(frozen=True, slots=True)
class Device:
    """An interface of this machine, at one moment."""

    index: int
    name: str
    mtu_bytes: int
    running: bool  # up, and with a carrier


def holder(address: str) -> Device | None:
    """Return the interface that has an address; None: none has it, or it may not be used yet.

    Args:
        address: IPv4 or IPv6; link-local ones with ``%`` and the name of the interface.
    """
    text, _, scope = address.partition("%")
    wanted = ipaddress.ip_address(text)
    for own in own_addresses():
        if own.usable and _has(own, wanted):
            device = _device(own.index)
            if device is not None and scope in ("", device.name, str(device.index)):
                return device
    return None


def _has(own: OwnAddress, wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether it is this address; the loopback network belongs to its interface whole."""
    return own.address.ip == wanted or (
        wanted.version == 4 and wanted.is_loopback and wanted in own.address.network
    )


def _device(index: int) -> Device | None:
    with (
        contextlib.suppress(OSError),  # it went while we asked
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s,
    ):
        name = socket.if_indextoname(index)
        flags = _ask(s, SIOCGIFFLAGS, name) & 0xFFFF
        mtu = _ask(s, SIOCGIFMTU, name)
        running = flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING
        return Device(index, name, mtu, running)
    return None


def _ask(s: socket.socket, request: int, name: str) -> int:
    answer = fcntl.ioctl(s, request, _REQUEST.pack(name.encode()[:NAME_SIZE_MAX], 0))
    value: int = _REQUEST.unpack(answer)[1]
    return value
