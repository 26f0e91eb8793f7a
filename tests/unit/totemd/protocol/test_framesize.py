"""Frames shrink where frames get lost, and grow again where they do not."""

from __future__ import annotations

import pytest

from totemd.protocol.framesize import CALM_WINDOWS, WINDOW_FRAMES, FrameSize
from totemd.protocol.packing import Packer

SIZES = (8000, 4000, 2000)


def sent(size: FrameSize, frames: int, *, lost_every: int = 0) -> None:
    for k in range(1, frames + 1):
        if lost_every and k % lost_every == 0:
            size.lost(1)
        size.sent()


def test_frames_are_of_the_largest_size_while_nothing_is_lost() -> None:
    size = FrameSize(SIZES)
    sent(size, 10_000)
    assert size.bytes_max == 8000


def test_frames_shrink_step_by_step_while_every_fourth_is_lost() -> None:
    size = FrameSize(SIZES)
    sent(size, WINDOW_FRAMES, lost_every=4)
    assert size.bytes_max == 4000
    sent(size, 10 * WINDOW_FRAMES, lost_every=4)
    assert size.bytes_max == 2000


def test_a_rare_loss_changes_nothing() -> None:
    size = FrameSize(SIZES)
    sent(size, 20 * WINDOW_FRAMES, lost_every=WINDOW_FRAMES // 2)
    assert size.bytes_max == 8000


def test_a_burst_of_losses_is_acted_upon_before_the_window_is_over() -> None:
    # A sender whose frames all get lost sends few new ones: it must not wait for a window of them.
    size = FrameSize(SIZES)
    for _ in range(2 * WINDOW_FRAMES):
        size.lost(1)
    assert size.bytes_max == 2000


def test_frames_grow_again_after_a_long_calm() -> None:
    size = FrameSize(SIZES)
    size.lost(WINDOW_FRAMES)
    sent(size, (CALM_WINDOWS - 1) * WINDOW_FRAMES)
    assert size.bytes_max == 4000
    sent(size, WINDOW_FRAMES)
    assert size.bytes_max == 8000


@pytest.mark.parametrize("lost", [0, 1000])
def test_the_packer_fills_frames_of_the_present_size(lost: int) -> None:
    packer = Packer(8000, (4000,))
    packer.gate_open = True
    packer.submit(bytes(100_000), 2)
    packer.frames_lost(lost)
    frame = packer.next_frame()
    assert frame is not None
    assert len(frame[1]) == (4000 if lost else 8000)
