"""Timeouts and windows of the ring: what derives, and the rules between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from openais.node.model import TotemConfig
from openais.node.presets import PRESETS
from openais.node.rules import HOLD_MIN_MS, TIMEOUT_MIN_MS
from tests.unit.openais.node.configs import complained, in_totem, loaded, nodelist, refused


def totem(folder: Path, lines: str, nodes: int = 0) -> TotemConfig:
    return loaded(folder, in_totem(lines) + nodelist(nodes)).totem


@pytest.mark.parametrize(
    ("token", "retransmit", "hold", "consensus"),
    [(1000, 238, 180, 1200), (200, 47, 27, 240), (10_000, 2380, 1894, 12_000)],
)
def test_cfg_014_timeouts_derive_from_the_token(
    tmp_path: Path, token: int, retransmit: int, hold: int, consensus: int
) -> None:
    t = totem(tmp_path, f"token: {token}")
    assert (t.token_retransmit_ms, t.hold_ms, t.consensus_ms) == (retransmit, hold, consensus)
    assert (t.link_probe_interval_ms, t.link_probe_timeout_ms) == (token // 4, token // 2)
    assert t.fail_recv_time_ms == token


def test_the_token_timeout_grows_with_the_nodelist(tmp_path: Path) -> None:
    assert totem(tmp_path, "", 6).runtime_token_ms == 1100
    assert totem(tmp_path, "", 6).consensus_ms == 1320
    # A part of the cluster has the shorter timeout, and must send the token again before it.
    assert totem(tmp_path, "", 6).token_retransmit_ms == 238
    assert totem(tmp_path, "", 2).runtime_token_ms == 1000


def test_what_derives_from_join_and_from_the_number_of_nodes(tmp_path: Path) -> None:
    t = totem(tmp_path, "join: 60")
    assert (t.silent_fail_ms, t.startup_wait_ms, t.send_join_ms) == (360, 120, 0)
    assert totem(tmp_path, "", 17).send_join_ms == 0, "the ring knows how many nodes there are"
    assert totem(tmp_path, "token: 2000").silent_fail_ms == 600


def test_the_silence_that_fails_a_node_stays_below_consensus(tmp_path: Path) -> None:
    t = totem(tmp_path, "token: 200")
    assert (t.consensus_ms, t.silent_fail_ms) == (240, 239)


def test_windows_derive_from_each_other(tmp_path: Path) -> None:
    t = totem(tmp_path, "")
    assert (t.window_size_messages, t.max_messages, t.accelerated_window_messages) == (0, 17, 0)
    t = totem(tmp_path, "window_size: 10")
    assert (t.window_size_messages, t.max_messages, t.accelerated_window_messages) == (10, 10, 0)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            "token_retransmit: 1000",
            "totem.token_retransmit: 1000 is not below totem.token 1000",
        ),
        ("silent_fail: 1200", "totem.silent_fail: 1200 is not below totem.consensus 1200"),
        (
            "token_retransmit_min: 239",
            "totem.token_retransmit_min: 239 is over totem.token_retransmit 238",
        ),
        (
            "token_retransmit_first: 239",
            "totem.token_retransmit_first: 239 is over totem.token_retransmit 238",
        ),
        (
            "link_probe_interval: 500",
            "totem.link_probe_interval: 500 is not below totem.link_probe_timeout 500",
        ),
        (
            "max_messages: 5\naccelerated_window: 6",
            "totem.accelerated_window: 6 is over totem.max_messages 5",
        ),
        ("window_size: 100\nmax_gap: 99", "totem.window_size: 100 is over totem.max_gap 99"),
        (
            "heartbeat_failures_allowed: 4",
            "totem.heartbeat_failures_allowed: 4 * token_retransmit 238 + max_network_delay 50 is "
            "not below totem.token 1000",
        ),
        ("block_datagrams: 45", 'totem.block_datagrams: expected integer 1..44, got "45"'),
        ("block_datagrams: 0", 'totem.block_datagrams: expected integer 1..44, got "0"'),
        ("hold: 13", 'totem.hold: expected integer 14..86400000, got "13"'),
        ("token_warning: 101", 'totem.token_warning: expected integer 0..100, got "101"'),
        ("ip_dscp: af44", 'expected integer 0..63, cs0..cs7, af11..af43 or ef, got "af44"'),
        ("key_accept: relative", 'expected 1..16 absolute paths, got "relative"'),
    ],
)
def test_values_that_break_a_rule_are_refused(tmp_path: Path, lines: str, reason: str) -> None:
    assert complained(refused(tmp_path, in_totem(lines)), reason)


def test_fewer_nodes_than_the_nodelist_has_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, in_totem("max_nodes: 2") + nodelist(3))
    assert complained(error, "totem.max_nodes: 2 is below the 3 nodes of the nodelist")


def test_directives_of_the_ring_are_read(tmp_path: Path) -> None:
    t = totem(
        tmp_path,
        "accel_min: 2\naccel_priority: eager\nrequest_limit: current\nflow: backlog\n"
        "flap_max: 1s\nmax_unstable_bytes: 2M\nblock_datagrams: 44\nip_dscp: ef\n"
        "key_accept: /a, /b /c\nreplay_protection: strict\ncancel_token_hold_on_retransmit: yes\n"
        "join_coalesce: 7\nsilent_fail: 0\nmax_gap: 8192",
    )
    assert (t.accel_min, t.accel_priority, t.request_limit, t.flow) == (
        2,
        "eager",
        "current",
        "backlog",
    )
    assert (t.flap_max_ms, t.max_unstable_bytes, t.block_datagrams) == (1000, 2 << 20, 44)
    assert (t.ip_dscp, t.replay_protection, t.send_join_ms) == (46, "strict", 7)
    assert t.key_accept == (Path("/a"), Path("/b"), Path("/c"))
    assert t.cancel_token_hold_on_retransmit
    assert (t.silent_fail_ms, t.max_gap_messages) == (0, 8192)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("nodes", [0, 3, 8])
def test_a_preset_is_consistent_without_a_warning(tmp_path: Path, preset: str, nodes: int) -> None:
    config = loaded(tmp_path, in_totem(f"preset: {preset}") + nodelist(nodes))
    t = config.totem
    assert t.preset == preset
    assert config.warnings == ()
    assert min(t.token_retransmit_ms, t.join_ms, t.consensus_ms, t.merge_ms) >= TIMEOUT_MIN_MS
    assert t.hold_ms >= HOLD_MIN_MS


@pytest.mark.parametrize("nodes", [2, 3, 8])
def test_the_fast_preset_replaces_a_dead_node_within_half_a_second(
    tmp_path: Path, nodes: int
) -> None:
    t = totem(tmp_path, "preset: fast", nodes)
    assert t.runtime_token_ms + t.silent_fail_ms <= 450  # the rest is for the new ring itself


def test_a_directive_overrides_its_preset(tmp_path: Path) -> None:
    t = totem(tmp_path, "preset: fast\ntoken: 400")
    assert (t.token_ms, t.join_ms, t.consensus_ms) == (400, 30, 480)


def test_the_loopback_preset_keeps_everything_on_the_machine(tmp_path: Path) -> None:
    config = loaded(tmp_path, in_totem("preset: loopback"))
    assert config.totem.loopback
    assert config.interfaces[0].ttl == 0
    assert not config.system.sched_rr
    assert not config.system.mlock
    assert config.system.priority == "0"
