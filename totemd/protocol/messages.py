"""The messages of the ring: layouts, encoding, decoding, and every check at the door.

All integers are big endian. A message is decoded once, checked completely, and trusted from there
on; what fails a check raises `DecodeError` and never anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

# type, flags, reserved (in JOIN: agreed_on), ring representative, ring seq
HEADER: Final = struct.Struct(">BBHIQ")
DATA_HEADER: Final = struct.Struct(
    ">BBHIQQIBBHI"
)  # HEADER, then seq originator guarantee flags _ round
TOKEN: Final = struct.Struct(
    ">QQQIIIBBH"
)  # token_seq seq aru aru_id fcc backlog flags _ n_requests
REQUEST: Final = struct.Struct(">QHI")  # first, count, requester
JOIN: Final = struct.Struct(">QQHH")  # boot epoch, max ring seq, n proc, n fail
COMMIT: Final = struct.Struct(">QHHB3x")  # token_seq, index, n members, n rings
COMMIT_RING: Final = struct.Struct(">IQQ")  # representative, seq, base aru
COMMIT_ENTRY: Final = struct.Struct(">IBBHii")  # node, ring, flags, n obligations, aru, delivered
OFFSET_MAX: Final = (1 << 31) - 1  # of a position from the lowest aru of its ring
MERGE: Final = struct.Struct(">HH")  # n members, reserved
PROBE: Final = struct.Struct(">BBHQQ")  # kind, link, size, time, echo
assert HEADER.size == 16
assert DATA_HEADER.size == 36
assert TOKEN.size == 40
assert REQUEST.size == 14
assert COMMIT.size == 16
assert COMMIT_ENTRY.size == 16
assert PROBE.size == 20

PROTOCOL_VERSION: Final = 1
NODES_MAX: Final = 512
SEQ_MAX: Final = 1 << 63
REQUESTS_MAX: Final = 64
REQUEST_COUNT_MAX: Final = 256
REQUESTED_MAX: Final = 1024
COUNT_MAX: Final = 1 << 31  # of fcc and backlog
DATAGRAM_SIZE_MAX: Final = 65_507
UDP_OVERHEAD_IPV4: Final = 28
UDP_OVERHEAD_IPV6: Final = 48
LINKS_MAX: Final = 8
PROBE_SIZE_MIN: Final = 64  # bytes of the shortest probe

TYPE_TOKEN: Final = 0
TYPE_DATA: Final = 1
TYPE_MERGE_DETECT: Final = 2
TYPE_JOIN: Final = 3
TYPE_COMMIT: Final = 4
TYPE_HOLD_CANCEL: Final = 5
TYPE_LEAVE: Final = 6
TYPE_PROBE: Final = 7

ENCAPSULATED: Final = 1  # flags of DATA: the payload is a message of the old ring
POST: Final = 2  # flags of DATA: sent after the token of its visit
RETRANSMIT: Final = 1  # flags of TOKEN: somebody still has messages to recover
FILLED: Final = 1  # flags of a COMMIT entry
RECEIVED: Final = 2


_tuple: Final = tuple.__new__


Buffer: TypeAlias = bytes | memoryview


class DecodeError(Exception):
    """The bytes are not a message of this protocol; says which rule they break."""


class RingId(NamedTuple):
    """Identifies one ring; ordered by sequence number, then representative."""

    seq: int
    representative: int


class Data(NamedTuple):
    """A multicast message in the total order of one ring. A tuple: made in 0.1 us, not in 0.4."""

    ring: RingId
    seq: int
    originator: int
    guarantee: int  # 0..3; 3 is safe
    flags: int
    visit: int  # the originator's token visits in this ring
    payload: Buffer

    @property
    def encapsulated(self) -> bool:
        """True: the payload is a message of the old ring, sent again during recovery."""
        return bool(self.flags & ENCAPSULATED)


class Request(NamedTuple):
    """A run of missing messages."""

    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody calls
    requester: int  # 0: several


@dataclass(slots=True)
class Token:
    """The token of a ring: who holds it may multicast."""

    ring: RingId
    token_seq: int
    seq: int  # highest sequence number given out
    aru: int  # all received up to, by everybody since the last rotation
    aru_id: int  # who holds aru down; 0: nobody
    fcc: int  # messages sent in the last rotation
    backlog: int
    flags: int
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class MergeDetect:
    """The representative tells of its ring, so that rings find each other."""

    ring: RingId
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """A proposal for a membership."""

    ring: RingId  # the sender's
    boot_epoch: int
    max_seq: int  # the highest ring seq the sender has seen
    proc: tuple[int, ...]
    fail: tuple[int, ...]
    agreed_on: int = 0  # hash of the sender's parameters; 0: not told


@dataclass(frozen=True, slots=True)
class Leave:
    """The sender goes, on purpose."""

    ring: RingId
    boot_epoch: int
    max_seq: int
    proc: tuple[int, ...]
    fail: tuple[int, ...]
    agreed_on: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What one member tells in the commit token."""

    node: int
    old_ring: RingId | None = None  # None: not filled
    old_aru: int = 0
    high_delivered: int = 0
    received: bool = False
    obligations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """The commit token: two passes over the members of a ring that is about to be."""

    ring: RingId
    token_seq: int
    index: int  # entries before it are filled
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class HoldCancel:
    """Somebody has something to send: release the held token."""

    ring: RingId


