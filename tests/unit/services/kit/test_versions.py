"""Which versions a group speaks, and who cannot take part."""

from __future__ import annotations

from openais.wire.codec import pack_state, unpack_state
from services.kit.versions import NOTHING_AGREED, Offer, Span, Versions, agree, unspeakable

OLD, BOTH, NEW = Span(1, 1), Span(2, 1), Span(2, 2)


def offer(service: Span, replicas: Span = OLD) -> Offer:
    return Offer(replicas, service)


def test_a_group_speaks_the_lowest_of_its_members_newest_versions() -> None:
    assert agree({1: BOTH, 2: OLD, 3: Span(3, 1)}) == (1, ())
    assert agree({1: BOTH, 3: Span(3, 1)}) == (2, ())


def test_who_does_not_understand_what_the_others_speak_is_left_out() -> None:
    assert agree({1: OLD, 2: BOTH, 3: NEW, 4: OLD}) == (1, (3,))
    assert agree({1: OLD, 2: BOTH, 3: NEW}) == (2, (1,)), "of equal numbers the newer version"


def test_those_who_hold_the_state_stay_though_newcomers_are_more() -> None:
    # Danger: three nodes of a new release must not throw out the one that remembers.
    assert agree({1: OLD, 2: NEW, 3: NEW, 4: NEW}, incumbents={1}) == (1, (2, 3, 4))


def test_a_group_goes_up_when_its_last_old_member_is_gone_and_down_when_one_comes() -> None:
    versions = Versions()
    versions.install((1, 2), {1: offer(BOTH), 2: offer(OLD)})
    assert versions.spoken.service == 1
    assert versions.install((1,), {}).service == 2
    assert versions.install((1, 3), {3: offer(OLD)}).service == 1


def test_a_process_that_takes_a_seat_over_changes_what_is_spoken() -> None:
    versions = Versions()
    versions.install((1, 2), {1: offer(OLD), 2: offer(BOTH)})
    assert versions.offered(1, offer(BOTH)).service == 2
    assert versions.offered(9, offer(OLD)).service == 2, "no member of the view"


def test_each_protocol_is_agreed_by_itself() -> None:
    versions = Versions()
    out = versions.left_out({1: offer(OLD, BOTH), 2: offer(BOTH, NEW), 3: offer(NEW, OLD)}, {1})
    assert sorted(out) == [3]
    assert out[3] == (
        "the group speaks version 2 of the protocol of its replicas, this process 1 to 1"
    )


def test_a_process_knows_whether_it_can_take_up_a_memory() -> None:
    versions = Versions()
    assert unspeakable(offer(NEW), NOTHING_AGREED) is None
    spoken = versions.install((1,), {1: offer(BOTH)})
    assert unspeakable(offer(BOTH), spoken) is None
    assert "version 2" in str(unspeakable(offer(OLD), spoken))


def test_what_is_agreed_survives_a_snapshot() -> None:
    versions = Versions()
    versions.install((1, 2), {1: offer(BOTH, BOTH), 2: offer(OLD)})
    again = Versions()
    again.load(unpack_state(pack_state(versions.values())))
    assert (again.offers, again.spoken) == (versions.offers, versions.spoken)
