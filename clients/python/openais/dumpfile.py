"""The file that a checkpoint is dumped to and restored from: JSON lines, digest at the end.

The first line tells format, version, name and creation attributes, then there is a line for each
section, data in base64, and the last line counts them and holds the SHA-256 of all lines before.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

from openais import checkpoints
from openais.checkpoints import Call, HandleCalls, SectionDescriptor
from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes

FORMAT: Final = "openais-checkpoint"
VERSION: Final = 1
LINE_SIZE_MAX: Final = 1 << 32  # bytes; a section of 2 GiB in base64


class DumpError(Exception):
    """A file that is no dump, or a damaged one: says which line and which rule."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a dump is of."""

    name: bytes
    attributes: Attributes


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One section."""

    section_id: bytes
    expiration_time: int
    data: bytes


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Writer:
    """Writes a dump.

    Args:
        file: binary.
        header: what is dumped.
    """

    def __init__(self, file: IO[bytes], header: Header) -> None:
        self._file: Final = file
        self._digest: Final = hashlib.sha256()
        self._sections = 0
        self._bytes = 0
        self._line(
            {
                "format": FORMAT,
                "version": VERSION,
                "name": _text(header.name),
                "text_name": header.name.decode("utf-8", "backslashreplace"),
                "attributes": dataclasses.asdict(header.attributes),
            }
        )

    def _line(self, values: dict[str, Any]) -> None:
        line = json.dumps(values).encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)

    def add(self, section: SectionDescriptor, data: bytes) -> None:
        """Write one section."""
        self._sections += 1
        self._bytes += len(data)
        self._line(
            {
                "id": _text(section.section_id),
                "text_id": section.section_id.decode("utf-8", "backslashreplace"),
                "expiration_time": section.expiration_time,
                "last_update": section.last_update,
                "data": _text(data),
            }
        )

    def finish(self) -> None:
        """Write the last line; without it the file is no dump."""
        digest = self._digest.hexdigest()
        self._line({"sections": self._sections, "bytes": self._bytes, "sha256": digest})


def read(file: Iterable[bytes]) -> Iterator[Header | Item]:
    """Yield the header and the sections of a dump.

    Only when the iteration has ended without an error is the file known to be whole.

    Raises:
        DumpError: not a dump, of another version, damaged, or cut.
    """
    digest = hashlib.sha256()
    sections = size = 0
    number = 0
    ended = False
    for number, line in enumerate(file, 1):
        if ended:
            raise DumpError(f"line {number}: the dump has ended before")
        values = _values(number, line)
        if number == 1:
            yield _header(values)
        elif "sha256" in values:
            ended = True
            expected = {"sections": sections, "bytes": size, "sha256": digest.hexdigest()}
            if values != expected:
                raise DumpError(f"line {number}: counts or digest differ: the file is damaged")
        else:
            item = _item(number, values)
            sections += 1
            size += len(item.data)
            yield item
        digest.update(line)
    if not ended:
        raise DumpError(f"line {number}: the end is missing: the file is cut")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is to be restored from a file that was read once and found whole."""

    name: bytes
    attributes: Attributes
    file: IO[bytes]

    def items(self, now_ns: int) -> Iterator[Item]:
        """Read the file again; yield the sections whose time is not over."""
        self.file.seek(0)
        for item in read(self.file):
            if isinstance(item, Item) and item.expiration_time > now_ns:
                yield item


def plan(file: IO[bytes], name: str | bytes | None) -> Plan:
    """Read a dump from its begin to its end.

    Raises:
        DumpError: not a dump, or damaged.
        InvalidParamError: the name.
    """
    file.seek(0)
    header: Header | None = None
    for part in read(file):
        if isinstance(part, Header):
            header = part
    assert header is not None, "a whole dump has a header"
    key = header.name if name is None else checkpoints.name_key(name, "restore")
    return Plan(key, header.attributes, file)


def calls(handle: HandleCalls, item: Item) -> Iterator[Call]:
    """Yield the requests that bring one section back, in parts that fit into a call."""
    first = item.data[: wire.CALL_SIZE_MAX]
    if item.section_id:
        yield handle.section_create(item.section_id, first, item.expiration_time)
    else:
        yield handle.overwrite(b"", first, create=False)
    for offset in range(wire.CALL_SIZE_MAX, len(item.data), wire.CALL_SIZE_MAX):
        part = item.data[offset : offset + wire.CALL_SIZE_MAX]
        yield handle.write([(item.section_id, offset, part)])


def _values(number: int, line: bytes) -> dict[str, Any]:
    if len(line) > LINE_SIZE_MAX:
        raise DumpError(f"line {number}: {len(line)} bytes, limit {LINE_SIZE_MAX}")
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DumpError(f"line {number}: {error}") from error
    if not isinstance(values, dict):
        raise DumpError(f"line {number}: not an object")
    return values


def _header(values: dict[str, Any]) -> Header:
    if values.get("format") != FORMAT:
        raise DumpError(f'line 1: format is not "{FORMAT}"')
    if values.get("version") != VERSION:
        raise DumpError(f"line 1: version {values.get('version')}, this reads {VERSION}")
    try:
        attributes = Attributes(**values["attributes"])
        rule = wire.attributes_rule(attributes)
        name = base64.b64decode(values["name"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DumpError(f"line 1: {type(error).__name__}: {error}") from error
    if rule is not None:
        raise DumpError(f"line 1: {rule}")
    return Header(name, attributes)


def _item(number: int, values: dict[str, Any]) -> Item:
    try:
        section_id = base64.b64decode(values["id"], validate=True)
        data = base64.b64decode(values["data"], validate=True)
        return Item(section_id, int(values["expiration_time"]), data)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DumpError(f"line {number}: {type(error).__name__}: {error}") from error
