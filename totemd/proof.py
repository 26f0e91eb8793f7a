"""Proof that a session is alive: challenges and answers (replay protection ``strict``). Pure.

What was recorded earlier cannot answer a number drawn now. A session that was never heard is
challenged when it first sends; until it has answered, nothing of it but these messages is heard.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import Final

from totemd.seal import HELLO_TYPE

CHALLENGE: Final = 1
ANSWER: Final = 2
HELLO: Final = struct.Struct(">BBHI12s16s")  # type kind _ to session nonce
NONCE_SIZE: Final = 16
RETRY_NS: Final = 100_000_000
PER_SECOND: Final = 20  # challenges sent, and answers, per source
PENDING_MAX: Final = 1024
SOURCES_MAX: Final = 1024
_SECOND_NS: Final = 1_000_000_000


class Proof:
    """The challenges of one node.

    Args:
        me: this node.
        draw: returns so many random bytes.
    """

    def __init__(self, me: int, draw: Callable[[int], bytes]) -> None:
        self._me: Final = me
        self._draw: Final = draw
        self._pending: Final[dict[tuple[int, bytes], tuple[bytes, int]]] = {}  # -> nonce, sent at
        self._sources: Final[dict[str, tuple[int, int]]] = {}  # -> second, messages

    def heard(self, node_id: int, session: bytes, source: str, now_ns: int) -> bytes | None:
        """Return a challenge for a session that was heard and not proved, if one is due."""
        nonce, sent_ns = self._pending.get((node_id, session), (b"", now_ns - RETRY_NS))
        if now_ns - sent_ns < RETRY_NS or not self._may_send(source, now_ns):
            return None
        if not nonce:
            if len(self._pending) >= PENDING_MAX:
                del self._pending[next(iter(self._pending))]
            nonce = self._draw(NONCE_SIZE)
        self._pending[node_id, session] = nonce, now_ns
        return HELLO.pack(HELLO_TYPE[0], CHALLENGE, 0, node_id, session, nonce)

    def receive(
        self, message: bytes, sender: int, own: bytes, source: str, now_ns: int
    ) -> tuple[bytes | None, bytes | None]:
        """Handle a message of these.

        Args:
            message: authentic.
            sender: who sealed it.
            own: the session of this node.
            source: address, for limits.
            now_ns: monotonic.

        Returns:
            What to send in answer; the session of the sender that is proved now.
        """
        if len(message) != HELLO.size:
            return None, None
        _, kind, _, to, session, nonce = HELLO.unpack(message)
        if to != self._me:
            return None, None
        if kind == CHALLENGE:
            if session != own or not self._may_send(source, now_ns):
                return None, None
            return HELLO.pack(HELLO_TYPE[0], ANSWER, 0, sender, session, nonce), None
        asked, _ = self._pending.get((sender, session), (b"", 0))
        if kind != ANSWER or not asked or not hmac.compare_digest(asked, nonce):
            return None, None
        del self._pending[sender, session]
        return None, session

    def _may_send(self, source: str, now_ns: int) -> bool:
        second = now_ns // _SECOND_NS
        at, count = self._sources.get(source, (second, 0))
        count = count + 1 if at == second else 1
        if count > PER_SECOND:
            return False
        if len(self._sources) >= SOURCES_MAX and source not in self._sources:
            self._sources.clear()
        self._sources[source] = second, count
        return True
