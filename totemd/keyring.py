"""The keys of one node, and how a cluster changes them without a pause. Pure: no IO, no clock.

A new key is offered to all in the total order. Each node stores it durably, accepts it, and says
so in the order; when the last one has said so, everybody sends under it; when the last one has
said that, the old key can go (docs/design/key-rotation.md).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from totemd.seal import ClusterKey, UnwrapError

KEYS_MAX: Final = 3  # accepted at a time; one more, and the oldest goes
MAGIC: Final = b"OTKR"
VERSION: Final = 1
FILE_HEAD: Final = struct.Struct(">4sBB8sQ")  # magic version keys base sending
FILE_KEY: Final = struct.Struct(">QH")  # generation, bytes
CHECKSUM: Final = struct.Struct(">I")

OFFER: Final = 1
STORED: Final = 2
SWITCHED: Final = 3
RETIRE: Final = 4
HEAD: Final = struct.Struct(">BQ")  # kind, generation
OFFER_HEAD: Final = struct.Struct(">H")  # id of the key the new one is wrapped under


class Key(NamedTuple):
    """A cluster key. ``generation`` orders keys; 0 is the key file."""

    generation: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What a node accepts and what it sends under; ``keys`` ascend by generation."""

    base: bytes  # fingerprint of the key file it began with
    keys: tuple[Key, ...]
    sending: int  # a generation of keys

    def __post_init__(self) -> None:
        generations = [key.generation for key in self.keys]
        assert generations == sorted(set(generations))
        assert 1 <= len(generations) <= KEYS_MAX
        assert self.sending in generations

    @property
    def newest(self) -> Key:
        """The key with the largest generation."""
        return self.keys[-1]

    @property
    def current(self) -> Key:
        """The key this node sends under."""
        return next(key for key in self.keys if key.generation == self.sending)

    def encode(self) -> bytes:
        """Return the content of the key ring file."""
        parts = [FILE_HEAD.pack(MAGIC, VERSION, len(self.keys), self.base, self.sending)]
        for generation, secret in self.keys:
            parts += FILE_KEY.pack(generation, len(secret)), secret
        data = b"".join(parts)
        return data + CHECKSUM.pack(zlib.crc32(data))


def decode(data: bytes) -> KeyRing | None:
    """Return the key ring in a file; None: these bytes are not such a file."""
    body, checksum = data[: -CHECKSUM.size], data[-CHECKSUM.size :]
    if len(body) < FILE_HEAD.size or checksum != CHECKSUM.pack(zlib.crc32(body)):
        return None
    magic, version, count, base, sending = FILE_HEAD.unpack_from(body)
    if magic != MAGIC or version != VERSION:
        return None
    keys: list[Key] = []
    rest = body[FILE_HEAD.size :]
    for _ in range(count):
        if len(rest) < FILE_KEY.size:
            return None
        generation, size = FILE_KEY.unpack_from(rest)
        keys.append(Key(generation, rest[FILE_KEY.size : FILE_KEY.size + size]))
        rest = rest[FILE_KEY.size + size :]
    generations = [key.generation for key in keys]
    ordered = generations == sorted(set(generations))
    if not ordered or sending not in generations or len(keys) > KEYS_MAX or rest:
        return None
    return KeyRing(base, tuple(keys), sending)


def begin(base: bytes, secret: bytes, kept: KeyRing | None) -> KeyRing:
    """Return the key ring to begin with.

    Args:
        base: fingerprint of the key file.
        secret: the key file.
        kept: what an earlier life of this node stored. It counts as long as the key file is the
            one it began with, or holds one of its keys; else the file was replaced by hand.
    """
    if kept is not None and (kept.base == base or secret in {key.secret for key in kept.keys}):
        return KeyRing(base, kept.keys, kept.sending)
    return KeyRing(base, (Key(0, secret),), 0)


def offer(key: Key, under: ClusterKey) -> bytes:
    """Return a key as it travels."""
    head = HEAD.pack(OFFER, key.generation)
    return head + OFFER_HEAD.pack(under.key_id) + under.wrap(key.secret, head)


@dataclass(frozen=True, slots=True)
class Store:
    """Effect: make the key ring durable, then call `Rotation.stored` with it."""

    ring: KeyRing


@dataclass(frozen=True, slots=True)
class Use:
    """Effect: accept these keys and send under the current one."""

    ring: KeyRing


@dataclass(frozen=True, slots=True)
class Say:
    """Effect: multicast to the group of all totemds, in the total order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Effect: log."""

    event: str
    generation: int
    rule: str = ""


Effect: TypeAlias = Store | Use | Say | Note


