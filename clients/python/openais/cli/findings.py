"""What is wrong with nodes, judged from their documents alone. Pure.

Every finding says what to do. What is not asked is not judged: of a single node its own document
and what it knows of the cluster, of several nodes also what differs between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from openais import status

Document = dict[str, Any]

SKEW_MAX_MS: Final = 500  # between the clocks of two nodes; time stamps and expiry go by them
SPACE_LOW_BYTES: Final = 1 << 30
SPACE_OUT_BYTES: Final = 64 << 20
OWN: Final = (  # directives that differ from node to node
    "nodeid",
    "bindnetaddr",
    "of this machine",
    "keyfile",
    "run_dir",
    "state_dir",
    "node_name",
    "logfile",
)
COUNTED: Final = {  # counters that should stay 0
    "operations_failed": "a bug in the service: its log has the traceback; report it",
    "entries_malformed": "a replica says what others do not understand: compare the versions",
    "snapshots_failed": "make room in the state directory, or check the disk",
    "protocol_errors": "two nodes with one id, or a broken switch: see the log of totemd",
}


class Level(Enum):
    """How bad a finding is."""

    ERROR = "error"  # something does not work
    WARNING = "warning"  # it works, and will not for long, or not as meant


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    level: Level
    node: str
    check: str
    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of one node."""

    name: str
    documents: Mapping[str, Document | None]  # by process; None: no answer
    problems: tuple[str, ...] = ()  # of its configuration and key
    free_bytes: int | None = None  # where its state is; None: not known
    directives: Mapping[str, str] = field(default_factory=dict)


def findings(nodes: Sequence[Examined]) -> list[Finding]:
    """Judge some nodes of one cluster."""
    found: list[Finding] = []
    for node in nodes:
        found += _processes(node)
        found += _files(node)
        for name, document in node.documents.items():
            if document is not None:
                found += _links(node, document) if name == status.TOTEMD else []
                found += _service(node, name, document) if name != status.TOTEMD else []
                found += _counters(node, name, document)
    found += _rings(nodes)
    found += _releases(nodes)
    found += _digests(nodes)
    found += _directives(nodes)
    return found


def _processes(node: Examined) -> Iterator[Finding]:
    for name, document in node.documents.items():
        if document is None:
            advice = f"supervisorctl status; then start {name}, and read its log if it ends"
            yield Finding(Level.ERROR, node.name, "process", f"{name} does not answer", advice)
        elif not status.ready(document):
            advice = f"wait some seconds; if it stays so, read the log of {name}"
            what = f"{name} does not serve: {document['state']}"
            yield Finding(Level.ERROR, node.name, "process", what, advice)


def _files(node: Examined) -> Iterator[Finding]:
    for problem in node.problems:
        advice = "correct it; openais config check tells when it is good"
        yield Finding(Level.ERROR, node.name, "configuration", problem, advice)
    if node.free_bytes is not None and node.free_bytes < SPACE_LOW_BYTES:
        level = Level.ERROR if node.free_bytes < SPACE_OUT_BYTES else Level.WARNING
        what = f"{node.free_bytes >> 20} MiB are free in the state directory"
        advice = "make room: without it snapshots fail, and totemd ends when it cannot store"
        yield Finding(level, node.name, "disk", what, advice)


def _links(node: Examined, document: Document) -> Iterator[Finding]:
    for link in document["links"]:
        number = link["link"]
        if link["interface"] is None:
            what = f"link {number}: no interface has {link['address']}"
            yield Finding(Level.ERROR, node.name, "link", what, "bring up the interface")
        elif not link["running"]:
            what = f"link {number}: {link['interface']} has no carrier"
            yield Finding(Level.ERROR, node.name, "link", what, "cable and switch")
        for other in link.get("nodes", ()):
            if other["state"] != "up":
                what = f"link {number} to node {other['node_id']} is {other['state']}"
                advice = "docs/networking.md, several links"
                yield Finding(Level.WARNING, node.name, "link", what, advice)
    keys = document.get("keys")
    if keys is None:
        advice = "remove secauth: off from openais.conf on all nodes"
        yield Finding(Level.WARNING, node.name, "key", "the ring is not secured", advice)
    elif keys["waiting_for"]:
        what = f"a change of the key waits for nodes {keys['waiting_for']}"
        advice = "bring them back, then openais key rotate again"
        yield Finding(Level.WARNING, node.name, "key", what, advice)


