"""What the doctor finds in the documents of nodes, and what it advises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from openais.cli.findings import SPACE_LOW_BYTES, Examined, Finding, Level, findings


def totemd(**changes: Any) -> dict[str, Any]:
    return {
        "process": "totemd",
        "version": "1.0",
        "state": "operational",
        "gate": "open",
        "members": [1, 2],
        "links": [{"link": 0, "address": "10.0.0.1", "interface": "eth0", "running": True}],
        "keys": {"waiting_for": []},
        "counters": {},
    } | changes


def ckpt(**changes: Any) -> dict[str, Any]:
    return {
        "process": "ckpt",
        "version": "1.0",
        "state": "live",
        "applied": 7,
        "view": {"ring_seq": 8, "number": 2, "members": [1, 2]},
        "digest": "aa",
        "quorum": {"quorate": True, "votes": 2, "needed": 2, "expected": 3},
        "versions": {"service": {"spoken": 1, "newest": 1, "oldest": 1}},
        "clock_skew_ms": {"2": 3},
        "counters": {},
    } | changes


def node(number: int, **changes: Any) -> Examined:
    sound = Examined(
        f"node{number}",
        {"totemd": totemd(), "ckpt": ckpt()},
        free_bytes=SPACE_LOW_BYTES,
        directives={"totem.nodeid": str(number), "totem.token": "1000"},
    )
    return dataclasses.replace(sound, **changes)


def only(*nodes: Examined) -> Finding:
    found = findings(nodes)
    assert len(found) == 1, found
    assert found[0].advice
    return found[0]


def test_nothing_is_found_in_a_cluster_that_is_well() -> None:
    assert findings([node(1), node(2)]) == []


@pytest.mark.parametrize(
    ("process", "document", "check", "level", "what"),
    [
        ("ckpt", None, "process", Level.ERROR, "ckpt does not answer"),
        ("ckpt", ckpt(state="merging"), "process", Level.ERROR, "does not serve: merging"),
        (
            "ckpt",
            ckpt(quorum={"quorate": False, "votes": 1, "needed": 2, "expected": 3}),
            "quorum",
            Level.ERROR,
            "no quorum, 1 of 3 votes",
        ),
        ("ckpt", ckpt(diverged=True), "digest", Level.ERROR, "differed from the others"),
        (
            "ckpt",
            ckpt(versions={"service": {"spoken": 1, "newest": 2, "oldest": 1}}),
            "version",
            Level.WARNING,
            "version 1 of its service, not 2",
        ),
        ("ckpt", ckpt(clock_skew_ms={"2": -900}), "clock", Level.WARNING, "differs by -900 ms"),
        ("ckpt", ckpt(counters={"operations_failed": 2}), "counter", Level.WARNING, "is 2"),
        ("totemd", totemd(keys=None), "key", Level.WARNING, "not secured"),
        ("totemd", totemd(keys={"waiting_for": [3]}), "key", Level.WARNING, "waits for nodes [3]"),
        (
            "totemd",
            totemd(links=[{"link": 1, "address": "10.0.0.1", "interface": None}]),
            "link",
            Level.ERROR,
            "no interface has 10.0.0.1",
        ),
    ],
)
def test_what_is_wrong_with_one_process_is_named(
    process: str, document: dict[str, Any] | None, check: str, level: Level, what: str
) -> None:
    ill = node(1)
    finding = only(dataclasses.replace(ill, documents=dict(ill.documents) | {process: document}))
    assert (finding.check, finding.level, finding.node) == (check, level, "node1")
    assert what in finding.what


def test_a_bad_key_file_and_a_full_disk_are_errors() -> None:
    assert only(node(1, problems=("key file: too open",))).what == "key file: too open"
    assert only(node(1, free_bytes=1 << 20)).level is Level.ERROR
    assert only(node(1, free_bytes=SPACE_LOW_BYTES - 1)).level is Level.WARNING


def test_nodes_that_differ_are_compared() -> None:
    def other(name: str, document: dict[str, Any]) -> Examined:
        second = node(2)
        return dataclasses.replace(second, documents=dict(second.documents) | {name: document})

    assert only(node(1), other("totemd", totemd(members=[2]))).check == "ring"
    assert only(node(1), other("totemd", totemd(version="1.1"))).check == "release"
    assert only(node(1), other("ckpt", ckpt(digest="bb"))).check == "digest"
    assert findings([node(1), other("ckpt", ckpt(digest="bb", applied=8))]) == []


def test_a_directive_that_differs_is_named_with_both_values() -> None:
    second = node(2, directives={"totem.nodeid": "2", "totem.token": "500"})
    assert only(node(1), second).what == "totem.token: node1 has 1000, node2 has 500"
