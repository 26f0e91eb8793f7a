"""A state as a stream: what was written is read, and nothing else is."""

from __future__ import annotations

import pytest

from openais.wire.codec import DecodeError
from services.kit import stream
from services.kit.replica import Replica
from tests.sim.toy import Toy
from tests.unit.services.kit.test_replica import add, stage


def original() -> Replica:
    made = stage(2)
    add(made, 1, 1)
    made.run()
    return made.hosts[1].replica


def restored(data: bytes) -> Replica:
    fresh = Replica(1, Toy())
    stream.restore(fresh, memoryview(data), 5)
    return fresh


def test_a_restored_replica_has_the_digest_of_the_original() -> None:
    first = original()
    copy = restored(b"".join(stream.parts(first)))
    assert copy.digest() == first.digest()
    assert (copy.index, copy.serving) == (5, True)


def test_an_object_that_is_cut_off_is_an_error() -> None:
    data = b"".join(stream.parts(original()))
    for size in range(len(data) - 10, len(data)):
        with pytest.raises(DecodeError):
            stream.restore(Replica(1, Toy()), memoryview(data[:size]), 5)


def test_an_object_that_stands_twice_is_an_error() -> None:
    data = b"".join(stream.parts(original()))
    with pytest.raises(DecodeError):
        restored(data + data)
