"""Messages into frames and back: packing, fragmentation, the gate of a synchronisation.

A frame is the payload of one data message; it holds segments, and a message is one or more
segments. Frames are filled while the token is here, so small messages share frames under load and
none is delayed when idle. A message lives in one ring only: what was sent in part when the ring
ended is sent again, whole, in the next one.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import Final

from totemd.protocol.framesize import FrameSize

FRAME_VERSION: Final = 1
FIRST_CONTINUES: Final = 1  # segment 0 continues a message
LAST_CONTINUED: Final = 2  # the last segment goes on in the originator's next frame
HEADER: Final = struct.Struct(">BBHH")  # version, flags, chain, number of segments
LENGTH_SIZE: Final = 2
SEGMENTS_MAX: Final = 4096  # per frame
MESSAGE_SIZE_MAX: Final = (1 << 20) + 1024  # one message with its header
QUEUE_SIZE_MAX: Final = 256 << 20  # bytes waiting to be sent; more of an application is refused
VIEW_SIZE_MIN: Final = 4096  # a shorter segment is copied: it must not keep its frame alive
SAFE: Final = 3
AGREED: Final = 2


@dataclass(slots=True)
class _Waiting:
    message: memoryview
    guarantee: int
    cookie: int  # handed back when the whole message was sent; 0: nobody asks
    offset: int = 0


@dataclass(slots=True)
class _Partial:
    chain: int
    parts: list[bytes | memoryview]
    size: int  # bytes of all parts


class Packer:
    """The messages of this node that wait for the token.

    Args:
        payload_size_max: bytes of one frame.
        smaller: sizes to choose from where frames get lost, the largest first.
    """

    def __init__(self, payload_size_max: int, smaller: tuple[int, ...] = ()) -> None:
        sizes = (payload_size_max, *smaller)
        assert sizes[-1] > HEADER.size + LENGTH_SIZE
        self._frame: Final = FrameSize(sizes)
        self._sync: deque[_Waiting] = deque()
        self._messages: deque[_Waiting] = deque()
        self._bytes = 0
        self._chain = 0
        self._sent: list[int] = []
        self.gate_open = False

    def room(self, size: int) -> bool:
        """True: a message of so many bytes may be queued."""
        return self._bytes + size <= QUEUE_SIZE_MAX

    def submit(self, message: bytes, guarantee: int, cookie: int = 0) -> None:
        """Queue a message of an application or service."""
        assert len(message) <= MESSAGE_SIZE_MAX, "the door checks the size"
        guarantee = SAFE if guarantee == SAFE else AGREED
        self._messages.append(_Waiting(memoryview(message), guarantee, cookie))
        self._bytes += len(message)

    def submit_sync(self, message: bytes) -> None:
        """Queue a message of the synchronisation: first, and alone while the gate is closed."""
        self._sync.append(_Waiting(memoryview(message), AGREED, 0))

    def ring_ended(self) -> None:
        """A new ring begins: close the gate, start a partly sent message again, drop old sync."""
        self.gate_open = False
        self._sync.clear()
        self._chain = 0
        if self._messages:
            self._messages[0].offset = 0

    def frames_lost(self, count: int) -> None:
        """Learn that frames of this node were sent again."""
        self._frame.lost(count)

    def sent(self) -> list[int]:
        """Return the cookies of messages wholly sent since the last call."""
        sent = self._sent
        self._sent = []
        return sent

    def backlog_frames(self) -> int:
        """Return about how many frames may be sent now."""
        if self._sync:
            return len(self._sync)
        if not self.gate_open or not self._messages:
            return 0
        return 1 + self._bytes // self._frame.bytes_max

    @property
    def queued_bytes(self) -> int:
        """Bytes of the messages that wait."""
        return self._bytes

    def next_frame(self) -> tuple[int, bytes] | None:
        """Fill one frame from what waits; None: nothing may be sent now."""
        queue = self._sync or (self._messages if self.gate_open else None)
        if not queue:
            return None
        guarantee = queue[0].guarantee
        flags = FIRST_CONTINUES if queue[0].offset else 0
        room = self._frame.bytes_max - HEADER.size
        lengths: list[int] = []
        parts: list[memoryview] = []
        while queue and len(lengths) < SEGMENTS_MAX and room > LENGTH_SIZE:
            waiting = queue[0]
            if waiting.guarantee != guarantee:
                break
            left = len(waiting.message) - waiting.offset
            size = min(left, room - LENGTH_SIZE)
            if size == left and not waiting.offset:
                parts.append(waiting.message)
            else:
                parts.append(waiting.message[waiting.offset : waiting.offset + size])
            lengths.append(size)
            room -= size + LENGTH_SIZE
            if size < left:
                flags |= LAST_CONTINUED
                self._continue(waiting, size)
                self._frame.sent()
                break
            self._finish(queue)
        header = HEADER.pack(FRAME_VERSION, flags, self._chain, len(lengths))
        return guarantee, b"".join((header, struct.pack(f">{len(lengths)}H", *lengths), *parts))

    def _continue(self, waiting: _Waiting, size: int) -> None:
        if not waiting.offset:
            self._chain = (self._chain + 1) & 0xFFFF
        waiting.offset += size

    def _finish(self, queue: deque[_Waiting]) -> None:
        waiting = queue.popleft()
        if queue is self._messages:
            self._bytes -= len(waiting.message)
        if waiting.cookie:
            self._sent.append(waiting.cookie)


class Assembler:
    """Frames of all originators back into messages."""

    def __init__(self) -> None:
        self._partial: dict[int, _Partial] = {}  # by originator
        self.frames_malformed = 0
        self.segments_dropped = 0

    def reset(self) -> None:
        """A new ring begins: no message continues into it."""
        self._partial.clear()

    def open(self, originator: int, frame: bytes | memoryview) -> list[bytes | memoryview]:
        """Return the messages that this frame completes."""
        segments = _segments(frame)
        if segments is None:
            self.frames_malformed += 1
            self._partial.pop(originator, None)
            return []
        flags, chain = frame[1], frame[2] << 8 | frame[3]
        if flags & FIRST_CONTINUES or flags & LAST_CONTINUED or originator in self._partial:
            return self._join(originator, flags, chain, segments)
        return segments

    def _join(
        self, originator: int, flags: int, chain: int, segments: list[bytes | memoryview]
    ) -> list[bytes | memoryview]:
        """Handle a frame at whose edges messages are cut; its chain is that of its last segment."""
        partial = self._partial.pop(originator, None)
        continued = bool(flags & LAST_CONTINUED)
        if flags & FIRST_CONTINUES:
            middle = continued and len(segments) == 1
            first_chain = (chain - 1) & 0xFFFF if continued and not middle else chain
            first = segments.pop(0)
            if partial is None or partial.chain != first_chain:
                self.segments_dropped += 1
                if middle:
                    return []
            elif not self._grow(partial, first):
                if middle:
                    return []
            elif middle:
                self._partial[originator] = partial
                return []
            else:
                segments.insert(0, b"".join(partial.parts))
        if continued:
            last = segments.pop()
            self._partial[originator] = _Partial(chain, [last], len(last))
        return segments

    def _grow(self, partial: _Partial, part: bytes | memoryview) -> bool:
        """Add a segment; False: no sender makes such a message, so it is dropped."""
        partial.parts.append(part)
        partial.size += len(part)
        if len(part) and partial.size <= MESSAGE_SIZE_MAX:
            return True
        self.segments_dropped += len(partial.parts)
        return False


def _segments(frame: bytes | memoryview) -> list[bytes | memoryview] | None:
    if len(frame) < HEADER.size:
        return None
    version, _, _, count = HEADER.unpack_from(frame)
    offset = HEADER.size + LENGTH_SIZE * count
    if version != FRAME_VERSION or not 0 < count <= SEGMENTS_MAX or len(frame) < offset:
        return None
    lengths = struct.unpack_from(f">{count}H", frame, HEADER.size)
    if offset + sum(lengths) != len(frame):
        return None
    segments: list[bytes | memoryview] = []
    view = memoryview(frame)
    for length in lengths:
        segment = view[offset : offset + length]
        segments.append(segment if length >= VIEW_SIZE_MIN else bytes(segment))
        offset += length
    return segments
