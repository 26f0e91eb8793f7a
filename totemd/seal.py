"""Encrypt, authenticate and number messages as datagrams; reject replays. Bytes only, no IO.

One key per sender session (HKDF-SHA256 of the cluster key, the algorithm, the node and the
session), a nonce that is a counter: because a session is new for each life of a process, no nonce
is ever used twice with one key. A message too long for one datagram is sealed once, as a block,
and cut into slices (docs/design/sealed-blocks.md).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from totemd.partial import Partials, bytes_max

LABEL: Final = b"openais-totem-v1"
FORMAT: Final = 1
FORMAT_BLOCK: Final = 2
HEADER: Final = struct.Struct(">BBHI12sQ")  # format algorithm keyid node session counter
HEADER_SIZE: Final = 28
SLICE_HEADER_SIZE: Final = HEADER_SIZE + 2  # and index, count
TAG_SIZE: Final = 16
BLOCK_DATAGRAMS_MAX: Final = 44  # with an MTU of 1500 they are one send of 64 KiB
NONE: Final = 0
AES_256_GCM: Final = 1
CHACHA20_POLY1305: Final = 2
ALGORITHMS: Final = {"none": NONE, "aes256gcm": AES_256_GCM, "chacha20poly1305": CHACHA20_POLY1305}
COUNTER_MAX: Final = 1 << 32  # sealed units of one session
WINDOW: Final = 4096  # counters behind the highest still accepted, once each: 32 KiB a session
SESSIONS_PER_NODE: Final = 2
NODES_MAX: Final = 1024
UNKNOWN_PER_SECOND: Final = 100  # keys derived for unknown sessions, per source
SOURCES_MAX: Final = 1024
REPORTS_MAX: Final = 64
CANDIDATES_PER_NODE: Final = 4  # sessions that have not proved that they are alive
HELLO_TYPE: Final = b"\x08"  # first byte of the messages that prove it
KEY_TYPE: Final = b"\x10"  # first byte of a message that carries a key to one node
UNPROVEN_TYPES: Final = frozenset({HELLO_TYPE, KEY_TYPE})  # a recorded key is a key all the same
_SESSION: Final = struct.Struct(">Q4s")
_STREAM: Final = slice(1, 20)  # of the header: all but format and counter
_NODE: Final = slice(4, 8)
_STREAM_NODE: Final = slice(3, 7)  # of what _STREAM is
_SESSION_BYTES: Final = slice(8, 20)
_COUNTER: Final = slice(20, 28)
_FORMATS: Final = (FORMAT, FORMAT_BLOCK)
_NONCE_HEAD: Final = b"\0\0\0\0"
assert HEADER.size == HEADER_SIZE

Session = tuple[int, bytes]  # start in microseconds, 4 random bytes


def pack_session(session: Session) -> bytes:
    """Return a session as it stands in a header."""
    return _SESSION.pack(*session)


Order: TypeAlias = tuple[int, int]  # session start, counter: grows with each message of a sender
Opened: TypeAlias = tuple[int, Order, bytes]  # sender, order, message
Buffer: TypeAlias = bytes | memoryview

SHORT: Final = "short"
FOREIGN_FORMAT: Final = "format"
DIGEST: Final = "digest"  # key id or tag: another key or cluster name
OWN: Final = "own"
REPLAY: Final = "replay"
STALE: Final = "stale session"
LIMIT: Final = "too many unknown sessions"
INCOMPLETE: Final = "incomplete block"
UNLISTED: Final = "unlisted"  # node or its address is not in the nodelist
DUPLICATE: Final = "duplicate node id"
UNPROVEN: Final = "unproven session"
RULES: Final = (
    SHORT, FOREIGN_FORMAT, DIGEST, OWN, REPLAY, STALE, LIMIT, INCOMPLETE, UNLISTED, DUPLICATE,
    UNPROVEN,
)  # fmt: skip


def _expand(prk: bytes, info: bytes, size: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), size, info).derive(prk)


def fingerprint(key: bytes) -> str:
    """Return 8 bytes in hex that tell key files apart and nothing else."""
    return hashlib.sha256(b"ais key fingerprint" + key).digest()[:8].hex()


class ClusterKey:
    """What is kept of the key file: derived keys only.

    Args:
        key: content of the key file.
        cluster_name: separates clusters that share a key.
    """

    def __init__(self, key: bytes, cluster_name: str) -> None:
        salt = hashlib.sha256(LABEL + b"\0" + cluster_name.encode()).digest()
        self._prk = _extract(salt, key)
        self.key_id: Final = int.from_bytes(_expand(self._prk, b"keyid", 2), "big")

    def packet_key(self, algorithm: int, node_id: int, session: bytes) -> bytes:
        """Derive the key of one sender session."""
        info = b"totem" + struct.pack(">BI", algorithm, node_id) + session
        return _expand(self._prk, info, 32)

    def wrap(self, secret: bytes, associated: bytes) -> bytes:
        """Return another key, encrypted and authenticated under this one."""
        nonce = os.urandom(12)
        return nonce + AESGCM(self._wrap_key()).encrypt(nonce, secret, associated)

    def unwrap(self, wrapped: bytes, associated: bytes) -> bytes:
        """Return the key that was wrapped.

        Raises:
            UnwrapError: under another key, or changed on its way.
        """
        try:
            return AESGCM(self._wrap_key()).decrypt(wrapped[:12], wrapped[12:], associated)
        except (InvalidTag, ValueError) as error:
            raise UnwrapError("not wrapped under this key") from error

    def _wrap_key(self) -> bytes:
        return _expand(self._prk, b"key wrap", 32)


class UnwrapError(Exception):
    """A wrapped key cannot be read."""


def _extract(salt: bytes, key: bytes) -> bytes:
    return hmac.new(salt, key, hashlib.sha256).digest()


class _Cipher(Protocol):
    def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: Buffer, associated_data: bytes, /) -> bytes: ...


class _Plain:
    """Algorithm NONE: neither encrypts nor authenticates."""

    def encrypt(self, _nonce: bytes, data: Buffer, _associated_data: bytes, /) -> bytes:
        return bytes(data)

    def decrypt(self, _nonce: bytes, data: Buffer, _associated_data: bytes, /) -> bytes:
        return bytes(data)


def _cipher(key: ClusterKey | None, algorithm: int, node_id: int, session: bytes) -> _Cipher:
    assert (key is None) == (algorithm == NONE)
    if key is None:
        return _Plain()
    packet_key = key.packet_key(algorithm, node_id, session)
    return AESGCM(packet_key) if algorithm == AES_256_GCM else ChaCha20Poly1305(packet_key)


def block_size_max(datagram_size: int, datagrams: int) -> int:
    """Return the bytes of a message that fill so many datagrams, sealed as one block."""
    assert 1 <= datagrams <= BLOCK_DATAGRAMS_MAX
    if datagrams == 1:
        return datagram_size - HEADER_SIZE - TAG_SIZE
    return datagrams * (datagram_size - SLICE_HEADER_SIZE) - TAG_SIZE


Datagram: TypeAlias = tuple[bytes, Buffer]  # clear header, the rest


class _Stream(NamedTuple):
    """What is the same in all datagrams under one key."""

    cipher: _Cipher
    single: bytes  # the clear header before the counter
    block: bytes


class Sealer:
    """Seals what this node sends.

    Args:
        key: None with algorithm NONE.
        algorithm: one of ALGORITHMS.
        node_id: this node.
        session: larger than any before; durable before the first datagram.
        datagram_size: bytes of the largest datagram, without headers of IP and UDP.
    """

    def __init__(
        self,
        key: ClusterKey | None,
        algorithm: int,
        node_id: int,
        session: Session,
        datagram_size: int,
    ) -> None:
        assert datagram_size > SLICE_HEADER_SIZE + TAG_SIZE
        self.session: Final = session
        self.datagram_size: Final = datagram_size
        self._algorithm: Final = algorithm
        self._node_id: Final = node_id
        self._tag_size: Final = TAG_SIZE if key else 0
        self._single_max: Final = datagram_size - HEADER_SIZE - self._tag_size
        self._slice_size: Final = datagram_size - SLICE_HEADER_SIZE
        self._counter = 0  # of all keys together: the order of sending
        self._streams: Final[dict[int, _Stream]] = {}
        self._stream = self._under(key)

    def _under(self, key: ClusterKey | None) -> _Stream:
        key_id = key.key_id if key else 0
        found = self._streams.get(key_id)
        if found is None:
            session = _SESSION.pack(*self.session)
            header = HEADER.pack(FORMAT, self._algorithm, key_id, self._node_id, session, 0)
            single = header[: _STREAM.stop]
            cipher = _cipher(key, self._algorithm, self._node_id, session)
            found = _Stream(cipher, single, bytes((FORMAT_BLOCK,)) + single[1:])
            self._streams[key_id] = found
        return found

    def use(self, key: ClusterKey) -> None:
        """Seal under another key from now on."""
        self._stream = self._under(key)

    @property
    def worn(self) -> bool:
        """True: begin a new session soon."""
        return self._counter >= COUNTER_MAX

    def block_size_max(self, datagrams: int) -> int:
        """Return the bytes of a message that fill so many datagrams."""
        return block_size_max(self.datagram_size, datagrams)

    def seal(self, message: Buffer, key: ClusterKey | None = None) -> list[bytes]:
        """Return the datagrams for one message; see `pieces`."""
        return [b"".join(datagram) for datagram in self.pieces(message, key)]

    def pieces(self, message: Buffer, key: ClusterKey | None = None) -> list[Datagram]:
        """Return the datagrams for one message: all but the last are of the full size.

        Each is its clear header and its part of what is sealed, which the system call joins:
        what is sealed is not copied again.

        Args:
            message: at most ``block_size_max(BLOCK_DATAGRAMS_MAX)`` bytes.
            key: this once; else the one in use.
        """
        cipher, single, block = self._stream if key is None else self._under(key)
        self._counter += 1
        counter = self._counter.to_bytes(8, "big")
        if len(message) <= self._single_max:
            header = single + counter
            return [(header, cipher.encrypt(_NONCE_HEAD + counter, message, header))]
        size = self._slice_size
        count = -(-(len(message) + self._tag_size) // size)
        assert count <= BLOCK_DATAGRAMS_MAX
        header = block + counter
        sealed = memoryview(
            cipher.encrypt(_NONCE_HEAD + counter, message, header + bytes((count,)))
        )
        return [
            (header + place, sealed[offset : offset + size])
            for place, offset in zip(_PLACES[count], range(0, len(sealed), size), strict=True)
        ]


# What follows the clear header in each datagram of a block of so many: index, count.
_PLACES: Final = tuple(
    tuple(bytes((index, count)) for index in range(count))
    for count in range(BLOCK_DATAGRAMS_MAX + 1)
)


class _Inbound:
    """What is known of one session of a sender under one key."""

    __slots__ = (
        "cipher", "highest", "key_id", "node_id", "partials", "proved", "session", "start",
        "stream", "window",
    )  # fmt: skip

    def __init__(
        self, node_id: int, session: bytes, stream: bytes, key_id: int, strangers: Partials
    ) -> None:
        self.node_id: Final = node_id
        self.session: Final = session
        self.stream: Final = stream
        self.key_id: Final = key_id
        self.start: Final = int.from_bytes(session[:8], "big")
        self.partials = strangers
        self.cipher: _Cipher | None = None  # derived when there is something to open
        self.proved = False  # it is heard
        self.highest = 0
        self.window = array("Q")  # an accepted counter c stands at c % WINDOW; empty: unknown yet

    def begin(self, partials: Partials) -> None:
        """It is authentic."""
        self.partials = partials
        self.window = self.window or array("Q", bytes(8 * WINDOW))

    def is_new(self, counter: int) -> bool:
        if not self.window:
            return counter > 0
        return counter > self.highest - WINDOW and self.window[counter % WINDOW] != counter

    def accept(self, counter: int) -> None:
        self.window[counter % WINDOW] = counter
        if counter > self.highest:
            self.highest = counter


class Opener:
    """Opens what others send.

    Args:
        keys: all that are accepted; none with algorithm NONE.
        algorithm: the only one accepted.
        node_id: this node.
        own: the session of this node and the start of its last one before; what carries its id
            and a later session comes from a second node with this id.
        newest: newest session per node that an earlier life of this process accepted.
        listed: addresses by node; only these may send. None: everybody may.
        strict: a session is heard only after it has proved that it is alive (`prove`).

    Attributes:
        digest_failures: sources of datagrams under another key, for the log; the owner empties
            it, more than REPORTS_MAX are only counted.
        duplicates: (source, session start) of another node with this id; likewise.
        unproven: (node, session, key id, source) heard and not proved; likewise.
    """

    def __init__(
        self,
        keys: Sequence[ClusterKey],
        algorithm: int,
        node_id: int,
        own: tuple[Session, int] = ((0, bytes(4)), 0),
        newest: dict[int, Session] | None = None,
        listed: Mapping[int, frozenset[str]] | None = None,
        *,
        strict: bool = False,
    ) -> None:
        assert bool(keys) == (algorithm != NONE)
        self.digest_failures: Final[list[str]] = []
        self.duplicates: Final[list[tuple[str, int]]] = []
        self.unproven: Final[list[tuple[int, bytes, int, str]]] = []
        self._keys: dict[int, ClusterKey | None] = {}
        self._algorithm: Final = algorithm
        self._own: Final = node_id.to_bytes(4, "big")
        self._own_sessions: Final = {_SESSION.pack(*own[0])}
        self._own_before: Final = own[1]
        self._listed: Final = listed
        self._strict: Final = strict
        self._body_size_min: Final = TAG_SIZE if keys else 1
        self._newest: Final = dict(newest or {})
        self._streams: Final[dict[bytes, _Inbound]] = {}
        self._sessions: Final[dict[int, list[_Inbound]]] = {}
        self._partials: Final[dict[int, Partials]] = {}
        self._strangers: Final = Partials()  # blocks of sessions that have proved nothing yet
        self._proved: Final[dict[int, bytes]] = {}  # newest session heard, under whatever key
        self._candidates: Final[dict[bytes, _Inbound]] = {}  # authentic, not proved
        self._unknown: Final[dict[str, tuple[int, int]]] = {}  # source -> (second, derivations)
        self._failures: Final[dict[str, int]] = dict.fromkeys(RULES, 0)
        self.accept(keys)

    def accept(self, keys: Sequence[ClusterKey]) -> None:
        """Accept these keys and no other from now on."""
        if self._algorithm == NONE:
            self._keys = {0: None}
            return
        self._keys = {key.key_id: key for key in keys}
        for streams in (self._streams, self._candidates):
            for stream, inbound in list(streams.items()):
                if inbound.key_id not in self._keys:
                    del streams[stream]
        for known in self._sessions.values():
            known[:] = [inbound for inbound in known if inbound.key_id in self._keys]

    def own_session(self, session: Session) -> None:
        """This node sends under another session from now on."""
        self._own_sessions.add(_SESSION.pack(*session))

    def senders(self) -> dict[int, tuple[int, int]]:
        """Return by node the id of the key it sent under last, and its highest counter."""
        return {
            node: (known[-1].key_id, known[-1].highest)
            for node, known in self._sessions.items()
            if known
        }

    @property
    def failures(self) -> dict[str, int]:
        """Datagrams dropped, by rule."""
        found = dict(self._failures)
        for partials in (self._strangers, *self._partials.values()):
            found[REPLAY] += partials.repeated
            found[INCOMPLETE] += partials.dropped
        return found

    def sessions(self) -> dict[int, Session]:
        """Return the newest session accepted of each node, to be kept over a restart."""
        return dict(self._newest)

    def open_train(
        self, buffer: Buffer, segment_size: int, source: str, now_ns: int
    ) -> list[Opened]:
        """Check and decrypt what one call of the system received.

        What cannot be opened is counted and changes nothing, not even for its neighbours. A
        block of which datagrams are missing is kept for a while.

        Args:
            buffer: one datagram, or several one after the other (UDP_GRO).
            segment_size: of each of them; the last may be shorter.
            source: address, for limits and to tell blocks apart.
            now_ns: monotonic.
        """
        opened: list[Opened] = []
        end = len(buffer)
        if not end:
            self._fail(SHORT, 1, source)
        offset = 0
        while offset < end:
            header = bytes(buffer[offset : offset + HEADER_SIZE])
            inbound = self._streams.get(header[_STREAM])
            if inbound is None:
                stranger = self._stranger(header, source)
                if isinstance(stranger, str):
                    self._fail(stranger, 1, source)
                    offset += segment_size
                    continue
                inbound = stranger
            if header[0] == FORMAT:
                datagrams = 1
                body: Buffer | None = buffer[offset + HEADER_SIZE : offset + segment_size]
                associated = header
            else:
                rest = memoryview(buffer)[offset:] if offset else buffer
                datagrams, body, associated = self._block(
                    inbound, header, rest, segment_size, source
                )
            offset += datagrams * segment_size
            if body is not None:
                found = self._open(inbound, associated, body, source, now_ns)
                if isinstance(found, str):
                    self._fail(found, datagrams, source)
                else:
                    opened.append(found)
        return opened

    def _fail(self, rule: str, datagrams: int, source: str) -> None:
        self._failures[rule] += datagrams
        if rule == DIGEST and len(self.digest_failures) < REPORTS_MAX:
            self.digest_failures.append(source)

    def _stranger(self, header: bytes, source: str) -> _Inbound | str:
        """Judge the header of an unknown session; return why it is refused."""
        own = header[_NODE] == self._own
        if own and header[_SESSION_BYTES] in self._own_sessions:
            return OWN
        if len(header) < HEADER_SIZE:
            return SHORT
        version, algorithm, key_id, node_id, session, _ = HEADER.unpack(header)
        if version not in _FORMATS or algorithm != self._algorithm or not node_id:
            return FOREIGN_FORMAT
        if key_id not in self._keys:
            return DIGEST
        if not own and self._listed is not None and source not in self._listed.get(node_id, ()):
            return UNLISTED
        candidate = self._candidates.get(header[_STREAM])
        if candidate is not None:
            return candidate
        if self._stale(node_id, session, own=own):
            return OWN if own else STALE
        return _Inbound(node_id, session, header[_STREAM], key_id, self._strangers)

    def _stale(self, node_id: int, session: bytes, *, own: bool) -> bool:
        start, random = _SESSION.unpack(session)
        if own:
            return bool(start <= self._own_before)
        known = self._sessions.get(node_id)
        return bool(known and session < known[-1].session) or (start, random) < self._newest.get(
            node_id, (0, b"")
        )

    def _block(
        self, inbound: _Inbound, header: bytes, train: Buffer, segment_size: int, source: str
    ) -> tuple[int, bytes | None, bytes]:
        """Take the datagrams of one block from the head of a train.

        Returns:
            How many were taken; the sealed block if it is whole; its associated data.
        """
        if len(train) <= SLICE_HEADER_SIZE or segment_size <= SLICE_HEADER_SIZE:
            self._fail(SHORT, 1, source)
            return 1, None, header
        index, count = train[HEADER_SIZE], train[HEADER_SIZE + 1]
        if header[0] != FORMAT_BLOCK or not index < count <= BLOCK_DATAGRAMS_MAX or count == 1:
            self._fail(FOREIGN_FORMAT, 1, source)
            return 1, None, header
        if len(train) <= segment_size:
            run = 1
            slices: Sequence[Buffer] = (train[SLICE_HEADER_SIZE:],)
        else:
            train = memoryview(train)
            run = _run(header, train, segment_size, index, count)
            slices = [
                train[offset + SLICE_HEADER_SIZE : offset + segment_size]
                for offset in range(0, run * segment_size, segment_size)
            ]
        if not inbound.is_new(int.from_bytes(header[_COUNTER], "big")):
            self._fail(REPLAY, run, source)
            return run, None, header
        if run < count:
            whole = inbound.partials.add((header, count, source), index, slices)
            if whole is None:
                return run, None, header
            slices = whole
        return run, b"".join(slices), header + _PLACES[count][0][1:]

    def _open(
        self, inbound: _Inbound, associated: bytes, body: Buffer, source: str, now_ns: int
    ) -> Opened | str:
        """Decrypt, then accept the counter and the session; return why it is refused."""
        if len(body) < self._body_size_min:
            return SHORT
        packed = associated[_COUNTER]
        counter = int.from_bytes(packed, "big")
        if not inbound.is_new(counter):
            return REPLAY
        if inbound.cipher is None and not self._derive(inbound, source, now_ns):
            return LIMIT
        assert inbound.cipher is not None
        try:
            message = inbound.cipher.decrypt(_NONCE_HEAD + packed, body, associated)
        except InvalidTag:
            return DIGEST
        if not inbound.proved:
            rule = self._prove(inbound, message, source)
            if rule is not None:
                return rule
        inbound.accept(counter)
        return inbound.node_id, (inbound.start, counter), message

    def _prove(self, inbound: _Inbound, message: bytes, source: str) -> str | None:
        """Judge the first authentic datagrams of a session; return why they are refused."""
        if inbound.stream[_STREAM_NODE] == self._own:
            if len(self.duplicates) < REPORTS_MAX:
                self.duplicates.append((source, inbound.start))
            return DUPLICATE
        if not self._strict or self._proved.get(inbound.node_id) == inbound.session:
            return None if self._accept_session(inbound) else LIMIT
        if inbound.stream not in self._candidates:
            self._keep_candidate(inbound)
        if message[:1] in UNPROVEN_TYPES:
            return None
        if len(self.unproven) < REPORTS_MAX:
            heard = (inbound.node_id, inbound.session, inbound.key_id, source)
            self.unproven.append(heard)
        return UNPROVEN

    def _keep_candidate(self, inbound: _Inbound) -> None:
        same = [s for s, c in self._candidates.items() if c.node_id == inbound.node_id]
        if len(same) >= CANDIDATES_PER_NODE:
            del self._candidates[same[0]]
        if len(self._candidates) >= NODES_MAX:
            del self._candidates[next(iter(self._candidates))]
        inbound.begin(self._strangers)
        self._candidates[inbound.stream] = inbound

    def prove(self, node_id: int, session: bytes) -> None:
        """Hear a session from now on: it has answered a challenge."""
        for stream, inbound in list(self._candidates.items()):
            if inbound.node_id == node_id and inbound.session == session:
                del self._candidates[stream]
                if not self._stale(node_id, session, own=False):
                    self._accept_session(inbound)

    def _derive(self, inbound: _Inbound, source: str, now_ns: int) -> bool:
        key = self._keys[inbound.key_id]
        if key is not None:
            second = now_ns // 1_000_000_000
            at, count = self._unknown.get(source, (second, 0))
            count = count + 1 if at == second else 1
            if count > UNKNOWN_PER_SECOND:
                return False
            if len(self._unknown) >= SOURCES_MAX and source not in self._unknown:
                self._unknown.clear()
            self._unknown[source] = (second, count)
        inbound.cipher = _cipher(key, self._algorithm, inbound.node_id, inbound.session)
        return True

    def _accept_session(self, inbound: _Inbound) -> bool:
        node_id = inbound.node_id
        partials = self._partials.get(node_id)
        if partials is None:
            if len(self._partials) >= NODES_MAX:
                return False
            partials = self._partials[node_id] = Partials()
            share = bytes_max(len(self._partials))
            for one in self._partials.values():
                one.bytes_max = share
        self._strangers.give(partials, inbound.stream, _STREAM)
        inbound.begin(partials)
        inbound.proved = True
        known = self._sessions.setdefault(node_id, [])
        known.append(inbound)
        self._streams[inbound.stream] = inbound
        for old in known[:-SESSIONS_PER_NODE]:
            del self._streams[old.stream]
        del known[:-SESSIONS_PER_NODE]
        start, random = _SESSION.unpack(inbound.session)
        self._newest[node_id] = (start, random)
        self._proved[node_id] = inbound.session
        return True


def _run(header: bytes, train: memoryview, segment_size: int, index: int, count: int) -> int:
    """Return how many datagrams at the head of a train follow one another in one block.

    Datagrams of a train came in the order in which they were sent. So if the last one is where it
    should be, those between are too, or the seal will tell.
    """
    run = min(count - index, -(-len(train) // segment_size))
    at = (run - 1) * segment_size
    if train[at : at + SLICE_HEADER_SIZE] == header + _PLACES[count][index + run - 1]:
        return run
    for at in range(1, run):
        offset = at * segment_size
        if train[offset : offset + SLICE_HEADER_SIZE] != header + _PLACES[count][index + at]:
            return at
    raise AssertionError("a run that is whole was compared before")
