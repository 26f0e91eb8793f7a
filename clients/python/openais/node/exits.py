"""Exit statuses of daemons and tools, and the last line each of them writes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from enum import IntEnum


class Exit(IntEnum):
    """How a process ended. Supervisord does not restart on those `NOT_RESTARTED` names."""

    OK = 0
    UNEXPECTED = 1  # an exception nobody expected
    USAGE = 2
    FORK = 4
    LOGGING_CONFIGURATION = 7
    MAIN_CONFIGURATION = 8
    LOG_SETUP = 9
    KEY_FILE = 10
    AMF_CONFIGURATION = 11
    STATE_STORE = 12
    SERVICE_INITIALIZATION = 13
    FATAL = 15  # an assertion, or replicas that differ
    DIRECTORY = 16
    LOCK_FILE = 17
    ALREADY_RUNNING = 18
    STDIO = 19
    IPC_SOCKET = 20
    RING_ID = 21  # ring id or incarnation cannot be stored
    NETWORK = 22
    USER_OR_GROUP = 23
    CONFIGURATION_SOURCE = 24
    PRIVILEGE = 25
    DUPLICATE_NODE = 26  # another node with this node id was here first
    PROTOCOL_VERSION = 27  # the others speak no version of a protocol that this process speaks


NOT_RESTARTED: frozenset[Exit] = frozenset(
    {
        Exit.USAGE,
        Exit.LOGGING_CONFIGURATION,
        Exit.MAIN_CONFIGURATION,
        Exit.KEY_FILE,
        Exit.AMF_CONFIGURATION,
        Exit.DIRECTORY,
        Exit.ALREADY_RUNNING,
        Exit.USER_OR_GROUP,
        Exit.CONFIGURATION_SOURCE,
        Exit.DUPLICATE_NODE,
        Exit.PROTOCOL_VERSION,
    }
)


class ExitError(Exception):
    """The process must end.

    Args:
        status: what supervisord and the operator see.
        reason: stands in the last line.
        details: lines written before the last one.
    """

    def __init__(self, status: Exit, reason: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.details = details


def last_line(status: Exit, reason: str) -> str:
    """Return the line that a process writes last before a non-zero exit."""
    return f"exiting: {reason} (status {int(status)})"


def report(error: ExitError) -> int:
    """Write the details and the last line to standard error; return the exit status."""
    for line in error.details:
        print(line, file=sys.stderr)  # noqa: T201 - logging may not be configured yet
    print(last_line(error.status, error.reason), file=sys.stderr, flush=True)  # noqa: T201 - same
    return int(error.status)


def guard(body: Callable[[], None]) -> int:
    """Run the body of a program's main; return its exit status.

    Every end but the orderly one is written as ``exiting: REASON (status N)``. An exception that
    is no `ExitError` is a bug: its traceback is written first; a failed assertion has status 15.
    """
    try:
        body()
    except ExitError as error:
        return report(error)
    except AssertionError as error:
        return report(_bug(Exit.FATAL, error))
    except KeyboardInterrupt:
        return int(Exit.OK)
    except Exception as error:  # the top of the process
        return report(_bug(Exit.UNEXPECTED, error))
    return int(Exit.OK)


def _bug(status: Exit, error: Exception) -> ExitError:
    details = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return ExitError(status, f"{type(error).__name__}: {error}", tuple(details))
