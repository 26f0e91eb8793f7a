"""Let supervisord start a program again at once; a part of supervisord's own process.

By itself supervisord looks once a second whether a program has ended and has to be started again:
a service that was killed would be away for one to two seconds of which its own start is a fifth.
This is named in its configuration as an RPC interface, because that is what supervisord loads; it
offers no call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Final

from supervisor import events

READ_MAX: Final = 4096  # bytes
RAN_MIN_S: Final = 2.0  # before a program is started again at once


class Wakeup:
    """A pipe that supervisord polls; readable after a signal, and after the end of a program."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        events.subscribe(events.ProcessStateExitedEvent, self._ended)

    def _ended(self, event: Any) -> None:
        """Have supervisord look once more: what it does about the end, it does in its next turn."""
        if time.time() - event.process.laststart < RAN_MIN_S:
            return  # what ends at its start is started once a second, as ever
        with contextlib.suppress(BlockingIOError):  # full: it looks anyway
            os.write(self._write, b"\0")

    def readable(self) -> bool:
        """Return True: supervisord is to poll it."""
        return True

    def writable(self) -> bool:
        """Return False: nothing is sent."""
        return False

    def handle_read_event(self) -> None:
        """Take what made it readable."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, READ_MAX)

    def handle_error(self) -> None:
        """Go on: nothing here can fail that supervisord must know."""


class NoCalls:
    """What supervisord expects of an RPC interface."""


def make(supervisord: Any, **_config: Any) -> NoCalls:
    """Be the factory that supervisord's configuration names."""
    wakeup = Wakeup()
    supervisord.options.get_socket_map()[wakeup.descriptor] = wakeup
    return NoCalls()
