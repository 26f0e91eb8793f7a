"""Messages are encrypted, authenticated and delivered once, whatever becomes of their datagrams."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from totemd import partial, seal
from totemd.seal import ClusterKey, Opened, Opener, Sealer, block_size_max

KEY = bytes(range(128))
SESSION = (0x0006_0000_0000_0000, bytes((1, 2, 3, 4)))
LATER = (SESSION[0] + 1, b"none")
AES = seal.AES_256_GCM
SIZE = 200  # bytes of a datagram
SLICE = SIZE - seal.SLICE_HEADER_SIZE


def sealer_of(
    node_id: int = 1, session: seal.Session = SESSION, algorithm: int = AES, size: int = SIZE
) -> Sealer:
    key = ClusterKey(KEY, "demo") if algorithm else None
    return Sealer(key, algorithm, node_id, session, size)


def opener_of(
    algorithm: int = AES, newest: dict[int, seal.Session] | None = None, node_id: int = 2
) -> Opener:
    keys = [ClusterKey(KEY, "demo")] if algorithm else []
    return Opener(keys, algorithm, node_id, newest=newest)


def pair(algorithm: int = AES) -> tuple[Sealer, Opener]:
    return sealer_of(algorithm=algorithm), opener_of(algorithm)


def open_one(opener: Opener, sealed: list[bytes], source: str = "peer", now_ns: int = 0) -> bytes:
    (datagram,) = sealed
    (opened,) = opener.open_train(datagram, len(datagram), source, now_ns)
    return opened[2]


def messages(opener: Opener, datagrams: Iterable[bytes], source: str = "peer") -> list[bytes]:
    """Return what is opened when the datagrams come one by one."""
    return [m for d in datagrams for _, _, m in opener.open_train(d, len(d), source, 0)]


def opened_train(opener: Opener, datagrams: list[bytes], source: str = "peer") -> list[bytes]:
    """Return what is opened when the datagrams come in one train."""
    return [m for _, _, m in train(opener, datagrams, source)]


def train(opener: Opener, datagrams: list[bytes], source: str = "peer") -> list[Opened]:
    return opener.open_train(b"".join(datagrams), len(datagrams[0]), source, 0)


def rule(opener: Opener, datagram: bytes, source: str = "peer") -> str:
    """Return why a datagram was refused."""
    before = opener.failures
    assert opener.open_train(datagram, len(datagram), source, 0) == []
    after = opener.failures
    (found,) = [name for name in after if after[name] != before[name]]
    assert after[found] == before[found] + 1
    return found


def refused(opener: Opener) -> dict[str, int]:
    return {name: count for name, count in opener.failures.items() if count}


def changed(datagram: bytes, at: int, value: int) -> bytes:
    return datagram[:at] + bytes((value,)) + datagram[at + 1 :]


def text(count: int) -> bytes:
    """Return a message that fills so many datagrams."""
    return random.Random(count).randbytes(block_size_max(SIZE, count))


# One datagram


def test_the_published_vectors() -> None:
    key = ClusterKey(KEY, "demo")
    assert f"{key.key_id:04x}" == "339c"
    header = "0101339c000000010006000000000000010203040000000000000001"
    (datagram,) = sealer_of().seal(b"hello")
    assert datagram.hex() == header + "860bd5830eb12b468219cd9fc5c63eb0cbe173f44d"
    (datagram,) = sealer_of(algorithm=seal.CHACHA20_POLY1305).seal(b"hello")
    assert datagram.hex() == header.replace("0101", "0102", 1) + (
        "41520b9e2c5142bf94e8fb29fe546a983abc0dfdcc"
    )
    assert seal.fingerprint(KEY) == "844c99c8e5c71dc8"


@pytest.mark.parametrize("algorithm", seal.ALGORITHMS.values())
def test_what_is_sealed_is_opened_with_its_sender_and_order(algorithm: int) -> None:
    sealer, opener = pair(algorithm)
    for counter in (1, 2, 3):
        (datagram,) = sealer.seal(memoryview(b"hello"))
        opened = opener.open_train(memoryview(datagram), len(datagram), "peer", 0)
        assert opened == [(1, (SESSION[0], counter), b"hello")]


def test_every_changed_bit_is_noticed() -> None:
    sealer, opener = pair()
    (datagram,) = sealer.seal(b"hello")
    for bit in range(len(datagram) * 8):
        forged = bytearray(datagram)
        forged[bit // 8] ^= 1 << bit % 8
        assert opener.open_train(bytes(forged), len(forged), f"source{bit}", 0) == []
    assert open_one(opener, [datagram]) == b"hello"


@pytest.mark.parametrize("key", [ClusterKey(KEY[::-1], "demo"), ClusterKey(KEY, "other")])
def test_another_key_or_cluster_name_is_a_wrong_digest(key: ClusterKey) -> None:
    opener = Opener([key], AES, 2)
    assert rule(opener, sealer_of().seal(b"x")[0], "192.0.2.1") == seal.DIGEST
    assert opener.digest_failures == ["192.0.2.1"]


def test_reports_of_wrong_digests_are_bounded() -> None:
    opener = Opener([ClusterKey(KEY, "other")], AES, 2)
    count = seal.REPORTS_MAX + 10
    messages(opener, (d for _ in range(count) for d in sealer_of().seal(b"x")))
    assert len(opener.digest_failures) == seal.REPORTS_MAX
    assert refused(opener) == {seal.DIGEST: count}


def test_a_datagram_that_was_made_longer_is_refused() -> None:
    sealer, opener = pair()
    (datagram,) = sealer.seal(b"hello")
    for more in (1, 100, 60_000):
        longer = datagram + bytes(more)
        assert opener.open_train(longer, len(longer), f"source{more}", 0) == []
    assert open_one(opener, [datagram]) == b"hello"


def test_a_replay_is_dropped_and_disorder_is_not() -> None:
    sealer, opener = pair()
    datagrams = [*sealer.seal(b"first")] + [d for k in range(50) for d in sealer.seal(b"%d" % k)]
    shuffled = datagrams[:]
    random.Random(1).shuffle(shuffled)
    assert len(messages(opener, shuffled)) == len(datagrams)
    assert {rule(opener, d) for d in datagrams} == {seal.REPLAY}


def test_the_window_is_exact_at_both_ends() -> None:
    sealer, opener = pair()
    (first,) = sealer.seal(b"late")
    (second,) = sealer.seal(b"not too late")
    for _ in range(seal.WINDOW - 1):
        open_one(opener, sealer.seal(b"x"))
    assert rule(opener, first) == seal.REPLAY
    assert open_one(opener, [second]) == b"not too late"
    assert rule(opener, second) == seal.REPLAY


def test_a_jump_over_the_window_forgets_nothing() -> None:
    sealer, opener = pair()
    (early,) = sealer.seal(b"x")
    open_one(opener, [early])
    skipped = [sealer.seal(b"y")[0] for _ in range(seal.WINDOW * 3)]
    (last,) = sealer.seal(b"z")
    assert open_one(opener, [last]) == b"z"
    assert rule(opener, early) == seal.REPLAY
    assert len(messages(opener, skipped)) == seal.WINDOW - 1
    assert len(messages(opener, [*skipped, last])) == 0


def test_a_forged_counter_does_not_move_the_window() -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"x"))
    (datagram,) = sealer.seal(b"y")
    for counter in (1 << 40, (1 << 64) - 1):
        forged = datagram[:20] + counter.to_bytes(8, "big") + datagram[28:]
        assert rule(opener, forged) == seal.DIGEST
    assert rule(opener, datagram[:20] + bytes(8) + datagram[28:]) == seal.REPLAY
    assert open_one(opener, sealer.seal(b"z")) == b"z"


def test_a_session_that_is_over_is_dropped() -> None:
    opener = opener_of()
    (early,) = sealer_of().seal(b"recorded")
    open_one(opener, sealer_of(session=LATER).seal(b"x"))
    assert rule(opener, early) == seal.STALE
    restarted = opener_of(newest=opener.sessions())
    assert rule(restarted, early) == seal.STALE


def test_the_session_before_the_newest_is_still_heard() -> None:
    old, opener = pair()
    open_one(opener, old.seal(b"x"))
    open_one(opener, sealer_of(session=LATER).seal(b"x"))
    assert open_one(opener, old.seal(b"on its way")) == b"on its way"
    third = (LATER[0] + 1, b"3333")
    open_one(opener, sealer_of(session=third).seal(b"x"))
    assert rule(opener, old.seal(b"too late")[0]) == seal.STALE
    assert opener.sessions() == {1: third}


def test_own_datagrams_are_dropped_before_decryption() -> None:
    opener = Opener([ClusterKey(KEY, "demo")], AES, 1, (SESSION, 0))
    assert rule(opener, sealer_of().seal(b"x")[0]) == seal.OWN
    assert opened_train(opener, sealer_of().seal(text(3))) == []
    assert refused(opener) == {seal.OWN: 4}


def test_keys_for_unknown_sessions_are_derived_at_a_limited_rate() -> None:
    opener = opener_of()
    rules = [
        rule(opener, sealer_of(session=(k + 1, b"fake")).seal(b"x")[0][:-1])
        for k in range(seal.UNKNOWN_PER_SECOND + 5)
    ]
    assert rules.count(seal.LIMIT) == 5
    assert open_one(opener, sealer_of().seal(b"x"), source="another") == b"x"
    assert open_one(opener, sealer_of(3).seal(b"y"), now_ns=2**31) == b"y"


def test_garbage_is_only_ever_refused() -> None:
    rng, (sealer, opener) = random.Random(2), pair()
    blocks = sealer.seal(text(4))
    for _ in range(5_000):
        data = bytearray(rng.randbytes(rng.randint(0, 400)))
        if rng.random() < 0.7:  # some that look right at first
            data[: rng.randint(0, 34)] = rng.choice(blocks)[: rng.randint(0, 34)]
        segment_size = rng.randint(1, len(data) + 1)
        assert opener.open_train(bytes(data), segment_size, "peer", rng.randint(0, 2**40)) == []
    assert opened_train(opener, blocks, "another") == [text(4)]


@pytest.mark.parametrize("size", range(seal.HEADER_SIZE + seal.TAG_SIZE))
def test_a_datagram_cut_short_is_refused(size: int) -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"known"))
    (datagram,) = sealer.seal(b"x" * 50)
    assert rule(opener, datagram[:size]) == seal.SHORT


# Blocks


@pytest.mark.parametrize("algorithm", seal.ALGORITHMS.values())
@pytest.mark.parametrize("size", [0, 1, SLICE, SIZE - 45, SIZE - 44, SIZE - 43, SIZE - 28, 1_000])
def test_a_message_of_any_size_comes_whole(algorithm: int, size: int) -> None:
    if not size and not algorithm:
        return  # nothing that could be told from a header cut off
    sealer, opener = pair(algorithm)
    message = random.Random(size).randbytes(size)
    datagrams = sealer.seal(message)
    assert {len(d) for d in datagrams[:-1]} <= {SIZE}
    assert len(datagrams[-1]) <= SIZE
    assert messages(opener, datagrams) == [message]
    assert opened_train(opener, sealer.seal(message)) == [message]


@pytest.mark.parametrize("count", range(1, seal.BLOCK_DATAGRAMS_MAX + 1))
def test_the_stated_size_exactly_fills_the_datagrams(count: int) -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(text(count))
    assert sealer.block_size_max(count) == len(text(count))
    assert [len(d) for d in datagrams] == [SIZE] * count
    assert opened_train(opener, datagrams) == [text(count)]


def test_a_block_of_two_datagrams_byte_for_byte() -> None:
    sealer = sealer_of(size=62)
    first, second = sealer.seal(b"0123456789abcdefghij")
    header = "0201339c000000010006000000000000010203040000000000000001"
    assert first.hex()[:60] == header + "0002"
    assert second.hex()[:60] == header + "0102"
    cipher = AESGCM(ClusterKey(KEY, "demo").packet_key(AES, 1, bytes.fromhex(header[16:40])))
    sealed = cipher.encrypt(
        bytes(11) + b"\x01", b"0123456789abcdefghij", bytes.fromhex(header + "02")
    )
    assert first[30:] + second[30:] == sealed


def test_a_message_over_44_datagrams_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        sealer_of().seal(text(44) + b"x")


def test_the_datagrams_of_a_block_may_come_in_any_order_and_twice() -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"known"))
    rng = random.Random(3)
    for _ in range(50):
        datagrams = sealer.seal(text(6)) * 2
        rng.shuffle(datagrams)
        assert messages(opener, datagrams) == [text(6)]
    assert refused(opener) == {seal.REPLAY: 50 * 6}


def test_a_lost_datagram_costs_its_block_only() -> None:
    sealer, opener = pair()
    for lost in range(5):
        datagrams = sealer.seal(text(5))
        del datagrams[lost]
        assert messages(opener, datagrams) == []
        assert opened_train(opener, sealer.seal(text(5))) == [text(5)]
    assert refused(opener) == {}


@pytest.mark.parametrize("cut", range(1, 12))
def test_trains_may_begin_and_end_within_a_block(cut: int) -> None:
    sealer, opener = pair()
    datagrams = [d for k in range(3) for d in sealer.seal(text(4))]
    found = opened_train(opener, datagrams[:cut]) + opened_train(opener, datagrams[cut:])
    assert found == [text(4)] * 3


def test_the_blocks_of_several_senders_may_be_interleaved() -> None:
    opener, rng = opener_of(), random.Random(4)
    waiting = [
        (node, datagram)
        for node in (3, 4, 5)
        for sealer in [sealer_of(node)]
        for _ in range(10)
        for datagram in sealer.seal(text(3))
    ]
    rng.shuffle(waiting)
    found = [
        (sender, message)
        for node, datagram in waiting
        for sender, _, message in opener.open_train(datagram, len(datagram), f"node{node}", 0)
    ]
    assert sorted(found) == sorted((node, text(3)) for node in (3, 4, 5) for _ in range(10))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("bad", range(9))
def test_one_bad_datagram_of_a_train_spoils_its_own_block_at_most(bad: int, *, known: bool) -> None:
    sealer, opener = pair()
    if known:
        open_one(opener, sealer.seal(b"known"))
    datagrams = [d for _ in range(3) for d in sealer.seal(text(3))]
    for at in (0, 1, 2, 8, 20, 27, 28, 29, 30, SIZE - 1):
        if bad % 3 == 0 and at < seal.HEADER_SIZE:
            continue  # covered below: the head of a run is changed
        forged = datagrams[:]
        forged[bad] = changed(datagrams[bad], at, datagrams[bad][at] ^ 1)
        fresh = opener_of(newest=opener.sessions())
        found = opened_train(fresh, forged)
        header_within = bad % 3 == 1 and at < seal.SLICE_HEADER_SIZE  # says nothing new
        assert found == [text(3)] * (3 if header_within else 2)


def test_a_foreign_datagram_between_those_of_a_block_costs_nothing() -> None:
    sealer, other, opener = sealer_of(), sealer_of(3), opener_of()
    block = sealer.seal(text(4))
    (single,) = other.seal(text(1))
    strange = [
        single,
        bytes(SIZE),
        changed(block[2], 0, 7),  # format
        changed(block[2], 3, 7),  # key id
        changed(block[2], 27, 9),  # counter
        changed(block[2], 28, 200),  # index
        changed(block[2], 29, 200),  # count
        changed(block[2], 29, 5),
        changed(block[2], 29, 1),
    ]
    for foreign in strange:
        fresh = opener_of()
        found = opened_train(fresh, [block[0], block[1], foreign, block[2], block[3]])
        assert text(4) in found
    assert opened_train(opener, [block[0], single, *block[1:]]) == [text(1), text(4)]


def test_the_number_of_datagrams_is_authenticated() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(text(3))
    forged = [changed(d, 29, 4) for d in datagrams] + [changed(datagrams[0], 28, 3)]
    forged[3] = changed(forged[3], 29, 4)[: seal.SLICE_HEADER_SIZE + 1]
    assert opened_train(opener, forged) == []
    assert refused(opener) == {seal.DIGEST: 4}
    assert opener.digest_failures == ["peer"]
    assert opened_train(opener, datagrams) == [text(3)]


@pytest.mark.parametrize(
    ("index", "count"), [(0, 0), (0, 1), (2, 2), (3, 2), (0, 45), (44, 45), (255, 255), (1, 1)]
)
def test_an_impossible_place_in_a_block_is_refused(index: int, count: int) -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"known"))
    datagram = changed(changed(sealer.seal(text(2))[0], 28, index), 29, count)
    assert rule(opener, datagram) == seal.FOREIGN_FORMAT


@pytest.mark.parametrize("size", [28, 29, 30])
def test_a_slice_without_content_is_refused(size: int) -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(text(3))
    assert rule(opener, datagrams[0][:size]) == seal.SHORT
    assert opened_train(opener, [*datagrams[:2], datagrams[2][:size]]) == []
    assert opened_train(opener, datagrams) == [text(3)]


@pytest.mark.parametrize("size", [31, 32, SIZE - 1])
def test_a_slice_of_the_wrong_length_spoils_its_block_only(size: int) -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"known"))
    datagrams = sealer.seal(text(3))
    assert messages(opener, [datagrams[0], datagrams[1][:size], datagrams[2]]) == []
    assert refused(opener) == {seal.DIGEST: 1}
    assert messages(opener, sealer.seal(text(3))) == [text(3)]


def test_a_block_from_another_source_does_not_mix_with_the_real_one() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(text(3))
    forged = changed(datagrams[0], SIZE - 1, datagrams[0][SIZE - 1] ^ 1)
    assert messages(opener, [forged], "outsider") == []
    assert messages(opener, datagrams) == [text(3)]


def test_a_block_is_replayed_in_vain() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(text(3))
    assert opened_train(opener, datagrams) == [text(3)]
    assert opened_train(opener, datagrams) == []
    assert messages(opener, datagrams, "another") == []
    assert refused(opener) == {seal.REPLAY: 6}


def test_copies_of_a_block_over_two_links_are_opened_once() -> None:
    sealer, opener = pair()
    for _ in range(20):
        datagrams = sealer.seal(text(3))
        found = []
        for datagram in datagrams:
            found += messages(opener, [datagram], "link 0")
            found += messages(opener, [datagram], "link 1")
        assert found == [text(3)]


def test_a_forged_block_moves_no_window_and_begins_no_session() -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"x"))
    far = (1 << 40).to_bytes(8, "big")
    forged = [d[:20] + far + d[28:] for d in sealer.seal(text(2))]
    later = [d[:8] + (SESSION[0] + 9).to_bytes(8, "big") + d[16:] for d in sealer.seal(text(2))]
    assert opened_train(opener, forged) == opened_train(opener, later) == []
    assert refused(opener) == {seal.DIGEST: 4}
    assert opener.sessions() == {1: SESSION}
    assert open_one(opener, sealer.seal(b"z")) == b"z"


def test_unfinished_blocks_of_a_sender_are_bounded_and_the_oldest_goes_first() -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"known"))
    blocks = [sealer.seal(text(2)) for _ in range(partial.BLOCKS_MAX + 3)]
    assert messages(opener, (first for first, _ in blocks)) == []
    assert refused(opener) == {seal.INCOMPLETE: 3}
    assert len(messages(opener, (second for _, second in blocks[3:]))) == partial.BLOCKS_MAX


def test_blocks_of_unknown_sessions_do_not_displace_those_of_known_ones() -> None:
    sealer, opener = pair()
    open_one(opener, sealer.seal(b"known"))
    first, second = sealer.seal(text(2))
    assert messages(opener, [first]) == []
    for k in range(partial.BLOCKS_MAX * 2):
        stranger = sealer_of(3, (k + 1, b"fake"))
        assert messages(opener, stranger.seal(text(2))[:1]) == []
    assert messages(opener, [second]) == [text(2)]


def test_the_first_message_of_a_session_may_be_a_block_in_pieces() -> None:
    sealer, opener = pair()
    assert messages(opener, sealer.seal(text(5))) == [text(5)]


# Several keys, and who may be heard


OLD_KEY = ClusterKey(KEY, "demo")
NEW_KEY = ClusterKey(KEY[::-1], "demo")


def test_a_sender_changes_its_key_within_its_session() -> None:
    sealer, opener = sealer_of(), Opener([OLD_KEY, NEW_KEY], AES, 2)
    first = sealer.seal(b"old")
    sealer.use(NEW_KEY)
    second = sealer.seal(b"new")
    third = sealer.seal(b"once more under the old", OLD_KEY)
    orders = [
        order
        for sealed in (third, second, first)
        for _, order, _ in opener.open_train(sealed[0], len(sealed[0]), "peer", 0)
    ]
    assert orders == [(SESSION[0], 3), (SESSION[0], 2), (SESSION[0], 1)]
    assert opener.senders() == {1: (NEW_KEY.key_id, 2)}


def test_a_key_that_is_dropped_is_a_wrong_digest_at_once() -> None:
    sealer, opener = sealer_of(), Opener([OLD_KEY, NEW_KEY], AES, 2)
    open_one(opener, sealer.seal(b"x"))
    opener.accept([NEW_KEY])
    assert rule(opener, sealer.seal(b"x")[0]) == seal.DIGEST
    sealer.use(NEW_KEY)
    assert open_one(opener, sealer.seal(b"y")) == b"y"
    assert rule(opener, sealer_of(session=(SESSION[0] - 1, b"past")).seal(b"x")[0]) == seal.DIGEST


def test_a_wrapped_key_is_read_under_the_right_key_and_data_only() -> None:
    wrapped = OLD_KEY.wrap(b"secret", b"7")
    assert OLD_KEY.unwrap(wrapped, b"7") == b"secret"
    for key, data, associated in (
        (NEW_KEY, wrapped, b"7"),
        (OLD_KEY, wrapped, b"8"),
        (OLD_KEY, wrapped[:-1], b"7"),
        (OLD_KEY, b"", b"7"),
        (OLD_KEY, wrapped[:11], b"7"),
    ):
        with pytest.raises(seal.UnwrapError):
            key.unwrap(data, associated)


def test_only_listed_nodes_are_heard_from_their_own_addresses() -> None:
    listed = {1: frozenset({"192.0.2.1"})}
    opener = Opener([OLD_KEY], AES, 2, listed=listed)
    assert rule(opener, sealer_of(3).seal(b"x")[0], "192.0.2.1") == seal.UNLISTED
    assert rule(opener, sealer_of(1).seal(b"x")[0], "192.0.2.3") == seal.UNLISTED
    assert open_one(opener, sealer_of(1).seal(b"x"), "192.0.2.1") == b"x"


def test_a_second_node_with_this_id_is_reported_and_a_recording_of_oneself_is_not() -> None:
    opener = Opener([OLD_KEY], AES, 1, (SESSION, SESSION[0] - 50))
    assert rule(opener, sealer_of(session=LATER).seal(b"x")[0], "other") == seal.DUPLICATE
    between = (SESSION[0] - 49, b"4321")
    assert rule(opener, sealer_of(session=between).seal(b"x")[0], "other") == seal.DUPLICATE
    assert opener.duplicates == [("other", LATER[0]), ("other", between[0])]
    former = (SESSION[0] - 50, b"life")
    assert rule(opener, sealer_of(session=former).seal(b"x")[0]) == seal.OWN
    forged = changed(sealer_of(session=LATER).seal(b"x")[0], 40, 1)
    assert rule(opener, forged) == seal.DIGEST
    opener.own_session(LATER)
    assert rule(opener, sealer_of(session=LATER).seal(b"x")[0]) == seal.OWN


def test_strict_hears_a_session_only_after_its_proof() -> None:
    opener = Opener([OLD_KEY, NEW_KEY], AES, 2, strict=True)
    sealer = sealer_of()
    assert rule(opener, sealer.seal(b"join")[0]) == seal.UNPROVEN
    session = seal.pack_session(SESSION)
    assert opener.unproven == [(1, session, OLD_KEY.key_id, "peer")]
    hello = sealer.seal(seal.HELLO_TYPE + b"answer")
    assert open_one(opener, hello) == seal.HELLO_TYPE + b"answer"
    assert rule(opener, hello[0]) == seal.REPLAY
    assert opener.sessions() == {}
    opener.prove(1, session)
    assert open_one(opener, sealer.seal(b"join")) == b"join"
    assert opener.sessions() == {1: SESSION}
    assert rule(opener, hello[0]) == seal.REPLAY
    sealer.use(NEW_KEY)
    assert open_one(opener, sealer.seal(b"under the new key")) == b"under the new key"
    assert rule(opener, sealer_of(session=LATER).seal(b"x")[0]) == seal.UNPROVEN


def test_strict_needs_no_second_proof_when_the_old_key_is_dropped() -> None:
    opener = Opener([OLD_KEY, NEW_KEY], AES, 2, strict=True)
    sealer = sealer_of()
    rule(opener, sealer.seal(b"x")[0])
    opener.prove(1, seal.pack_session(SESSION))
    opener.accept([NEW_KEY])
    sealer.use(NEW_KEY)
    assert open_one(opener, sealer.seal(b"at once")) == b"at once"


def test_sessions_that_prove_nothing_are_bounded() -> None:
    opener = Opener([OLD_KEY], AES, 2, strict=True)
    for k in range(20):
        assert rule(opener, sealer_of(session=(k + 1, b"fake")).seal(b"x")[0]) == seal.UNPROVEN
    assert len(opener._candidates) == seal.CANDIDATES_PER_NODE
    for node in range(3, 2_000):
        datagram = sealer_of(node).seal(b"x")[0]
        assert rule(opener, datagram, f"source{node}") == seal.UNPROVEN
    assert len(opener._candidates) == seal.NODES_MAX
    assert len(opener.unproven) == seal.REPORTS_MAX
