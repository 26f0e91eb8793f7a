"""Status numbers of the AIS services and the time constants of SaTimeT."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

TIME_BEGIN: Final = 0
TIME_END: Final = 0x7FFF_FFFF_FFFF_FFFF  # also "for ever", SA_TIME_MAX
TIME_UNKNOWN: Final = -0x8000_0000_0000_0000

ONE_MILLISECOND_NS: Final = 1_000_000
ONE_SECOND_NS: Final = 1_000_000_000


class Status(IntEnum):
    """SaAisErrorT: how an operation ended (SAI-Overview, section 2.13); EVS and CPG use it too."""

    OK = 1
    ERR_LIBRARY = 2
    ERR_VERSION = 3
    ERR_INIT = 4
    ERR_TIMEOUT = 5
    ERR_TRY_AGAIN = 6
    ERR_INVALID_PARAM = 7
    ERR_NO_MEMORY = 8
    ERR_BAD_HANDLE = 9
    ERR_BUSY = 10
    ERR_ACCESS = 11
    ERR_NOT_EXIST = 12
    ERR_NAME_TOO_LONG = 13
    ERR_EXIST = 14
    ERR_NO_SPACE = 15
    ERR_INTERRUPT = 16
    ERR_NAME_NOT_FOUND = 17
    ERR_NO_RESOURCES = 18
    ERR_NOT_SUPPORTED = 19
    ERR_BAD_OPERATION = 20
    ERR_FAILED_OPERATION = 21
    ERR_MESSAGE_ERROR = 22
    ERR_QUEUE_FULL = 23
    ERR_QUEUE_NOT_AVAILABLE = 24
    ERR_BAD_FLAGS = 25
    ERR_TOO_BIG = 26
    ERR_NO_SECTIONS = 27
    ERR_NO_OP = 28
    ERR_REPAIR_PENDING = 29
    ERR_TOO_MANY_GROUPS = 30  # of cs_error_t; ERR_NO_BINDINGS of the naming service is not offered
    ERR_UNAVAILABLE = 31
    ERR_ACCESS_DENIED = 38
    ERR_NOT_READY = 39
    ERR_DEPLOYMENT = 40