class ProbeKind(IntEnum):
    """Kinds of probe; the answer to a multicast goes by unicast."""

    PING = 1
    PONG = 2
    MULTICAST_PING = 3
    MULTICAST_PONG = 4


@dataclass(frozen=True, slots=True)
class Probe:
    """A question whether a link works, or its answer. Not of any ring, so not a `Message`."""

    kind: ProbeKind
    link: int
    size: int  # bytes of the whole message, filled up with zeros; an answer has its question's
    t_ns: int  # the sender's clock
    echo_ns: int  # in an answer: time of the question


Message: TypeAlias = Data | Token | MergeDetect | Join | Leave | Commit | HoldCancel


def encode(message: Message) -> bytes:
    """Encode one message."""
    kind = type(message)
    if kind is Data:
        return encode_data(message)  # type: ignore[arg-type]  # narrowed by kind, faster than match
    return _ENCODERS[kind](message)


def encode_data(m: Data) -> bytes:
    """Encode one data message."""
    return (
        DATA_HEADER.pack(
            TYPE_DATA,
            0,
            0,
            m.ring[1],
            m.ring[0],
            m.seq,
            m.originator,
            m.guarantee,
            m.flags,
            0,
            m.visit,
        )
        + m.payload
    )


def decode(data: Buffer) -> Message:
    """Decode one message and check it.

    Raises:
        DecodeError: the only exception there is.
    """
    if len(data) < HEADER.size:
        raise DecodeError(f"{len(data)} bytes, at least {HEADER.size} needed")
    if len(data) > DATAGRAM_SIZE_MAX:
        raise DecodeError(f"{len(data)} bytes, limit {DATAGRAM_SIZE_MAX}")
    if data[0] == TYPE_DATA:
        return _decode_data(data)
    kind, _, _, representative, seq = HEADER.unpack_from(data)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise DecodeError(f"unknown message type {kind}")
    if seq > SEQ_MAX:
        raise DecodeError("ring seq over 2^63")
    return decoder(RingId(seq, representative), bytes(data))


def _decode_data(data: Buffer) -> Data:
    if len(data) < DATA_HEADER.size:
        raise DecodeError("data: shorter than its header")
    _, _, _, rep, ring_seq, seq, originator, guarantee, flags, _, visit = DATA_HEADER.unpack_from(
        data
    )
    if guarantee > 3 or not originator or not 0 < seq <= SEQ_MAX or ring_seq > SEQ_MAX:
        raise DecodeError("data: guarantee, originator or seq out of range")
    ring = _tuple(RingId, (ring_seq, rep))
    return _tuple(Data, (ring, seq, originator, guarantee, flags, visit, memoryview(data)[36:]))


def _header(kind: int, ring: RingId, reserved: int = 0) -> bytes:
    return HEADER.pack(kind, 0, reserved, ring.representative, ring.seq)


def _encode_token(t: Token) -> bytes:
    body = TOKEN.pack(
        t.token_seq, t.seq, t.aru, t.aru_id, t.fcc, t.backlog, t.flags, 0, len(t.requests)
    )
    return b"".join((_header(TYPE_TOKEN, t.ring), body, *(REQUEST.pack(*r) for r in t.requests)))


