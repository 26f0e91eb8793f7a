"""The socket to totemd: a seat in the service's group, entries out, the ordered stream in.

Made anew whenever totemd is lost. Knows bundles, the window and the port protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

from openais.node import bundles
from openais.node.paths import socket_path
from openais.node.poller import Poller, monitored, readable
from openais.wire import port
from openais.wire.codec import Buffer, DecodeError, pack_bundle
from openais.wire.port import Guarantee
from services.kit import entries

RECEIVE_BUDGET: Final = 64  # bundles per wake-up
RECONNECT_MIN_MS: Final = 10
RECONNECT_MAX_MS: Final = 200
ITEM_OVERHEAD: Final = 5  # bytes an entry costs in its bundle
PAYLOAD_SIZE_MAX: Final = port.MULTICAST_SIZE_MAX - 64
FRAGMENT_SIZE: Final = 256 << 10
BULK_QUEUED_MAX: Final = 4  # pieces of a state that wait for the window
MONITOR_EVENTS: Final = int(zmq.Event.DISCONNECTED)


@dataclass(slots=True)
class Queued:
    """An entry that waits for the window. ``cancelled``: it must not be sent any more."""

    data: bytes
    guarantee: Guarantee
    sent: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands in the stream where totemd was lost, or has to be attached to anew."""

    rule: str = ""  # why it refused a multicast; "": it is gone


