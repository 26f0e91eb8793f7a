"""What the call server and its clients say to each other over TCP: one JSON object per line.

Requests: ``{"do": "start" | "add" | "read" | "hangup", "call": str}``, and for ``add`` also
``"record": int`` (1, 2, 3 ...) and ``"text": str``. A client sends a request again when it does not
know whether it was served; the server recognises a record by its number.
Answers: ``{"ok": true, "records": [[number, text], ...]}`` (records for ``read`` and ``hangup``)
or ``{"ok": false, "why": str}``; why ``standby`` means: ask the other component.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

LINE_SIZE_MAX: Final = 1 << 20  # bytes
TEXT_SIZE_MAX: Final = 256  # characters of one record
STANDBY: Final = "standby"
ACTIONS: Final = ("start", "add", "read", "hangup")


class ProtocolError(Exception):
    """A line is not a request or an answer."""


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened in a call."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client."""

    action: str
    call: str
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the server."""

    ok: bool
    why: str = ""
    records: tuple[Record, ...] = ()


def encode_request(request: Request) -> bytes:
    """Encode a request as one line."""
    fields: dict[str, object] = {"do": request.action, "call": request.call}
    if request.record is not None:
        fields |= {"record": request.record.number, "text": request.record.text}
    return json.dumps(fields).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Decode one line.

    Raises:
        ProtocolError: says what is wrong with it.
    """
    fields = _object(line)
    action, call = fields.get("do"), fields.get("call")
    if action not in ACTIONS or not isinstance(action, str):
        raise ProtocolError(f"do: expected one of {', '.join(ACTIONS)}")
    if not isinstance(call, str) or not 0 < len(call) <= 64:
        raise ProtocolError("call: expected a name of 1 to 64 characters")
    if action != "add":
        return Request(action, call)
    number, text = fields.get("record"), fields.get("text")
    if not isinstance(number, int) or number < 1:
        raise ProtocolError("record: expected a number from 1")
    if not isinstance(text, str) or len(text) > TEXT_SIZE_MAX:
        raise ProtocolError(f"text: expected up to {TEXT_SIZE_MAX} characters")
    return Request(action, call, Record(number, text))


def encode_answer(answer: Answer) -> bytes:
    """Encode an answer as one line."""
    if not answer.ok:
        return json.dumps({"ok": False, "why": answer.why}).encode() + b"\n"
    return json.dumps({"ok": True, "records": _pairs(answer.records)}).encode() + b"\n"


def decode_answer(line: bytes) -> Answer:
    """Decode one line.

    Raises:
        ProtocolError: says what is wrong with it.
    """
    fields = _object(line)
    if fields.get("ok") is not True:
        return Answer(ok=False, why=str(fields.get("why")))
    return Answer(ok=True, records=_records(fields.get("records")))


def encode_record(record: Record) -> bytes:
    """Encode a record as it stands in the call's checkpoint section: one line."""
    return json.dumps([record.number, record.text]).encode() + b"\n"


def decode_section(data: bytes) -> tuple[Record, ...]:
    """Decode the content of a call's checkpoint section."""
    return _records([json.loads(line) for line in data.splitlines()])


def _pairs(records: tuple[Record, ...]) -> list[list[object]]:
    return [[record.number, record.text] for record in records]


def _records(pairs: object) -> tuple[Record, ...]:
    if not isinstance(pairs, list):
        raise ProtocolError("records: expected a list")
    return tuple(Record(int(number), str(text)) for number, text in pairs)


def _object(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ProtocolError("expected a JSON object")
    return fields
