"""What is fuzzed: each decoder, with its samples and with what it may answer.

A target's ``feed`` takes one input and returns the name of its outcome. It raises when the decoder
did what it never may: any exception but the declared one, a value that does not encode to what
decodes equal, or a broken promise of that decoder.
"""

from __future__ import annotations

import random
import re
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openais.node.config import ConfigError, load
from openais.wire import ckpt, clm, codec, parts, port, session
from services.kit import entries, sessions
from tests.fuzz import samples
from tests.fuzz.trio import Trio
from tests.unit.openais.node.configs import MACHINE
from totemd import keyfile, keyring, proof, seal, store
from totemd.protocol import evs, groups, messages, packing

CONFIGURATIONS = Path(__file__).parent / "configurations"
WHOLE_OF_BLOCK = 5_000  # bytes of a message that needs several datagrams
DATAGRAM_SIZE = 1_472
REMEMBERED_MAX = 200  # inputs of one life of a decoder that has a state

Feed = Callable[[bytes], str]


class BrokenPromiseError(Exception):
    """A decoder accepted what it never may, or made of it what it never may."""


@dataclass(frozen=True)
class Target:
    """One decoder.

    Attributes:
        name: of the target; its corpus is in corpus/NAME.
        samples: valid inputs.
        feed: see above.
        share: of all inputs, compared with the other targets: slow decoders get fewer.
    """

    name: str
    samples: list[bytes]
    feed: Feed
    share: int = 10


def _rule(error: Exception) -> str:
    """Return an error's text without what differs between inputs."""
    text = re.sub(r"0x[0-9a-f]+|\d+", "N", str(error))
    return f"{type(error).__name__}: {re.sub(r'got .*|byte .*', '', text)[:60]}"


def _same(first: Any, again: Any) -> None:
    if first != again:
        raise BrokenPromiseError(f"decodes to {first!r}, encodes to what decodes to {again!r}")


def _feed_ring_message(data: bytes) -> str:
    try:
        message = messages.decode(data)
    except messages.DecodeError as error:
        return _rule(error)
    _same(message, messages.decode(messages.encode(message)))
    return type(message).__name__


_ENCODE_GROUP: dict[type, Callable[[Any], bytes]] = {
    groups.GroupJoin: groups.encode_join,
    groups.GroupLeave: groups.encode_leave,
    groups.GroupMulticast: groups.encode_multicast,
    groups.ProcessList: groups.encode_list,
}


def _feed_group_message(data: bytes) -> str:
    try:
        message = groups.decode(data)
    except groups.GroupDecodeError as error:
        return _rule(error)
    _same(message, groups.decode(_ENCODE_GROUP[type(message)](message)))
    return type(message).__name__


def _feed_probe(data: bytes) -> str:
    try:
        probe = messages.decode_probe(data)
    except messages.DecodeError as error:
        return _rule(error)
    _same(probe, messages.decode_probe(messages.encode_probe(probe)))
    return probe.kind.name


def _feed_evs(data: bytes) -> str:
    try:
        message = evs.decode(data)
    except evs.EvsDecodeError as error:
        return _rule(error)
    _same(message, evs.decode(evs.encode(message)))
    return f"{min(len(evs.split(message.keys)), 2)} groups"


def _feed_number(data: bytes) -> str:
    """Feed a file that holds one number; there is no error, only None."""
    number = store.decode(store.RING_MAGIC, data)
    if number is None:
        return "no number"
    _same(data, store.encode(store.RING_MAGIC, number))
    return "number"


def _feed_sessions(data: bytes) -> str:
    try:
        return f"{min(len(sessions.unpack_sessions(data)), 2)} sessions"
    except codec.DecodeError as error:
        return _rule(error)


class _Ring:
    """A ring is told what is almost right by its own members; it lives for some inputs."""

    def __init__(self) -> None:
        self._trio = Trio()
        self._fed = 0
        self.samples = self._trio.sent

    def feed(self, data: bytes) -> str:
        self._fed += 1
        if self._fed % REMEMBERED_MAX == 0:
            self._trio = Trio()
        try:
            return self._trio.tell(data)
        except messages.DecodeError as error:
            return _rule(error)