def _decode_token(ring: RingId, data: bytes) -> Token:
    _need(data, HEADER.size + TOKEN.size, "token")
    token_seq, seq, aru, aru_id, fcc, backlog, flags, _, count = TOKEN.unpack_from(
        data, HEADER.size
    )
    if count > REQUESTS_MAX or len(data) != HEADER.size + TOKEN.size + count * REQUEST.size:
        raise DecodeError("token: length does not match the number of requests")
    if max(token_seq, seq) > SEQ_MAX or aru > seq:
        raise DecodeError("token: seq or aru out of range")
    if max(fcc, backlog) > COUNT_MAX:
        raise DecodeError("token: a count out of range")
    start = HEADER.size + TOKEN.size
    requests = tuple(map(Request._make, REQUEST.iter_unpack(data[start:]))) if count else ()
    if any(not 0 < r.count <= REQUEST_COUNT_MAX or r.first + r.count - 1 > seq for r in requests):
        raise DecodeError("token: a request is out of range")
    if sum(r.count for r in requests) > REQUESTED_MAX:
        raise DecodeError(f"token: over {REQUESTED_MAX} messages requested")
    return Token(ring, token_seq, seq, aru, aru_id, fcc, backlog, flags, requests)


def _ids(data: bytes, offset: int, count: int, where: str) -> tuple[int, ...]:
    if count > NODES_MAX:
        raise DecodeError(f"{where}: {count} nodes, limit {NODES_MAX}")
    _need(data, offset + 4 * count, where)
    ids: tuple[int, ...] = struct.unpack_from(f">{count}I", data, offset)
    if any(a >= b for a, b in zip((0, *ids), ids, strict=False)):
        raise DecodeError(f"{where}: node ids do not strictly increase")
    return ids


def _pack_ids(ids: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(ids)}I", *ids)


def _encode_join(kind: int) -> Callable[[Join | Leave], bytes]:
    def encode_one(j: Join | Leave) -> bytes:
        body = JOIN.pack(j.boot_epoch, j.max_seq, len(j.proc), len(j.fail))
        header = _header(kind, j.ring, j.agreed_on)
        return header + body + _pack_ids(j.proc) + _pack_ids(j.fail)

    return encode_one


def _decode_join(kind: type[Join] | type[Leave]) -> Callable[[RingId, bytes], Join | Leave]:
    def decode_one(ring: RingId, data: bytes) -> Join | Leave:
        start = HEADER.size + JOIN.size
        _need(data, start, "join")
        agreed_on = HEADER.unpack_from(data)[2]
        boot_epoch, max_seq, n_proc, n_fail = JOIN.unpack_from(data, HEADER.size)
        proc = _ids(data, start, n_proc, "join")
        fail = _ids(data, start + 4 * n_proc, n_fail, "join")
        if len(data) != start + 4 * (n_proc + n_fail):
            raise DecodeError("join: length does not match the lists")
        if not proc or max_seq > SEQ_MAX or set(proc) == set(fail):
            raise DecodeError("join: lists contradict each other, or seq out of range")
        return kind(ring, boot_epoch, max_seq, proc, fail, agreed_on)

    return decode_one


def _encode_commit(c: Commit) -> bytes:
    rings = sorted({e.old_ring for e in c.entries if e.old_ring is not None})
    bases = {ring: min(e.old_aru for e in c.entries if e.old_ring == ring) for ring in rings}
    parts = [
        _header(TYPE_COMMIT, c.ring),
        COMMIT.pack(c.token_seq, c.index, len(c.entries), len(rings)),
        *(COMMIT_RING.pack(r.representative, r.seq, bases[r]) for r in rings),
    ]
    for e in c.entries:
        if e.old_ring is None:
            parts.append(COMMIT_ENTRY.pack(e.node, 0, 0, 0, 0, 0))
            continue
        base = bases[e.old_ring]
        flags = FILLED | (RECEIVED if e.received else 0)
        # Further apart than fits they are not of one ring: the receiver refuses that, clamped too.
        aru = min(e.old_aru - base, OFFSET_MAX)
        delivered = max(-OFFSET_MAX, min(e.high_delivered - base, OFFSET_MAX))
        ring = rings.index(e.old_ring)
        parts.append(COMMIT_ENTRY.pack(e.node, ring, flags, len(e.obligations), aru, delivered))
    parts += [_pack_ids(e.obligations) for e in c.entries if e.obligations]
    return b"".join(parts)


def _decode_commit(ring: RingId, data: bytes) -> Commit:
    offset = HEADER.size + COMMIT.size
    _need(data, offset, "commit")
    token_seq, index, count, n_rings = COMMIT.unpack_from(data, HEADER.size)
    if not 0 < count <= NODES_MAX or index > count or token_seq > SEQ_MAX:
        raise DecodeError("commit: counts out of range")
    end = offset + n_rings * COMMIT_RING.size + count * COMMIT_ENTRY.size
    _need(data, end, "commit")
    rings = []
    for _ in range(n_rings):
        representative, seq, base = COMMIT_RING.unpack_from(data, offset)
        if max(seq, base) > SEQ_MAX:
            raise DecodeError("commit: seq over 2^63")
        rings.append((RingId(seq, representative), base))
        offset += COMMIT_RING.size
    if len({ring_id for ring_id, _ in rings}) < n_rings:
        raise DecodeError("commit: a ring stands twice")
    return _decode_entries(ring, token_seq, index, rings, data, offset, count)


