"""What is logged about foreign keys, and who of two nodes with one id ends."""

from __future__ import annotations

import pytest

from openais.node.exits import Exit, ExitError
from totemd.security import (
    ALONE_NS,
    DIGEST_LOGGED_NS,
    DIGEST_SOURCES_MAX,
    DUPLICATE_SILENT_NS,
    DUPLICATES_MAX,
    DUPLICATES_NS,
    DigestLog,
    DuplicateWatch,
)

START = 1_000_000_000_000


def test_wrong_digests_are_logged_once_a_minute_per_source(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = DigestLog()
    for k in range(100):
        log.count(("192.0.2.1", 5404), 1, START + k, alone=False)
    log.count(("192.0.2.2", 5404), 3, START, alone=False)
    assert caplog.text.count("Invalid digest") == 2
    assert "address=192.0.2.1:5404" in caplog.text
    log.count(("192.0.2.1", 5404), 1, START + DIGEST_LOGGED_NS, alone=False)
    assert "since_start=101" in caplog.text


def test_sources_of_wrong_digests_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    log = DigestLog()
    for k in range(DIGEST_SOURCES_MAX * 2):
        log.count((f"source{k}", 1), 1, START, alone=False)
    assert caplog.text.count("Invalid digest") == DIGEST_SOURCES_MAX


def test_a_node_that_is_alone_is_told_why_once(caplog: pytest.LogCaptureFixture) -> None:
    log = DigestLog()
    log.count(("192.0.2.1", 1), 1, START, alone=True)
    log.count(("192.0.2.1", 1), 1, START + ALONE_NS, alone=False)
    assert "different key" not in caplog.text
    for k in range(5):
        log.count(("192.0.2.1", 1), 1, START + ALONE_NS + k, alone=True)
    assert caplog.text.count("different key or cluster_name") == 1


def test_the_node_that_came_later_ends(caplog: pytest.LogCaptureFixture) -> None:
    watch = DuplicateWatch(session=50)
    for k in range(DUPLICATES_MAX - 1):
        watch.count("192.0.2.9", 40, START + k)
    with pytest.raises(ExitError, match=r"192\.0\.2\.9") as caught:
        watch.count("192.0.2.9", 40, START + 100)
    assert caught.value.status is Exit.DUPLICATE_NODE
    assert caplog.text.count("duplicate_node_id") == 1


def test_stray_datagrams_end_nobody() -> None:
    watch = DuplicateWatch(session=50)
    for k in range(100):
        watch.count("192.0.2.9", 40, START + k * DUPLICATES_NS // (DUPLICATES_MAX - 1))


def test_the_node_that_was_first_goes_on_and_renews_its_session_afterwards() -> None:
    watch = DuplicateWatch(session=50)
    for k in range(100):
        watch.count("192.0.2.9", 60, START + k)
    assert not watch.over(START + 99 + DUPLICATE_SILENT_NS - 1)
    assert watch.over(START + 99 + DUPLICATE_SILENT_NS)
    assert not watch.over(START + 99 + 2 * DUPLICATE_SILENT_NS)
