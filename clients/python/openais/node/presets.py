"""Sets of defaults that belong together. Pure.

Each value is written as in the file; a directive that is written there overrides it. What a preset
leaves out has the default of the table, or derives by the rules of `openais.node.timing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openais.node.binding import BoundSection

# preset -> path of a section -> key -> value
PRESETS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    # Machines on one network: the defaults of the table.
    "lan": {},
    # Several nodes on one machine, for development: nothing leaves the machine, none of the nodes
    # takes the machine from the others, and a node that is restarted often is back at once.
    "loopback": {
        "totem": {"loopback": "yes", "wait_for_interface": "no", "flap_max": "2000"},
        "totem.interface": {"ttl": "0"},
        "system": {"sched_rr": "no", "priority": "0", "mlock": "no"},
        "logging": {"to_syslog": "no"},
    },
    # A dead node is replaced within half a second: the token's loss after 200 ms and the silence
    # of the dead while a ring forms, 180 ms, leave time for the rest. Needs machines on which
    # totemd is never kept from running for as long as that.
    "fast": {
        "totem": {
            "token": "200",
            "token_coefficient": "5",
            "join": "30",
            "merge": "100",
            "downcheck": "200",
        },
    },
}


def apply(root: BoundSection, preset: str) -> None:
    """Fill in what a preset says and nobody wrote."""
    for path, values in PRESETS[preset].items():
        for section in _sections(root, path):
            kinds = {directive.key: directive.kind for directive in section.rule.directives}
            for key, text in values.items():
                kind = kinds[key]
                assert kind is not None, f"{path}.{key} is not served"
                section.fill(key, kind.convert(text), f"preset {preset}")


def _sections(root: BoundSection, path: str) -> list[BoundSection]:
    parent, _, name = path.rpartition(".")
    return root.one(parent).all(path) if parent else [root.one(name)]