class Group:
    """One seat.

    Args:
        context: of the process.
        run_dir: of the node.
        name: of the service.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path, name: str) -> None:
        self._context: Final = context
        self._path: Final = socket_path(run_dir, port.SOCKET_NAME)
        self._name: Final = name.encode()
        self._poller: Poller | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._queue: Final[deque[Queued]] = deque()
        self._bulk: Final[deque[Queued]] = deque()
        self._in_flight: Final[deque[tuple[int, int]]] = deque()
        self._in_flight_bytes = 0
        self._controls: Final[list[bytes]] = []
        self._request = 0
        self._window = (0, 0)
        self._more = False
        self._refused = ""

    def register(self, poller: Poller) -> None:
        """Let a poller wake up for this socket, whichever it is."""
        self._poller = poller

    def connect(self, history: bytes, index: int) -> None:
        """Attach on a new socket, with what the service remembers."""
        self._disconnect()
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)  # bounded by the window
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        self._monitor = socket.get_monitor_socket(MONITOR_EVENTS)
        self._socket = socket
        if self._poller is not None:
            self._poller.register(socket)
            self._poller.register(self._monitor)
        socket.connect(f"ipc://{self._path}")
        attach = port.Attach(
            port.VERSION, port.VERSION_MIN, port.Kind.SEAT, self._name, history, index
        )
        bundles.send(socket, [port.TABLE.encode(attach)])

    def _disconnect(self) -> None:
        if self._socket is None or self._monitor is None:
            return
        if self._poller is not None:
            self._poller.unregister(self._socket)
            self._poller.unregister(self._monitor)
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._socket = self._monitor = None
        self._window = (0, 0)
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self._controls.clear()
        self._refused = ""

    def forget(self) -> None:
        """Drop what waits to be sent: it belongs to a membership that is over."""
        self._queue.clear()
        self._bulk.clear()

    @property
    def attached(self) -> bool:
        """True: entries can be sent."""
        return self._window[0] > 0

    @property
    def pending(self) -> bool:
        """True: call `receive` again soon."""
        return self._more

    @property
    def queued(self) -> int:
        """Entries that wait for the window."""
        return len(self._queue) + len(self._bulk)

    @property
    def bulk_room(self) -> bool:
        """True: the next piece of a state may be queued."""
        return self.attached and len(self._bulk) < BULK_QUEUED_MAX

    def receive(self) -> list[Any]:
        """Return the messages of totemd that have come; `Lost` where the connection ended."""
        received: list[Any] = []
        if self._take(self._socket) or self._more:
            for elements in self._bundles():
                received += self._open(elements)
        if self._refused:
            received.append(Lost(self._refused))
            return received
        if not self._more and self._monitor is not None and self._take(self._monitor):
            monitored(self._monitor)
            received.append(Lost())
        return received

    def _take(self, socket: zmq.Socket[bytes] | None) -> bool:
        assert socket is not None
        return readable(socket) if self._poller is None else self._poller.take(socket)

    def _bundles(self) -> Iterator[list[Buffer]]:
        """Yield what has come, until there is no more or the budget is used up."""
        assert self._socket is not None
        self._more = True
        for count in range(RECEIVE_BUDGET):
            if count == 1 and not readable(self._socket):  # cheaper than the exception, once
                break
            try:
                yield bundles.receive(self._socket)
            except DecodeError:
                continue  # not from a totemd of ours
            except zmq.Again:
                break
        else:
            self._use()
            return
        self._more = False

    def _use(self) -> None:
        if self._poller is not None and self._socket is not None:
            self._poller.used(self._socket)

    def _open(self, elements: list[Buffer]) -> list[Any]:
        messages = [m for m in port.TABLE.take(elements) if not isinstance(m, DecodeError)]
        for message in messages:
            if isinstance(message, port.Accepted):
                self._accepted(message.request)
            elif isinstance(message, port.Refused) and message.request:
                # Later ones may have been taken: only who attaches anew knows what is missing.
                self._refused = f"a multicast was refused: {message.reason}"
                self._window = (0, 0)
            elif isinstance(message, port.Attached):
                self._window = (message.window_messages, message.window_bytes)
        return messages

    def _accepted(self, request: int) -> None:
        while self._in_flight and self._in_flight[0][0] <= request:
            self._in_flight_bytes -= self._in_flight.popleft()[1]

    def send(
        self, entry: Any, guarantee: Guarantee = Guarantee.AGREED, *, bulk: bool = False
    ) -> Queued:
        """Queue an entry; the last part of it is returned."""
        data = entries.TABLE.encode(entry)
        parts = [data]
        if len(data) > 2 * FRAGMENT_SIZE:
            parts = [
                entries.TABLE.encode(
                    entries.Fragment(begin, len(data), data[begin : begin + FRAGMENT_SIZE])
                )
                for begin in range(0, len(data), FRAGMENT_SIZE)
            ]
        queued = [Queued(part, guarantee) for part in parts]
        (self._bulk if bulk else self._queue).extend(queued)
        return queued[-1]

    def control(self, message: Any) -> None:
        """Send a message to totemd itself."""
        self._controls.append(port.TABLE.encode(message))

    def flush(self) -> None:
        """Send what the window lets out; others before bulk, which gets half of it at most."""
        if self._socket is None:
            return
        out: list[Buffer] = [*self._controls]
        self._controls.clear()
        messages, size = self._window
        for queue, part in ((self._queue, 1), (self._bulk, 2)):
            while queue and self._has_window(messages // part, size // part):
                message = self._next(queue)
                if message is not None:
                    port.TABLE.put(message, out)
        if out:
            bundles.send(self._socket, out)
            self._use()

    def _has_window(self, messages: int, size: int) -> bool:
        if len(self._in_flight) >= messages:
            return False
        return not self._in_flight or self._in_flight_bytes + PAYLOAD_SIZE_MAX <= size

    def _next(self, queue: deque[Queued]) -> port.Multicast | None:
        guarantee = queue[0].guarantee
        limit = PAYLOAD_SIZE_MAX if queue is self._queue else FRAGMENT_SIZE
        bundle: list[bytes] = []
        size = 0
        while queue and queue[0].guarantee is guarantee:
            if bundle and size + len(queue[0].data) + ITEM_OVERHEAD > limit:
                break
            queued = queue.popleft()
            if not queued.cancelled:
                queued.sent = True
                bundle.append(queued.data)
                size += len(queued.data) + ITEM_OVERHEAD
        if not bundle:
            return None
        payload = pack_bundle(bundle)
        self._request += 1
        self._in_flight.append((self._request, len(payload)))
        self._in_flight_bytes += len(payload)
        return port.Multicast(self._request, guarantee, payload)

    def close(self) -> None:
        """Close the socket; the seat stays for its grace."""
        self._disconnect()
