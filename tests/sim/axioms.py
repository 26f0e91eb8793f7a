"""Extended virtual synchrony, one function per axiom, judged on trace records alone.

(Moser, Amir, Melliar-Smith, Agarwal: Extended Virtual Synchrony, section 2. The ids are those of
docs/simulation.md.) M: configurations. D: deliveries. Each yields what breaks it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from tests.sim.trace import REGULAR, SAFE, Got, Installed, Life, Originated, Stay, stays
from totemd.protocol.messages import RingId


class Violation(NamedTuple):
    """One axiom, broken at one place."""

    axiom: str
    node: int
    ring: RingId | None
    seq: int
    what: str

    def __str__(self) -> str:
        ring = f" ring {self.ring.seq}.{self.ring.representative}" if self.ring else ""
        seq = f" seq {self.seq}" if self.seq else ""
        return f"{self.axiom}: node {self.node}{ring}{seq}: {self.what}"


class AxiomError(AssertionError):
    """A run broke axioms."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("\n".join(map(str, violations[:10])))
        self.violations = violations


class History:
    """The records of all incarnations of one cluster, indexed once."""

    def __init__(self, lives: Iterable[Life]) -> None:
        self.lives: Final = list(lives)
        self.stays: Final = [stay for life in self.lives for stay in stays(life)]
        self.by_ring: Final[dict[RingId, list[Stay]]] = defaultdict(list)
        for stay in self.stays:
            self.by_ring[stay.ring].append(stay)
        self.origins: Final[dict[RingId, dict[int, tuple[int, Originated]]]] = defaultdict(dict)
        for stay in self.stays:
            for sent in stay.originated:
                self.origins[sent.ring].setdefault(sent.seq, (stay.life.node_id, sent))
        self.seqs: Final = {ring: sorted(sent) for ring, sent in self.origins.items()}

    def count(self, ring: RingId, up_to: int) -> int:
        """Return how many frames of a ring were originated up to a position."""
        return bisect_right(self.seqs.get(ring, []), up_to)

    def steps(self) -> dict[tuple[RingId, RingId], list[Stay]]:
        """Return who went directly from one ring to another."""
        found: dict[tuple[RingId, RingId], list[Stay]] = defaultdict(list)
        for stay in self.stays:
            if stay.following is not None:
                found[stay.ring, stay.following.ring].append(stay)
        return found


def _at(axiom: str, stay: Stay, what: str, seq: int = 0) -> Violation:
    return Violation(axiom, stay.life.node_id, stay.ring, seq, what)


def _configurations(life: Life) -> list[Installed]:
    return [r for r in life.records if isinstance(r, Installed)]


# Membership


def m1(h: History) -> Iterator[Violation]:
    """Self-inclusion: a node is in every configuration it installs."""
    for life in h.lives:
        for c in _configurations(life):
            if life.node_id not in c.members:
                yield Violation("M1", life.node_id, c.ring, 0, f"not in {c.members}")


def m2(h: History) -> Iterator[Violation]:
    """A ring id names one member list."""
    for ring, some in h.by_ring.items():
        for stay in some[1:]:
            if stay.installed.members != some[0].installed.members:
                other = f"{some[0].installed.members} at node {some[0].life.node_id}"
                yield Violation(
                    "M2", stay.life.node_id, ring, 0, f"{stay.installed.members}, but {other}"
                )


def _by_node(h: History) -> dict[int, list[Stay]]:
    found: dict[int, list[Stay]] = defaultdict(list)
    for stay in h.stays:
        found[stay.life.node_id].append(stay)
    return found


def m3(h: History) -> Iterator[Violation]:
    """Ring sequence numbers strictly increase at a node, across restarts too."""
    for some in _by_node(h).values():
        for before, after in pairwise(some):
            if after.ring.seq <= before.ring.seq:
                yield _at("M3", after, f"after ring {before.ring.seq}")


def m4(h: History) -> Iterator[Violation]:
    """No node installs the same regular configuration twice."""
    for some in _by_node(h).values():
        seen: set[RingId] = set()
        for stay in some:
            if stay.ring in seen:
                yield _at("M4", stay, "installed twice")
            seen.add(stay.ring)


