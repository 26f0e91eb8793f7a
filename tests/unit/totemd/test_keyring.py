"""All nodes change their key at one point of the order, whatever order and crashes there are."""

from __future__ import annotations

import random
import zlib
from collections import deque

import pytest

from totemd import keyring
from totemd.keyring import KEYS_MAX, Effect, Key, KeyRing, Rotation, Say, Store, Use

CLUSTER = "demo"
OLD = bytes(range(64))
NEW = bytes(range(64, 128))
BASE = b"finger00"


def ring_of(secret: bytes = OLD) -> KeyRing:
    return keyring.begin(BASE, secret, None)


class Node:
    """One rotation and what its shell would do."""

    def __init__(self, me: int, ring: KeyRing, configured: frozenset[int]) -> None:
        self.rotation = Rotation(me, ring, CLUSTER, configured)
        self.used = ring
        self.disk = ring
        self.writing: deque[KeyRing] = deque()
        self.said: deque[bytes] = deque()

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Store):
                self.writing.append(effect.ring)
            elif isinstance(effect, Use):
                self.used = effect.ring
            elif isinstance(effect, Say):
                self.said.append(effect.data)

    def write(self) -> None:
        self.disk = self.writing.popleft()
        self.perform(self.rotation.stored(self.disk))

    def accepts(self, other: Node) -> bool:
        """This node can read what the other one sends now."""
        return other.used.current.secret in {key.secret for key in self.used.keys}


