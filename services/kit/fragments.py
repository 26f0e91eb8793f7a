"""Entries that came in parts, because they are too big for one bundle. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from openais.wire.codec import DecodeError
from services.kit import entries


@dataclass(slots=True)
class _Partial:
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Fragments:
    """One unfinished entry per sender; entries of one sender do not mix."""

    def __init__(self) -> None:
        self._partial: Final[dict[int, _Partial]] = {}

    def __len__(self) -> int:
        return len(self._partial)

    def clear(self) -> None:
        """Forget everything: the stream begins anew."""
        self._partial.clear()

    def keep(self, nodes: Collection[int]) -> None:
        """Forget what others than these nodes have begun."""
        for node in [n for n in self._partial if n not in nodes]:
            del self._partial[node]

    def take(self, node: int, fragment: entries.Fragment) -> bytes | None:
        """Take one part; return the entry when it was the last one.

        Raises:
            DecodeError: it does not follow the part before, or the entry is too big.
        """
        if fragment.position == 0:
            self._partial[node] = _Partial()
        partial = self._partial.get(node)
        size = fragment.position + len(fragment.data)
        if partial is None or partial.size != fragment.position or size > entries.ENTRY_SIZE_MAX:
            self._partial.pop(node, None)
            raise DecodeError(f"fragment at {fragment.position} of {fragment.total}: out of place")
        partial.parts.append(fragment.data)
        partial.size = size
        if size < fragment.total:
            return None
        del self._partial[node]
        return b"".join(partial.parts)