def m5(h: History) -> Iterator[Violation]:
    """Configurations alternate; the transitional one lies between its two neighbours."""
    for life in h.lives:
        configurations = _configurations(life)
        for k, c in enumerate(configurations):
            regular = c.kind is REGULAR
            if regular != (k % 2 == 0):
                yield Violation("M5", life.node_id, c.ring, 0, "does not alternate")
            elif not regular:
                before = configurations[k - 1]
                after = configurations[k + 1] if k + 1 < len(configurations) else None
                known = set(before.members)
                if after is not None:
                    known &= set(after.members)
                    if after.ring != c.ring:
                        yield Violation("M5", life.node_id, c.ring, 0, f"leads to {after.ring}")
                if c.old_ring != before.ring or not set(c.members) <= known:
                    yield Violation(
                        "M5", life.node_id, c.ring, 0, f"{c.members} does not fit its neighbours"
                    )


def m6(h: History) -> Iterator[Violation]:
    """Who goes together agrees on who goes together."""
    came_from = {
        (stay.ring, stay.life.node_id): stay.previous.ring if stay.previous else None
        for stay in h.stays
    }
    for (old, new), some in h.steps().items():
        sets = {stay.change.members if stay.change else () for stay in some}
        for stay in some:
            members = stay.change.members if stay.change else ()
            if len(sets) > 1 or stay.life.node_id not in members:
                yield _at("M6", stay, f"transitional sets of the step to {new}: {sorted(sets)}")
            for q in members:
                if came_from.get((new, q), old) != old:
                    yield _at("M6", stay, f"node {q} came to {new} from {came_from[new, q]}")


def m7(h: History) -> Iterator[Violation]:
    """The notices list who left and who joined."""
    for stay in h.stays:
        change, following = stay.change, stay.following
        if change is None:
            continue
        left = tuple(n for n in stay.installed.members if n not in change.members)
        if change.left != left or change.joined:
            yield _at("M7", stay, f"left {change.left}, should be {left}")
        if following is not None:
            joined = tuple(n for n in following.members if n not in change.members)
            if following.joined != joined or following.left:
                yield _at("M7", stay, f"joined {following.joined}, should be {joined}")


# Delivery


def d1(h: History) -> Iterator[Violation]:
    """Integrity: what is delivered was originated so."""
    for stay in h.stays:
        for m in stay.got:
            node, sent = h.origins.get(m.ring, {}).get(m.seq, (0, None))
            if sent is None:
                yield _at("D1", stay, "nobody originated it", m.seq)
            elif (node, sent.payload, sent.guarantee) != (m.originator, m.payload, m.guarantee):
                yield _at("D1", stay, f"is not what node {node} originated", m.seq)


def d2(h: History) -> Iterator[Violation]:
    """At most once per incarnation; a position is given out once."""
    given: dict[tuple[RingId, int], int] = {}
    for stay in h.stays:
        for sent in stay.originated:
            other = given.setdefault((sent.ring, sent.seq), id(sent))
            if other != id(sent):
                yield _at("D2", stay, "originated twice", sent.seq)
    for life in h.lives:
        seen: set[tuple[RingId, int]] = set()
        for m in life.records:
            if isinstance(m, Got):
                if (m.ring, m.seq) in seen:
                    yield Violation("D2", life.node_id, m.ring, m.seq, "delivered twice")
                seen.add((m.ring, m.seq))


def d3(h: History) -> Iterator[Violation]:
    """A message is delivered in the configuration it was sent in."""
    for stay in h.stays:
        for part, transitional in ((stay.regular, False), (stay.transitional, True)):
            for m in part:
                if m.ring != stay.ring or m.transitional is not transitional:
                    yield _at("D3", stay, f"message of ring {m.ring}", m.seq)
        for sent in stay.originated:
            if sent.ring != stay.ring:
                yield _at("D3", stay, f"originated for ring {sent.ring}", sent.seq)


def d4(h: History) -> Iterator[Violation]:
    """Self-delivery: who goes on has delivered its own messages."""
    for stay in h.stays:
        if stay.following is not None:
            got = {m.seq for m in stay.got}
            for sent in stay.originated:
                if sent.seq not in got:
                    yield _at("D4", stay, "own message not delivered", sent.seq)


