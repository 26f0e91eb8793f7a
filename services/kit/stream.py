"""The state of a replica as a stream of bytes, as snapshots hold it: head, then each object. Pure.

Large parts pass through uncopied in both directions: what is read stays a view of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from openais.wire.codec import Buffer, DecodeError
from services.kit.effects import State
from services.kit.memory import HEAD
from services.kit.replica import Replica

_OBJECT: Final = struct.Struct(">HQ")  # bytes of the name, and of the content


def parts(replica: Replica) -> Iterator[bytes]:
    """Yield everything that replicas share, for `restore`."""
    for name in (HEAD, *replica.memory.names()):
        content = replica.memory.dump(name)
        yield _OBJECT.pack(len(name), sum(map(len, content))) + name
        yield from content


def restore(replica: Replica, data: memoryview, index: int) -> None:
    """Let a fresh replica take up a snapshot; the replay from ``index`` follows.

    Raises:
        DecodeError: damaged, or of a version that this process does not speak.
    """
    objects = _read(data)
    try:
        replica.load_head(objects.pop(HEAD))
        replica.memory.load(objects)
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"state: {error}") from error
    replica.index = index
    replica.state = State.LIVE


def _read(data: memoryview) -> dict[bytes, Buffer]:
    """Return the objects of a stream, as views of it."""
    objects: dict[bytes, Buffer] = {}
    position = 0
    while position < len(data):
        try:
            name_size, size = _OBJECT.unpack_from(data, position)
        except struct.error as error:
            raise DecodeError(f"state: {error}") from error
        begin = position + _OBJECT.size + name_size
        name = bytes(data[position + _OBJECT.size : begin])
        position = begin + size
        if position > len(data) or name in objects:
            raise DecodeError("state: cut off, or an object twice")
        objects[name] = data[begin:position]
    return objects
