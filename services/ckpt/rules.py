"""What can be said of a request without looking at sections or opens: values and sizes. Pure.

Checked before the open mode and before what is stored: wrong values come first (SAI-Overview).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from openais.wire import ckpt as wire
from openais.wire.ckpt import Attributes, SectionsChosen
from openais.wire.status import TIME_END, Status

OfHandle: TypeAlias = (
    wire.RetentionDurationSet
    | wire.ActiveReplicaSet
    | wire.SectionCreate
    | wire.SectionDelete
    | wire.SectionExpirationTimeSet
    | wire.Write
    | wire.SectionOverwrite
    | wire.Synchronize
    | wire.SectionPut
    | wire.SectionDrop
    | wire.SectionTtlSet
)
ReadOfHandle: TypeAlias = (
    wire.StatusGet | wire.Read | wire.SectionsGet | wire.SectionGet | wire.ItemsGet
)


class RefusalError(Exception):
    """A request that breaks a rule; nothing was changed.

    Args:
        status: of the answer.
        rule: for people, in the answer.
        index: of the element at fault.
        detail: a message that tells more than the rule.
    """

    def __init__(
        self, status: Status, rule: str, index: int | None = None, detail: Any = None
    ) -> None:
        super().__init__(rule)
        self.status = status
        self.detail: Any = wire.Refusal(rule) if index is None else wire.Erroneous(index, rule)
        if detail is not None:
            self.detail = detail


def invalid(rule: str, index: int | None = None) -> RefusalError:
    """Return the refusal of a wrong value."""
    return RefusalError(Status.ERR_INVALID_PARAM, rule, index)


def check_change(op: OfHandle, attributes: Attributes) -> None:
    """Check the values of a change through a handle.

    Raises:
        RefusalError: ERR_INVALID_PARAM.
    """
    match op:
        case wire.Write():
            _write(op.elements, attributes)
        case wire.SectionOverwrite():
            _overwrite(op, attributes)
        case wire.SectionCreate():
            _create(op, attributes)
        case wire.SectionDelete() | wire.SectionDrop():
            _named(op.section_id)
        case wire.SectionExpirationTimeSet() | wire.SectionTtlSet():
            _named(op.section_id)
            _time(*_time_of(op))
        case wire.SectionPut():
            _put(op, attributes)
        case wire.RetentionDurationSet():
            _time("retention duration", op.duration_ns)
        case wire.ActiveReplicaSet() | wire.Synchronize():
            return


def check_read(op: ReadOfHandle, attributes: Attributes) -> None:
    """Check the values of a read through a handle.

    Raises:
        RefusalError: ERR_INVALID_PARAM.
    """
    match op:
        case wire.Read():
            _read(op.elements, attributes)
        case wire.SectionsGet():
            timed = (SectionsChosen.LEQ_EXPIRATION_TIME, SectionsChosen.GEQ_EXPIRATION_TIME)
            if op.chosen in timed:
                _time("expiration time", op.expiration_ns)
        case wire.StatusGet() | wire.SectionGet():
            return
        case wire.ItemsGet():
            if op.after < 0 or op.offset < 0:
                raise invalid(f"after {op.after}, offset {op.offset}")


def _time_of(op: wire.SectionExpirationTimeSet | wire.SectionTtlSet) -> tuple[str, int]:
    if isinstance(op, wire.SectionTtlSet):
        return "time to live", op.ttl_ns
    return "expiration time", op.expiration_ns


def _overwrite(op: wire.SectionOverwrite, a: Attributes) -> None:
    _data(op.data, a)
    if op.create and op.section_id:
        _id(op.section_id, a)


def _create(op: wire.SectionCreate, a: Attributes) -> None:
    if op.section_id is not None:
        _id(op.section_id, a)
    _data(op.data, a)
    _time("expiration time", op.expiration_ns)


def _put(op: wire.SectionPut, a: Attributes) -> None:
    if op.section_id:
        _id(op.section_id, a)
    _data(op.data, a)
    if op.ttl_ns is not None:
        _named(op.section_id)
        _time("time to live", op.ttl_ns)


def check_watch(op: wire.Watch) -> None:
    """Check the values of a watch.

    Raises:
        RefusalError: ERR_INVALID_PARAM.
    """
    if op.watch < 1:
        raise invalid(f"watch {op.watch}: from 1 on")
    if not 0 <= op.data_size_max <= wire.WATCH_DATA_MAX:
        raise invalid(f"data_size_max: 0..{wire.WATCH_DATA_MAX}, not {op.data_size_max}")
    if max(len(op.prefix), len(op.section_id or b"")) > wire.SECTION_ID_SIZE_MAX:
        raise invalid(f"prefix and section id: at most {wire.SECTION_ID_SIZE_MAX} bytes")


def _time(what: str, ns: int) -> None:
    if not 0 <= ns <= TIME_END:
        raise invalid(f"{what}: 0..2^63-1 ns, not {ns}")


def _named(section_id: bytes) -> None:
    if not section_id:
        raise invalid("the default section cannot be deleted and never expires")


def _id(section_id: bytes, a: Attributes) -> None:
    limit = min(a.max_section_id_size, wire.SECTION_ID_SIZE_MAX)
    if not 0 < len(section_id) <= limit:
        raise invalid(f"section id: 1..{limit} bytes, not {len(section_id)}")


def _data(data: bytes, a: Attributes) -> None:
    if len(data) > a.max_section_size:
        raise invalid(f"{len(data)} bytes, max_section_size is {a.max_section_size}")


def _count(elements: tuple[Any, ...]) -> None:
    if not 0 < len(elements) <= wire.ELEMENTS_MAX:
        raise invalid(f"elements: 1..{wire.ELEMENTS_MAX}, not {len(elements)}")


def _write(elements: tuple[wire.WriteElement, ...], a: Attributes) -> None:
    _count(elements)
    for index, e in enumerate(elements):
        end = e.offset + len(e.data)
        if not e.data:
            raise invalid("there is no data", index)
        if e.offset < 0 or end > a.max_section_size:
            rule = f"bytes {e.offset}..{end}, max_section_size is {a.max_section_size}"
            raise invalid(rule, index)


def _read(elements: tuple[wire.ReadElement, ...], a: Attributes) -> None:
    _count(elements)
    for index, e in enumerate(elements):
        if e.offset < 0:
            raise invalid(f"offset {e.offset}", index)
        if e.size is not None and not 0 <= e.size <= a.max_section_size:
            rule = f"{e.size} bytes, max_section_size is {a.max_section_size}"
            raise invalid(rule, index)
