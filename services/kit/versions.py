"""Which version of each protocol a group speaks. Pure, equal on every replica.

A protocol has two integers: the newest version a member speaks and the oldest it understands. A
group speaks the lowest of its members' newest versions, fixed at positions of the total order: a
view that comes into force, or the offer of a process that took the seat of another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple


class Span(NamedTuple):
    """The versions of one protocol that a member can speak."""

    newest: int
    oldest: int

    def speaks(self, version: int) -> bool:
        """True: the member can speak this version."""
        return self.oldest <= version <= self.newest


class Offer(NamedTuple):
    """What one member can speak."""

    replicas: Span  # between replicas: `entries`
    service: Span  # the service's own: its table


class Spoken(NamedTuple):
    """What a group speaks."""

    replicas: int
    service: int


NOTHING_AGREED = Spoken(0, 0)


class Agreement(NamedTuple):
    """The outcome for one protocol."""

    version: int
    left_out: tuple[int, ...]  # who cannot speak it, sorted


def agree(spans: Mapping[int, Span], incumbents: Collection[int] = ()) -> Agreement:
    """Choose the version of one protocol.

    Those who hold the state stay if they agree among themselves; then the version that most
    members can speak wins, then the newest. The version is the lowest of the newest versions of
    all that can speak it.
    """

    def merit(candidate: int) -> tuple[int, int, int]:
        speakers = [n for n, span in spans.items() if span.speaks(candidate)]
        return len(set(incumbents) & set(speakers)), len(speakers), candidate

    best = max(sorted({span.newest for span in spans.values()}), key=merit)
    speakers = [n for n, span in spans.items() if span.speaks(best)]
    version = min(spans[n].newest for n in speakers)
    return Agreement(version, tuple(sorted(set(spans) - set(speakers))))


class Versions:
    """The offers of the members and what the group speaks; part of the replicated state."""

    def __init__(self) -> None:
        self.offers: dict[int, Offer] = {}
        self.spoken = NOTHING_AGREED

    def left_out(self, offers: Mapping[int, Offer], incumbents: Collection[int]) -> dict[int, str]:
        """Return who cannot take part in a view of these members, and why."""
        out: dict[int, str] = {}
        for k, protocol in enumerate(Offer._fields):
            spans = {n: offer[k] for n, offer in offers.items() if n not in out}
            agreed = agree(spans, incumbents)
            for node in agreed.left_out:
                out[node] = rule(protocol, spans[node], agreed.version)
        return out

    def install(self, members: Iterable[int], offers: Mapping[int, Offer]) -> Spoken:
        """Fix what the members of a view speak.

        Args:
            members: of the view; all can speak one version.
            offers: those that were announced; of other members the known ones stay.
        """
        known = self.offers | dict(offers)
        self.offers = {n: known[n] for n in sorted(members)}
        return self._fix()

    def offered(self, node: int, offer: Offer) -> Spoken:
        """Take the offer of a process that took the seat of another."""
        if node in self.offers:
            self.offers[node] = offer
        return self._fix()

    def _fix(self) -> Spoken:
        self.spoken = Spoken(
            min(offer.replicas.newest for offer in self.offers.values()),
            min(offer.service.newest for offer in self.offers.values()),
        )
        return self.spoken

    def values(self) -> list[Any]:
        """Return everything as plain values, canonical."""
        offers = [[n, *map(list, self.offers[n])] for n in sorted(self.offers)]
        return [offers, list(self.spoken)]

    def load(self, values: list[Any]) -> None:
        """Replace everything by what another replica had."""
        offers, spoken = values
        self.offers = {n: Offer(Span(*replicas), Span(*own)) for n, replicas, own in offers}
        self.spoken = Spoken(*spoken)


def unspeakable(offer: Offer, spoken: Spoken) -> str | None:
    """Return why a process cannot take part in what a group speaks; None: it can."""
    if spoken == NOTHING_AGREED:
        return None
    for protocol, span, version in zip(Offer._fields, offer, spoken, strict=True):
        if not span.speaks(version):
            return rule(protocol, span, version)
    return None


def rule(protocol: str, span: Span, version: int) -> str:
    """Say which versions do not meet."""
    return (
        f"the group speaks version {version} of the protocol of its {protocol}, "
        f"this process {span.oldest} to {span.newest}"
    )
