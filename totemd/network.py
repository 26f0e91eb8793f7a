"""The links of this node: their sockets, their probes, which datagram goes where."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from openais.node.logs import EventLog
from openais.node.poller import Poller
from totemd.protocol import messages
from totemd.protocol.links import (
    LinkDown,
    LinkEffect,
    LinkMoved,
    LinkParameters,
    Links,
    LinkState,
    LinkUp,
    SendProbe,
)
from totemd.protocol.messages import PROBE_SIZE_MIN, DecodeError, ProbeKind
from totemd.protocol.mtucheck import MtuCheck
from totemd.seal import Datagram
from totemd.udp import Address, LinkSettings, LinkSockets, Train

DATAGRAMS_PER_WAKE: Final = (
    4096  # of data per link: more than a rotation, so that tokens come after
)
TOKENS_PER_WAKE: Final = 256  # per link
STALE_TRAINS_MAX: Final = 200_000  # dropped after a pause

RULES: Final = {
    LinkState.MTU_BAD: "long datagrams are lost: the MTU of this network is below totem.netmtu",
    LinkState.MULTICAST_BAD: "unicast passes, multicast does not: see IGMP snooping, firewall",
}

_LOG = EventLog(__name__)

Reached: TypeAlias = LinkUp | LinkDown
Arrived: TypeAlias = tuple[int, Train]  # the link it came on


class Network:
    """What the ring is sent over.

    Args:
        settings: of each link, by number.
        parameters: of the links.
        check_ns: between two looks at the interfaces.
        seal_message: seals what this node sends.
        poller: learns of every socket.
        now_ns: monotonic.

    Raises:
        ExitError: status 22, a socket cannot be had.
    """

    def __init__(
        self,
        settings: list[LinkSettings],
        parameters: LinkParameters,
        check_ns: int,
        seal_message: Callable[[bytes], list[Datagram]],
        poller: Poller,
        now_ns: int,
    ) -> None:
        configured = sorted({node for link in settings for node, _ in link.peers})
        self._choice: Final = Links(parameters, tuple(configured), now_ns)
        self.several: Final = len(settings) > 1
        self._mtu: Final = MtuCheck(
            parameters.node_id, parameters.probe_size_max, parameters.timeout_ns
        )
        self._sealed_bytes: Final = settings[0].netmtu_bytes - parameters.probe_size_max
        self._check_ns: Final = check_ns
        self._seal: Final = seal_message
        self._poller: Final = poller
        self._checked_ns = now_ns
        self._members: tuple[int, ...] = ()
        self._probes_malformed = 0
        self._links: Final = [LinkSockets(one) for one in settings]
        self._polled: Final[list[set[int]]] = [set() for _ in settings]
        for link in self._links:
            self._poll(link)

    def _poll(self, link: LinkSockets) -> None:
        """Let the poller know the sockets that the link has now, and no others."""
        polled = self._polled[link.settings.number]
        for fd in polled:
            self._poller.unregister(fd)
        polled.clear()
        polled |= {s.fileno() for s in (link.data, link.token) if s is not None}
        for fd in polled:
            self._poller.register(fd)

    # Datagrams

    def receive(self, token_first: Callable[[], bool]) -> Iterator[Arrived]:
        """Read what has come: data before tokens, because they were sent before them.

        Args:
            token_first: asked before each read of data: the token is wanted sooner now.
        """
        for link in self._links:
            budget = DATAGRAMS_PER_WAKE
            while budget > 0 and link.data is not None:
                if token_first():
                    yield from self._tokens(1)
                train = link.receive(link.data)
                if train is None:
                    break
                budget -= 1 + len(train[0]) // max(train[1], 1)
                yield link.settings.number, train
        yield from self._tokens(TOKENS_PER_WAKE)

    def _tokens(self, budget: int) -> Iterator[Arrived]:
        """Read so many trains at most of each link's token socket."""
        for link in self._links:
            for _ in range(budget):
                train = link.receive(link.token) if link.token is not None else None
                if train is None:
                    break
                yield link.settings.number, train

    def drop_waiting(self) -> int:
        """Drop what waits in all sockets; return how many trains."""
        dropped = 0
        for link in self._links:
            for s in (link.data, link.token):
                while s is not None and dropped < STALE_TRAINS_MAX:
                    if link.receive(s) is None:
                        break
                    dropped += 1
        return dropped

    def learn(self, link: int, node_id: int, source: Address) -> None:
        """Remember where an authenticated datagram of a node came from."""
        self._links[link].learn(node_id, source)

    def multicast(self, datagrams: list[Datagram], *, members_only: bool) -> None:
        """Send to the members of the ring, or to every node there may be."""
        choice = self._choice
        for link in choice.multicast_links() if members_only else choice.all:
            self._links[link].multicast(datagrams, self._members if members_only else None)

    def unicast(self, node_id: int, datagrams: list[Datagram], *, again: bool = False) -> None:
        """Send to one node; what may have been lost on its link takes all."""
        choice = self._choice
        for link in choice.all if again else choice.unicast_links(node_id):
            self._links[link].unicast(node_id, datagrams)

    def set_members(self, members: tuple[int, ...]) -> None:
        """Note the members of the ring."""
        self._members = members
        self._choice.set_members(members)
        if not self.several:  # several are probed anyway
            self._mtu.set_members(members)

    # Probes and time

    def probe(self, link: int, sender: int, data: bytes, now_ns: int) -> list[Reached]:
        """Take an authenticated probe; return which nodes can be reached now, or no more."""
        try:
            probe = messages.decode_probe(data)
        except DecodeError as error:
            self._probes_malformed += 1
            _LOG.debug("probe_malformed", link=link, node=sender, rule=str(error))
            return []
        if probe.kind is ProbeKind.PONG:
            self._perform(self._mtu.answered(sender, probe))
        return self._perform(self._choice.receive(link, sender, probe, now_ns))

    def deadline_ns(self) -> int:
        """Return when to call `expire`."""
        deadline_ns = self._checked_ns + self._check_ns
        for probes_ns in (self._choice.deadline_ns(), self._mtu.deadline_ns()):
            if probes_ns is not None:
                deadline_ns = min(deadline_ns, probes_ns)
        return deadline_ns

    def expire(self, now_ns: int) -> list[Reached]:
        """Do what is due; return which nodes can be reached now, or no more."""
        if now_ns - self._checked_ns >= self._check_ns:
            self._checked_ns = now_ns
            for link in self._links:
                if link.check():
                    self._poll(link)
        self._perform(self._mtu.expire(now_ns))
        return self._perform(self._choice.expire(now_ns))

    def _perform(self, effects: list[LinkEffect]) -> list[Reached]:
        reached: list[Reached] = []
        for effect in effects:
            match effect:
                case SendProbe(link, node_id, probe):
                    datagrams = self._seal(messages.encode_probe(probe))
                    if node_id is None:
                        self._links[link].multicast(datagrams, None)
                    else:
                        self._links[link].unicast(node_id, datagrams)
                case LinkMoved(link, node_id, _, LinkState.UP):
                    _LOG.info("link", link=link, node=node_id, state="up")
                case LinkMoved(link, node_id, _, new):
                    _LOG.warning("link", **self._defect(link, node_id, new))
                case LinkUp() | LinkDown():
                    reached.append(effect)
        return reached

    def _defect(self, link: int, node_id: int, state: LinkState) -> dict[str, int | str]:
        """Return what is wrong with a link to a node, for the log."""
        told: dict[str, int | str] = {"link": link, "node": node_id, "state": state.value}
        if state is LinkState.MTU_BAD:
            told["address"] = self._links[link].address(node_id)
            told["expected"] = self._links[link].settings.netmtu_bytes
            told["seen"] = self._sealed_bytes + PROBE_SIZE_MIN
        if state in RULES:
            told["rule"] = RULES[state]
        return told

    # What it is and was

    def counters(self) -> dict[str, int]:
        """Return the counters of all links together."""
        total: Counter[str] = Counter()
        for link in self._links:
            total.update(dataclasses.asdict(link.stats))
        total["probes_malformed"] = self._probes_malformed
        return dict(total) | dataclasses.asdict(self._choice.stats)

    def status(self) -> list[dict[str, Any]]:
        """Return the links for the status document."""
        document: list[dict[str, Any]] = []
        for link in self._links:
            device = link.device
            document.append(
                {
                    "link": link.settings.number,
                    "address": link.settings.address,
                    "interface": None if device is None else device.name,
                    "mtu": None if device is None else device.mtu_bytes,
                    "running": device is not None and device.running,
                    "datagrams_sent": link.stats.datagrams_sent,
                    "sends_failed": link.stats.sends_failed,
                    "nodes": [],
                }
            )
        for number, node_id, path in self._choice.paths():
            document[number]["nodes"].append(
                {
                    "node_id": node_id,
                    "state": path.state.value,
                    "latency_us": path.latency_ns() // 1000,
                }
            )
        return document

    def close(self) -> None:
        """Close every socket."""
        for link in self._links:
            link.close()
