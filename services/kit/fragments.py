"""Entries that are too big for one bundle, put together again. Pure."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from openais.wire.codec import DecodeError
from services.kit.entries import ENTRY_SIZE_MAX, Fragment


@dataclass(slots=True)
class _Partial:
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Fragments:
    """One entry per sender that is not whole yet."""

    def __init__(self) -> None:
        self._partial: Final[dict[int, _Partial]] = {}

    def take(self, node: int, fragment: Fragment) -> bytes | None:
        """Add a fragment; return the entry when it is whole.

        Raises:
            DecodeError: not the next fragment, or over a bound.
        """
        if fragment.position == 0:
            self._partial[node] = _Partial()
        partial = self._partial.get(node)
        size = fragment.position + len(fragment.data)
        if partial is None or partial.size != fragment.position or size > ENTRY_SIZE_MAX:
            self._partial.pop(node, None)
            raise DecodeError(f"fragment: at {fragment.position}, {size} bytes")
        partial.parts.append(fragment.data)
        partial.size = size
        if size < fragment.total:
            return None
        del self._partial[node]
        return b"".join(partial.parts)

    def keep(self, nodes: Container[int]) -> None:
        """Forget what other nodes did not finish."""
        for node in [n for n in self._partial if n not in nodes]:
            del self._partial[node]

    def __bool__(self) -> bool:
        return bool(self._partial)
