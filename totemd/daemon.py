"""The process: one loop that feeds the node with datagrams, clients and time.

No protocol decision is made here. One thread, one poller, one timer.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import time
from typing import Any, Final

import zmq

from openais import __version__
from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from openais.node.ipc import Access, IpcServer
from openais.node.logs import EventLog
from openais.node.poller import Poller
from openais.wire import port as wire
from totemd import privileges, seal
from totemd.configured import (
    datagram_size,
    link_parameters,
    link_settings,
    parameters,
    payload_size_max,
    payload_sizes,
    seat_limits,
)
from totemd.network import Network, Reached
from totemd.port import Port, refusal
from totemd.protocol import messages
from totemd.protocol.effects import (
    Cause,
    Configuration,
    ConfigurationKind,
    KeptOut,
    Moved,
    Multicast,
    Noted,
    Persist,
    Retired,
    State,
    Unicast,
)
from totemd.protocol.links import LinkUp
from totemd.protocol.local import Drop, Space, Tell
from totemd.protocol.node import CONNECTIONS_MAX, Effect, Node
from totemd.protocol.parameters import MS
from totemd.security import GROUP_NAME, Security
from totemd.store import Store
from totemd.udp import Address
from totemd.writer import Writer, WriterLostError

SLEEP_MAX_MS: Final = 1000
PROBE: Final = bytes((messages.TYPE_PROBE,))  # first byte of such a message
FRAME_SIZE_MAX: Final = 16 << 20  # bytes of one bundle of a client: its window, and more
PEERS_SAVED_NS: Final = 10_000 * MS
HELD_EFFECTS_MAX: Final = 65_536  # while a ring number is being stored

_LOG = EventLog(__name__)


class Daemon:
    """totemd. Everything that can fail at start fails in the constructor."""

    def __init__(self, config: NodeConfig) -> None:
        self.config: Final = config
        self.node_id: Final = config.totem.node_id
        self._writer: Final = Writer()  # before there are keys and threads
        self._store: Final = Store(config.system.state_dir, self.node_id, self._writer)
        self._held: list[Effect] = []
        self.node: Final = Node(
            parameters(config),
            self.node_id,
            self._store.boot_epoch,
            self._store.stored_ring_seq,
            payload_size_max(config),
            seat_limits(config),
            payload_sizes(config),
            config.totem.config_version,
        )
        self._security: Final = Security(
            config, self._store, self._writer, datagram_size(config), self._send
        )
        self._poller: Final = Poller()
        self._network: Final = Network(
            link_settings(config),
            link_parameters(config),
            config.totem.downcheck_ms * MS,
            self._seal,
            self._poller,
            time.monotonic_ns(),
        )
        privileges.apply(config.system)  # before the threads of ZeroMQ, which inherit it
        self._context: Final = zmq.Context()
        server = IpcServer(
            self._context,
            config.system.run_dir,
            wire.SOCKET_NAME,
            config.ipc.mode,
            _access(config),
            CONNECTIONS_MAX,
            FRAME_SIZE_MAX,
            refusal,
        )
        self._port: Final = Port(server, self.node, self.status, self._security)
        self._messages_malformed = 0
        self._wake_fd, self._wake_write_fd = socket.socketpair()
        self._stopping = False
        self._retired = False
        self._kept_out: KeptOut | None = None
        self._gap: Final = Gap()
        self._pause_ns: Final = config.totem.runtime_token_ms * MS // 2
        self._peers_saved_ns = time.monotonic_ns()

    def run(self) -> None:
        """Serve until told to stop; then leave the ring in order."""
        self._signals()
        privileges.keep_memory()
        server = self._port.server
        server.register(self._poller)
        for s in (self._wake_fd, self._writer):
            self._poller.register(s.fileno())
        _LOG.info(
            "started",
            node=self.node_id,
            name=self.config.totem.node_name,
            cluster=self.config.totem.cluster_name,
            version=__version__,
            pid=os.getpid(),
        )
        self._gap.measure(time.monotonic_ns(), 0)
        self._perform(self.node.start(time.monotonic_ns()))
        self._perform(self._security.start(self.node, time.monotonic_ns()))
        try:
            while not self._retired:
                self._turn(server)
        finally:
            server.flush()
            self._close(server)
        if self._kept_out is not None:
            raise _outdated(self.config, self._kept_out)
        _LOG.info("stopped", node=self.node_id)

    def _turn(self, server: IpcServer) -> None:
        began_ns = time.monotonic_ns()
        deadline_ns = self._deadline_ns()
        timeout_ms = 1 if server.pending else _until_ms(deadline_ns, began_ns)
        ready = self._poller.poll(timeout_ms)
        gap_ns = self._gap.measure(began_ns, timeout_ms * MS)
        if gap_ns > self._pause_ns:
            self._paused(gap_ns)
        descriptors = {fd for fd in ready if isinstance(fd, int)}
        if descriptors:
            server.noticed(descriptors)
            if self._wake_fd.fileno() in descriptors:
                self._wake_fd.recv(64)
            if self._writer.fileno() in descriptors:
                self._written()
            self._receive()
        if len(ready) > len(descriptors) or server.pending:
            for effects in self._port.receive(time.monotonic_ns()):
                self._perform(effects)
        now_ns = time.monotonic_ns()
        if now_ns >= deadline_ns:  # what was set since lies ahead
            self._expire(now_ns)
        if self._security.talks:
            self._perform(self._security.flush(self.node, now_ns))
        server.flush()
        if self._stopping and self.node.ring.leave_copies is None:
            self._perform(self.node.leave(time.monotonic_ns()))

    def _paused(self, gap_ns: int) -> None:
        """Tell the core; after a token timeout, what waits is of a ring that has gone on."""
        now_ns = time.monotonic_ns()
        if gap_ns >= self.node.ring.token_loss_ns:
            self._network.drop_waiting()
        self._perform(self.node.pause(gap_ns, now_ns))

    def _deadline_ns(self) -> int:
        network, node = self._network.deadline_ns(), self.node.deadline_ns()
        return network if node is None else min(network, node)

    def _receive(self) -> None:
        for link, train in self._network.receive(self._token_first):
            self._train(link, *train)

    def _token_first(self) -> bool:
        return self.node.ring.token_first

    def _train(self, link: int, buffer: bytes, size: int, source: Address) -> None:
        now_ns = time.monotonic_ns()
        security = self._security
        for sender, order, data in security.opener.open_train(buffer, size, source[0], now_ns):
            kind = data[:1]
            if kind in seal.UNPROVEN_TYPES:  # which do not tell where a node is
                security.message(data, sender, order, source[0], now_ns)
                continue
            self._network.learn(link, sender, source)
            if kind == PROBE:
                self._reached(self._network.probe(link, sender, data, now_ns), now_ns)
                continue
            try:
                message = messages.decode(data)
            except messages.DecodeError as error:
                self._messages_malformed += 1
                _LOG.debug("message_malformed", address=source[0], rule=str(error))
                continue
            self._perform(self.node.receive(message, sender, order, now_ns))
        security.refused(source, now_ns, alone=len(self.node.groups.nodes) == 1)

    def _send(self, node_id: int | None, datagrams: list[seal.Datagram]) -> None:
        if node_id is None:
            self._network.multicast(datagrams, members_only=False)
        else:
            self._network.unicast(node_id, datagrams, again=False)

    def _reached(self, changes: list[Reached], now_ns: int) -> None:
        for change in changes:
            tell = self.node.link_up if isinstance(change, LinkUp) else self.node.link_down
            self._perform(tell(change.node_id, now_ns))

    def _expire(self, now_ns: int) -> None:
        deadline = self.node.deadline_ns()
        if deadline is not None and deadline <= now_ns:
            self._perform(self.node.expire(now_ns))
        if self._network.deadline_ns() <= now_ns:
            self._reached(self._network.expire(now_ns), now_ns)
        if now_ns - self._peers_saved_ns >= PEERS_SAVED_NS:
            self._peers_saved_ns = now_ns
            self._store.save_peer_sessions(self._security.opener.sessions())
        self._security.tick(self.node.groups.nodes, now_ns)

    def _seal(self, message: bytes) -> list[seal.Datagram]:
        return self._security.sealer.pieces(message)

    def _written(self) -> None:
        """Go on with what waited for the disk."""
        try:
            for ticket, error in self._writer.finished():
                self._store.written(ticket, error)
                self._security.written(ticket, error)
        except WriterLostError as error:
            raise ExitError(Exit.RING_ID, str(error)) from error
        held, self._held = self._held, []
        self._perform(held)

    def _hold(self, effects: list[Effect]) -> None:
        self._held += effects
        if len(self._held) > HELD_EFFECTS_MAX:
            reason = f"{HELD_EFFECTS_MAX} effects wait for a ring number to be stored"
            raise ExitError(Exit.RING_ID, f"state {self.config.system.state_dir}: {reason}")

    def _perform(self, effects: list[Effect]) -> None:
        """Perform in order; multicasts that follow each other share system calls."""
        if self._held:
            self._hold(effects)
            return
        datagrams: list[seal.Datagram] = []
        for effect in effects:
            if (
                isinstance(effect, Multicast)
                and type(effect.message) is messages.Data
                and not (effect.again and self._network.several)
            ):
                datagrams += self._security.sealer.pieces(messages.encode(effect.message))
            elif isinstance(effect, Tell):
                self._port.tell(effect)
            else:
                if datagrams:
                    self._multicast(datagrams)
                    datagrams = []
                if isinstance(effect, Unicast):
                    sealed = self._security.sealer.pieces(messages.encode(effect.message))
                    self._network.unicast(effect.node_id, sealed, again=effect.again)
                elif isinstance(effect, Persist):
                    if not self._store.durable(effect.ring_seq):
                        self._hold(effects[effects.index(effect) :])
                        break
                else:
                    self._perform_rare(effect)
        if datagrams:
            self._multicast(datagrams)

    def _multicast(self, datagrams: list[seal.Datagram]) -> None:
        """Send data; while a ring forms, also to nodes that are in none with us yet."""
        operational = self.node.ring.state is State.OPERATIONAL
        self._network.multicast(datagrams, members_only=operational)

    def _perform_rare(self, effect: Effect) -> None:
        match effect:
            case Multicast(message):
                sealed = self._security.sealer.pieces(messages.encode(message))
                self._network.multicast(sealed, members_only=False)
            case Configuration():
                _log_configuration(effect)
                self._network.set_members(effect.members)
            case Moved(old, new, cause):
                log = _LOG.info if cause in LOUD_CAUSES else _LOG.debug
                log("state", old=old.value, new=new.value, cause=cause.value)
            case Noted(event, fields):
                _LOG.warning(event, **dict(fields))
            case Drop():
                self._port.drop(effect)
            case KeptOut():
                self._kept_out = effect
            case Retired():
                self._retired = True
            case _:
                raise AssertionError(f"no way to perform {effect}")

    def _signals(self) -> None:
        self._wake_fd.settimeout(0)
        self._wake_write_fd.settimeout(0)
        signal.set_wakeup_fd(self._wake_write_fd.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        if self._stopping:
            raise ExitError(Exit.OK, "told to stop twice")
        self._stopping = True

    def _close(self, server: IpcServer) -> None:
        self._store.save_peer_sessions(self._security.opener.sessions())
        server.close()
        self._network.close()
        self._context.destroy(0)
        self._writer.close()

    def status(self) -> dict[str, Any]:
        """Return the status document; keys in docs/operating.md."""
        node, ring = self.node, self.node.ring
        counters: dict[str, int] = {}
        for stats in (ring.stats, node.stats, self._port.server.stats):
            counters |= dataclasses.asdict(stats)
        counters |= self._network.counters()
        for rule, count in {
            **self._security.opener.failures,
            "malformed": self._messages_malformed,
        }.items():
            counters[f"datagrams_dropped_{rule.replace(' ', '_')}"] = count
        gate_open = node.packer.gate_open and ring.state is State.OPERATIONAL
        return {
            "process": "totemd",
            "pid": os.getpid(),
            "version": __version__,
            "node_id": self.node_id,
            "node_name": self.config.totem.node_name,
            "cluster_name": self.config.totem.cluster_name,
            "state": ring.state.value,
            "gate": "open" if gate_open else "closed",
            "ring": {
                "seq": ring.installed_ring.seq,
                "representative": ring.installed_ring.representative,
            },
            "members": list(ring.members),
            "held_off": list(ring.hold_offs.held(time.monotonic_ns())),
            "links": self._network.status(),
            "groups": _groups(node),
            "seats": [
                {"group": _text(key.name), **seat.describe(time.monotonic_ns())}
                for key, seat in sorted(node.seats.items())
                if key.name != GROUP_NAME
            ],
            "evs_clients": [
                {"pid": pid, "groups": [_text(key.rstrip(b"\0")) for key in keys]}
                for pid, keys in node.evs_clients()
            ],
            "keys": self._security.status(),
            "counters": counters,
        }


LOUD_CAUSES: Final = frozenset(
    {
        *(Cause.TOKEN_LOST, Cause.HEARTBEAT_LOST, Cause.FAILED_TO_RECEIVE, Cause.PAUSE),
        *(Cause.PROTOCOL_ERROR, Cause.SYNC_TIMEOUT, Cause.FORCED),
    }
)


class Gap:
    """Measures for how long the loop did not run: not scheduled, or the machine was suspended."""

    def __init__(self) -> None:
        self._awake_ns = time.monotonic_ns()
        self._boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def measure(self, began_ns: int, timeout_ns: int) -> int:
        """Return for how long nothing was read since the last call, wanted sleep aside.

        Args:
            began_ns: when the wait began that is over now.
            timeout_ns: how long it was to last at the most.
        """
        now_ns, boot_ns = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        busy_ns = began_ns - self._awake_ns
        late_ns = now_ns - began_ns - timeout_ns
        suspended_ns = boot_ns - self._boot_ns - (now_ns - self._awake_ns)
        self._awake_ns, self._boot_ns = now_ns, boot_ns
        return busy_ns + max(late_ns, 0) + suspended_ns


def _until_ms(deadline_ns: int, now_ns: int) -> int:
    return min(SLEEP_MAX_MS, max(0, -((now_ns - deadline_ns) // MS)))


def _groups(node: Node) -> list[dict[str, Any]]:
    """Return all groups for the status document; of EVS, nobody but a node knows its members."""
    found = [
        (
            "service" if key.space is Space.SERVICE else "cpg",
            key.name,
            [(m.node_id, m.pid) for m in node.groups.members(key)],
        )
        for key in sorted(node.groups.groups)
        if key.name != GROUP_NAME
    ]
    joined: dict[bytes, list[tuple[int, int]]] = {}
    for pid, keys in node.evs_clients():
        for key in keys:
            joined.setdefault(key.rstrip(b"\0"), []).append((node.me, pid))
    found += [("evs", key, sorted(members)) for key, members in sorted(joined.items())]
    return [
        {
            "group": _text(name),
            "space": space,
            "members": [{"node_id": node_id, "pid": pid} for node_id, pid in members],
        }
        for space, name, members in found
    ]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _outdated(config: NodeConfig, kept_out: KeptOut) -> ExitError:
    reason = (
        f"{config.path}: config_version is {kept_out.config_version}, another node of the ring "
        f"has {kept_out.highest}: bring the newer file here"
    )
    return ExitError(Exit.MAIN_CONFIGURATION, reason)


def _log_configuration(c: Configuration) -> None:
    if c.kind is ConfigurationKind.REGULAR:
        _LOG.info(
            "ring",
            ring=f"{c.ring.seq}.{c.ring.representative}",
            members=tuple(c.members),
            joined=tuple(c.joined),
            failed=tuple(c.failed),
            reason=c.cause.value if c.cause is not None else "start",
            took_ms=c.took_ns // MS,
        )
    elif c.left:
        _LOG.info("ring_lost", left=tuple(c.left), remain=tuple(c.members))


def _access(config: NodeConfig) -> Access:
    return Access(
        frozenset(i.uid for i in config.identities if i.uid is not None),
        frozenset(i.gid for i in config.identities if i.gid is not None),
    )
