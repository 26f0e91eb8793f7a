"""The codec refuses what claims more than it is."""

from __future__ import annotations

import tracemalloc

import pytest

from openais.wire import port
from openais.wire.codec import DecodeError, pack_state, unpack_bundle, unpack_state

DEEP = 1_000
CLAIMS_MUCH = b"\xdd\x00\x0f\xff\xff"  # an array of a million elements, which do not come
MEMORY_MAX_BYTES = 1 << 20


def test_a_short_message_that_claims_nested_millions_costs_nothing() -> None:
    # 5 KB that claim 8 GiB of list: the memory is asked for before the elements are looked at.
    data = b"\x92\x03" + CLAIMS_MUCH * DEEP
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            port.TABLE.decode(data)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unpack", [unpack_bundle, unpack_state])
def test_no_list_claims_more_elements_than_there_are_bytes(unpack: object) -> None:
    assert callable(unpack)
    with pytest.raises(DecodeError, match="exceeds max_array_len"):
        unpack(CLAIMS_MUCH + b"\xc0" * 100)


def test_lists_as_long_as_their_bytes_are_read() -> None:
    values = [[None] * 1_000, [[1]] * 50]
    assert unpack_state(pack_state(values)) == values
    groups = tuple(port.GroupMembers(b"g", ()) for _ in range(1_000))
    message = port.Groups(1, groups)
    assert port.TABLE.decode(port.TABLE.encode(message)) == message
