"""A dump is whole, or it is refused with the line and the rule."""

from __future__ import annotations

import io
import json

import pytest

from openais import dumpfile
from openais.checkpoints import HandleCalls, SectionDescriptor
from openais.dumpfile import DumpError, Header, Item
from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, SectionState

ATTRIBUTES = Attributes(1, 0, 5, 3, 100, 8)


def written() -> bytes:
    file = io.BytesIO()
    writer = dumpfile.Writer(file, Header(b"n\xff", ATTRIBUTES))
    for section_id, data in ((b"a", b"12"), (b"\0", b"")):
        writer.add(SectionDescriptor(section_id, 7, len(data), SectionState.VALID, 3), data)
    writer.finish()
    return file.getvalue()


def test_what_was_written_is_read() -> None:
    assert list(dumpfile.read(io.BytesIO(written()))) == [
        Header(b"n\xff", ATTRIBUTES),
        Item(b"a", 7, b"12"),
        Item(b"\0", 7, b""),
    ]


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    whole = written()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        with pytest.raises(DumpError):
            list(dumpfile.read(io.BytesIO(bytes(changed))))
        if position < len(whole) - 1:  # without the last newline all is there
            with pytest.raises(DumpError):
                list(dumpfile.read(io.BytesIO(whole[:position])))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"version": 2}, "version 2, this reads 1"),
        ({"format": "other"}, "format is not"),
        ({"name": "?"}, "line 1"),
        ({"attributes": {}}, "line 1"),
        ({"attributes": {**dict.fromkeys(Attributes.__slots__, 0)}}, "write mode"),
    ],
)
def test_a_header_that_is_wrong_is_told(change: dict[str, object], rule: str) -> None:
    first, *others = written().splitlines(keepends=True)
    line = json.dumps(json.loads(first) | change).encode() + b"\n"
    with pytest.raises(DumpError, match=rule):
        list(dumpfile.read([line, *others]))


def test_lines_after_the_end_are_refused() -> None:
    with pytest.raises(DumpError, match="line 5"):
        list(dumpfile.read(io.BytesIO(written() + b"{}\n")))


def test_a_plan_leaves_out_what_is_over_and_large_data_come_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = dumpfile.plan(io.BytesIO(written()), "other")
    assert plan.name == b"other"
    assert len(list(plan.items(6))) == 2
    assert list(plan.items(7)) == []
    monkeypatch.setattr(wire, "CALL_SIZE_MAX", 2)
    handle = HandleCalls(1, ATTRIBUTES)
    made = [c.message for c in dumpfile.calls(handle, Item(b"a", 7, b"12345"))]
    assert made == [
        wire.SectionCreate(1, b"a", 7, b"12"),
        wire.Write(1, (wire.WriteElement(b"a", 2, b"34"),)),
        wire.Write(1, (wire.WriteElement(b"a", 4, b"5"),)),
    ]
    default = [c.message for c in dumpfile.calls(handle, Item(b"", 7, b"1"))]
    assert default == [wire.SectionOverwrite(1, b"", b"1")]
