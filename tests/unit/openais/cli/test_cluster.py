"""What ``openais cluster status`` says of the networks of a node."""

from __future__ import annotations

from typing import Any

from openais.cli.cluster import _row


def detail(*links: dict[str, Any]) -> str:
    document = {
        "process": "totemd",
        "pid": 7,
        "state": "operational",
        "gate": "open",
        "members": [1, 2],
        "ring": {"seq": 9, "representative": 1},
        "links": list(links),
    }
    return str(_row("totemd", document)[-1])


def link(number: int, state: str = "up", **changes: object) -> dict[str, Any]:
    nodes = [{"node_id": 2, "state": state, "latency_us": 90}]
    return {"link": number, "interface": "eth0", "running": True, "nodes": nodes} | changes


def test_a_single_network_that_works_is_not_mentioned() -> None:
    assert detail(link(0, nodes=[])) == "ring 9.1"


def test_several_networks_that_work_are_counted() -> None:
    assert detail(link(0), link(1)) == "ring 9.1, 2 links up"


def test_everything_that_does_not_work_is_named() -> None:
    told = detail(
        link(0, "mtu_bad"),
        link(1, interface=None, running=False),
        link(2, running=False),
        link(3),
    )
    assert told == ("ring 9.1, link 0 to 2 mtu_bad, link 1 has no interface, link 2 has no carrier")