class _Frames:
    """An assembler is fed by three originators; it lives for some inputs."""

    def __init__(self) -> None:
        self._assembler = packing.Assembler()
        self._fed = 0

    def feed(self, data: bytes) -> str:
        self._fed += 1
        if self._fed % REMEMBERED_MAX == 0:
            self._assembler = packing.Assembler()
        malformed, dropped = self._assembler.frames_malformed, self._assembler.segments_dropped
        found = self._assembler.open(1 + self._fed % 3, data)
        if any(len(one) > packing.MESSAGE_SIZE_MAX for one in found):
            raise BrokenPromiseError("a message longer than any that may be sent")
        if self._assembler.frames_malformed > malformed:
            return "malformed"
        suffix = ", segments dropped" if self._assembler.segments_dropped > dropped else ""
        return f"{min(len(found), 3)} messages{suffix}"


class _Datagrams:
    """An opener gets trains of datagrams; whatever it opens must have been sealed."""

    def __init__(self, algorithm: int) -> None:
        rng = random.Random(algorithm)
        self._algorithm = algorithm
        self._key = seal.ClusterKey(rng.randbytes(128), "fuzz") if algorithm else None
        self._sealed: set[bytes] = set()
        self._fed = 0
        self._keys = [self._key] if self._key else []
        self._opener = seal.Opener(self._keys, algorithm, 1, ((7, b"abcd"), 6))
        self.samples: list[bytes] = []
        for node in (1, 2, 3):
            sealer = seal.Sealer(self._key, algorithm, node, (7, b"abcd"), DATAGRAM_SIZE)
            for size in (20, 60, 1_300, WHOLE_OF_BLOCK, 40, WHOLE_OF_BLOCK):
                message = rng.randbytes(size)
                self._sealed.add(message)
                train = b"".join(sealer.seal(message))
                self.samples.append(struct.pack(">H", min(len(train), DATAGRAM_SIZE)) + train)

    def feed(self, data: bytes) -> str:
        self._fed += 1
        if self._fed % REMEMBERED_MAX == 0:
            self._opener = seal.Opener(self._keys, self._algorithm, 1, ((7, b"abcd"), 6))
        segment_size = max(1, int.from_bytes(data[:2], "big"))
        before = self._opener.failures
        source = f"10.0.0.{self._fed % 3}"
        now_ns = self._fed * 20_000_000
        opened = self._opener.open_train(data[2:], segment_size, source, now_ns)
        for node_id, _, message in opened:
            if self._key is not None and (node_id == 1 or message not in self._sealed):
                raise BrokenPromiseError(f"opened what node {node_id} never sealed")
        after = self._opener.failures
        rules = [rule for rule, count in after.items() if count != before[rule]]
        return f"{min(len(opened), 3)} opened, {' and '.join(rules) or 'nothing'} dropped"


def _table(name: str, table: codec.Table, rng: random.Random) -> Target:
    def feed(data: bytes) -> str:
        try:
            message = table.decode(data)
        except codec.DecodeError as error:
            return _rule(error)
        _same(message, table.decode(table.encode(message)))
        if codec.tag_of(table.encode(message)) != table.tag(type(message)):
            raise BrokenPromiseError("the tag is not the one that is read without decoding")
        return type(message).__name__

    return Target(name, samples.of_table(table, rng), feed)


def _feed_tag(data: bytes) -> str:
    try:
        return f"tag {codec.tag_of(data) // 64}"
    except codec.DecodeError as error:
        return _rule(error)


def _feed_bundle(data: bytes) -> str:
    try:
        bundle = codec.unpack_bundle(data)
    except codec.DecodeError as error:
        return _rule(error)
    _same(bundle, codec.unpack_bundle(codec.pack_bundle(bundle)))
    return f"{min(len(bundle), 3)} messages"


