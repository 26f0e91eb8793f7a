"""Network namespaces that stand for machines: one per node, joined by a bridge in one more.

Nothing is made outside of the namespaces, so that deleting them leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

NODES_MAX: Final = 64
MTU_BYTES: Final = 1500
PREFIX: Final = "10.77.0"
INTERFACE: Final = "eth0"


class NetworkError(Exception):
    """No namespaces can be had: says what failed and why."""


def ip(*arguments: str) -> None:
    """Run one command of iproute2.

    Raises:
        NetworkError: it fails.
    """
    command = [shutil.which("ip") or "ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    """One network of some nodes, numbered from 1.

    Args:
        name: told apart from other networks of this process.
        count: of nodes.
    """

    def __init__(self, name: str, count: int) -> None:
        self.count: Final = count
        self._prefix: Final = f"aisbench-{os.getpid()}-{name}"
        self._bridge: Final = f"{self._prefix}-bridge"
        self._made: Final[list[str]] = []

    def namespace(self, node: int) -> str:
        """Return the name of a node's namespace."""
        return f"{self._prefix}-{node}"

    @staticmethod
    def address(node: int) -> str:
        """Return a node's address."""
        return f"{PREFIX}.{node}"

    def command(self, node: int, arguments: list[str]) -> list[str]:
        """Return the command that runs another at a node; its pid is that of the other."""
        return ["ip", "netns", "exec", self.namespace(node), *arguments]

    def make(self) -> None:
        """Make everything."""
        self._namespace(self._bridge)
        bridge = ["-n", self._bridge]
        # Without a querier a snooping bridge would drop what nobody has asked for.
        ip(*bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip(*bridge, "link", "set", "br0", "mtu", str(MTU_BYTES), "up")
        for node in range(1, self.count + 1):
            own = self.namespace(node)
            self._namespace(own)
            port = f"port{node}"
            peer = ["peer", "name", INTERFACE, "netns", own]
            ip(*bridge, "link", "add", port, "type", "veth", *peer)
            ip(*bridge, "link", "set", port, "master", "br0", "up")
            ip("-n", own, "addr", "add", f"{self.address(node)}/24", "dev", INTERFACE)
            ip("-n", own, "link", "set", INTERFACE, "mtu", str(MTU_BYTES), "up")
            ip("-n", own, "link", "set", "lo", "up")

    def _namespace(self, name: str) -> None:
        ip("netns", "add", name)
        self._made.append(name)

    def remove(self) -> None:
        """Delete what was made."""
        for name in reversed(self._made):
            with contextlib.suppress(NetworkError):  # the others are to go all the same
                ip("netns", "delete", name)
        self._made.clear()


def unavailable() -> str | None:
    """Return why there can be no namespaces here; None: there can."""
    if shutil.which("ip") is None:
        return "iproute2 (the command ip) is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return None


@contextlib.contextmanager
def network(name: str, count: int) -> Iterator[Network]:
    """Have a network for the time of a block."""
    made = Network(name, count)
    try:
        made.make()
        yield made
    finally:
        made.remove()
