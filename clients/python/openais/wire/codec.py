"""Encode and decode messages; the only module that imports msgpack.

A message is a frozen, slotted dataclass; on the wire it is a msgpack array of its tag and its
fields in field order. Field types: int, bool, bytes, str, ``T | None``, ``tuple[T, ...]``, IntEnum
and nested records (frozen dataclasses, an array without tag). Decoding checks every type, enforces
every bound and raises one exception. Surplus trailing fields are ignored and absent trailing
fields take their default, so that fields can be added. A table of version 2 or more can encode
and decode as an older version did: fields (`added`) and messages that came later do not exist then.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, TypeAlias, TypeVar

import msgpack

MESSAGE_SIZE_MAX: Final = 128 << 20  # bytes of one encoded message
ITEMS_MAX: Final = 1 << 20  # elements of one list on the wire
FIELDS_MAX: Final = 255  # elements of any array in a message whose class has no list
FRAME_SIZE_MIN: Final = 4096  # bytes; what is shorter is cheaper to copy than to send apart
TAG_MAX: Final = 127  # so that a tag is one byte, readable without decoding the rest

_SINCE: Final = "since"  # in the metadata of a field: the version it came with
_ONE_BYTE_ARRAY_MASK: Final = 0xF0
_ONE_BYTE_ARRAY: Final = 0x90
_TWO_BYTE_ARRAY: Final = 0xDC

Message = TypeVar("Message")
Buffer: TypeAlias = bytes | memoryview
_Convert = Callable[[Any], Any]
_BYTES: Final = frozenset((bytes,))
_BYTES_OR_NONE: Final = frozenset((bytes, type(None)))


class DecodeError(Exception):
    """The bytes are not a message of this protocol: says which message, which field, which rule."""


def _fail(where: str, rule: str, value: object) -> typing.NoReturn:
    raise DecodeError(f"{where}: expected {rule}, got {type(value).__name__}")


def _plain(kind: type, where: str) -> _Convert:
    def convert(value: Any) -> Any:
        if type(value) is not kind:
            _fail(where, kind.__name__, value)
        return value

    return convert


def _enumeration(kind: type[IntEnum], where: str) -> _Convert:
    members = {int(member): member for member in kind}

    def convert(value: Any) -> Any:
        if type(value) is not int or value not in members:
            _fail(where, f"a value of {kind.__name__}", value)
        return members[value]

    return convert


def _sequence(item: _Convert, where: str) -> _Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            _fail(where, "a list", value)
        return tuple([item(element) for element in value])

    return convert


def _optional(item: _Convert) -> _Convert:
    return lambda value: None if value is None else item(value)


def _union(kind: Any, where: str) -> _Convert:
    arms = [arm for arm in typing.get_args(kind) if arm is not type(None)]
    assert len(arms) == 1, f"{where}: only T | None is a wire type"
    return _optional(_converter(arms[0], where))


def _converter(kind: Any, where: str) -> _Convert:
    kind = bytes if kind == Buffer else getattr(kind, "__supertype__", kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _union(kind, where)
    if origin is tuple:
        return _sequence(_converter(typing.get_args(kind)[0], where), where)
    if dataclasses.is_dataclass(kind):
        return _record(typing.cast("type[Any]", kind))
    if issubclass(kind, IntEnum):
        return _enumeration(kind, where)
    assert kind in (int, bool, bytes, str), f"{where}: {kind!r} is not a wire type"
    return _plain(kind, where)


def _record(kind: type[Any]) -> _Convert:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    converters = [_converter(hints[f.name], f"{kind.__name__}.{f.name}") for f in fields]
    required = sum(1 for f in fields if f.default is dataclasses.MISSING)
    name = kind.__name__

    def convert(values: Any) -> Any:
        if not isinstance(values, list):
            _fail(name, "a list of fields", values)
        if len(values) < required:
            raise DecodeError(f"{name}: expected {required} fields, got {len(values)}")
        return kind(*[c(v) for c, v in zip(converters, values, strict=False)])

    return convert


def _flatten(value: Any) -> Any:
    """Turn a nested record into what msgpack packs; called by msgpack for what it does not know."""
    return [getattr(value, name) for name in value.__dataclass_fields__]


def _has_list(kind: Any) -> bool:
    """Tell whether a type on the wire holds a list anywhere."""
    arms = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return True
    if dataclasses.is_dataclass(kind):
        return any(map(_has_list, typing.get_type_hints(kind).values()))
    return any(map(_has_list, arms))


def added(version: int, default: Any) -> Any:
    """Declare a field that a message has since a version of its table's protocol.

    For fields of the table's messages, not of records in them.
    """
    return dataclasses.field(default=default, metadata={_SINCE: version})


class Table:
    """One protocol: tag to message class. The table is the protocol.

    Args:
        name: used in error texts.
        messages: tag (0..127) to message class; a deleted tag stays reserved.
        carriers: classes whose last field, ``payload``, travels as the next element of the
            bundle, so that it is neither packed nor unpacked on the way.
        version: of the protocol that is spoken.
        version_min: the oldest that is understood.
        since: messages that came with a later version than 1, and which.
    """

    def __init__(
        self,
        name: str,
        messages: dict[int, type[Any]],
        carriers: tuple[type[Any], ...] = (),
        *,
        version: int = 1,
        version_min: int = 1,
        since: Mapping[type[Any], int] = types.MappingProxyType({}),
    ) -> None:
        assert all(0 <= tag <= TAG_MAX for tag in messages), "a tag is one byte"
        assert 1 <= version_min <= version, f"{name}: version_min {version_min} of {version}"
        self.name: Final = name
        self.version: Final = version
        self.version_min: Final = version_min
        self._since: Final = {tag: since.get(kind, 1) for tag, kind in messages.items()}
        self._added: Final = {
            tag: tuple(f.metadata.get(_SINCE, 1) for f in dataclasses.fields(kind))
            for tag, kind in messages.items()
        }
        assert all(list(a) == sorted(a) for a in self._added.values()), (
            f"{name}: new fields go last"
        )
        self.messages: Final = messages
        self._carriers: Final = frozenset(carriers)
        self._tags: Final = {kind: tag for tag, kind in messages.items()}
        self._names: Final = {
            kind: tuple(f.name for f in dataclasses.fields(kind)) for kind in messages.values()
        }
        self._converters: Final = {tag: _record(kind) for tag, kind in messages.items()}
        self._items_max: Final = {
            tag: ITEMS_MAX for tag, kind in messages.items() if _has_list(kind)
        }

    def tag(self, kind: type[Any]) -> int:
        """Return the tag of a message class of this table."""
        return self._tags[kind]

    def encode(self, message: Any, version: int | None = None) -> bytes:
        """Encode one message of this table, as the given version of the protocol did."""
        kind = type(message)
        names = self._names[kind]
        if version is not None and version < self.version:
            names = names[: self._fields_at(self._tags[kind], version)]
        fields = [getattr(message, name) for name in names]
        packed: bytes = msgpack.packb([self._tags[kind], *fields], default=_flatten)
        return packed

    def since(self, tag: int) -> int | None:
        """Return the version a message came with; None: there is no such message."""
        return self._since.get(tag)

    def _fields_at(self, tag: int, version: int) -> int:
        """Return how many fields a message had in a version."""
        return sum(1 for since in self._added[tag] if since <= version)

    def put(self, message: Any, elements: list[Buffer]) -> None:
        """Append a message to the elements of a bundle; the payload of a carrier is its own."""
        kind = type(message)
        if kind not in self._carriers:
            elements.append(self.encode(message))
            return
        *head, payload = [getattr(message, name) for name in self._names[kind]]
        packed: bytes = msgpack.packb([self._tags[kind], *head, b""])
        elements += (packed, payload)

    def take(self, elements: Iterable[Buffer]) -> Iterator[Any]:
        """Yield the messages of a bundle's elements; a `DecodeError` in the place of a bad one."""
        remaining = iter(elements)
        for data in remaining:
            try:
                message = self.decode(data)
            except DecodeError as error:
                yield error
                continue
            if type(message) in self._carriers:
                payload = next(remaining, None)
                if payload is None:
                    yield DecodeError(f"{type(message).__name__}: the payload is missing")
                    return
                # Frozen, but nobody has seen it yet; to copy it would cost twice the decoding.
                object.__setattr__(message, "payload", payload)
            yield message

    def decode(self, data: Buffer, version: int | None = None) -> Any:
        """Decode one message.

        Args:
            data: the encoded message.
            version: what came later is ignored, a message that came later is unknown.

        Returns:
            An instance of one of the table's classes.

        Raises:
            DecodeError: not one message of this protocol, or over a bound.
        """
        values = _unpack(self.name, data, self._bound(data))
        if not isinstance(values, list) or not values or type(values[0]) is not int:
            raise DecodeError(f"{self.name}: not an array that begins with a tag")
        tag = values[0]
        convert = self._converters.get(tag)
        if convert is None:
            raise DecodeError(f"{self.name}: unknown tag {tag}")
        if version is not None and version < self.version:
            if self._since[tag] > version:
                raise DecodeError(f"{self.name}: unknown tag {tag}")
            return convert(values[1 : 1 + self._fields_at(tag, version)])
        return convert(values[1:])

    def _bound(self, data: Buffer) -> int:
        """Return how many elements an array of this message may claim to have.

        msgpack makes room for what an array claims before it looks at the elements, once per
        level of nesting: a few bytes would cost much where no list belongs.
        """
        try:
            return self._items_max.get(tag_of(data), FIELDS_MAX)
        except DecodeError:
            return FIELDS_MAX