def _join_frames(parts: Iterable[codec.Buffer]) -> bytes:
    return b"".join(struct.pack(">H", len(part)) + bytes(part) for part in parts)


def _split_frames(data: bytes) -> list[codec.Buffer]:
    parts: list[codec.Buffer] = []
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        parts.append(data[2 : 2 + size])
        data = data[2 + size :]
    return parts


def _feed_socket(data: bytes) -> str:
    """Feed the frames of one message of a local socket, as totemd takes them."""
    try:
        elements = codec.unpack_frames(_split_frames(data))
    except codec.DecodeError as error:
        return _rule(error)
    _same(elements, codec.unpack_frames(codec.pack_frames(elements)))
    taken = list(port.TABLE.take(elements))
    bad = sum(isinstance(one, codec.DecodeError) for one in taken)
    return f"{min(len(taken) - bad, 3)} messages, {min(bad, 3)} bad"


def _socket_samples(rng: random.Random) -> list[bytes]:
    found = []
    kinds = list(port.TABLE.messages.values())
    for _ in range(60):
        elements: list[codec.Buffer] = []
        for kind in rng.choices(kinds, k=rng.randint(1, 4)):
            port.TABLE.put(samples.value(kind, rng), elements)
        found.append(_join_frames(codec.pack_frames(elements)))
    return found


def _feed_state(data: bytes) -> str:
    try:
        state = codec.unpack_state(data)
    except codec.DecodeError as error:
        return _rule(error)
    return type(state).__name__


