"""Run a scenario: commands to a simulated cluster, and what its nodes do.

A scenario is blocks separated by empty lines. A block is commands, ``----``, and the output that
is expected. Time in the output is milliseconds since the start. To write the outputs anew, set
REWRITE=1, run the tests, and understand the difference.

    parameters name=value ...   before the nodes; times in milliseconds, names without their unit
    nodes 1 2 3          start nodes
    run 100              let so many milliseconds pass
    join 1               an application process at node 1 joins the group
    exit 1               that process dies
    send 1 text [safe]   it multicasts
    crash 2 | boot 2 | leave 2
    cut 1 2 | 3          partition
    silence 1 2          node 2 hears nothing of node 1, but node 1 hears node 2
    heal
    pause 2 300          node 2 is not scheduled for so many milliseconds
    deaf 2 Data Commit   node 2 loses every message of these types, from now on
    hears 2              node 2 loses no more messages
    secretive 3          node 3 takes part in the ring, but does not tell its process groups
    force 1              an operator's command: form the ring anew
    disk 1 1004          the file of node 1 says that this was its last ring number
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.sim.cluster import Cluster
from tests.sim.network import MS, US, Faults
from tests.sim.trace import Installed
from totemd.protocol.core import Order
from totemd.protocol.effects import ConfigurationKind, Moved, Noted
from totemd.protocol.local import ConnectionId, Delivered, Reason, RingChanged, View
from totemd.protocol.messages import Message
from totemd.protocol.node import Effect

DELAY_NS = 100 * US
SEPARATOR = "----"


class Script:
    """One scenario being run."""

    def __init__(self) -> None:
        fixed = Faults(delay_min_ns=DELAY_NS, delay_max_ns=DELAY_NS)
        self.cluster = Cluster(0, faults=fixed)
        self.connections: dict[int, ConnectionId] = {}
        self.began_ns = self.cluster.now_ns
        self._seen_notes = 0
        self._seen: dict[tuple[int, str], int] = {}  # (epoch, who) -> lines shown

    def block(self, commands: list[str]) -> list[str]:
        """Run the commands of one block; return what happened."""
        for command in commands:
            name, *arguments = command.split()
            self._commands()[name](arguments)
        return self._output()

    def _commands(self) -> dict[str, Callable[[list[str]], None]]:
        c = self.cluster
        return {
            "nodes": self._nodes,
            "run": lambda a: c.run(int(a[0]) * MS),
            "join": lambda a: self._join(int(a[0])),
            "exit": lambda a: self._exit(int(a[0])),
            "send": lambda a: self._send(int(a[0]), a[1], 3 if "safe" in a else 2),
            "crash": lambda a: self._crash(int(a[0])),
            "boot": lambda a: c.boot(int(a[0])),
            "leave": lambda a: c.perform(int(a[0]), c.node(int(a[0])).leave(c.now_ns)),
            "cut": self._cut,
            "silence": lambda a: c.wire.cut.add((int(a[0]), int(a[1]))),
            "heal": lambda _: c.wire.heal(),
            "parameters": self._parameters,
            "pause": lambda a: c.pause(int(a[0]), int(a[1]) * MS),
            "deaf": lambda a: self._deaf(int(a[0]), a[1:]),
            "hears": lambda a: self._deaf(int(a[0]), []),
            "secretive": lambda a: self._secretive(int(a[0])),
            "force": lambda a: c.perform(int(a[0]), c.node(int(a[0])).force_gather(c.now_ns)),
            "disk": lambda a: c.disk.update({int(a[0]): int(a[1])}),
        }

    def _nodes(self, arguments: list[str]) -> None:
        for node in arguments:
            self.cluster.boot(int(node))

    def _parameters(self, arguments: list[str]) -> None:
        values: dict[str, Any] = {}
        for argument in arguments:
            name, _, value = argument.partition("=")
            is_time = hasattr(self.cluster.parameters, f"{name}_ns")
            values[f"{name}_ns" if is_time else name] = int(value) * (MS if is_time else 1)
        self.cluster.parameters = dataclasses.replace(self.cluster.parameters, **values)

    def _deaf(self, node_id: int, types: list[str]) -> None:
        node = self.cluster.node(node_id)
        receive = type(node).receive

        def chosen(message: Message, sender: int, order: Order, now_ns: int) -> list[Effect]:
            if type(message).__name__ in types:
                return []
            return receive(node, message, sender, order, now_ns)

        node.receive = chosen  # type: ignore[method-assign]

    def _secretive(self, node_id: int) -> None:
        def kept(message: bytes) -> None:
            assert message

        self.cluster.node(node_id).packer.submit_sync = kept  # type: ignore[method-assign]

    def _join(self, node: int) -> None:
        self.connections[node] = self.cluster.attach(node)

    def _exit(self, node: int) -> None:
        effects = self.cluster.node(node).disconnected(
            self.connections.pop(node), self.cluster.now_ns
        )
        self.cluster.perform(node, effects)

    def _send(self, node: int, text: str, guarantee: int) -> None:
        self.cluster.multicast(node, self.connections[node], text.encode(), guarantee)

    def _crash(self, node: int) -> None:
        self.cluster.crash(node)
        self.connections.pop(node, None)

    def _cut(self, arguments: list[str]) -> None:
        sides = [{int(n) for n in side.split()} for side in " ".join(arguments).split("|")]
        self.cluster.wire.partition(*sides)

    def _output(self) -> list[str]:
        lines = []
        for at_ns, node, note in self.cluster.notes[self._seen_notes :]:
            ms = (at_ns - self.began_ns) // MS
            if isinstance(note, Moved):
                cause = note.cause.value
                lines.append(f"{ms:>6} n{node} {note.old.value} -> {note.new.value}: {cause}")
            elif isinstance(note, Noted):
                lines.append(f"{ms:>6} n{node} noted {note.event}")
        self._seen_notes = len(self.cluster.notes)
        for life in self.cluster.lives:
            name = f"n{life.node_id}"
            lines += self._new(life.epoch, name, [t for e in life.records if (t := _ring(e))])
            for connection, stream in life.streams.items():
                texts = [t for e in stream if (t := _event(e))]
                lines += self._new(life.epoch, f"{name} process {connection}", texts)
        return lines

    def _new(self, epoch: int, who: str, texts: list[str]) -> list[str]:
        seen = self._seen.get((epoch, who), 0)
        self._seen[epoch, who] = len(texts)
        return [f"       {who}: {text}" for text in texts[seen:]]


def _ring(event: object) -> str | None:
    if not isinstance(event, Installed):
        return None
    members = " ".join(map(str, event.members))
    if event.kind is ConfigurationKind.TRANSITIONAL:
        return f"transitional {members}"
    return f"ring {event.ring.seq}.{event.ring.representative} of {members}"


def _event(event: object) -> str | None:
    match event:
        case Delivered():
            return f"{bytes(event.payload).decode()} from n{event.node_id}"
        case View():
            members = " ".join(f"n{m.node_id}" for m in event.members)
            changes = [
                f"{sign}n{c.member.node_id} {Reason(c.reason).name}"
                for sign, some in (("-", event.left), ("+", event.joined))
                for c in some
            ]
            return f"group [{members}] {', '.join(changes)}"
        case RingChanged(ring, nodes):
            return f"knows ring {ring.seq}.{ring.representative} of {' '.join(map(str, nodes))}"
        case _:
            return None


def run(text: str) -> str:
    """Run a scenario; return it with the outputs it has now."""
    script = Script()
    blocks = []
    for block in text.strip().split("\n\n"):
        head = block.split(f"\n{SEPARATOR}")[0].splitlines()
        commands = [line for line in head if line and not line.startswith("#")]
        output = script.block(commands) if commands else None
        blocks.append("\n".join(head if output is None else [*head, SEPARATOR, *output]))
    return "\n\n".join(blocks) + "\n"
