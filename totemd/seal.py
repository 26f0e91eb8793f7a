"""Encrypt, authenticate and number datagrams; reject replays. Bytes in, bytes out, no IO.

One key per sender session (HKDF-SHA256 of the cluster key, the algorithm, the node and the
session), a nonce that is a counter: because a session is new for each life of a process, no nonce
is ever used twice with one key.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

LABEL: Final = b"openais-totem-v1"
FORMAT: Final = 1
HEADER: Final = struct.Struct(">BBHIQ4sQ")  # format algorithm keyid node session random counter
TAG_SIZE: Final = 16
NONE: Final = 0
AES_256_GCM: Final = 1
CHACHA20_POLY1305: Final = 2
ALGORITHMS: Final = {"none": NONE, "aes256gcm": AES_256_GCM, "chacha20poly1305": CHACHA20_POLY1305}
COUNTER_MAX: Final = 1 << 32  # datagrams of one session
WINDOW: Final = 1024  # counters behind the highest that are still accepted, once each
SESSIONS_PER_NODE: Final = 2
NODES_MAX: Final = 1024
UNKNOWN_PER_SECOND: Final = 100  # keys derived for unknown sessions, per source
SOURCES_MAX: Final = 1024
_WINDOW_MASK: Final = (1 << WINDOW) - 1
assert HEADER.size == 28

Session = tuple[int, bytes]  # start in microseconds, 4 random bytes


class SealError(Exception):
    """A datagram is not to be trusted: ``rule`` is one of the reasons below."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


SHORT: Final = "short"
FOREIGN_FORMAT: Final = "format"
DIGEST: Final = "digest"  # key id or tag: another key or cluster name
OWN: Final = "own"
REPLAY: Final = "replay"
STALE: Final = "stale session"
LIMIT: Final = "too many unknown sessions"


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

    def packet_key(self, algorithm: int, node_id: int, session: Session) -> bytes:
        """Derive the key of one sender session."""
        info = b"totem" + struct.pack(">BIQ4s", algorithm, node_id, *session)
        return _expand(self._prk, info, 32)


def _extract(salt: bytes, key: bytes) -> bytes:
    return hmac.new(salt, key, hashlib.sha256).digest()