class Rotation:
    """Changes the key ring of one node in step with the others.

    Args:
        me: this node.
        ring: durable.
        cluster_name: of the derivation.
        configured: the nodelist; empty: unknown. The old key is dropped by itself only when
            all these have the new one.
    """

    def __init__(
        self, me: int, ring: KeyRing, cluster_name: str, configured: frozenset[int]
    ) -> None:
        self.ring = ring
        self._me: Final = me
        self._cluster_name: Final = cluster_name
        self._configured: Final = configured
        self._durable = ring
        self._nodes: frozenset[int] = frozenset()  # of the ring
        self._stored: set[int] = set()  # who has said that it accepts the newest key
        self._switched: set[int] = set()  # who has said that it sends under it
        self._said: set[int] = set()  # what this node has said since the nodes changed

    @property
    def unfinished(self) -> bool:
        """More than one key is accepted."""
        return len(self.ring.keys) > 1

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Nodes whose word is missing; empty when nothing is under way."""
        if not self.unfinished:
            return ()
        newest = self.ring.sending == self.ring.newest.generation
        heard = self._switched if newest else self._stored
        return tuple(sorted((self._nodes | self._configured) - heard))

    def key(self, secret: bytes) -> ClusterKey:
        """Return the derived form of a key."""
        return ClusterKey(secret, self._cluster_name)

    def rotate(self, secret: bytes, generation: int) -> list[Effect] | str:
        """Offer a new key to all, or go on with a change that is not finished.

        Args:
            secret: fresh random bytes.
            generation: larger than any before: the time.

        Returns:
            Effects, or why it is refused.
        """
        absent = self._configured - self._nodes
        if absent:
            names = ", ".join(map(str, sorted(absent)))
            return f"not all configured nodes are here: {names}"
        newest = self.ring.newest
        if self.ring.sending != newest.generation:
            return [*self._offers(newest)]
        ids = {self.key(key.secret).key_id for key in self.ring.keys}
        if self.key(secret).key_id in ids:
            return "the new key has the short id of an old one; try again"
        return [*self._offers(Key(max(generation, newest.generation + 1), secret))]

    def retire(self) -> list[Effect] | str:
        """Stop accepting old keys, on all nodes."""
        newest = self.ring.newest.generation
        if not self.unfinished:
            return "there is only one key"
        if not self._nodes <= self._switched:
            return "not all nodes send under the new key yet"
        return [Say(HEAD.pack(RETIRE, newest))]

    def _offers(self, key: Key) -> list[Say]:
        return [Say(offer(key, self.key(known.secret))) for known in self.ring.keys if known != key]

    def update(self, key_id: int) -> bytes | None:
        """Return an offer of the newest key for one who knows only the key with this id."""
        for under in map(self._derived, self.ring.keys[:-1]):
            if under.key_id == key_id:
                return offer(self.ring.newest, under)
        return None

    def changed(self, nodes: Iterable[int]) -> list[Effect]:
        """The ring has these nodes now: who comes may know less, so everything is said again."""
        self._nodes = frozenset(nodes)
        self._stored.clear()
        self._switched.clear()
        self._said.clear()
        if not self.unfinished:
            return []
        return [*self._offers(self.ring.newest), *self._announce()]

    def deliver(self, sender: int, data: bytes, nodes: Iterable[int]) -> list[Effect]:
        """Handle one message of the group, in the total order."""
        self._nodes = frozenset(nodes)
        if len(data) < HEAD.size:
            return [Note("key_message_malformed", 0, "short")]
        kind, generation = HEAD.unpack_from(data)
        newest = self.ring.newest.generation
        if kind == OFFER:  # a node that has finished helps the one that has not
            learned = self.learn(data)
            same = generation == self.ring.newest.generation
            return [*learned, *self._announce()] if same else learned
        if generation != newest or not self.unfinished:
            return []
        if kind == STORED:
            self._stored.add(sender)
            return self._switch()
        if kind == SWITCHED:
            self._stored.add(sender)
            self._switched.add(sender)
            configured = bool(self._configured) and self._configured <= self._nodes
            if configured and self._nodes <= self._switched and newest == self.ring.sending:
                return self._drop_old()
            return []
        if kind == RETIRE and newest == self.ring.sending:
            return self._drop_old()
        return []

    def learn(self, data: bytes) -> list[Effect]:
        """Take a key from an offer, if it is newer than what is known."""
        if len(data) < HEAD.size + OFFER_HEAD.size or data[0] != OFFER:
            return [Note("key_message_malformed", 0, "not an offer")]
        _, generation = HEAD.unpack_from(data)
        newest = self.ring.newest
        if generation <= newest.generation:
            return []
        (key_id,) = OFFER_HEAD.unpack_from(data, HEAD.size)
        under = next((k for k in map(self._derived, self.ring.keys) if k.key_id == key_id), None)
        if under is None:
            return []  # there is one offer for each key that somebody accepts
        try:
            secret = under.unwrap(data[HEAD.size + OFFER_HEAD.size :], data[: HEAD.size])
        except UnwrapError:
            return [Note("key_not_readable", generation, "wrong digest")]
        return self._learned(Key(generation, secret))

    def _derived(self, key: Key) -> ClusterKey:
        return self.key(key.secret)

    def _learned(self, key: Key) -> list[Effect]:
        sending = self.ring.sending
        others = [known for known in self.ring.keys if known.secret != key.secret]
        while len(others) >= KEYS_MAX:
            others.remove(next(known for known in others if known.generation != sending))
        if sending not in {known.generation for known in others}:
            sending = key.generation  # the key in use, known under another number so far
        self.ring = KeyRing(self.ring.base, (*others, key), sending)
        self._stored.clear()
        self._switched.clear()
        self._said.clear()
        return [Note("key_offered", key.generation), Use(self.ring), Store(self.ring)]

    def stored(self, ring: KeyRing) -> list[Effect]:
        """The key ring is durable."""
        self._durable = ring
        return self._announce() if self.unfinished else []

    def _announce(self) -> list[Effect]:
        newest = self.ring.newest.generation
        said: list[Effect] = []
        for kind, generation in (
            (STORED, self._durable.newest.generation),
            (SWITCHED, self._durable.sending),
        ):
            if generation == newest and kind not in self._said:
                self._said.add(kind)
                said.append(Say(HEAD.pack(kind, newest)))
        return said

    def _switch(self) -> list[Effect]:
        newest = self.ring.newest.generation
        if self.ring.sending == newest or not self._nodes <= self._stored:
            return []
        self.ring = KeyRing(self.ring.base, self.ring.keys, newest)
        return [Note("key_in_use", newest), Use(self.ring), Store(self.ring)]

    def _drop_old(self) -> list[Effect]:
        self.ring = KeyRing(self.ring.base, (self.ring.newest,), self.ring.sending)
        return [Note("old_keys_dropped", self.ring.sending), Use(self.ring), Store(self.ring)]
