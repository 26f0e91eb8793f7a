"""The port of totemd with real clients: what happens at its bounds. The ring has one node."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from openais import cpg, errors, status
from openais.node import ipc
from openais.node.ipc import Access, IpcServer
from openais.node.poller import Poller
from openais.wire import port as wire
from openais.wire.port import Reason
from openais.wire.status import Status
from services.kit import entries
from services.kit.group import Group, Lost
from tests.integration.cluster import short_directory, wait_for
from totemd.port import Port, refusal
from totemd.protocol import node as protocol
from totemd.protocol import packing
from totemd.protocol.local import Drop, Tell
from totemd.protocol.node import CONNECTIONS_MAX, Effect, Node
from totemd.protocol.parameters import RingParameters
from totemd.protocol.seats import SeatLimits
from totemd.security import Security

TURN_MS = 5

# Joins a group and never reads what it is told.
DEAF = """
import sys, zmq
from openais.wire import port as wire
from openais.wire.codec import pack_bundle
socket = zmq.Context().socket(zmq.DEALER)
socket.setsockopt(zmq.RCVHWM, 1)
socket.connect("ipc://" + sys.argv[1])
for message in (wire.Attach(wire.VERSION, wire.VERSION_MIN, wire.Kind.PROCESS), wire.Join(1, b"t")):
    socket.send(pack_bundle([wire.TABLE.encode(message)]))
print("joined", flush=True)
sys.stdin.read()
"""


# The same with the library: it never dispatches.
IDLE = """
import sys
from pathlib import Path
from openais import cpg
handle = cpg.Cpg(run_dir=Path(sys.argv[1]).parent)
handle.join("t")
print("joined", flush=True)
sys.stdin.read()
"""


ANYBODY = Access()


class Distrustful(Access):
    """Lets the caller in as one of `uidgid`: neither root nor the daemons' own user."""

    def trusts(self, peer: ipc.Peer) -> bool:
        del peer
        return False


# Joins and is told its own messages, small and large, where it is process 1 for itself.
NAMESPACED = """
import os, sys, time
from pathlib import Path
from openais import cpg
told = []
with cpg.Cpg(told.append, told.append, run_dir=Path(sys.argv[1])) as handle:
    handle.join("t", timeout=10)
    handle.mcast(b"small", wait=10)
    handle.mcast(bytes(3 << 20), wait=10)
    end = time.monotonic() + 10
    while len(told) < 3 and time.monotonic() < end:
        handle.dispatch(cpg.DispatchFlags.ONE)
    change, small, large = told
    assert os.getpid() == 1, os.getpid()
    assert handle.local_address == small.sender == large.sender == change.members[0]
    print(handle.local_address.pid, len(large.payload))
"""


class Totemd(threading.Thread):
    """A node without a network: the real core and the real port."""

    def __init__(self, run_dir: Path, access: Access = ANYBODY) -> None:
        super().__init__(daemon=True)
        self.run_dir = run_dir
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.node = Node(RingParameters(), 1, 1, 1000, 1300, SeatLimits())
        self.server = IpcServer(
            self.context,
            run_dir,
            wire.SOCKET_NAME,
            0o600,
            access,
            CONNECTIONS_MAX,
            16 << 20,
            refusal,
        )
        self.port = Port(self.server, self.node, dict, cast(Security, None))  # without keys
        self.over = threading.Event()

    def run(self) -> None:
        poller = Poller()
        self.server.register(poller)
        self._perform(self.node.start(time.monotonic_ns()))
        while not self.over.is_set():
            ready = {fd for fd in poller.poll(TURN_MS) if isinstance(fd, int)}
            self.server.noticed(ready)
            for effects in self.port.receive(time.monotonic_ns()):
                self._perform(effects)
            self._perform(self.node.expire(time.monotonic_ns()))
            self.server.flush()
        self.server.close()
        self.context.destroy(0)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                self.port.tell(effect)
            elif isinstance(effect, Drop):
                self.port.drop(effect)


@pytest.fixture
def access() -> Access:
    return ANYBODY


@pytest.fixture
def totemd(access: Access) -> Iterator[Totemd]:
    with short_directory() as directory:
        made = Totemd(directory, access)
        made.start()
        wait_for(lambda: made.node.packer.gate_open, "a ring of one")
        yield made
        made.over.set()
        made.join()


