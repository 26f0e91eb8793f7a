"""Iterations over process groups and their members, each over a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from openais import errors
from openais.groups import GroupConnection, decode_name, encode_name
from openais.wire import port as wire

CALL: Final = "cpg.iterate"


class IterationType(IntEnum):
    """What an iteration tells (cpg_iteration_type_t)."""

    NAME_ONLY = 1  # each group once; node and pid are 0
    ONE_GROUP = 2  # the members of one group
    ALL = 3  # all members of all groups


@dataclass(frozen=True, slots=True)
class Description:
    """One group, or one of its members (cpg_iteration_description_t)."""

    group: str
    node_id: int
    pid: int


class Iteration(Iterator[Description]):
    """A snapshot, told one by one, sorted by group, node and pid; ended by `close` of its handle.

    Args:
        connection: of the handle.
        descriptions: the snapshot.
    """

    def __init__(self, connection: GroupConnection, descriptions: list[Description]) -> None:
        self._connection: Final = connection
        self._left: Final = iter(descriptions)
        self._closed = False

    def __next__(self) -> Description:
        """Return the next one.

        Raises:
            BadHandleError: this iteration or its handle is closed.
        """
        self._connection.check(CALL)
        if self._closed:
            raise errors.BadHandleError(CALL, "closed")
        return next(self._left)

    def close(self) -> None:
        """End the iteration.

        Raises:
            BadHandleError: it is closed already.
        """
        if self._closed:
            raise errors.BadHandleError(CALL, "closed")
        self._closed = True


def question(kind: int, group: str | bytes | None) -> Callable[[int], Any]:
    """Return what makes the request for a snapshot.

    Raises:
        InvalidParamError: unknown kind; a group with another kind than ONE_GROUP, or none with it.
    """
    if kind not in set(IterationType):
        raise errors.InvalidParamError(CALL, f"no IterationType has the value {kind}")
    if (kind == IterationType.ONE_GROUP) != (group is not None):
        raise errors.InvalidParamError(CALL, "a group is given with ONE_GROUP, and only with it")
    if group is None:
        return wire.GroupsQuery
    name = encode_name(group)
    return lambda request: wire.MembersQuery(request, name)


def descriptions(kind: int, answer: wire.Groups | wire.Members) -> list[Description]:
    """Return the snapshot that is in totemd's answer."""
    if isinstance(answer, wire.Members):
        return _members(answer.group, answer.members)
    if kind == IterationType.NAME_ONLY:
        return [Description(decode_name(g.group), 0, 0) for g in answer.groups]
    return [d for g in answer.groups for d in _members(g.group, g.members)]


def _members(group: bytes, members: tuple[wire.Member, ...]) -> list[Description]:
    name = decode_name(group)
    return [Description(name, m.node_id, m.pid) for m in members]