def _decode_entries(
    ring: RingId,
    token_seq: int,
    index: int,
    rings: list[tuple[RingId, int]],
    data: bytes,
    offset: int,
    count: int,
) -> Commit:
    entries = []
    tail = offset + count * COMMIT_ENTRY.size
    last = 0
    for position in range(count):
        node, which, flags, n_obligations, aru, delivered = COMMIT_ENTRY.unpack_from(data, offset)
        offset += COMMIT_ENTRY.size
        if node <= last:
            raise DecodeError("commit: entries do not strictly increase")
        last = node
        if bool(flags & FILLED) != (position < index):
            raise DecodeError("commit: an entry is filled that should not be, or the reverse")
        if not flags & FILLED:
            entries.append(Entry(node))
            continue
        if which >= len(rings):
            raise DecodeError("commit: no such ring")
        old_ring, base = rings[which]
        obligations = _ids(data, tail, n_obligations, "commit")
        tail += 4 * n_obligations
        received = bool(flags & RECEIVED)
        if base + aru < 0 or base + delivered < 0:
            raise DecodeError("commit: negative position")
        entries.append(Entry(node, old_ring, base + aru, base + delivered, received, obligations))
    if tail != len(data):
        raise DecodeError("commit: length does not match the lists")
    return Commit(ring, token_seq, index, tuple(entries))


def _encode_merge(m: MergeDetect) -> bytes:
    return _header(TYPE_MERGE_DETECT, m.ring) + MERGE.pack(len(m.members), 0) + _pack_ids(m.members)


def _decode_merge(ring: RingId, data: bytes) -> MergeDetect:
    start = HEADER.size + MERGE.size
    _need(data, start, "merge")
    members = _ids(data, start, MERGE.unpack_from(data, HEADER.size)[0], "merge")
    if len(data) != start + 4 * len(members):
        raise DecodeError("merge: length does not match the list")
    return MergeDetect(ring, members)


def _encode_cancel(m: HoldCancel) -> bytes:
    return _header(TYPE_HOLD_CANCEL, m.ring)


def _decode_cancel(ring: RingId, data: bytes) -> HoldCancel:
    if len(data) != HEADER.size:
        raise DecodeError("hold cancel: has a body")
    return HoldCancel(ring)


def encode_probe(p: Probe) -> bytes:
    """Encode one probe."""
    head = HEADER.pack(TYPE_PROBE, 0, 0, 0, 0)
    return (head + PROBE.pack(p.kind, p.link, p.size, p.t_ns, p.echo_ns)).ljust(p.size, b"\0")


def decode_probe(data: bytes) -> Probe:
    """Decode one probe and check it.

    Raises:
        DecodeError: the only exception there is.
    """
    _need(data, PROBE_SIZE_MIN, "probe")
    if data[0] != TYPE_PROBE:
        raise DecodeError("probe: another type of message")
    kind, link, size, t_ns, echo_ns = PROBE.unpack_from(data, HEADER.size)
    if not ProbeKind.PING <= kind <= ProbeKind.MULTICAST_PONG or link >= LINKS_MAX:
        raise DecodeError("probe: kind or link out of range")
    if size != len(data):
        raise DecodeError("probe: length does not match its size")
    if max(t_ns, echo_ns) > SEQ_MAX:
        raise DecodeError("probe: time out of range")
    return Probe(ProbeKind(kind), link, size, t_ns, echo_ns)


def _need(data: bytes, size: int, where: str) -> None:
    if len(data) < size:
        raise DecodeError(f"{where}: {len(data)} bytes, at least {size} needed")


_ENCODERS: Final[dict[type, Callable[..., bytes]]] = {
    Token: _encode_token,
    MergeDetect: _encode_merge,
    Join: _encode_join(TYPE_JOIN),
    Leave: _encode_join(TYPE_LEAVE),
    Commit: _encode_commit,
    HoldCancel: _encode_cancel,
}
_DECODERS: Final[dict[int, Callable[[RingId, bytes], Message]]] = {
    TYPE_TOKEN: _decode_token,
    TYPE_MERGE_DETECT: _decode_merge,
    TYPE_JOIN: _decode_join(Join),
    TYPE_LEAVE: _decode_join(Leave),
    TYPE_COMMIT: _decode_commit,
    TYPE_HOLD_CANCEL: _decode_cancel,
}