def d5(h: History) -> Iterator[Violation]:
    """Total order: positions increase."""
    for stay in h.stays:
        for before, after in pairwise(stay.got):
            if after.seq <= before.seq:
                yield _at("D5", stay, f"after {before.seq}", after.seq)


def d6(h: History) -> Iterator[Violation]:
    """No gap in the regular part."""
    for stay in h.stays:
        if stay.regular:
            last = stay.regular[-1].seq
            owed = h.count(stay.ring, last)
            if len(stay.regular) != owed:
                yield _at("D6", stay, f"{len(stay.regular)} of {owed} delivered", last)


def _content(messages: list[Got]) -> list[tuple[int, int, bytes]]:
    return [(m.seq, m.originator, m.payload) for m in messages]


def d7(h: History) -> Iterator[Violation]:
    """Virtual synchrony: who goes together delivered the same, in each part."""
    for (_, new), some in h.steps().items():
        first = some[0]
        for stay in some[1:]:
            for part, a, b in (
                ("regular", first.regular, stay.regular),
                ("transitional", first.transitional, stay.transitional),
            ):
                if _content(a) != _content(b):
                    differ = sorted({m.seq for m in a} ^ {m.seq for m in b})[:5]
                    who = f"node {first.life.node_id} differs in the {part} part, to {new}"
                    yield _at("D7", stay, f"{who}: {differ}", differ[0] if differ else 0)


def d8(h: History) -> Iterator[Violation]:
    """Causality: before a message comes all that its sender had delivered, and sent."""
    own: dict[tuple[RingId, int], list[int]] = defaultdict(list)
    for ring, sent in h.origins.items():
        for seq in h.seqs[ring]:
            own[ring, sent[seq][0]].append(seq)
    for stay in h.stays:
        got = [m.seq for m in stay.got]
        sent_by: dict[int, int] = defaultdict(int)
        for m in stay.got:
            origin = h.origins.get(m.ring, {}).get(m.seq)
            if origin is None:
                continue
            d = origin[1].delivered
            if bisect_right(got, d) != h.count(stay.ring, d):
                yield _at("D8", stay, f"its sender had delivered up to {d}", m.seq)
            k = sent_by[m.originator]
            sent_by[m.originator] = k + 1
            if own[stay.ring, m.originator][k : k + 1] != [m.seq]:
                yield _at("D8", stay, f"not the next of node {m.originator}", m.seq)


def d9a(h: History) -> Iterator[Violation]:
    """Safe: who was in the configuration delivers it too, or installs nothing after."""
    for some in h.by_ring.values():
        has = {id(stay): {m.seq for m in stay.got} for stay in some}
        for stay in some:
            for m in stay.got:
                if m.guarantee != SAFE:
                    continue
                where = stay.change if m.transitional else stay.installed
                members = where.members if where is not None else ()
                for other in some:
                    lacks = other.following is not None and m.seq not in has[id(other)]
                    if lacks and other.life.node_id in members:
                        who = f"safe here, missing at node {other.life.node_id}"
                        yield _at("D9a", stay, who, m.seq)


def d9b(h: History) -> Iterator[Violation]:
    """Safe in the regular part: every member has installed the ring."""
    for ring, some in h.by_ring.items():
        installed = {stay.life.node_id for stay in some}
        missing = [n for n in some[0].installed.members if n not in installed]
        for stay in some if missing else ():
            for m in stay.regular:
                if m.guarantee == SAFE:
                    yield _at("D9b", stay, f"{missing} never installed {ring}", m.seq)


Axiom = Callable[[History], Iterator[Violation]]
AXIOMS: Final[dict[str, Axiom]] = {
    "M1": m1,
    "M2": m2,
    "M3": m3,
    "M4": m4,
    "M5": m5,
    "M6": m6,
    "M7": m7,
    "D1": d1,
    "D2": d2,
    "D3": d3,
    "D4": d4,
    "D5": d5,
    "D6": d6,
    "D7": d7,
    "D8": d8,
    "D9a": d9a,
    "D9b": d9b,
}


def violations(lives: Iterable[Life]) -> list[Violation]:
    """Apply every axiom."""
    history = History(lives)
    return [v for axiom in AXIOMS.values() for v in axiom(history)]