def _cipher(algorithm: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return AESGCM(key) if algorithm == AES_256_GCM else ChaCha20Poly1305(key)


class Sealer:
    """Seals what this node sends.

    Args:
        key: None with algorithm NONE.
        algorithm: one of ALGORITHMS.
        node_id: this node.
        session: larger than any before; durable before the first datagram.
    """

    def __init__(
        self, key: ClusterKey | None, algorithm: int, node_id: int, session: Session
    ) -> None:
        assert (key is None) == (algorithm == NONE)
        self.session: Final = session
        self._key_id: Final = key.key_id if key else 0
        self._cipher: Final = (
            _cipher(algorithm, key.packet_key(algorithm, node_id, session)) if key else None
        )
        self._algorithm: Final = algorithm
        self._node_id: Final = node_id
        self._counter = 0

    @property
    def worn(self) -> bool:
        """True: begin a new session soon."""
        return self._counter >= COUNTER_MAX

    def seal(self, message: bytes) -> bytes:
        """Return the datagram for one message."""
        self._counter += 1
        counter = self._counter
        header = HEADER.pack(
            FORMAT, self._algorithm, self._key_id, self._node_id, *self.session, counter
        )
        if self._cipher is None:
            return header + message
        nonce = b"\0\0\0\0" + counter.to_bytes(8, "big")
        return header + self._cipher.encrypt(nonce, message, header)


@dataclass(slots=True)
class _Inbound:
    session: Session
    cipher: AESGCM | ChaCha20Poly1305 | None
    highest: int = 0
    seen: int = 0  # bit k: counter highest - k


class Opener:
    """Opens what others send.

    Args:
        key: None with algorithm NONE.
        algorithm: the only one accepted.
        node_id: this node; its own datagrams are dropped.
        newest: newest session per node that an earlier life of this process accepted.
    """

    def __init__(
        self,
        key: ClusterKey | None,
        algorithm: int,
        node_id: int,
        newest: dict[int, Session] | None = None,
    ) -> None:
        self._key: Final = key
        self._key_id: Final = key.key_id if key else 0
        self._algorithm: Final = algorithm
        self._node_id: Final = node_id
        self._newest: Final = dict(newest or {})
        self._inbound: Final[dict[int, list[_Inbound]]] = {}
        self._unknown: Final[dict[str, tuple[int, int]]] = {}  # source -> (second, derivations)

    def sessions(self) -> dict[int, Session]:
        """Return the newest session accepted of each node, to be kept over a restart."""
        return dict(self._newest)

    def open(self, datagram: bytes, source: str, now_ns: int) -> tuple[int, tuple[int, int], bytes]:
        """Check and decrypt one datagram.

        Args:
            datagram: as received.
            source: address, for limits only.
            now_ns: monotonic.

        Returns:
            Sender, its order of sending, message.

        Raises:
            SealError: dropped; nothing has changed.
        """
        if len(datagram) < HEADER.size + (TAG_SIZE if self._key else 1):
            raise SealError(SHORT)
        version, algorithm, key_id, node_id, start, random, counter = HEADER.unpack_from(datagram)
        if version != FORMAT or algorithm != self._algorithm or not node_id:
            raise SealError(FOREIGN_FORMAT)
        if node_id == self._node_id:
            raise SealError(OWN)
        if key_id != self._key_id:
            raise SealError(DIGEST)
        inbound = self._session(node_id, (start, random), source, now_ns)
        behind = inbound.highest - counter
        if behind >= 0 and (behind >= WINDOW or inbound.seen >> behind & 1):
            raise SealError(REPLAY)
        message = _decrypt(inbound, datagram, counter)
        self._accept(node_id, inbound, counter)
        return node_id, (start, counter), message

    def _session(self, node_id: int, session: Session, source: str, now_ns: int) -> _Inbound:
        known = self._inbound.get(node_id, [])
        for inbound in known:
            if inbound.session == session:
                return inbound
        if session < self._newest.get(node_id, (0, b"")) or (known and session < known[-1].session):
            raise SealError(STALE)
        if self._key is None:
            return _Inbound(session, None)
        self._limit(source, now_ns)
        key = self._key.packet_key(self._algorithm, node_id, session)
        return _Inbound(session, _cipher(self._algorithm, key))

    def _limit(self, source: str, now_ns: int) -> None:
        second = now_ns // 1_000_000_000
        at, count = self._unknown.get(source, (second, 0))
        count = count + 1 if at == second else 1
        if count > UNKNOWN_PER_SECOND:
            raise SealError(LIMIT)
        if len(self._unknown) >= SOURCES_MAX and source not in self._unknown:
            self._unknown.clear()
        self._unknown[source] = (second, count)

    def _accept(self, node_id: int, inbound: _Inbound, counter: int) -> None:
        ahead = counter - inbound.highest
        if ahead > 0:
            shift = min(ahead, WINDOW)
            inbound.seen = (inbound.seen << shift | 1) & _WINDOW_MASK
            inbound.highest = counter
        else:
            inbound.seen |= 1 << -ahead
        known = self._inbound.setdefault(node_id, [])
        if inbound not in known:
            if len(self._inbound) > NODES_MAX:
                del self._inbound[node_id]
                raise SealError(LIMIT)
            known.append(inbound)
            del known[:-SESSIONS_PER_NODE]
            self._newest[node_id] = inbound.session


def _decrypt(inbound: _Inbound, datagram: bytes, counter: int) -> bytes:
    if inbound.cipher is None:
        return datagram[HEADER.size :]
    nonce = b"\0\0\0\0" + counter.to_bytes(8, "big")
    try:
        return inbound.cipher.decrypt(nonce, datagram[HEADER.size :], datagram[: HEADER.size])
    except InvalidTag:
        raise SealError(DIGEST) from None
