"""How large a frame may be on the network as it is: smaller where frames get lost.

A frame is sealed as one block of datagrams, so the loss of one is the loss of all. Where the
network loses datagrams, large frames are lost nearly always; where it does not, they are cheap.
"""

from __future__ import annotations

from typing import Final

WINDOW_FRAMES: Final = 64  # full frames between two looks
LOST_SHARE: Final = 8  # smaller frames when more than one of so many was lost
CALM_WINDOWS: Final = 8  # windows without loss before frames grow again


class FrameSize:
    """The present size.

    Args:
        sizes: bytes, the largest first.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        assert list(sizes) == sorted(set(sizes), reverse=True), "the largest first"
        self._sizes: Final = sizes
        self._level = 0
        self._sent = 0
        self._lost = 0
        self._calm = 0
        self.bytes_max = sizes[0]

    def sent(self) -> None:
        """Count a frame that was full."""
        self._sent += 1
        if self._sent >= WINDOW_FRAMES:
            self._judge()

    def lost(self, frames: int) -> None:
        """Count frames of this node that had to be sent again."""
        self._lost += frames
        if self._lost * LOST_SHARE > WINDOW_FRAMES:
            self._judge()

    def _judge(self) -> None:
        bad = self._lost * LOST_SHARE > self._sent
        self._calm = 0 if self._lost else self._calm + 1
        if bad and self._level < len(self._sizes) - 1:
            self._level += 1
        elif self._calm >= CALM_WINDOWS and self._level:
            self._level -= 1
            self._calm = 0
        self.bytes_max = self._sizes[self._level]
        self._sent = self._lost = 0