class Group:
    """Nodes and the total order between them; each node reads it at its own pace."""

    def __init__(self, count: int, *, configured: bool = True, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        names = frozenset(range(1, count + 1))
        self.configured = names if configured else frozenset()
        self.nodes = {n: Node(n, ring_of(), self.configured) for n in names}
        self.order: list[tuple[int, bytes | tuple[int, ...]]] = []
        self.read = dict.fromkeys(self.nodes, 0)
        self.members: dict[int, tuple[int, ...]] = {}
        self.change()

    def change(self) -> None:
        """A new set of nodes is in the order."""
        self.order.append((0, tuple(self.nodes)))

    def step(self) -> bool:
        """Let one random thing happen; False: nothing is left."""
        able: list[tuple[str, int]] = []
        for n, node in self.nodes.items():
            able += [("say", n)] if node.said else []
            able += [("write", n)] if node.writing else []
            able += [("read", n)] if self.read[n] < len(self.order) else []
        if not able:
            return False
        what, n = self.rng.choice(able)
        node = self.nodes[n]
        if what == "say":
            self.order.append((n, node.said.popleft()))
        elif what == "write":
            node.write()
        else:
            sender, data = self.order[self.read[n]]
            self.read[n] += 1
            if isinstance(data, tuple):
                self.members[n] = data
                node.perform(node.rotation.changed(data))
            else:
                node.perform(node.rotation.deliver(sender, data, self.members[n]))
        self.check()
        return True

    def check(self) -> None:
        for node in self.nodes.values():
            for other in self.nodes.values():
                assert node.accepts(other), "a datagram would be lost"

    def settle(self) -> None:
        while self.step():
            pass

    def rotate(self, n: int, secret: bytes, generation: int) -> None:
        found = self.nodes[n].rotation.rotate(secret, generation)
        assert not isinstance(found, str), found
        self.nodes[n].perform(found)

    def restart(self, n: int) -> None:
        """Kill one node; it comes back with what its disk has."""
        self.nodes[n] = Node(n, self.nodes[n].disk, self.configured)
        self.order.append((0, tuple(self.nodes)))
        self.read[n] = len(self.order) - 1

    def current(self) -> set[bytes]:
        return {node.used.current.secret for node in self.nodes.values()}

    def kept(self) -> set[int]:
        return {len(node.used.keys) for node in self.nodes.values()}


@pytest.mark.parametrize("seed", range(20))
def test_at_no_moment_a_node_sends_under_a_key_another_one_lacks(seed: int) -> None:
    group = Group(5, seed=seed)
    group.settle()
    group.rotate(2, NEW, 100)
    group.settle()
    assert group.current() == {NEW}
    assert group.kept() == {1}, "the old key is dropped by itself: the nodelist is complete"
    assert {node.disk for node in group.nodes.values()} == {KeyRing(BASE, (Key(100, NEW),), 100)}


@pytest.mark.parametrize("seed", range(20))
def test_two_operators_at_once_get_one_of_their_keys(seed: int) -> None:
    group = Group(4, seed=seed)
    group.settle()
    group.rotate(1, NEW, 100)
    group.rotate(3, NEW[::-1], 101)
    group.settle()
    assert len(group.current()) == 1
    assert group.current() <= {NEW, NEW[::-1]}


@pytest.mark.parametrize("seed", range(40))
def test_a_node_killed_at_any_moment_comes_back_and_the_change_is_finished(seed: int) -> None:
    group = Group(3, seed=seed)
    group.settle()
    group.rotate(1, NEW, 100)
    for _ in range(seed):
        group.step()
    group.restart(2)
    group.settle()
    if group.current() == {OLD}:
        return  # the offer was not even said
    assert group.current() == {NEW}
    assert group.kept() == {1}


def test_without_a_nodelist_the_old_key_is_kept_until_it_is_retired() -> None:
    group = Group(3, configured=False)
    group.settle()
    group.rotate(1, NEW, 100)
    group.settle()
    assert group.current() == {NEW}
    assert group.kept() == {2}
    found = group.nodes[3].rotation.retire()
    assert not isinstance(found, str)
    group.nodes[3].perform(found)
    group.settle()
    assert group.kept() == {1}
    assert group.nodes[3].rotation.retire() == "there is only one key"


def test_a_node_of_the_nodelist_that_is_away_keeps_the_key_from_being_changed() -> None:
    node = Node(1, ring_of(), frozenset({1, 2, 7}))
    node.perform(node.rotation.changed((1, 2)))
    assert node.rotation.rotate(NEW, 5) == "not all configured nodes are here: 7"


def test_a_node_that_was_away_learns_the_key_under_the_old_one() -> None:
    group = Group(2, configured=False)
    group.settle()
    group.rotate(1, NEW, 100)
    group.settle()
    away = Node(3, ring_of(), frozenset())
    old_id = away.rotation.key(OLD).key_id
    offer = group.nodes[1].rotation.update(old_id)
    assert offer is not None
    away.perform(away.rotation.learn(offer))
    assert away.accepts(group.nodes[1])
    assert away.used.current.secret == OLD, "it goes on sending what it knows all can read"
    group.nodes[3] = away
    away.write()
    group.read[3] = len(group.order)
    group.change()
    group.settle()
    assert group.current() == {NEW}
    assert group.nodes[1].rotation.update(12345) is None


def test_a_change_that_is_stuck_goes_on_with_the_same_key() -> None:
    group = Group(2)
    group.settle()
    group.rotate(1, NEW, 100)
    while not all(node.writing for node in group.nodes.values()):
        group.step()
    group.nodes[2].writing.clear()  # its disk failed
    group.settle()
    assert group.current() == {OLD}
    assert group.nodes[1].rotation.waiting_for == (2,)
    group.nodes[2].perform([Store(group.nodes[2].rotation.ring)])
    group.rotate(1, b"another key that is not taken", 200)
    group.settle()
    assert group.current() == {NEW}


def test_many_changes_keep_a_bounded_number_of_keys() -> None:
    group = Group(2, configured=False)
    group.settle()
    for k in range(10):
        group.rotate(1, bytes([k]) * 64, 100 + k)
        group.settle()
        assert group.current() == {bytes([k]) * 64}
    assert group.kept() == {KEYS_MAX}


def test_a_key_known_under_another_number_is_the_same_key() -> None:
    node = Node(1, ring_of(NEW), frozenset())  # its key file was replaced by hand
    old, key = ring_of(), Key(50, NEW)
    under_new = keyring.offer(key, node.rotation.key(NEW))
    node.perform(node.rotation.learn(under_new))
    assert node.used == KeyRing(BASE, (key,), 50)
    under_old = keyring.offer(Key(60, OLD), node.rotation.key(old.current.secret))
    assert node.rotation.learn(under_old) == []


@pytest.mark.parametrize("size", [0, 1, 8, 9, 10, 11, 30, 50, 90])
def test_messages_that_are_cut_or_spoiled_change_nothing(size: int) -> None:
    node = Node(1, ring_of(), frozenset())
    node.perform(node.rotation.changed((1, 2)))
    whole = keyring.offer(Key(5, NEW), node.rotation.key(OLD))
    effects = node.rotation.deliver(2, whole[:size], (1, 2))
    assert not [e for e in effects if isinstance(e, Store | Use | Say)]
    effects = node.rotation.learn(whole[:size])
    assert not [e for e in effects if isinstance(e, Store | Use | Say)]
    spoiled = whole[:size] + bytes((whole[size] ^ 1,)) + whole[size + 1 :]
    effects = node.rotation.deliver(2, spoiled, (1, 2))
    assert not [e for e in effects if isinstance(e, Store | Use | Say)]
    assert node.rotation.ring == ring_of()


def test_the_file_is_read_as_it_was_written_and_every_changed_bit_is_noticed() -> None:
    ring = KeyRing(BASE, (Key(0, OLD), Key(7, NEW)), 0)
    data = ring.encode()
    assert keyring.decode(data) == ring
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert keyring.decode(bytes(changed)) is None
    assert all(keyring.decode(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize(
    ("keys", "sending", "more"),
    [
        ([], 0, b""),
        ([(0, OLD)], 1, b""),
        ([(1, OLD), (0, NEW)], 0, b""),
        ([(0, OLD), (0, NEW)], 0, b""),
        ([(k, OLD) for k in range(KEYS_MAX + 1)], 0, b""),
        ([(0, OLD)], 0, b"more"),
    ],
)
def test_a_file_that_contradicts_itself_is_no_key_ring(
    keys: list[tuple[int, bytes]], sending: int, more: bytes
) -> None:
    head = keyring.FILE_HEAD.pack(keyring.MAGIC, keyring.VERSION, len(keys), BASE, sending)
    body = head + b"".join(keyring.FILE_KEY.pack(g, len(s)) + s for g, s in keys) + more
    assert keyring.decode(body + keyring.CHECKSUM.pack(zlib.crc32(body))) is None


def test_the_ring_counts_until_the_key_file_is_replaced() -> None:
    kept = KeyRing(BASE, (Key(0, OLD), Key(7, NEW)), 7)
    assert keyring.begin(BASE, OLD, kept) == kept
    assert keyring.begin(b"exported", NEW, kept) == KeyRing(b"exported", kept.keys, 7)
    other = bytes(64)
    assert keyring.begin(b"replaced", other, kept) == KeyRing(b"replaced", (Key(0, other),), 0)
