"""What stands between the network and the ring: keys, seals, proofs, and the log of what fails.

Feeds `seal`, `keyring` and `proof` and performs what they ask for. Messages of the ring pass
through unread; those of these protocols end here.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from openais.node.logs import EventLog
from totemd import keyfile, keyring, seal
from totemd.keyring import KeyRing, Rotation
from totemd.proof import Proof
from totemd.protocol import local
from totemd.protocol.node import Effect, Node
from totemd.store import Store
from totemd.udp import Address
from totemd.writer import Writer, WriterLostError

GROUP_NAME: Final = b"\0totemd"  # the group of all totemds; names of others cannot begin so
CONNECTION: Final = local.ConnectionId(0)  # clients count from 1
KEY_SIZE: Final = 128
SAYS_MAX: Final = 64
AGREED: Final = 2
TICK_NS: Final = 1_000_000_000
DIGEST_LOGGED_NS: Final = 60 * 1_000_000_000  # per source
DIGEST_SOURCES_MAX: Final = 256
ALONE_NS: Final = 10 * 1_000_000_000
DUPLICATES_MAX: Final = 10  # within DUPLICATES_NS
DUPLICATES_NS: Final = 60 * 1_000_000_000
DUPLICATE_SILENT_NS: Final = 3 * 1_000_000_000

_LOG = EventLog(__name__)

Send: TypeAlias = Callable[[int | None, list[seal.Datagram]], None]  # to a node; None: to all


class Security:
    """The keys and sessions of one node.

    Args:
        config: of the node.
        store: has this node's session.
        writer: makes the key ring durable.
        datagram_size: see `seal.Sealer`.
        send: sends sealed datagrams.
    """

    def __init__(
        self, config: NodeConfig, store: Store, writer: Writer, datagram_size: int, send: Send
    ) -> None:
        self._config: Final = config
        self._me: Final = config.totem.node_id
        self._store: Final = store
        self._writer: Final = writer
        self._send: Final = send
        self._datagram_size: Final = datagram_size
        self._path: Final = config.system.state_dir / keyfile.RING_NAME
        self._extra: Final = [keyfile.read(path) for path in config.totem.key_accept]
        self._writing: Final[dict[int, KeyRing]] = {}
        self._says: Final[deque[bytes]] = deque()
        self._said: Final[dict[int, bytes]] = {}  # request -> what waits for the ring
        self._request = 0
        self._index = 0  # of the group's last event
        self._cut = 0  # index up to which its log is cut
        self._ticked_ns = 0
        self._heard: dict[int, tuple[int, int]] = {}
        self._digests: Final = DigestLog()
        self._duplicates: Final = DuplicateWatch(store.session[0])
        self._proof: Final = Proof(self._me, os.urandom)
        self.rotation: Final = self._rotation()
        keys = self._keys()
        self._algorithm: Final = seal.ALGORITHMS[config.totem.crypto_cipher] if keys else seal.NONE
        self.sealer = self._new_sealer()
        self.opener: Final = seal.Opener(
            keys,
            self._algorithm,
            self._me,
            (store.session, store.session_before),
            store.peer_sessions(),
            self._listed(),
            strict=config.totem.replay_protection == "strict",
        )

    def _rotation(self) -> Rotation | None:
        totem = self._config.totem
        if not totem.secauth:
            rule = "secauth is off: no encryption, no authentication"
            _LOG.warning("ring_not_secured", rule=rule)
            return None
        secret = totem.key_text.encode() or keyfile.read(totem.key_file)
        base = bytes.fromhex(seal.fingerprint(secret))
        ring = keyring.begin(base, secret, keyfile.read_ring(self._path))
        if ring.current.secret != secret:
            _LOG.info("key_ring", path=str(self._path), rule="newer than the key file")
        nodes = frozenset(node.node_id for node in self._config.nodes)
        return Rotation(self._me, ring, totem.cluster_name, nodes)

    def _listed(self) -> dict[int, frozenset[str]] | None:
        if not self._config.totem.block_unlisted_ips:
            return None
        return {node.node_id: frozenset(node.addresses) for node in self._config.nodes}

    def _keys(self) -> list[seal.ClusterKey]:
        if self.rotation is None:
            return []
        secrets = [*(key.secret for key in self.rotation.ring.keys), *self._extra]
        keys = [self.rotation.key(secret) for secret in dict.fromkeys(secrets)]
        if len({key.key_id for key in keys}) < len(keys):
            rule = "two keys that are accepted have one short id; make another key"
            raise ExitError(Exit.KEY_FILE, f"key file {self._config.totem.key_file}: {rule}")
        return keys

    def _key(self, key_id: int) -> seal.ClusterKey | None:
        return next((key for key in self._keys() if key.key_id == key_id), None)

    def _new_sealer(self) -> seal.Sealer:
        rotation = self.rotation
        key = None if rotation is None else rotation.key(rotation.ring.current.secret)
        size = self._datagram_size
        return seal.Sealer(key, self._algorithm, self._me, self._store.session, size)

    # The network

    def message(
        self, data: bytes, sender: int, order: seal.Order, source: str, now_ns: int
    ) -> None:
        """Handle an authentic message of `seal.UNPROVEN_TYPES`."""
        if data[:1] == seal.HELLO_TYPE:
            own = seal.pack_session(self.sealer.session)
            reply, proved = self._proof.receive(data, sender, own, source, now_ns)
            if reply is not None:
                self._send(None, self.sealer.pieces(reply))
            if proved is not None and int.from_bytes(proved[:8], "big") == order[0]:
                self.opener.prove(sender, proved)
        elif self.rotation is not None:
            self._act(self.rotation.learn(data[1:]))

    def refused(self, source: Address, now_ns: int, *, alone: bool) -> None:
        """Look at what the opener reports after a train.

        Raises:
            ExitError: status 26, another node with this id was here before.
        """
        opener = self.opener
        if opener.digest_failures:
            self._digests.count(source, len(opener.digest_failures), now_ns, alone=alone)
            opener.digest_failures.clear()
        if opener.unproven:
            for node, session, key_id, address in opener.unproven:
                challenge = self._proof.heard(node, session, address, now_ns)
                if challenge is not None:  # under a key that the other one has
                    self._send(None, self.sealer.pieces(challenge, self._key(key_id)))
            opener.unproven.clear()
        if opener.duplicates:
            for address, start in opener.duplicates:
                self._duplicates.count(address, start, now_ns)
            opener.duplicates.clear()

    # The group of all totemds

    def start(self, node: Node, now_ns: int) -> list[Effect]:
        """Join the group."""
        return node.attach_seat(CONNECTION, GROUP_NAME, b"", 0, now_ns)

    def told(self, event: local.Event, nodes: Sequence[int]) -> None:
        """Handle an event of the group's connection."""
        rotation = self.rotation
        if rotation is None:
            return
        match event:
            case local.Delivered(index, node_id, _, payload):
                self._index = index
                self._act(rotation.deliver(node_id, bytes(payload), nodes))
            case local.View(index):
                self._index = index
                self._act(rotation.changed(nodes))
            case local.Accepted(request):
                for said in [r for r in self._said if r <= request]:
                    del self._said[said]
            case local.Refused(request):
                data = self._said.pop(request, None)
                if data is not None and len(self._says) < SAYS_MAX:
                    self._says.append(data)
            case _:
                pass  # what a service with a memory needs to know

    @property
    def talks(self) -> bool:
        """True: call `flush`."""
        return self._index != self._cut or bool(self._says)

    def flush(self, node: Node, now_ns: int) -> list[Effect]:
        """Return the effects of what is to be said to the group, and cut its log."""
        effects: list[Effect] = []
        if self._index != self._cut:
            self._cut = self._index
            effects += node.snapshotted(CONNECTION, self._index, now_ns)
        for _ in range(len(self._says)):
            data = self._says.popleft()
            self._request += 1
            self._said[self._request] = data
            effects += node.multicast(CONNECTION, self._request, AGREED, data, now_ns)
        return effects

    # Keys

    def rotate(self) -> str | None:
        """Begin to change the key of the cluster; return why that is refused."""
        if self.rotation is None:
            return "secauth is off: there is no key"
        found = self.rotation.rotate(os.urandom(KEY_SIZE), time.time_ns() // 1_000)
        if isinstance(found, str):
            return found
        self._act(found)
        return None

    def retire(self) -> str | None:
        """Drop old keys everywhere; return why that is refused."""
        if self.rotation is None:
            return "secauth is off: there is no key"
        found = self.rotation.retire()
        if isinstance(found, str):
            return found
        self._act(found)
        return None

    def _act(self, effects: Sequence[keyring.Effect]) -> None:
        assert self.rotation is not None
        for effect in effects:
            match effect:
                case keyring.Store(ring):
                    self._write(ring)
                case keyring.Use(ring):
                    self.opener.accept(self._keys())
                    self.sealer.use(self.rotation.key(ring.current.secret))
                case keyring.Say(data):
                    if len(self._says) < SAYS_MAX:
                        self._says.append(data)
                case keyring.Note(event, generation, rule):
                    _LOG.info(event, generation=generation, rule=rule)

    def _write(self, ring: KeyRing) -> None:
        try:
            self._writing[self._writer.begin(self._path, ring.encode())] = ring
        except WriterLostError as error:
            raise ExitError(Exit.RING_ID, f"state {self._path}: {error}") from error

    def written(self, ticket: int, error: str | None) -> None:
        """Learn that the writer has finished something; what is not ours is ignored."""
        if self._store.session != self.sealer.session:
            self.sealer = self._new_sealer()
            self.opener.own_session(self._store.session)
        ring = self._writing.pop(ticket, None)
        if ring is None or self.rotation is None:
            return
        if error is not None:
            rule = "this node does not take part in the change of the key"
            _LOG.error("key_ring_not_stored", path=str(self._path), reason=error, rule=rule)
            return
        self._act(self.rotation.stored(ring))

    def tick(self, nodes: Sequence[int], now_ns: int) -> None:
        """Help nodes that send under an old key and are not in the ring; renew the session."""
        if now_ns - self._ticked_ns < TICK_NS:
            return
        self._ticked_ns = now_ns
        if self.sealer.worn or self._duplicates.over(now_ns):
            self._store.renew_session()
        if self.rotation is None or not self.rotation.unfinished:
            return
        senders = self.opener.senders()
        for node, (key_id, counter) in senders.items():
            if node not in nodes and self._heard.get(node) != (key_id, counter):
                self._help(node, key_id)
        self._heard = senders

    def _help(self, node: int, key_id: int) -> None:
        assert self.rotation is not None
        offer, under = self.rotation.update(key_id), self._key(key_id)
        if offer is not None and under is not None:
            self._send(node, self.sealer.pieces(seal.KEY_TYPE + offer, under))

    def status(self) -> dict[str, Any] | None:
        """Return the part of the status document; keys in docs/operating.md."""
        rotation = self.rotation
        if rotation is None:
            return None
        return {
            "sending": seal.fingerprint(rotation.ring.current.secret),
            "accepted": [seal.fingerprint(key.secret) for key in rotation.ring.keys],
            "waiting_for": list(rotation.waiting_for),
        }


class DigestLog:
    """One line per source and minute about datagrams under another key."""

    def __init__(self) -> None:
        self._sources: Final[dict[str, tuple[int, int]]] = {}  # -> (logged at, count)
        self._first_ns = 0

    def count(self, source: Address, datagrams: int, now_ns: int, *, alone: bool) -> None:
        """Count datagrams; log them if this source was not logged lately."""
        name = source[0]
        if name not in self._sources and len(self._sources) >= DIGEST_SOURCES_MAX:
            return
        self._first_ns = self._first_ns or now_ns
        logged_ns, count = self._sources.get(name, (now_ns - DIGEST_LOGGED_NS, 0))
        count += datagrams
        if now_ns - logged_ns >= DIGEST_LOGGED_NS:
            logged_ns = now_ns
            _LOG.warning("Invalid digest", address=f"{name}:{source[1]}", since_start=count)
        self._sources[name] = (logged_ns, count)
        if alone and self._first_ns > 0 and now_ns - self._first_ns >= ALONE_NS:
            self._first_ns = -1  # once
            _LOG.warning(
                "other nodes use a different key or cluster_name",
                rule="compare openais key status, or ais-keygen --fingerprint, of all nodes",
            )


class DuplicateWatch:
    """Decides what to do about a second node with this node's id.

    The one that came later ends. The other one then needs a new session: its own is older than
    the one that was heard from the second node, and would be taken for a recording.

    Args:
        session: start of this node's session.
    """

    def __init__(self, session: int) -> None:
        self._session: Final = session
        self._since_ns = 0
        self._count = 0
        self._later_ns: int | None = None  # when the other one, which came later, was heard last

    def count(self, source: str, start: int, now_ns: int) -> None:
        """Count a datagram of the other node.

        Raises:
            ExitError: status 26, the other one was here first.
        """
        if now_ns - self._since_ns >= DUPLICATES_NS:
            self._since_ns, self._count = now_ns, 0
        self._count += 1
        if self._count == 1:
            _LOG.error("duplicate_node_id", address=source, rule="each node needs its own nodeid")
        if start > self._session:
            self._later_ns = now_ns
        elif self._count >= DUPLICATES_MAX:
            reason = f"another node with this node id sends from {source}"
            raise ExitError(Exit.DUPLICATE_NODE, reason)

    def over(self, now_ns: int) -> bool:
        """Return True, once, when the second node has been silent for a while."""
        if self._later_ns is None or now_ns - self._later_ns < DUPLICATE_SILENT_NS:
            return False
        self._later_ns = None
        return True