class _Files:
    """Decoders that read a file get one."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ais-fuzz-")
        self._path = Path(self._folder.name) / "input"
        self._path.touch(mode=0o600)

    def feed_configuration(self, data: bytes) -> str:
        self._path.write_bytes(data)
        try:
            config = load(self._path, {}, lenient=False, machine=MACHINE)
        except ConfigError as error:
            if not error.errors and not str(error):
                raise BrokenPromiseError("refused without a reason") from error
            return _rule_of_configuration(error)
        return f"{len(config.interfaces)} interfaces, {min(len(config.nodes), 2)} nodes"

    def feed_key(self, data: bytes) -> str:
        self._path.write_bytes(data)
        try:
            key = keyfile.read(self._path)
        except keyfile.KeyFileError as error:
            return _rule(error).rpartition(":")[2]
        _same(key, data)
        return "key"


def _rule_of_configuration(error: ConfigError) -> str:
    first = error.errors[0] if error.errors else str(error)
    words = re.findall(r"[a-z]+", first.rpartition("input:")[2])
    return "refused: " + " ".join(words[:3])


def _feed_key_ring(data: bytes) -> str:
    ring = keyring.decode(data)
    if ring is None:
        return "refused"
    _same(ring, keyring.decode(ring.encode()))
    return "key ring"


class _Keys:
    """A node gets messages about keys; it takes a key only as it was wrapped."""

    def __init__(self, rng: random.Random) -> None:
        self._ring = keyring.KeyRing(b"finger00", (keyring.Key(0, rng.randbytes(64)),), 0)
        new = keyring.Key(7, rng.randbytes(128))
        self._known = {self._ring.current.secret, new.secret}
        wrapped = keyring.offer(new, seal.ClusterKey(self._ring.current.secret, "fuzz"))
        self.samples = [wrapped, *(keyring.HEAD.pack(kind, 0) for kind in (2, 3, 4))]

    def feed(self, data: bytes) -> str:
        rotation = keyring.Rotation(1, self._ring, "fuzz", frozenset())
        rotation.changed((1, 2))
        effects = rotation.deliver(2, data, (1, 2)) + rotation.learn(data)
        if not {key.secret for key in rotation.ring.keys} <= self._known:
            raise BrokenPromiseError("a key that nobody wrapped was taken")
        return "taken" if rotation.unfinished else f"ignored, {len(effects)} effects"


class _Proofs:
    """A node gets challenges and answers; nothing is proved that was not asked."""

    def __init__(self, rng: random.Random) -> None:
        self._nonce, self._session = rng.randbytes(proof.NONCE_SIZE), rng.randbytes(12)
        asked, answered = (
            proof.HELLO.pack(8, kind, 0, 1, self._session, self._nonce) for kind in (1, 2)
        )
        self._answer = answered
        self.samples = [asked, answered]

    def feed(self, data: bytes) -> str:
        node = proof.Proof(1, lambda _: self._nonce)
        node.heard(2, self._session, "peer", 1 << 40)
        reply, proved = node.receive(data, 2, self._session, "peer", 1 << 40)
        if proved is not None and data[4:] != self._answer[4:]:
            raise BrokenPromiseError("a session was proved by another answer")
        return "answered" if reply else "proved" if proved else "ignored"


def targets(seed: int) -> list[Target]:
    """Return all targets; the samples depend on the seed."""
    rng = random.Random(seed)
    files, ring = _Files(), _Ring()
    configurations = [path.read_bytes() for path in sorted(CONFIGURATIONS.glob("*.conf"))]
    sealed, plain = _Datagrams(seal.AES_256_GCM), _Datagrams(seal.NONE)
    bundles = [
        codec.pack_bundle([rng.randbytes(rng.choice((0, 9, 300))) for _ in range(count)])
        for count in (0, 1, 2, 15, 16, 40)
    ]
    secrets = random.Random(seed + 1)
    keys, proofs = _Keys(secrets), _Proofs(secrets)
    two = tuple(keyring.Key(k, secrets.randbytes(64)) for k in (0, 9))
    key_ring = keyring.KeyRing(b"finger00", two, 9)
    values: list[Any] = [0, b"x" * 300, "y" * 40, [[]], 1 << 63]
    states = [
        codec.pack_state([one, [1, -1, None, True, "text", b"bytes"], [[one]]]) for one in values
    ]
    return [
        Target("ring", samples.ring_messages(rng), _feed_ring_message, 20),
        Target("broken-node", ring.samples, ring.feed, 4),
        Target("datagrams", sealed.samples, sealed.feed),
        Target("datagrams-plain", plain.samples, plain.feed),
        Target("frames", samples.frames(rng), _Frames().feed, 20),
        Target("groups", samples.group_messages(rng), _feed_group_message, 20),
        Target("evs", samples.evs_messages(rng), _feed_evs, 5),
        Target("probe", samples.probes(rng), _feed_probe, 5),
        Target("bundle", bundles, _feed_bundle),
        Target("socket", _socket_samples(rng), _feed_socket),
        _table("port", port.TABLE, rng),
        _table("session", session.TABLE, rng),
        _table("ckpt", ckpt.TABLE, rng),
        _table("clm", clm.TABLE, rng),
        _table("replicas", entries.TABLE, rng),
        _table("part", parts.TABLE, rng),
        Target("tag", samples.of_table(port.TABLE, rng), _feed_tag, 3),
        Target("state", states, _feed_state),
        Target(
            "sessions",
            [codec.pack_state([[b"id", [1, []]]] * n) for n in (0, 1, 5)],
            _feed_sessions,
        ),
        Target(
            "number", [store.encode(store.RING_MAGIC, n) for n in (0, 1 << 40)], _feed_number, 3
        ),
        Target("key-ring", [key_ring.encode()], _feed_key_ring, 3),
        Target("key-messages", keys.samples, keys.feed, 3),
        Target("proofs", proofs.samples, proofs.feed, 3),
        Target("configuration", configurations, files.feed_configuration, 2),
        Target("key", [rng.randbytes(size) for size in (32, 128, 4096)], files.feed_key, 2),
    ]


def shares(all_targets: list[Target], inputs: int) -> dict[str, int]:
    """Return how many of the inputs each target gets."""
    whole = sum(target.share for target in all_targets)
    return {t.name: max(1, inputs * t.share // whole) for t in all_targets}


def named(all_targets: list[Target], name: str) -> Target:
    """Return a target by name."""
    return next(target for target in all_targets if target.name == name)
