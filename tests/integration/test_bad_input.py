"""Bad input and faults: a clear error that names what, where and the rule; all else goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from deploy import layout
from openais import ckpt, cpg, errors, status
from openais.session import Session
from openais.wire import ckpt as wire
from openais.wire.codec import pack_bundle
from tests.integration.cluster import Cluster, Daemon, daemon, running, short_directory, wait_for
from totemd.keyfile import MODE


@pytest.fixture
def node() -> Iterator[layout.Node]:
    """One node's directory, nothing running."""
    with short_directory() as directory:
        yield layout.make(directory, 1)[0]


def config(node: layout.Node) -> Path:
    return node.directory / "conf" / "openais.conf"


def fails(node: layout.Node, expected: int, *texts: str, module: str = "totemd") -> None:
    """Assert that a daemon ends with a status and says why."""
    found, output = Daemon(module, config(node)).wait()
    assert found == expected, output
    assert output.strip().endswith(f"(status {expected})")
    for text in texts:
        assert text in output


def change(node: layout.Node, old: str, new: str) -> None:
    path = config(node)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_missing_configuration(node: layout.Node) -> None:
    config(node).unlink()
    fails(node, 8, "openais.conf", "No such file")


def test_a_malformed_configuration_is_named_by_file_line_and_rule(node: layout.Node) -> None:
    change(node, "version: 2", "version: three")
    fails(node, 8, "openais.conf:3", "version")


def test_contradictory_timers_are_named(node: layout.Node) -> None:
    change(node, "version: 2", "version: 2\n    token: 1000\n    consensus: 10")
    fails(node, 8, "consensus")


def test_an_unknown_directive_is_named(node: layout.Node) -> None:
    change(node, "version: 2", "version: 2\n    tokken: 1000")
    fails(node, 8, "tokken", ":4")


@pytest.mark.parametrize("module", ["totemd", "services.ckpt", "services.clm", "deploy.cluster"])
def test_every_program_refuses_a_bad_configuration(node: layout.Node, module: str) -> None:
    config(node).write_text("totem {\n")
    fails(node, 8, "openais.conf:", module=module)


def key(node: layout.Node) -> Path:
    return node.directory / "conf" / "authkey"


def test_a_missing_key(node: layout.Node) -> None:
    key(node).unlink()
    fails(node, 10, str(key(node)), "No such file")


def test_a_short_key(node: layout.Node) -> None:
    key(node).unlink()
    key(node).write_bytes(os.urandom(31))
    key(node).chmod(MODE)
    fails(node, 10, "31 bytes, at least 32 needed")


def test_a_world_readable_key(node: layout.Node) -> None:
    key(node).chmod(0o444)
    fails(node, 10, "permissions too open (0444, expected 0400)")


def test_a_second_instance_in_the_same_directory(node: layout.Node) -> None:
    with daemon("totemd", config(node)) as first:
        wait_for((node.run_dir / "totemd.sock").exists, "the first runs")
        fails(node, 18, f"already running (pid {first.process.pid})")
        assert first.process.poll() is None


def test_a_port_in_use(node: layout.Node) -> None:
    port = int(config(node).read_text().split("mcastport: ")[1].split()[0]) - 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        fails(node, 22, "127.0.0.1", str(port), "Address already in use")


def test_a_socket_directory_that_cannot_be_used(node: layout.Node) -> None:
    shutil.rmtree(node.run_dir)
    node.run_dir.write_text("a file where a directory belongs")
    fails(node, 16, str(node.run_dir))