def tag_of(data: Buffer) -> int:
    """Read the tag of an encoded message without decoding it.

    Raises:
        DecodeError: the bytes do not begin like a message.
    """
    if len(data) >= 2 and data[0] & _ONE_BYTE_ARRAY_MASK == _ONE_BYTE_ARRAY:
        tag = data[1]
    elif len(data) >= 4 and data[0] == _TWO_BYTE_ARRAY:
        tag = data[3]
    else:
        raise DecodeError("message does not begin with an array")
    if tag > TAG_MAX:
        raise DecodeError(f"tag byte {tag:#x} is over {TAG_MAX}")
    return tag


def pack_bundle(messages: Sequence[Buffer]) -> bytes:
    """Pack messages into one bundle, the unit that the ring orders."""
    packed: bytes = msgpack.packb(messages)  # any sequence but a tuple subclass
    return packed


def unpack_bundle(data: Buffer) -> list[bytes]:
    """Open a bundle.

    Raises:
        DecodeError: not an array of byte strings, or over a bound.
    """
    values = _unpack("bundle", data)
    if not isinstance(values, list) or not set(map(type, values)) <= _BYTES:
        raise DecodeError("bundle: not an array of byte strings")
    return values


def pack_frames(elements: Sequence[Buffer]) -> list[Buffer]:
    """Pack elements into the frames of one message of a socket.

    The first frame is the bundle; an element of FRAME_SIZE_MIN bytes or more is a frame of its
    own, and None stands in its place.
    """
    large = [element for element in elements if len(element) >= FRAME_SIZE_MIN]
    if not large:
        return [pack_bundle(elements)]
    small = [None if len(element) >= FRAME_SIZE_MIN else element for element in elements]
    return [msgpack.packb(small), *large]