def _service(node: Examined, name: str, document: Document) -> Iterator[Finding]:
    quorum = document.get("quorum")
    if quorum is not None and not quorum["quorate"]:
        what = f"{name}: no quorum, {quorum['votes']} of {quorum['expected']} votes"
        advice = f"bring nodes back until {quorum['needed']} votes are together"
        yield Finding(Level.ERROR, node.name, "quorum", what, advice)
    if document.get("diverged"):
        what = f"{name}: this replica differed from the others"
        advice = "it heals by itself; keep the logs of all nodes and report it"
        yield Finding(Level.ERROR, node.name, "digest", what, advice)
    for protocol, version in document.get("versions", {}).items():
        if 0 < version["spoken"] < version["newest"]:
            what = f"{name}: version {version['spoken']} of its {protocol}, not {version['newest']}"
            advice = f"upgrade {name} on all nodes: a member speaks no newer one"
            yield Finding(Level.WARNING, node.name, "version", what, advice)
    for other, skew_ms in document.get("clock_skew_ms", {}).items():
        if abs(skew_ms) > SKEW_MAX_MS:
            what = f"the clock of node {other} differs by {skew_ms} ms, seen by {name}"
            advice = "run a time service (chrony, ntpd) on all nodes"
            yield Finding(Level.WARNING, node.name, "clock", what, advice)


def _counters(node: Examined, name: str, document: Document) -> Iterator[Finding]:
    for counter, advice in COUNTED.items():
        value = document.get("counters", {}).get(counter, 0)
        if value:
            what = f"{name}: {counter} is {value}"
            yield Finding(Level.WARNING, node.name, "counter", what, advice)


def _rings(nodes: Sequence[Examined]) -> Iterator[Finding]:
    rings = {
        node.name: tuple(document["members"])
        for node in nodes
        if (document := node.documents.get(status.TOTEMD)) is not None
    }
    if len(set(rings.values())) > 1:
        what = "; ".join(f"{name} sees {list(ring)}" for name, ring in rings.items())
        advice = "network between them; same key (ais-keygen --fingerprint) and cluster_name"
        yield Finding(Level.ERROR, "cluster", "ring", what, advice)


def _releases(nodes: Sequence[Examined]) -> Iterator[Finding]:
    found = sorted(
        {
            str(document["version"])
            for node in nodes
            for document in node.documents.values()
            if document is not None
        }
    )
    if len(found) > 1:
        what = f"releases {', '.join(found)} run together"
        advice = "finish the upgrade: openais upgrade all --release DIR"
        yield Finding(Level.WARNING, "cluster", "release", what, advice)


def _digests(nodes: Sequence[Examined]) -> Iterator[Finding]:
    names = sorted({name for node in nodes for name in node.documents if name != status.TOTEMD})
    for name in names:
        digests: dict[tuple[int, int, int], dict[str, list[str]]] = {}
        for node in nodes:
            document = node.documents.get(name)
            if document is not None and document.get("digest"):
                view = document["view"]
                at = (document["applied"], view["ring_seq"], view["number"])
                digests.setdefault(at, {}).setdefault(document["digest"], []).append(node.name)
        for at, sides in digests.items():
            if len(sides) > 1:
                what = f"{name}: {' differs from '.join(map(str, sides.values()))} at {at[0]}"
                advice = "restart the service on the smaller side: it takes the others' state"
                yield Finding(Level.ERROR, "cluster", "digest", what, advice)


def _directives(nodes: Sequence[Examined]) -> Iterator[Finding]:
    names = sorted({name for node in nodes for name in node.directives})
    for name in names:
        if any(part in name for part in OWN):
            continue
        values = {node.name: node.directives.get(name, "") for node in nodes if node.directives}
        if len(set(values.values())) > 1:
            what = f"{name}: " + ", ".join(f"{node} has {v}" for node, v in values.items())
            advice = "the same file everywhere"
            yield Finding(Level.WARNING, "cluster", "configuration", what, advice)
