"""Which networks carry what: the state of each link to each node, told by probes. Pure.

A node is on 1..8 networks, its links; link k of all nodes is one network. The ring sees one
network: this module says on which links a datagram goes, and the ring is told only when a node
becomes reachable by any link, or by none. Copies on several links are the same bytes, and the
replay window of the seal takes the first and drops the others.

A link to a node is up when unicast and multicast pass in both sizes, small and as long as the
configured MTU: a network that loses long packets, or multicast alone, looks healthy to anything
less and then stops the ring.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from totemd.protocol.messages import LINKS_MAX, NODES_MAX, PROBE_SIZE_MIN, Probe, ProbeKind
from totemd.protocol.parameters import MS

LATENCY_SAMPLES_MAX: Final = 2048
DEFECT_TIMEOUTS: Final = 4  # all long probes, or all multicasts, unanswered for so many timeouts
FORGET_NS: Final = 600_000 * MS  # a node that was not configured and is gone so long


class Mode(Enum):
    """How several links are used."""

    NONE = "none"  # there is one; nothing is probed
    PASSIVE = "passive"  # the best link
    ACTIVE = "active"  # all at once


class LinkState(Enum):
    """What is known of one link to one node."""

    DOWN = "down"
    UP = "up"
    MTU_BAD = "mtu_bad"  # long packets are lost
    MULTICAST_BAD = "multicast_bad"  # unicast passes, multicast does not


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """Constants of the links of a node."""

    mode: Mode = Mode.NONE
    priorities: tuple[int, ...] = (1,)  # by link, the highest is preferred; 0 counts as 1
    multicast: bool = True  # False: transport udpu, nothing is multicast
    interval_ns: int = 250 * MS  # between two rounds of probes; too low: load of a large cluster
    timeout_ns: int = 500 * MS  # no answer at all for so long: down; over the interval
    count: int = 2  # answers in a row of each kind before a link is up
    probe_size_max: int = 1428  # bytes of a message that fills the MTU
    node_id: int = 0  # of this node

    @property
    def count_links(self) -> int:
        """Number of links."""
        return len(self.priorities)


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send a probe on one link; ``node_id`` None: multicast."""

    link: int
    node_id: int | None
    probe: Probe


@dataclass(frozen=True, slots=True)
class LinkMoved:
    """One link to one node has changed its state."""

    link: int
    node_id: int
    old: LinkState
    new: LinkState


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A node has become reachable by its first link."""

    node_id: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A node is reachable by no link any more."""

    node_id: int


LinkEffect: TypeAlias = SendProbe | LinkMoved | LinkUp | LinkDown


@dataclass(slots=True)
class LinkStats:
    """Counters of the links."""

    probes_sent: int = 0
    probes_answered: int = 0  # by others
    probes_received: int = 0
    probes_crossed: int = 0  # came on another link than they were sent on: wrong cabling
    link_changes: int = 0


@dataclass(slots=True)
class _Track:
    """Probes of one kind and size on one path."""

    sent_ns: int = 0  # 0: never
    waiting: bool = False
    in_a_row: int = 0
    answered_ns: int = 0
    good: bool = False

    def sent(self, now_ns: int) -> None:
        if self.waiting:
            self.in_a_row = 0
        self.sent_ns = now_ns
        self.waiting = True

    def answered(self, now_ns: int, count: int) -> None:
        self.waiting = False
        self.in_a_row += 1
        self.answered_ns = now_ns
        if self.in_a_row >= count:
            self.good = True

    def forget(self) -> None:
        self.good = False
        self.in_a_row = 0


@dataclass(slots=True)
class Path:
    """One link to one node."""

    state: LinkState = LinkState.DOWN
    first_ns: int = 0  # of the answers since the link was down; 0: none yet
    latency_total_ns: int = 0
    latency_samples: int = 0
    tracks: dict[tuple[bool, bool], _Track] = field(default_factory=dict)  # (multicast, long)

    def latency_ns(self) -> int:
        """Return the mean time of a probe and its answer over the newest samples; 0: none."""
        return self.latency_total_ns // self.latency_samples if self.latency_samples else 0

    def answered_ns(self) -> int:
        """Return when the newest answer came."""
        return max(track.answered_ns for track in self.tracks.values())

    def add_latency(self, value_ns: int) -> None:
        """Take one sample."""
        if self.latency_samples == LATENCY_SAMPLES_MAX:
            self.latency_total_ns //= 2
            self.latency_samples //= 2
        self.latency_total_ns += value_ns
        self.latency_samples += 1


@dataclass(slots=True)
class _Peer:
    paths: tuple[Path, ...]  # by link
    configured: bool
    seen_ns: int = 0  # when a link was last not down

    def reachable(self) -> bool:
        return any(path.state is not LinkState.DOWN for path in self.paths)


