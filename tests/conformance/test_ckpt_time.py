"""SAI-AIS-CKPT: what takes seconds, on a clock of its own. Ids as in docs/conformance.md.

The state machine of the service is the real one; the same statements with real processes and short
times are in test_ckpt_opening.py and test_ckpt_sections.py.
"""

from __future__ import annotations

import dataclasses

import pytest

from openais.wire import ckpt as wire
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS, TIME_END, Status
from services.ckpt.state import Checkpoints
from tests.conformance.checkpoints import RW, D
from tests.unit.services.ckpt.bench import Bench, create


def bench(retention_s: int = 5) -> Bench:
    """Return a machine with the checkpoint ``n`` open as handle 1."""
    made = Bench()
    duration_ns = min(retention_s * ONE_SECOND_NS, TIME_END)
    made.opened(attributes=dataclasses.replace(D, retention_duration=duration_ns))
    return made


def opens(made: Bench, handle: int) -> Status:
    return made.do(wire.Open(handle, b"n", int(RW), None, wire.Level.B_01)).status


def test_ck_024_after_one_second_of_two_the_data_are_there() -> None:
    made = bench(2)
    made.do(create(1, b"a"))
    made.do(wire.Close(1))
    made.wait(ONE_SECOND_NS)
    assert opens(made, 2) is Status.OK
    read = made.ask(wire.Read(2, (wire.ReadElement(b"a", 0, None),)))
    assert read.result == wire.ReadData((b"data",))


def test_ck_025_after_three_seconds_of_one_it_is_gone() -> None:
    made = bench(1)
    made.do(wire.Close(1))
    assert made.wait(3 * ONE_SECOND_NS) == 1
    assert opens(made, 2) is Status.ERR_NOT_EXIST


def test_ck_026_it_stays_while_it_is_open_again() -> None:
    made = bench(1)
    made.do(wire.Close(1))
    made.wait(ONE_SECOND_NS // 2)
    assert opens(made, 2) is Status.OK
    assert made.wait(3 * ONE_SECOND_NS) == 0
    assert opens(made, 3) is Status.OK


def test_ck_027_without_retention_it_is_gone_at_the_last_close() -> None:
    made = bench(0)
    made.do(wire.Close(1))
    assert opens(made, 2) is Status.ERR_NOT_EXIST


def test_ck_028_for_ever_is_longer_than_any_time() -> None:
    made = bench(TIME_END)
    made.do(wire.Close(1))
    assert made.wait(1 << 62) == 0
    assert opens(made, 2) is Status.OK


def test_ck_038_the_duration_set_last_counts_at_the_last_close() -> None:
    made = bench(3_600)
    made.do(wire.RetentionDurationSet(1, ONE_SECOND_NS))
    assert made.ask(wire.StatusGet(1)).result.attributes.retention_duration == ONE_SECOND_NS
    made.do(wire.Close(1))
    made.wait(3 * ONE_SECOND_NS)
    assert opens(made, 2) is Status.ERR_NOT_EXIST


def there(made: Bench, section_id: bytes) -> bool:
    return made.ask(wire.SectionGet(1, section_id)).status is Status.OK


def test_ck_053_there_at_one_second_gone_at_four() -> None:
    made = bench()
    made.do(create(1, b"a", made.now_ns + 2 * ONE_SECOND_NS))
    made.wait(ONE_SECOND_NS)
    assert there(made, b"a")
    made.wait(3 * ONE_SECOND_NS)
    assert not there(made, b"a")


def test_ck_054_a_cancelled_expiry_never_comes() -> None:
    made = bench()
    made.do(create(1, b"a", made.now_ns + ONE_SECOND_NS))
    made.do(wire.SectionExpirationTimeSet(1, b"a", TIME_END))
    assert made.wait(1 << 62) == 0
    assert there(made, b"a")


def test_ck_104_a_section_expires_in_unlinked_and_in_retained_checkpoints() -> None:
    for end in (wire.Unlink(b"n"), wire.Close(1)):
        made = bench()
        made.do(create(1, b"a", made.now_ns + ONE_SECOND_NS))
        made.do(end)
        assert made.wait(2 * ONE_SECOND_NS) == 1
        assert made.machine.describe()["sections"] == 0


@pytest.mark.parametrize("after_ns", [-1, 0, 1])
def test_ck_106_a_name_created_again_when_the_retention_is_over_survives(after_ns: int) -> None:
    made = bench(1)
    made.do(wire.Close(1))
    made.now_ns += ONE_SECOND_NS + after_ns - 1
    proposed = made.machine.expired(made.now_ns + 2)
    assert opens(made, 2) is Status.OK  # ordered before the expiry
    for operation in proposed:
        made.machine.apply(operation, made.context())
    made.machine.check()
    assert opens(made, 3) is Status.OK


def test_ck_105_a_retention_copied_to_a_joining_replica_ends_at_the_same_time() -> None:
    made = bench(2)
    made.do(wire.Close(1))
    made.wait(ONE_SECOND_NS + 500 * ONE_MILLISECOND_NS)
    copy = Checkpoints()
    copy.load({name: b"".join(made.machine.dump(name)) for name in made.machine.names()})
    assert copy.deadline_ns() == made.machine.deadline_ns()
    due_ns = copy.deadline_ns()
    assert due_ns is not None
    assert copy.expired(due_ns) == made.machine.expired(due_ns)
