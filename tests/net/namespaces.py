"""Hosts that are network namespaces, joined by bridges, with the faults real networks have.

Every host has one interface ``netK`` per network K. The bridges and the other ends of the
interfaces are in a namespace of their own, the switch, so that nothing appears in the namespace
of the caller and all is gone with the namespaces. Needs root, ``ip`` and ``tc``.

A fault is a filter on the switch's side of a host's cable: *out* is what the host sends, *in*
what it gets. A datagram train that a host sends in one call (UDP_SEGMENT) is split before it
reaches the filter, as in front of a network card, unless ``offload`` is asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.net.filters import Rules, mac

HOSTS_MAX: Final = 64
NETWORKS_MAX: Final = 8
MTU: Final = 1500
COMMAND_TIMEOUT_S: Final = 20.0
CLONE_NEWNET: Final = 0x40000000
NAMESPACES: Final = Path("/run/netns")
ROOT: Final = Path(__file__).resolve().parents[2]
IN: Final = "in"  # to the host
OUT: Final = "out"  # from the host
_HOOKS: Final = {IN: "egress", OUT: "ingress"}  # as the switch's port sees it
_NAME: Final = re.compile(r"ais(\d+)x\d+(?:n\d+|sw)")
# Link-local addresses work at once; addresses of an interface that is down are kept, as with IPv4.
_IPV6_AT_ONCE: Final = (
    "cd /proc/sys/net/ipv6/conf && echo 0 >all/accept_dad && echo 0 >default/accept_dad && "
    "echo 1 >all/keep_addr_on_down && echo 1 >default/keep_addr_on_down"
)
_serial = itertools.count(1)


class UnavailableError(Exception):
    """This machine cannot do it: says what is missing."""


def run(*command: str, lines: Iterable[str] = ()) -> str:
    """Run a command, with lines as its input; return what it printed.

    Raises:
        UnavailableError: it failed; says why.
    """
    done = subprocess.run(
        command,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace."""

    number: int  # from 1
    namespace: str

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs a program in this host; its pid is the program's."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def address(self, network: int = 0, version: int = 4) -> str:
        """Return its address in a network."""
        if version == 6:
            return f"fd77:{network}::{self.number:x}"
        return f"10.77.{network}.{self.number}"

    def link_local(self, network: int = 0) -> str:
        """Return the IPv6 address that its interface has by itself, from its hardware address."""
        return f"fe80::77:ff:fe{network:02x}:{self.number:x}"

    def pids(self) -> list[int]:
        """Return the processes in it."""
        return [int(pid) for pid in run("ip", "netns", "pids", self.namespace).split()]

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread make sockets in the host; they stay there afterwards."""
        with Path("/proc/thread-self/ns/net").open() as own:
            _enter(NAMESPACES / self.namespace)
            try:
                yield
            finally:
                _set_namespace(own.fileno())


def _enter(path: Path) -> None:
    with path.open() as file:
        _set_namespace(file.fileno())


def _set_namespace(fd: int) -> None:
    # os.setns is there only from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


class Laboratory:
    """Hosts 1..n, each on every network; use `laboratory` to have one."""

    def __init__(self, hosts: int, networks: int, mtu: int, *, offload: bool) -> None:
        assert 1 <= hosts <= HOSTS_MAX
        assert 1 <= networks <= NETWORKS_MAX
        prefix = f"ais{os.getpid()}x{next(_serial)}"
        self.switch: Final = f"{prefix}sw"
        self.hosts: Final = tuple(Host(n, f"{prefix}n{n}") for n in range(1, hosts + 1))
        self.networks: Final = networks
        self._mtu: Final = mtu
        self._offload: Final = offload
        self._rules: Final[dict[tuple[int, int, str], Rules]] = {}
        self._cables: Final[dict[tuple[int, int], subprocess.Popen[str]]] = {}  # long ones

    def host(self, number: int) -> Host:
        """Return a host by its number."""
        return self.hosts[number - 1]

    def make(self) -> None:
        """Make everything.

        Raises:
            UnavailableError: not possible here.
        """
        for name in (self.switch, *(host.namespace for host in self.hosts)):
            run("ip", "netns", "add", name)
        lines = [line for k in range(self.networks) for line in self._bridge(k)]
        for host in self.hosts:
            run(*host.command("sh", "-c", _IPV6_AT_ONCE))
            lines += [line for k in range(self.networks) for line in self._cable(host, k)]
        run("ip", "-n", self.switch, "-batch", "-", lines=lines)
        for host in self.hosts:
            lines = ["link set lo up"]
            lines += [line for k in range(self.networks) for line in self._interface(host, k)]
            run("ip", "-n", host.namespace, "-batch", "-", lines=lines)
        self._tc(f"qdisc add dev {_port(h.number, k)} clsact" for h, k in self._ports())

    def _ports(self) -> Iterator[tuple[Host, int]]:
        return itertools.product(self.hosts, range(self.networks))

    def _bridge(self, network: int) -> list[str]:
        name = f"br{network}"
        # A bridge that snoops drops multicast until a querier has asked; test networks have none.
        return [
            f"link add {name} type bridge mcast_snooping 0 forward_delay 0 stp_state 0",
            f"link set {name} up mtu {self._mtu}",
        ]

    def _cable(self, host: Host, network: int) -> list[str]:
        port = _port(host.number, network)
        address = mac(network, host.number)
        return [
            f"link add {port} mtu {self._mtu} type veth"
            f" peer name net{network} address {address} mtu {self._mtu} netns {host.namespace}",
            f"link set {port} master br{network} up",
        ]

    def _interface(self, host: Host, network: int) -> list[str]:
        name = f"net{network}"
        segments = "" if self._offload else " gso_max_segs 1"
        return [f"link set {name}{segments} up", *self._addresses(host, network), *_routes(network)]

    def _addresses(self, host: Host, network: int) -> list[str]:
        return [
            f"address add {host.address(network)}/24 dev net{network}",
            f"address add {host.address(network, 6)}/64 dev net{network} nodad",
        ]

    def remove(self) -> None:
        """End what still runs in the hosts and remove everything."""
        for key in list(self._cables):
            self._end_cable(*key)
        for name in (*(host.namespace for host in self.hosts), self.switch):
            _remove(name)

    # Faults

    def loss(self, host: int, network: int, percent: float, *directions: str) -> None:
        """Lose so many of a hundred packets of one host in one network, in both directions."""
        for direction in directions or (IN, OUT):
            self._rule(host, network, direction).loss_percent = percent
            self._apply(host, network, direction)

    def limit_size(self, host: int, network: int, size_max: int, *directions: str) -> None:
        """Drop longer IP packets without a word: an MTU black hole; 0: no limit."""
        for direction in directions or (IN, OUT):
            self._rule(host, network, direction).size_max = size_max
            self._apply(host, network, direction)

    def block_multicast(self, host: int, network: int, *, blocked: bool) -> None:
        """Let one host get no multicast and no broadcast, while unicast passes."""
        self._rule(host, network, IN).multicast_blocked = blocked
        self._apply(host, network, IN)

    def delay(self, host: int, network: int, in_ms: float, out_ms: float) -> None:
        """Let what a host gets and sends take longer, by a cable that is a process: not fast."""
        self.no_delay(host, network)
        port, near, far = (f"{letter}{host}k{network}" for letter in "nde")
        lines = [
            f"link add {near} mtu {self._mtu} type veth peer name {far} mtu {self._mtu}",
            f"link set {far} addrgenmode none up",
            f"link set {port} nomaster addrgenmode none",
            f"link set {near} master br{network} up",
        ]
        run("ip", "-n", self.switch, "-batch", "-", lines=lines)
        self._tc([f"qdisc add dev {far} clsact"])
        command = [sys.executable, "-m", "tests.net.delay", port, far, str(out_ms), str(in_ms)]
        cable = subprocess.Popen(
            ["ip", "netns", "exec", self.switch, *command],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._cables[host, network] = cable
        assert cable.stdout is not None
        if cable.stdout.readline() != "ready\n":
            raise UnavailableError(f"no delay between {port} and {far}: see the output above")
        self._apply(host, network, OUT)

    def no_delay(self, host: int, network: int) -> None:
        """Undo `delay`."""
        if (host, network) in self._cables:
            self._end_cable(host, network)
            lines = [
                f"link del d{host}k{network}",
                f"link set {_port(host, network)} master br{network}",
            ]
            run("ip", "-n", self.switch, "-batch", "-", lines=lines)
            self._apply(host, network, OUT)

    def _end_cable(self, host: int, network: int) -> None:
        cable = self._cables.pop((host, network))
        cable.kill()
        cable.communicate()

    def cut(self, source: int, destination: int, network: int = 0) -> None:
        """Let nothing of one host reach another: one way only."""
        self._rule(destination, network, IN).sources_cut.add(source)
        self._apply(destination, network, IN)

    def join(self, source: int, destination: int, network: int = 0) -> None:
        """Undo `cut`."""
        self._rule(destination, network, IN).sources_cut.discard(source)
        self._apply(destination, network, IN)

    def partition(self, *sides: Sequence[int], networks: Sequence[int] | None = None) -> None:
        """Split the hosts; those in no side are alone. Replaces what was cut before."""
        side_of = {host: number for number, side in enumerate(sides) for host in side}
        for network in range(self.networks) if networks is None else networks:
            for host in self.hosts:
                me = host.number
                self._rule(me, network, IN).sources_cut = {
                    other.number
                    for other in self.hosts
                    if other.number != me
                    and side_of.get(other.number, -other.number) != side_of.get(me, -me)
                }
                self._apply(me, network, IN)

    def heal(self) -> None:
        """Take every filter and delay away, and plug in every cable."""
        for host, network in self._ports():
            self.no_delay(host.number, network)
            for direction in (IN, OUT):
                if self._rules.pop((host.number, network, direction), None) is not None:
                    self._apply(host.number, network, direction)
            self.plug_in(host.number, network)

    def _rule(self, host: int, network: int, direction: str) -> Rules:
        return self._rules.setdefault((host, network, direction), Rules())

    def _apply(self, host: int, network: int, direction: str) -> None:
        program = self._rules.get((host, network, direction), Rules()).program(network)
        device, hook = _port(host, network), _HOOKS[direction]
        if direction == OUT and (host, network) in self._cables:
            device, hook = f"e{host}k{network}", "egress"  # the cable sees what the port drops
        self._tc(
            [
                f"filter replace dev {device} {hook} pref 1 handle 1"
                f' bpf direct-action bytecode "{program}"'
            ]
        )

    def _tc(self, lines: Iterable[str]) -> None:
        run("tc", "-n", self.switch, "-batch", "-", lines=lines)

    def unplug(self, host: int, network: int = 0) -> None:
        """Pull a host's cable: its interface loses the carrier and keeps its addresses."""
        run("ip", "-n", self.switch, "link", "set", _port(host, network), "down")

    def plug_in(self, host: int, network: int = 0) -> None:
        """Undo `unplug`."""
        run("ip", "-n", self.switch, "link", "set", _port(host, network), "up")

    def interface_down(self, host: int, network: int = 0) -> None:
        """Take the host's own interface down: addresses stay, routes go."""
        run("ip", "-n", self.host(host).namespace, "link", "set", f"net{network}", "down")

    def interface_up(self, host: int, network: int = 0) -> None:
        """Undo `interface_down`."""
        lines = [f"link set net{network} up", *_routes(network)]
        run("ip", "-n", self.host(host).namespace, "-batch", "-", lines=lines)

    def remove_address(self, host: int, network: int = 0, version: int = 4) -> None:
        """Take an address away; memberships of groups stay with the interface."""
        self._address("del", host, network, version)

    def add_address(self, host: int, network: int = 0, version: int = 4) -> None:
        """Undo `remove_address`."""
        self._address("add", host, network, version)

    def _address(self, verb: str, host: int, network: int, version: int) -> None:
        one = self.host(host)
        address = f"{one.address(network, version)}/{24 if version == 4 else 64}"
        more = ("nodad",) if version == 6 and verb == "add" else ()
        run("ip", "-n", one.namespace, "address", verb, address, "dev", f"net{network}", *more)

    def remove_interface(self, host: int, network: int = 0) -> None:
        """Take the interface itself away, like a card that is pulled out."""
        run("ip", "-n", self.switch, "link", "del", _port(host, network))

    def add_interface(self, host: int, network: int = 0) -> None:
        """Undo `remove_interface`: a new interface of the same name, address and group route."""
        one = self.host(host)
        run("ip", "-n", self.switch, "-batch", "-", lines=self._cable(one, network))
        lines = self._interface(one, network)
        run("ip", "-n", one.namespace, "-batch", "-", lines=lines)
        self._tc([f"qdisc add dev {_port(host, network)} clsact"])

    def set_mtu(self, host: int, network: int, mtu: int) -> None:
        """Set the MTU of a host's interface and of the port it is plugged into."""
        namespace = self.host(host).namespace
        run("ip", "-n", namespace, "link", "set", f"net{network}", "mtu", str(mtu))
        run("ip", "-n", self.switch, "link", "set", _port(host, network), "mtu", str(mtu))