def test_a_node_with_the_wrong_key_stays_out_and_both_sides_say_why() -> None:
    with running(2) as cluster, short_directory() as other:
        wrong = layout.make(other, 3)[2]
        right = cluster.node(1).directory / "conf" / "openais.conf"
        port = right.read_text().split("mcastport: ")[1].split()[0]
        text = right.read_text().replace(str(cluster.node(1).directory), str(wrong.directory))
        text = text.replace("nodeid: 1", "nodeid: 3").replace("127.0.0.1", "127.0.0.3")
        config(wrong).write_text(text.replace("node1", "node3"))
        with daemon("totemd", config(wrong)) as third:
            wait_for(
                lambda: "Invalid digest address=127.0.0.3" in cluster.log(1, "totemd"),
                "the cluster tells who it is",
            )
            members = (cluster.status(1, "totemd") or {})["members"]
            assert members == [1, 2], port
            wait_for(lambda: _digests(wrong) > 0, "the third hears the others too")
            assert third.process.poll() is None
            output = third.stop()
        assert "Invalid digest address=127.0.0." in output


def _digests(node: layout.Node) -> int:
    document = status.query(node.run_dir, "totemd")
    return int(document["counters"].get("datagrams_dropped_digest", 0)) if document else 0


def test_garbage_datagrams_at_full_speed(cluster: Cluster) -> None:
    text = config(cluster.node(1)).read_text()
    port = int(text.split("mcastport: ")[1].split()[0])
    group = text.split("mcastaddr: ")[1].split()[0]
    rng = random.Random(7)
    stopping = threading.Event()

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            while not stopping.is_set():
                data = rng.randbytes(rng.randint(0, 1400))
                s.sendto(data, (group, port))
                s.sendto(data, ("127.0.0.1", port - 1))
                s.sendto(b"\1\1" + data, (group, port))

    flooder = threading.Thread(target=flood)
    flooder.start()
    try:
        with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("flooded") as c:
            for k in range(100):
                c["k"] = b"%d" % k
            assert c["k"] == b"99"
    finally:
        stopping.set()
        flooder.join()
    counters = (cluster.status(1, "totemd") or {})["counters"]
    assert counters["datagrams_dropped_format"] > 0
    assert counters["datagrams_dropped_short"] > 0


@pytest.mark.parametrize("name", ["totemd.sock", "ckpt.sock", "clm.sock"])
def test_garbage_zeromq_frames_at_full_speed(cluster: Cluster, name: str) -> None:
    rng = random.Random(11)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as s:
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.SNDTIMEO, 5_000)
        s.connect(f"ipc://{cluster.run_dir(1) / name}")
        for k in range(3_000):
            data = rng.randbytes(rng.randint(0, 300))
            if k % 3 == 0:
                s.send_multipart([data, data])
            else:
                s.send(data if k % 3 == 1 else pack_bundle([data, b"\x91\x01", b""]))
        with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("garbage") as c:
            c["k"] = b"value"
            assert c["k"] == b"value"


def test_bytes_that_are_not_zeromq_at_all(cluster: Cluster) -> None:
    for name in ("totemd.sock", "ckpt.sock"):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(cluster.run_dir(1) / name))
            s.sendall(random.Random(3).randbytes(4096))
    assert cluster.wait_live(1, "ckpt")


def test_a_client_that_never_reads_is_cut_off_and_the_others_go_on(cluster: Cluster) -> None:
    child = os.fork()
    if child == 0:
        cpg.Cpg(run_dir=cluster.run_dir(1)).join("deaf")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    left: list[cpg.Change] = []
    try:
        with cpg.Cpg(confchg=lambda c: left.extend(c.left), run_dir=cluster.run_dir(2)) as sender:
            sender.join("deaf")
            end = time.monotonic() + 60
            while not left and time.monotonic() < end:
                sender.mcast(bytes(500_000), wait=10)
                sender.dispatch()
        assert [c.reason for c in left] == [cpg.Reason.PROCDOWN]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert "client_overflowed" in cluster.log(1, "totemd")


