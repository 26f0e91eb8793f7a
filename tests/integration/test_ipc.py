"""The server side of local sockets: refusals, limits, the end of clients."""

from __future__ import annotations

import os
import socket as plain
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from openais.node.exits import Exit, ExitError
from openais.node.ipc import UNSENT_MESSAGES_MAX, Access, IpcServer, Peer
from openais.node.poller import Poller
from openais.wire.codec import Buffer, pack_bundle, unpack_bundle, unpack_frames
from openais.wire.status import Status
from tests.integration.cluster import short_directory, wait_for

Context = zmq.Context[zmq.Socket[bytes]]
CLIENTS: list[list[zmq.Socket[bytes]]] = []  # of the running test


class Nobody(Access):
    """Lets nobody in."""

    def allows(self, peer: Peer) -> bool:
        return peer.pid < 0


@pytest.fixture
def context() -> Iterator[Context]:
    made: Context = zmq.Context()
    clients: list[zmq.Socket[bytes]] = []
    CLIENTS.append(clients)
    yield made
    for socket in clients:
        socket.close(0)
    CLIENTS.pop()
    made.destroy(0)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


def serve(
    context: Context, directory: Path, access: Access | None = None, clients_max: int = 10
) -> IpcServer:
    def refuse(status: Status, rule: str) -> bytes:
        return f"{status.name}: {rule}".encode()

    return IpcServer(
        context, directory, "s.sock", 0o660, access or Access(), clients_max, 1 << 20, refuse
    )


def connect(context: Context, directory: Path) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    CLIENTS[-1].append(socket)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 5_000)
    socket.connect(f"ipc://{directory / 's.sock'}")
    socket.send(pack_bundle([b"hello"]))
    return socket


def received(server: IpcServer, count: int) -> list[tuple[int, list[Buffer]]]:
    found: list[tuple[int, list[Buffer]]] = []

    def enough() -> bool:
        found.extend(server.receive())
        return len(found) >= count

    wait_for(enough, f"{count} bundles")
    return found


def test_a_client_is_known_by_what_the_kernel_says(context: Context, directory: Path) -> None:
    server = serve(context, directory)
    connect(context, directory)
    ((client, messages),) = received(server, 1)
    assert messages == [b"hello"]
    assert server.peer(client) == Peer(os.getuid(), os.getgid(), os.getpid())
    server.close()


def test_who_may_not_connect_is_told_so(context: Context, directory: Path) -> None:
    server = serve(context, directory, Nobody())
    socket = connect(context, directory)
    wait_for(lambda: server.receive() or server.stats.clients_refused, "the refusal")
    assert unpack_bundle(socket.recv())[0].startswith(b"ERR_ACCESS: uid ")
    server.close()


def test_one_client_too_many_is_told_so(context: Context, directory: Path) -> None:
    server = serve(context, directory, clients_max=1)
    connect(context, directory)
    received(server, 1)
    second = connect(context, directory)
    wait_for(lambda: server.receive() or server.stats.clients_refused, "the refusal")
    assert unpack_bundle(second.recv()) == [b"ERR_NO_RESOURCES: 1 clients are connected"]
    server.close()


def test_a_closed_socket_of_a_living_process_is_noticed(context: Context, directory: Path) -> None:
    server = serve(context, directory)
    socket = connect(context, directory)
    ((client, _),) = received(server, 1)
    socket.close(0)
    closed = wait_for(lambda: server.receive() or server.closed(), "its end")
    assert [c for c, _ in closed] == [client]
    assert server.count == 0
    server.close()


def test_the_last_words_of_a_client_come_before_its_end(context: Context, directory: Path) -> None:
    server = serve(context, directory)
    socket = connect(context, directory)
    ((client, _),) = received(server, 1)
    watch = Poller()
    server.register(watch)
    socket.send(pack_bundle([b"bye"]))
    socket.close(1_000)
    wait_for(lambda: len(watch.poll(0)) == 2, "its words and its end are both there")
    found = server.receive()
    assert [(c, [bytes(e) for e in elements]) for c, elements in found] == [(client, [b"bye"])]
    assert server.closed() == [(client, os.getpid())]
    server.close()


def test_a_client_that_does_not_read_is_cut_off_with_last_words(
    context: Context, directory: Path
) -> None:
    server = serve(context, directory)
    socket = connect(context, directory)
    ((client, _),) = received(server, 1)

    def overflows() -> bool:
        for _ in range(10):
            server.send(client, bytes(1 << 20))
        server.flush()
        return not server.connected(client)

    wait_for(overflows, "the bound is passed")
    assert [c for c, _ in server.closed()] == [client]

    def last_words() -> bool:
        server.flush()
        words: bytes | memoryview = unpack_frames(socket.recv_multipart())[0]
        return bytes(words).startswith(b"ERR_LIBRARY")

    wait_for(last_words, "it is told when it reads again")
    server.close()


def test_what_is_allowed_may_wait_beyond_the_bound(context: Context, directory: Path) -> None:
    # The danger: a service whose log is longer than the bound is cut off at each attempt.
    server = serve(context, directory)
    socket = connect(context, directory)
    ((client, _),) = received(server, 1)
    count = 2 * UNSENT_MESSAGES_MAX
    server.allow(client, count, 0)
    for k in range(count):
        server.send(client, b"%d" % k)
    assert server.connected(client)
    found = 0

    def all_there() -> bool:
        nonlocal found
        server.flush()
        found += len(unpack_frames(socket.recv_multipart()))
        return found == count

    wait_for(all_there, "everything is received")
    server.close()


def test_a_bundle_is_answered_in_bundles(context: Context, directory: Path) -> None:
    server = serve(context, directory)
    socket = connect(context, directory)
    ((client, _),) = received(server, 1)
    for k in range(3):
        server.send(client, b"%d" % k)
    server.flush()
    assert unpack_bundle(socket.recv()) == [b"0", b"1", b"2"]
    server.close()


def test_a_socket_that_cannot_be_bound(context: Context, directory: Path) -> None:
    with pytest.raises(ExitError) as caught:
        serve(context, directory / "missing")
    assert caught.value.status is Exit.IPC_SOCKET


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_end_of_a_connection_that_said_nothing_is_not_that_of_its_successor(
    context: Context, directory: Path
) -> None:
    # The kernel gives the next connection the same descriptor. Taken for closed, it would never
    # get an answer: a service whose totemd had started slowly waited for ever to be attached.
    server = serve(context, directory)
    client = context.socket(zmq.DEALER)  # has its own descriptors before, and takes none of theirs
    client.setsockopt(zmq.LINGER, 0)
    before = descriptors()
    silent = plain.socket(plain.AF_UNIX)
    silent.connect(str(directory / "s.sock"))
    wait_for(lambda: descriptors() == before + 2, "it is accepted")
    silent.close()
    wait_for(lambda: descriptors() == before, "its end is noticed")
    client.connect(f"ipc://{directory / 's.sock'}")
    client.send(pack_bundle([b"hello"]))
    ((served, _),) = received(server, 1)
    closed, count = server.closed(), server.count
    client.close(0)
    end = wait_for(lambda: server.receive() or server.closed(), "its own end is noticed")
    server.close()
    assert (closed, count) == ([], 1)
    assert [number for number, _ in end] == [served]