def unpack_frames(frames: Sequence[Buffer]) -> list[Buffer]:
    """Open the frames of one message of a socket.

    Raises:
        DecodeError: not what `pack_frames` makes, or over a bound.
    """
    if len(frames) == 1:
        return typing.cast("list[Buffer]", unpack_bundle(frames[0]))
    if not frames:
        raise DecodeError("bundle: no frame")
    values = _unpack("bundle", frames[0])
    if not isinstance(values, list) or values.count(None) != len(frames) - 1:
        raise DecodeError("bundle: frames do not match the places left for them")
    if not set(map(type, values)) <= _BYTES_OR_NONE:
        raise DecodeError("bundle: not an array of byte strings")
    large = iter(frames[1:])
    return [next(large) if value is None else value for value in values]


def pack_state(values: Any) -> bytes:
    """Pack a snapshot: nested lists, ints, bytes, str, bool and None; canonical for equal input."""
    packed: bytes = msgpack.packb(values, default=_flatten)
    return packed


def unpack_state(data: Buffer) -> Any:
    """Unpack what `pack_state` packed.

    Raises:
        DecodeError: damaged.
    """
    return _unpack("state", data, items_max=1 << 31, size_max=1 << 32)


def _unpack(
    name: str, data: Buffer, items_max: int = ITEMS_MAX, size_max: int = MESSAGE_SIZE_MAX
) -> Any:
    if len(data) > size_max:
        raise DecodeError(f"{name}: {len(data)} bytes, limit {size_max}")
    try:
        return msgpack.unpackb(
            data,
            use_list=True,
            strict_map_key=True,
            max_array_len=min(items_max, len(data)),  # an element has at least one byte
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{name}: {type(error).__name__}: {error}") from error