def test_a_client_killed_in_the_middle_of_a_write(cluster: Cluster) -> None:
    with (
        ckpt.Client(run_dir=cluster.run_dir(2)) as client,
        client.open("torn", ckpt.Attributes(1, 0, 0, 4, 4 << 20, 8)) as checkpoint,
    ):
        checkpoint["a"] = b"old" * 100_000
        for _ in range(5):
            child = os.fork()
            if child == 0:
                own = ckpt.Client(run_dir=cluster.run_dir(1)).open("torn", None, 3)
                os.kill(os.getpid(), signal.SIGSTOP)
                while True:
                    own.write([("a", 0, b"new" * 100_000)])
            os.waitpid(child, os.WUNTRACED)
            os.kill(child, signal.SIGCONT)
            wait_for(lambda: checkpoint["a"][:3] == b"new", "it writes")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert checkpoint["a"] in (b"old" * 100_000, b"new" * 100_000)
            checkpoint["a"] = b"old" * 100_000
        wait_for(lambda: _opens(client, b"torn") == 1, "its opens are released", 3.0)
    cluster.wait_equal("ckpt")


def _opens(client: ckpt.Client, name: bytes) -> int:
    return next(info.opens for info in client.checkpoints() if info.name == name)


def test_a_section_larger_than_its_maximum(cluster: Cluster) -> None:
    with (
        ckpt.Client(run_dir=cluster.run_dir(1)) as client,
        client.open("small", ckpt.Attributes(1, 0, 0, 4, 100, 8)) as checkpoint,
    ):
        with pytest.raises(errors.InvalidParamError):
            checkpoint["a"] = bytes(101)
        with pytest.raises(errors.InvalidParamError):
            checkpoint.section_create("b", bytes(101))
        checkpoint["a"] = bytes(100)
        with pytest.raises(errors.InvalidParamError):
            checkpoint.write([("a", 90, bytes(11))])
        with pytest.raises(errors.NoResourcesError):
            checkpoint["a"] = bytes((64 << 20) + 1)
        assert checkpoint["a"] == bytes(100)


@pytest.mark.skipif(os.getuid() != 0, reason="a small file system needs root to be mounted")
def test_a_full_disk_for_the_state_directory() -> None:
    with short_directory() as directory:
        node = layout.make(directory, 1)[0]
        state = node.directory / "state"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(state)], check=True)
        try:
            _full_disk(directory, state)
        finally:
            subprocess.run(["umount", "-l", str(state)], check=True)


def _full_disk(directory: Path, state: Path) -> None:
    cluster = Cluster(directory, 1)
    try:
        with ckpt.Client(run_dir=cluster.run_dir(1)) as client:
            checkpoint = client.open("full")
            checkpoint["a"] = bytes(500_000)
            for number in range(100):
                try:
                    (state / f"filler{number}").write_bytes(bytes(64_000))
                except OSError:
                    break
            cluster.supervisorctl(1, "restart", "ckpt")
            cluster.wait_live(1, "ckpt")
            assert "snapshot_failed" in cluster.log(1, "ckpt")
            assert "No space left on device" in cluster.log(1, "ckpt")
            assert checkpoint["a"] == bytes(500_000)
            checkpoint["b"] = b"goes on"
            assert checkpoint["b"] == b"goes on"
    finally:
        cluster.down()


def test_sockets_and_secrets_are_for_their_owner_only(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert stat.S_IMODE(key(node).stat().st_mode) == MODE
        for path in node.run_dir.glob("*.sock"):
            assert not path.stat().st_mode & 0o007, path


def test_no_secret_is_in_a_log_or_a_command_line(cluster: Cluster) -> None:
    secret = key(cluster.node(1)).read_bytes()
    for node in cluster.nodes:
        for path in (node.directory / "log").glob("*.log"):
            data = path.read_bytes()
            assert secret[:16] not in data
            assert secret[:16].hex().encode() not in data
        for program in ("totemd", "ckpt"):
            line = Path(f"/proc/{cluster.pid(node.node_id, program)}/cmdline").read_bytes()
            assert secret[:16].hex().encode() not in line


def test_the_service_is_named_when_it_does_not_run(node: layout.Node) -> None:
    with pytest.raises(errors.TryAgainError, match=r"ckpt\.sock"):
        _open_quickly(node.run_dir)


def _open_quickly(run_dir: Path) -> None:
    Session("ckpt", wire.TABLE, run_dir=run_dir).open(timeout_ns=100_000_000)