@pytest.mark.parametrize("program", [DEAF, IDLE], ids=["deaf", "idle"])
def test_a_client_that_never_reads_is_disconnected_and_the_others_go_on(
    totemd: Totemd, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """T14: the others see PROCDOWN, once; the ring never waits for a client."""
    monkeypatch.setattr(ipc, "UNSENT_BYTES_MAX", 1 << 20)
    events: list[cpg.Event] = []
    deaf = subprocess.Popen(
        [sys.executable, "-c", program, str(totemd.run_dir / wire.SOCKET_NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with deaf, cpg.Cpg(events.append, events.append, run_dir=totemd.run_dir) as watcher:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"joined\n"
        watcher.join("t")
        sent = 0

        def gone() -> bool:
            nonlocal sent
            watcher.mcast(bytes(60_000), wait=5)
            sent += 1
            watcher.dispatch()
            last = [e for e in events if isinstance(e, cpg.ConfigurationChange)][-1:]
            return bool(last and last[0].left)

        wait_for(gone, "the deaf one is down")
        changes = [e for e in events if isinstance(e, cpg.ConfigurationChange) and e.left]
        assert [[c.reason for c in e.left] for e in changes] == [[Reason.PROCDOWN]]
        assert changes[0].left[0].address == cpg.Address(1, deaf.pid)

        def all_delivered() -> bool:
            watcher.dispatch()
            return sum(isinstance(e, cpg.Delivery) for e in events) == sent

        wait_for(all_delivered, "the watcher has everything")
        assert totemd.server.stats.clients_overflowed == 1
        deaf.kill()


def test_a_sender_that_never_dispatches_is_told_why_it_cannot_go_on(totemd: Totemd) -> None:
    """T14: its own messages come back to it; it is neither blocked for ever nor left guessing."""
    with cpg.Cpg(run_dir=totemd.run_dir) as sender:
        sender.join("t")
        with pytest.raises(errors.TryAgainError, match="events wait for dispatch") as caught:
            _send_for_ever(sender)
        assert caught.value.definite

        def room() -> bool:
            sender.dispatch()
            return not sender.flow_controlled

        wait_for(room, "it dispatches, and goes on")
        sender.mcast(b"on", wait=5)


def _send_for_ever(sender: cpg.Cpg) -> None:
    while True:
        sender.mcast(bytes(100_000), wait=0.5)


def test_a_multicast_that_totemd_refuses_is_never_lost_without_a_word(
    totemd: Totemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T13: no room left in this node; the handle ends, for what came after may have been taken."""
    with cpg.Cpg(run_dir=totemd.run_dir) as sender:
        sender.join("t")
        wait_for(sender.dispatch, "it is a member")
        monkeypatch.setattr(packing, "QUEUE_SIZE_MAX", 1)
        sender.mcast(b"one too many")

        def failed() -> bool:
            try:
                sender.mcast(b"next")
            except errors.LibraryError as error:
                return "a multicast was refused: the send queue of this node is full" in str(error)
            return False

        wait_for(failed, "the handle fails with the reason")
        with pytest.raises(errors.LibraryError):
            wait_for(lambda: sender.dispatch() < 0, "dispatch fails too")


def test_a_process_that_is_killed_is_down_once(totemd: Totemd) -> None:
    """T4: also while its join is still on its way."""
    path = str(totemd.run_dir / wire.SOCKET_NAME)
    command = [sys.executable, "-c", DEAF, path]
    changes: list[cpg.ConfigurationChange] = []
    with cpg.Cpg(confchg=changes.append, run_dir=totemd.run_dir) as watcher:
        watcher.join("t")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"joined\n"
            wait_for(lambda: len(watcher.members("t")) == 2, "two members")
            victim.kill()
        wait_for(lambda: len(watcher.members("t")) == 1, "one member")
        watcher.dispatch()
        left = [(c.address, c.reason) for e in changes for c in e.left]
        assert left == [(cpg.Address(1, victim.pid), Reason.PROCDOWN)]
        assert watcher.members("t") == (cpg.Address(1, os.getpid()),)


ORDERS = [wire.KeyRotate(1), wire.KeyRetire(1), wire.RingGather(1), wire.HoldOffsClear(1)]


@pytest.mark.parametrize("access", [Distrustful()], ids=["a user of uidgid"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_orders_are_for_root_and_the_daemons_own_user_only(totemd: Totemd, order: object) -> None:
    gathers = totemd.node.ring.stats.gathers
    answer = status.request(totemd.run_dir, order)
    assert isinstance(answer, wire.Refused)
    assert answer.status is Status.ERR_ACCESS
    assert totemd.node.ring.stats.gathers == gathers


def test_the_ring_is_formed_anew_when_that_is_ordered(totemd: Totemd) -> None:
    before = totemd.node.groups.ring
    assert isinstance(status.request(totemd.run_dir, wire.RingGather(1)), wire.Done)
    wait_for(lambda: totemd.node.groups.ring > before, "a new ring")


def test_nodes_that_are_held_off_are_forgotten_when_that_is_ordered(totemd: Totemd) -> None:
    hold_offs = totemd.node.ring.hold_offs
    for _ in range(2):
        hold_offs.exclude({9}, time.monotonic_ns())
    assert hold_offs.held(time.monotonic_ns()) == (9,)
    assert isinstance(status.request(totemd.run_dir, wire.HoldOffsClear(1)), wire.Done)
    assert hold_offs.held(time.monotonic_ns()) == ()


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="a pid namespace is for root to make")
def test_a_process_in_a_pid_namespace_of_its_own_is_a_member_like_any_other(
    totemd: Totemd,
) -> None:
    unshare = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", NAMESPACED]
    done = subprocess.run(
        [*unshare, str(totemd.run_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    pid, size = map(int, done.stdout.split())
    assert pid not in (0, 1)
    assert size == 3 << 20


class Stream:
    """What a seat is told."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._told: list[Any] = []

    def until(self, kind: type[Any]) -> Any:
        """Return the next message of a kind; what comes before it is forgotten."""
        wait_for(lambda: self._come(kind), f"{kind.__name__} comes")
        return self._told.pop(0)

    def _come(self, kind: type[Any]) -> bool:
        self._group.flush()
        self._told += self._group.receive()
        while self._told and not isinstance(self._told[0], kind):
            self._told.pop(0)
        return bool(self._told)


def test_a_service_whose_multicast_is_refused_does_not_take_it_for_sent(
    totemd: Totemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    group = Group(context, totemd.run_dir, "refused")
    stream = Stream(group)
    try:
        group.connect(b"", 0)
        attached = stream.until(wire.Attached)
        stream.until(wire.View)
        with monkeypatch.context() as tight:
            tight.setattr(protocol, "WINDOW_MESSAGES", 0)
            group.send(entries.Fence(1))
            lost = stream.until(Lost)
        assert lost.rule == "a multicast was refused: 0 messages wait for the ring"
        assert not group.attached, "nothing is sent before it attaches anew"
        group.connect(attached.history, 1)
        assert stream.until(wire.Attached).resumed
        group.send(entries.Fence(1))
        assert stream.until(wire.Delivered).index == 2
    finally:
        group.close()
        context.destroy(0)
