"""What `./run bench` measures, its page tells."""

from __future__ import annotations

import re

from bench.__main__ import MEASUREMENTS, NEED_NAMESPACES
from tests.tidy.sources import ROOT


def test_every_measurement_is_a_row_of_the_page_and_the_reverse() -> None:
    page = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(MEASUREMENTS)
    assert set(MEASUREMENTS) >= NEED_NAMESPACES