class Links:
    """The links of this node.

    Args:
        parameters: constants.
        configured: nodes of the nodelist without this one; others are added when heard.
        now_ns: monotonic.
    """

    def __init__(
        self, parameters: LinkParameters, configured: tuple[int, ...], now_ns: int
    ) -> None:
        assert 1 <= parameters.count_links <= LINKS_MAX
        assert (parameters.mode is Mode.NONE) == (parameters.count_links == 1)
        assert parameters.timeout_ns > parameters.interval_ns > 0
        self.stats: Final = LinkStats()
        self._p: Final = parameters
        self._all: Final = tuple(range(parameters.count_links))
        self._preferred: Final = sorted(
            self._all, key=lambda link: (-max(1, parameters.priorities[link]), link)
        )
        self._peers: Final[dict[int, _Peer]] = {}
        self._members: tuple[int, ...] = ()
        self._next_ns = now_ns
        self._long_unicast = False
        self._unicast: dict[int, tuple[int, ...]] = {}
        self._multicast = self._all
        if parameters.mode is not Mode.NONE:
            for node_id in configured:
                self._add(node_id, now_ns, configured=True)

    def _add(self, node_id: int, now_ns: int, *, configured: bool) -> _Peer | None:
        if len(self._peers) >= NODES_MAX:
            return None
        kinds = (False, True) if self._p.multicast else (False,)
        paths = tuple(
            Path(tracks={(m, long): _Track() for m in kinds for long in (False, True)})
            for _ in self._all
        )
        peer = self._peers[node_id] = _Peer(paths, configured, now_ns)
        self._choose()
        return peer

    # What goes where

    @property
    def all(self) -> tuple[int, ...]:
        """Every link: for what must reach nodes that are not in the ring."""
        return self._all

    def multicast_links(self) -> tuple[int, ...]:
        """Return the links for a multicast to the members."""
        return self._multicast

    def unicast_links(self, node_id: int) -> tuple[int, ...]:
        """Return the links for a datagram to one node."""
        return self._unicast.get(node_id, self._all)

    def set_members(self, members: tuple[int, ...]) -> None:
        """Note whom a multicast must reach; this node may be among them."""
        self._members = members
        self._choose()

    def _choose(self) -> None:
        """Choose the links anew. If none is known to work all are used, never none."""
        if self._p.mode is Mode.NONE:
            return
        self._unicast = {node: self._to(peer) for node, peer in self._peers.items()}
        members = [self._peers[node] for node in self._members if node in self._peers]
        if self._p.mode is Mode.ACTIVE:
            used = tuple(
                link
                for link in self._all
                if any(peer.paths[link].state is not LinkState.DOWN for peer in members)
            )
        else:
            used = tuple(
                link
                for link in self._preferred
                if members and all(peer.paths[link].state is LinkState.UP for peer in members)
            )[:1]
        self._multicast = used or self._all

    def _to(self, peer: _Peer) -> tuple[int, ...]:
        up = [link for link in self._preferred if peer.paths[link].state is LinkState.UP]
        answering = [
            link for link in self._preferred if peer.paths[link].state is not LinkState.DOWN
        ]
        if self._p.mode is Mode.ACTIVE:
            return tuple(sorted(answering)) or self._all
        return tuple((up or answering)[:1]) or self._all

    # Probes

    def deadline_ns(self) -> int | None:
        """Return when to call `expire`; None: never, nothing is probed."""
        return None if self._p.mode is Mode.NONE else self._next_ns

    def expire(self, now_ns: int) -> list[LinkEffect]:
        """Send the probes that are due, and see who has not answered."""
        if self._p.mode is Mode.NONE or now_ns < self._next_ns:
            return []
        late_ns = now_ns - self._next_ns
        if late_ns > self._p.interval_ns:
            self._excuse(late_ns)
        self._next_ns = now_ns + self._p.interval_ns
        effects: list[LinkEffect] = []
        for node_id in list(self._peers):
            effects += self._judge(node_id, now_ns)
        self._forget(now_ns)
        self._long_unicast = not self._long_unicast
        for link in self._all:
            effects += self._probe(link, now_ns)
        return effects

    def _excuse(self, late_ns: int) -> None:
        """This process did not run: answers that it could not read are not missing."""
        for peer in self._peers.values():
            for path in peer.paths:
                for track in path.tracks.values():
                    track.answered_ns += late_ns
                    track.waiting = False

    def _probe(self, link: int, now_ns: int) -> list[LinkEffect]:
        """Probe by unicast in one size and by multicast in the other, in turn."""
        effects: list[LinkEffect] = []
        long = self._long_unicast
        probe = Probe(ProbeKind.PING, link, self._size(long=long), now_ns, 0)
        for node_id, peer in sorted(self._peers.items()):
            peer.paths[link].tracks[False, long].sent(now_ns)
            effects.append(SendProbe(link, node_id, probe))
            if self._p.multicast:
                peer.paths[link].tracks[True, not long].sent(now_ns)
        if self._p.multicast:
            size = self._size(long=not long)
            to_all = Probe(ProbeKind.MULTICAST_PING, link, size, now_ns, 0)
            effects.append(SendProbe(link, None, to_all))
        self.stats.probes_sent += len(effects)
        return effects

    def _size(self, *, long: bool) -> int:
        return self._p.probe_size_max if long else PROBE_SIZE_MIN

    def receive(self, link: int, sender: int, probe: Probe, now_ns: int) -> list[LinkEffect]:
        """Take a probe of another node, which came on a link."""
        self.stats.probes_received += 1
        if probe.link != link:
            self.stats.probes_crossed += 1
            return []
        peer = self._peers.get(sender)
        if peer is None and self._p.mode is not Mode.NONE:
            peer = self._add(sender, now_ns, configured=False)
        match probe.kind:
            case ProbeKind.PING:
                return [self._answer(link, sender, ProbeKind.PONG, probe, now_ns)]
            case ProbeKind.MULTICAST_PING:
                return [self._answer(link, sender, ProbeKind.MULTICAST_PONG, probe, now_ns)]
            case _:
                return [] if peer is None else self._answered(link, sender, peer, probe, now_ns)

    def _answer(
        self, link: int, sender: int, kind: ProbeKind, probe: Probe, now_ns: int
    ) -> SendProbe:
        return SendProbe(link, sender, Probe(kind, link, probe.size, now_ns, probe.t_ns))

    def _answered(
        self, link: int, sender: int, peer: _Peer, probe: Probe, now_ns: int
    ) -> list[LinkEffect]:
        path = peer.paths[link]
        multicast = probe.kind is ProbeKind.MULTICAST_PONG
        track = path.tracks.get((multicast, probe.size == self._p.probe_size_max))
        if track is None or not track.waiting or probe.echo_ns != track.sent_ns:
            return []  # too late: it was counted as lost
        self.stats.probes_answered += 1
        path.add_latency(now_ns - probe.echo_ns)
        path.first_ns = path.first_ns or now_ns
        track.answered(now_ns, self._p.count)
        return self._judge(sender, now_ns)

    # States

    def _judge(self, node_id: int, now_ns: int) -> list[LinkEffect]:
        peer = self._peers[node_id]
        before = peer.reachable()
        effects: list[LinkEffect] = []
        for link, path in enumerate(peer.paths):
            old, new = path.state, self._state(path, now_ns)
            if new is not old:
                path.state = new
                effects.append(LinkMoved(link, node_id, old, new))
        after = peer.reachable()
        if after:
            peer.seen_ns = now_ns
        if effects:
            self.stats.link_changes += len(effects)
            self._choose()
        if after != before:
            effects.append(LinkUp(node_id) if after else LinkDown(node_id))
        return effects

    def _state(self, path: Path, now_ns: int) -> LinkState:
        if now_ns - path.answered_ns() > self._p.timeout_ns or not path.first_ns:
            path.first_ns = 0
            for track in path.tracks.values():
                track.forget()
            return LinkState.DOWN
        defect_ns = DEFECT_TIMEOUTS * self._p.timeout_ns
        self._forget_defective(path, now_ns, defect_ns)
        if all(track.good for track in path.tracks.values()):
            return LinkState.UP
        if path.state is LinkState.DOWN and now_ns - path.first_ns <= defect_ns:
            return LinkState.DOWN  # not all kinds had their turn yet
        return self._defect(path)

    def _forget_defective(self, path: Path, now_ns: int, defect_ns: int) -> None:
        """Notice that a size or multicast does not pass, long before each kind alone tells."""
        for place in (0, 1):
            affected = [track for key, track in path.tracks.items() if key[place]]
            if affected and now_ns - max(t.answered_ns for t in affected) > defect_ns:
                for track in affected:
                    track.forget()
        for track in path.tracks.values():
            if now_ns - track.answered_ns > 2 * defect_ns:
                track.forget()

    def _defect(self, path: Path) -> LinkState:
        good = {key for key, track in path.tracks.items() if track.good}
        if (False, True) in good and (True, False) not in good:
            return LinkState.MULTICAST_BAD
        return LinkState.MTU_BAD if good else LinkState.DOWN

    def _forget(self, now_ns: int) -> None:
        gone = [
            node_id
            for node_id, peer in self._peers.items()
            if not peer.configured
            and node_id not in self._members
            and now_ns - peer.seen_ns > FORGET_NS
        ]
        for node_id in gone:
            del self._peers[node_id]
            self._choose()

    def paths(self) -> list[tuple[int, int, Path]]:
        """Return (link, node, path) of all, for the status."""
        return [
            (link, node_id, peer.paths[link])
            for link in self._all
            for node_id, peer in sorted(self._peers.items())
        ]
