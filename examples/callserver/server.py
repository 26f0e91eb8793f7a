"""One component of the call server: active or standby.

Run one on each of two nodes. Both join a process group; the oldest member is active (see
`election`). The active component answers clients and records every change in a checkpoint before
it answers; the standby says that it stands by. When the active one dies, the standby reads the
checkpoint and goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from typing import Final

from examples.callserver.election import GROUP, active_member
from examples.callserver.ledger import Ledger, UnknownCallError
from examples.callserver.protocol import (
    LINE_SIZE_MAX,
    STANDBY,
    Answer,
    ProtocolError,
    Request,
    decode_request,
    encode_answer,
)
from openais.aio.cpg import Cpg
from openais.cpg import ConfigurationChange
from openais.errors import AisError

CLIENTS_MAX: Final = 1000  # connections at once

log = logging.getLogger("callserver")


class CallServer:
    """Answers clients while active.

    Args:
        ledger: the calls; replicated memory.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._active = False
        self._clients = asyncio.Semaphore(CLIENTS_MAX)

    async def member_changed(self, change: ConfigurationChange, me: tuple[int, int]) -> None:
        """Become active, or stand by, as the group's membership says."""
        active = active_member(change) == me
        if active and not self._active:
            calls = await self._ledger.load()
            log.info("active calls=%d", calls)
        elif self._active and not active:
            log.info("standby")
        self._active = active

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client connection until it closes."""
        async with self._clients:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._converse(reader, writer)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readuntil(b"\n")
                answer = await self._answer(decode_request(line))
            except (ProtocolError, asyncio.LimitOverrunError) as error:
                writer.write(encode_answer(Answer(ok=False, why=str(error))))
                await writer.drain()
                return
            writer.write(encode_answer(answer))
            await writer.drain()

    async def _answer(self, request: Request) -> Answer:
        if not self._active:
            return Answer(ok=False, why=STANDBY)
        try:
            return await self._perform(request)
        except UnknownCallError as error:
            return Answer(ok=False, why=str(error))
        except AisError as error:
            log.warning("refused call=%s action=%s why=%s", request.call, request.action, error)
            return Answer(ok=False, why=STANDBY)  # not recorded for certain: the client asks again

    async def _perform(self, request: Request) -> Answer:
        match request:
            case Request("start"):
                await self._ledger.start(request.call)
                return Answer(ok=True)
            case Request("add", _, record) if record is not None:
                await self._ledger.add(request.call, record)
                return Answer(ok=True)
            case Request("read"):
                return Answer(ok=True, records=self._ledger.read(request.call))
            case Request("hangup"):
                return Answer(ok=True, records=await self._ledger.hang_up(request.call))
            case _:
                raise ProtocolError("a record is missing")


async def run(host: str, port: int) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with Ledger() as ledger, Cpg(rejoin=True) as cpg:
        server = CallServer(ledger)
        await cpg.join(GROUP)
        follower = asyncio.create_task(_follow(cpg, server))
        async with await asyncio.start_server(server.serve, host, port, limit=LINE_SIZE_MAX):
            log.info("listening host=%s port=%d", host, port)
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait((stop, follower), return_when=asyncio.FIRST_COMPLETED)
        if follower.done():
            follower.result()
        follower.cancel()


async def _follow(cpg: Cpg, server: CallServer) -> None:
    me = (cpg.local_address.node_id, cpg.local_address.pid)
    async for event in cpg:
        if isinstance(event, ConfigurationChange):
            await server.member_changed(event, me)


def main() -> None:
    """Run one component; the node is named by OPENAIS_RUN_DIR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    host, _, port = parser.parse_args().listen.rpartition(":")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(run(host, int(port)))


if __name__ == "__main__":
    main()