def _port(host: int, network: int) -> str:
    return f"n{host}k{network}"


def _routes(network: int) -> list[str]:
    """The first network is where a multicast goes whose sender names no interface."""
    return ["route replace 224.0.0.0/4 dev net0"] if network == 0 else []


def _remove(name: str) -> None:
    """Remove a namespace with the processes in it: they were started there by its owner."""
    if not (NAMESPACES / name).exists():
        return
    with contextlib.suppress(UnavailableError):
        for pid in run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with contextlib.suppress(UnavailableError):
        run("ip", "netns", "del", name)


def remove_leftovers() -> None:
    """Remove what dead runs of this harness have left."""
    if not NAMESPACES.is_dir():
        return
    for path in sorted(NAMESPACES.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            _remove(path.name)


@functools.cache
def missing() -> str | None:
    """Return why there can be no laboratory here; None: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"the program {tool} (iproute2) is not installed"
    try:
        with laboratory(1) as one:
            one.loss(1, 0, 1.0)
    except UnavailableError as error:
        return f"no network namespaces, bridges or packet filters here: {error}"
    return None


@contextlib.contextmanager
def laboratory(
    hosts: int, networks: int = 1, mtu: int = MTU, *, offload: bool = False
) -> Iterator[Laboratory]:
    """Make a laboratory for the time of a test.

    Args:
        hosts: 1..HOSTS_MAX.
        networks: 1..NETWORKS_MAX.
        mtu: of every interface.
        offload: trains of datagrams cross the network unsplit, faster than any real one; a
            filter then drops a whole train, and `limit_size` sees the size of the train.

    Raises:
        UnavailableError: not possible here.
    """
    remove_leftovers()
    made = Laboratory(hosts, networks, mtu, offload=offload)
    try:
        made.make()
        yield made
    finally:
        made.remove()
