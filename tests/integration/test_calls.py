"""Who receives an answer: the thread that waits alone for it, else the background thread."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time

from openais import ckpt
from openais.aio import ckpt as aio_ckpt
from tests.integration.cluster import Cluster
from tests.integration.load import ATTRIBUTES

LONG_S = 8.0  # a call that long waited for an answer that was there


def test_threads_that_share_a_client_all_get_their_answers(cluster: Cluster) -> None:
    # The danger: the thread that receives leaves, and nobody receives for the others.
    longest: list[float] = []
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("s", ATTRIBUTES) as shared:

        def work(number: int) -> None:
            pauses = random.Random(number)
            worst = 0.0
            for k in range(150):
                begin = time.monotonic()
                if k % 3:
                    assert shared.read([(f"t{number}", 0, None)])
                else:
                    shared[f"t{number}"] = b"%d" % k
                worst = max(worst, time.monotonic() - begin)
                if pauses.random() < 0.1:
                    threading.Event().wait(pauses.random() * 0.01)
            longest.append(worst)

        for number in range(6):
            shared[f"t{number}"] = b"first"
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        client.unlink("s")
    assert len(longest) == 6
    assert max(longest) < LONG_S


def test_a_call_that_is_given_up_does_not_end_the_next_one(cluster: Cluster) -> None:
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("g", ATTRIBUTES) as own:
        own["a"] = b"1"
        for k in range(50):
            own.read([("a", 0, None)], local=bool(k % 2))
            own["a"] = b"%d" % k
        assert own["a"] == b"49"
        client.unlink("g")


def test_a_forked_child_opens_its_own_client_and_both_go_on(cluster: Cluster) -> None:
    # The danger: a child shares the descriptor by which threads are woken.
    with ckpt.Client(run_dir=cluster.run_dir(1)) as client, client.open("f", ATTRIBUTES) as mine:
        mine["a"] = b"parent"
        child = os.fork()
        if child == 0:
            with ckpt.Client(run_dir=cluster.run_dir(1)) as own, own.open("f") as copy:
                ok = all(copy["a"] == b"parent" for _ in range(50))
            os._exit(0 if ok else 1)
        for _ in range(100):
            assert mine["a"] == b"parent"
        assert os.waitpid(child, 0)[1] == 0
        client.unlink("f")


async def many(run_dir: str) -> list[bytes]:
    async with aio_ckpt.Client(run_dir=run_dir) as client:
        one = await client.open("aio", ATTRIBUTES)
        await asyncio.gather(*(one.overwrite(f"s{k}", b"%d" % k, create=True) for k in range(40)))
        found = await asyncio.gather(*(one.read([(f"s{k}", 0, None)]) for k in range(40)))
        await client.unlink("aio")
        return [parts[0] for parts in found]


def test_tasks_of_one_loop_all_get_their_answers(cluster: Cluster) -> None:
    found = asyncio.run(many(str(cluster.run_dir(2))))
    assert found == [b"%d" % k for k in range(40)]


def test_tasks_go_on_when_the_service_is_killed(cluster: Cluster) -> None:
    async def play() -> None:
        async with aio_ckpt.Client(run_dir=cluster.run_dir(3)) as client:
            one = await client.open("killed", ATTRIBUTES)
            await one.overwrite("a", b"1", create=True)
            pid = cluster.kill(3, "ckpt")
            await one.overwrite("a", b"2")
            cluster.wait_restarted(3, "ckpt", pid)
            assert (await one.read([("a", 0, None)]))[0] == b"2"
            await client.unlink("killed")

    asyncio.run(play())
    cluster.wait_live(3, "ckpt")
