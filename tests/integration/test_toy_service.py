"""The service of services/README.md, taken from there, run, and killed."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import layout
from openais import errors, status
from openais.wire.status import ONE_SECOND_NS
from tests.integration.cluster import Daemon, daemon, short_directory, wait_for
from tests.integration.trio import config

PAGE = Path(__file__).parents[2] / "services" / "README.md"
FILES = ("wire", "api", "state", "service", "__main__", "client")
PATIENCE_NS = 120 * ONE_SECOND_NS
LIMITS = """
ipc {
    mode: 0666
    max_process_sessions: 3
    max_session_requests: 4
}
uidgid {
    uid: 65534
}
"""


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """The code of the page as a package ``counter``."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == len(FILES), "each file of the page is one block, in this order"
    with short_directory() as directory, pytest.MonkeyPatch.context() as patch:
        folder = directory / "counter"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, code in zip(FILES, blocks, strict=True):
            (folder / f"{name}.py").write_text(code, encoding="utf-8")
        patch.syspath_prepend(str(directory))
        patch.setenv("PYTHONPATH", str(directory))
        yield directory
        for name in [name for name in sys.modules if name.partition(".")[0] == "counter"]:
            del sys.modules[name]


@contextlib.contextmanager
def nodes(count: int, more: str = "") -> Iterator[tuple[layout.Node, ...]]:
    """Run totemd on some nodes."""
    with short_directory() as directory, contextlib.ExitStack() as stack:
        laid_out = layout.make(directory, count)
        for node in laid_out:
            config(node).write_text(config(node).read_text() + more)
            stack.enter_context(daemon("totemd", config(node)))
        yield laid_out


def live(node: layout.Node) -> bool:
    return status.ready(status.query(node.run_dir, "counter"))


@contextlib.contextmanager
def serving(node: layout.Node) -> Iterator[Daemon]:
    with daemon("counter", config(node)) as started:
        wait_for(lambda: live(node), f"the counters of node {node.node_id} serve")
        yield started


def client(node: layout.Node, *arguments: Any) -> Any:
    return importlib.import_module("counter.client").Client(*arguments, run_dir=node.run_dir)


def in_background(call: Callable[[], Any]) -> Callable[[], Any]:
    """Begin a call; return what waits for its result."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
    thread.start()

    def finish() -> Any:
        thread.join(120)
        assert result, "the call is not answered"
        return result[0]

    return finish


def test_what_the_page_builds_loses_nothing_when_it_is_killed(package: Path) -> None:
    with (
        nodes(2) as (one, two),
        serving(two),
        contextlib.ExitStack() as stack,
    ):
        process = stack.enter_context(serving(one))
        seen: list[int] = []
        adder, watcher, waiter = client(one), client(one, seen.append), client(two)
        watcher.watch(b"n")
        waited = in_background(lambda: watcher.wait_for(b"n", 60, PATIENCE_NS))
        other = in_background(lambda: waiter.wait_for(b"n", 60, PATIENCE_NS))
        for number in range(1, 61):
            if number in (20, 40):
                process.process.kill()
                added = in_background(lambda: adder.add(b"n", 1, PATIENCE_NS))
                process = stack.enter_context(serving(one))
                assert added() == number, "done once, whatever was killed"
            else:
                assert adder.add(b"n") == number
        assert (waited(), other()) == (60, 60)
        wait_for(lambda: watcher.dispatch() is not None and seen[-1:] == [60], "it is notified")
        # Where the restart took longer than the seat's grace, the present value is told once more.
        assert seen == sorted(seen), "in order"
        assert set(seen) == set(range(1, 61)), "every change"
        assert waiter.get(b"n") == 60
        with pytest.raises(errors.AisTimeoutError):
            waiter.wait_for(b"n", 1_000, ONE_SECOND_NS // 5)
        document = status.query(two.run_dir, "counter") or {}
        assert document["machine"] == {"counters": 1, "requests_waiting": 0}
        for opened in (adder, watcher, waiter):
            opened.close()


def test_what_a_client_may_use_is_limited_and_the_status_shows_it(package: Path) -> None:
    with nodes(1, LIMITS) as (one,), serving(one):
        opened = [client(one) for _ in range(3)]
        with pytest.raises(errors.NoResourcesError, match="max_process_sessions"):
            client(one)
        waits = [in_background(lambda: opened[0].wait_for(b"n", 1, PATIENCE_NS)) for _ in range(4)]

        def used() -> dict[str, Any]:
            document = status.query(one.run_dir, "counter") or {"clients": []}
            own = [c for c in document["clients"] if c["pid"] == os.getpid()]
            return own[0] if own else {}

        wait_for(lambda: used().get("requests") == 4, "four requests wait")
        assert used()["sessions"] == 3
        with pytest.raises(errors.TryAgainError, match="max_session_requests"):
            opened[0].add(b"n")
        assert opened[1].add(b"n") == 1
        assert [finish() for finish in waits] == [1, 1, 1, 1]
        for one_client in opened:
            one_client.close()


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_who_is_no_administrator_may_use_the_service_and_not_administer_it(package: Path) -> None:
    with nodes(1, LIMITS) as (one,), serving(one):
        for path in (*one.run_dir.parents[:2], one.run_dir):
            path.chmod(0o755)
        with contextlib.closing(client(one)) as root:
            root.add(b"n")
            child = os.fork()
            if child == 0:
                os._exit(_as_nobody(one))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert root.get(b"n") == 2, "added to, not reset"
            root.reset(b"n")
            assert root.get(b"n") == 0


def _as_nobody(node: layout.Node) -> int:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    own = client(node)
    own.add(b"n")
    try:
        own.reset(b"n")
    except errors.AccessError:
        return 0
    return 1
