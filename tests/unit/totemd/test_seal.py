"""Datagrams are encrypted, authenticated and delivered once."""

from __future__ import annotations

import random

import pytest

from totemd import seal
from totemd.seal import ClusterKey, Opener, Sealer, SealError

KEY = bytes(range(128))
SESSION = (0x0006_0000_0000_0000, bytes((1, 2, 3, 4)))
LATER = (SESSION[0] + 1, b"none")
AES = seal.AES_256_GCM


def pair(algorithm: int = AES, session: seal.Session = SESSION) -> tuple[Sealer, Opener]:
    key = ClusterKey(KEY, "demo") if algorithm else None
    return Sealer(key, algorithm, 1, session), Opener(key, algorithm, 2)


def rule(opener: Opener, datagram: bytes) -> str:
    with pytest.raises(SealError) as caught:
        opener.open(datagram, "peer", 0)
    return caught.value.rule


def test_the_published_vectors() -> None:
    key = ClusterKey(KEY, "demo")
    assert f"{key.key_id:04x}" == "339c"
    header = "0101339c000000010006000000000000010203040000000000000001"
    assert Sealer(key, AES, 1, SESSION).seal(b"hello").hex() == (
        header + "860bd5830eb12b468219cd9fc5c63eb0cbe173f44d"
    )
    chacha = Sealer(key, seal.CHACHA20_POLY1305, 1, SESSION).seal(b"hello").hex()
    assert chacha == header.replace("0101", "0102", 1) + (
        "41520b9e2c5142bf94e8fb29fe546a983abc0dfdcc"
    )
    assert seal.fingerprint(KEY) == "844c99c8e5c71dc8"


@pytest.mark.parametrize("algorithm", seal.ALGORITHMS.values())
def test_what_is_sealed_is_opened_with_its_sender_and_order(algorithm: int) -> None:
    sealer, opener = pair(algorithm)
    for counter in (1, 2, 3):
        opened = opener.open(sealer.seal(b"hello"), "peer", 0)
        assert opened == (1, (SESSION[0], counter), b"hello")


def test_every_changed_bit_is_noticed() -> None:
    sealer, opener = pair()
    datagram = sealer.seal(b"hello")
    for bit in range(len(datagram) * 8):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            opener.open(bytes(changed), f"source{bit}", 0)
    assert opener.open(datagram, "peer", 0)[2] == b"hello"


def test_another_key_or_cluster_name_is_a_wrong_digest() -> None:
    sealer, _ = pair()
    for key in (ClusterKey(KEY[::-1], "demo"), ClusterKey(KEY, "other")):
        assert rule(Opener(key, AES, 2), sealer.seal(b"x")) == seal.DIGEST


def test_a_replay_is_dropped_and_disorder_is_not() -> None:
    sealer, opener = pair()
    datagrams = [sealer.seal(b"%d" % k) for k in range(50)]
    shuffled = datagrams[:]
    random.Random(1).shuffle(shuffled)
    for datagram in shuffled:
        opener.open(datagram, "peer", 0)
    assert {rule(opener, d) for d in datagrams} == {seal.REPLAY}


def test_a_datagram_behind_the_window_is_dropped() -> None:
    sealer, opener = pair()
    first = sealer.seal(b"late")
    for _ in range(seal.WINDOW):
        opener.open(sealer.seal(b"x"), "peer", 0)
    assert rule(opener, first) == seal.REPLAY


def test_a_forged_counter_does_not_move_the_window() -> None:
    sealer, opener = pair()
    opener.open(sealer.seal(b"x"), "peer", 0)
    forged = bytearray(sealer.seal(b"y"))
    forged[20:28] = (1 << 40).to_bytes(8, "big")
    assert rule(opener, bytes(forged)) == seal.DIGEST
    assert opener.open(sealer.seal(b"z"), "peer", 0)[2] == b"z"


def test_a_session_that_is_over_is_dropped() -> None:
    old, opener = pair()
    early = old.seal(b"recorded")
    new = Sealer(ClusterKey(KEY, "demo"), AES, 1, LATER)
    opener.open(new.seal(b"x"), "peer", 0)
    assert rule(opener, early) == seal.STALE
    restarted = Opener(ClusterKey(KEY, "demo"), AES, 2, opener.sessions())
    assert rule(restarted, early) == seal.STALE


def test_own_datagrams_are_dropped_before_decryption() -> None:
    sealer, _ = pair()
    assert rule(Opener(ClusterKey(KEY, "demo"), AES, 1), sealer.seal(b"x")) == seal.OWN


def test_keys_for_unknown_sessions_are_derived_at_a_limited_rate() -> None:
    _, opener = pair()
    rules = [
        rule(opener, Sealer(ClusterKey(KEY, "demo"), AES, 1, (k + 1, b"fake")).seal(b"x")[:-1])
        for k in range(seal.UNKNOWN_PER_SECOND + 5)
    ]
    assert rules.count(seal.LIMIT) == 5
    real = Sealer(ClusterKey(KEY, "demo"), AES, 1, SESSION).seal(b"x")
    assert opener.open(real, "another source", 0)[2] == b"x"
    assert opener.open(Sealer(ClusterKey(KEY, "demo"), AES, 3, SESSION).seal(b"y"), "peer", 2**31)


def test_garbage_is_only_ever_refused() -> None:
    rng, (_, opener) = random.Random(2), pair()
    for _ in range(2_000):
        with pytest.raises(SealError):
            opener.open(rng.randbytes(rng.randint(0, 200)), "peer", 0)
