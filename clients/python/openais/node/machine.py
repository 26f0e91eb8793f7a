"""What the configuration must know of the machine it is read on: addresses, names, users."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

IpInterface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

HOSTS_FILE: Final = Path("/etc/hosts")
INTERFACES: Final = Path("/sys/class/net")
ID_MAX: Final = 0xFFFF_FFFE  # of users and groups
_NETLINK_ROUTE: Final = 0
_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST_DUMP: Final = 0x301
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_IFADDRMSG: Final = struct.Struct("=BBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ANSWER_SIZE_MAX: Final = 1 << 16
_ANSWERS_MAX: Final = 1024  # datagrams of one dump

_IFA_F_TENTATIVE: Final = 0x40  # IPv6: not yet known to be unique, so it cannot be bound

_AUXV_ENTRY: Final = struct.Struct("@NN")
_AT_SECURE: Final = 23


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts, read once; tests give their own."""

    host_name: str
    full_name: Callable[[], str]  # host name with its domain; may ask a name server
    addresses: tuple[IpInterface, ...]  # of the interfaces that are up, in the kernel's order
    resolve: Callable[[str], tuple[str, ...]]  # host name to addresses; empty: unknown
    user_id: Callable[[str], int | None]
    group_id: Callable[[str], int | None]
    elevated: bool  # the environment is not to be trusted
    listed: Callable[[str], tuple[str, ...]] = lambda _: ()  # as resolve, from the hosts file only
    mtu_bytes: Callable[[str], int | None] = lambda _: None  # of the interface of an own address
    receive_buffer_max_bytes: int | None = None  # of a socket; None: unknown or no limit


def this_machine() -> Machine:
    """Read the facts of the machine this runs on."""
    return Machine(
        socket.gethostname(),
        socket.getfqdn,
        local_addresses(),
        _resolve,
        _user_id,
        _group_id,
        _elevated(),
        _listed,
        _mtu_bytes,
        _receive_buffer_max_bytes(),
    )


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """One address of this machine."""

    address: IpInterface
    index: int  # of its interface
    usable: bool


def local_addresses() -> tuple[IpInterface, ...]:
    """Return the addresses of all interfaces with their prefix lengths."""
    return tuple(own.address for own in own_addresses())


def own_addresses() -> tuple[OwnAddress, ...]:
    """Ask the kernel for the addresses of all interfaces."""
    found: list[OwnAddress] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as kernel:
        body = _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        size = _HEADER.size + len(body)
        kernel.sendto(_HEADER.pack(size, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0) + body, (0, 0))
        for _ in range(_ANSWERS_MAX):
            if _read_answer(kernel.recv(_ANSWER_SIZE_MAX), found):
                break
    return tuple(found)


def _read_answer(data: bytes, found: list[OwnAddress]) -> bool:
    """Add the addresses of one datagram; True: it was the last one."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or size < _HEADER.size:
            return True
        if kind == _RTM_NEWADDR:
            address = _address(data[offset + _HEADER.size : offset + size])
            if address is not None:
                found.append(address)
        offset += (size + 3) & ~3
    return False


def _address(body: bytes) -> OwnAddress | None:
    _, prefix, flags, _, index = _IFADDRMSG.unpack_from(body)
    attributes: dict[int, bytes] = {}
    offset = _IFADDRMSG.size
    while offset + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, offset)
        if size < _ATTRIBUTE.size:
            break
        attributes[kind] = body[offset + _ATTRIBUTE.size : offset + size]
        offset += (size + 3) & ~3
    raw = attributes.get(
        _IFA_LOCAL, attributes.get(_IFA_ADDRESS)
    )  # LOCAL differs when peer to peer
    if raw is None:
        return None
    usable = not flags & _IFA_F_TENTATIVE
    return OwnAddress(ipaddress.ip_interface((raw, prefix)), index, usable)


def _resolve(name: str) -> tuple[str, ...]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):  # UnicodeError: an empty or a very long part of the name
        return ()
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _listed(name: str) -> tuple[str, ...]:
    try:
        lines = HOSTS_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    words = [line.partition("#")[0].split() for line in lines]
    found = [entry[0] for entry in words if name.lower() in map(str.lower, entry[1:])]
    return tuple(dict.fromkeys(address for address in found if _is_address(address)))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _mtu_bytes(address: str) -> int | None:
    """Ask the kernel which interface has an address, and for its MTU."""
    for own in own_addresses():
        if str(own.address.ip) == address:
            with contextlib.suppress(OSError):  # it went while we asked
                return _number_in(INTERFACES / socket.if_indextoname(own.index) / "mtu")
    return None


def _receive_buffer_max_bytes() -> int | None:
    if os.geteuid() == 0:
        return None  # may set more than the limit
    return _number_in(Path("/proc/sys/net/core/rmem_max"))


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _user_id(name: str) -> int | None:
    if name.isascii() and name.isdigit():
        return int(name) if int(name) <= ID_MAX else None
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _group_id(name: str) -> int | None:
    if name.isascii() and name.isdigit():
        return int(name) if int(name) <= ID_MAX else None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _elevated() -> bool:
    """Tell whether the program was started with privileges its caller does not have."""
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        return True
    try:
        data = Path("/proc/self/auxv").read_bytes()
    except OSError:
        return False  # no /proc: the ids above must do
    entries = dict(
        _AUXV_ENTRY.iter_unpack(data[: len(data) // _AUXV_ENTRY.size * _AUXV_ENTRY.size])
    )
    return bool(entries.get(_AT_SECURE))
