"""Exceptions of the SDK: one class per status of SaAisErrorT."""

from __future__ import annotations

from typing import ClassVar

from openais.wire.status import Status


class AisError(Exception):
    """A call failed.

    Attributes:
        status: the number of SaAisErrorT.
        call: the function that failed, like ``ckpt.open``.
        definite: False: the operation may have happened all the same.
        detail: what the service says more, a message of its protocol, or None.
    """

    status: ClassVar[Status] = Status.ERR_LIBRARY

    def __init__(self, call: str, reason: str = "", *, definite: bool = True) -> None:
        text = f"{call}: {self.status.name}"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.call = call
        self.reason = reason
        self.definite = definite
        self.detail: object = None


class LibraryError(AisError):
    """The session or connection was lost for good."""

    status = Status.ERR_LIBRARY


class VersionError(AisError):
    """Client and service speak no common version."""

    status = Status.ERR_VERSION


class InitError(AisError):
    """A callback that this call needs was not given."""

    status = Status.ERR_INIT


class AisTimeoutError(AisError):
    """The time is over; the operation may have happened."""

    status = Status.ERR_TIMEOUT


class TryAgainError(AisError):
    """Cannot be served now and was not done; try again later."""

    status = Status.ERR_TRY_AGAIN


class InvalidParamError(AisError):
    """An argument breaks a rule."""

    status = Status.ERR_INVALID_PARAM


class NoMemoryError(AisError):
    """The service is out of memory."""

    status = Status.ERR_NO_MEMORY


class BadHandleError(AisError):
    """The object is closed, or was inherited by a forked child."""

    status = Status.ERR_BAD_HANDLE


class BusyError(AisError):
    """In use."""

    status = Status.ERR_BUSY


class AccessError(AisError):
    """Not opened for this, or not allowed to this user."""

    status = Status.ERR_ACCESS


class NotExistError(AisError):
    """What was named does not exist."""

    status = Status.ERR_NOT_EXIST


class NameTooLongError(AisError):
    """A name is longer than its limit."""

    status = Status.ERR_NAME_TOO_LONG


class ExistError(AisError):
    """Exists already."""

    status = Status.ERR_EXIST


class NoSpaceError(AisError):
    """A buffer or a container is full."""

    status = Status.ERR_NO_SPACE


class InterruptError(AisError):
    """Interrupted by a change of membership."""

    status = Status.ERR_INTERRUPT


class NoResourcesError(AisError):
    """A limit of the cluster is reached."""

    status = Status.ERR_NO_RESOURCES


class NotSupportedError(AisError):
    """Not offered."""

    status = Status.ERR_NOT_SUPPORTED


class BadOperationError(AisError):
    """Not possible with this object."""

    status = Status.ERR_BAD_OPERATION


class FailedOperationError(AisError):
    """The operation failed."""

    status = Status.ERR_FAILED_OPERATION


class BadFlagsError(AisError):
    """Unknown flags, or flags that exclude each other."""

    status = Status.ERR_BAD_FLAGS


class TooBigError(AisError):
    """Larger than the limit."""

    status = Status.ERR_TOO_BIG


class NoSectionsError(AisError):
    """No further section."""

    status = Status.ERR_NO_SECTIONS


class NoOpError(AisError):
    """There is nothing to do: it is so already."""

    status = Status.ERR_NO_OP


class RepairPendingError(AisError):
    """Done, but not everybody was ready for it."""

    status = Status.ERR_REPAIR_PENDING


class TooManyGroupsError(AisError):
    """More groups than one call, client or message may have."""

    status = Status.ERR_TOO_MANY_GROUPS


class UnavailableError(AisError):
    """The local node is not a member of the cluster."""

    status = Status.ERR_UNAVAILABLE


_BY_STATUS = {kind.status: kind for kind in AisError.__subclasses__()}


def error(status: Status, call: str, reason: str = "", *, definite: bool = True) -> AisError:
    """Return the exception for a status."""
    kind = _BY_STATUS.get(status)
    if kind is not None:
        return kind(call, reason, definite=definite)
    failure = AisError(call, f"{status.name} {reason}".strip(), definite=definite)
    failure.status = status  # type: ignore[misc]  # a status without a class of its own
    return failure
