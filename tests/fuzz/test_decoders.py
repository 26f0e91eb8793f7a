"""Every decoder on inputs that are almost right: the corpus, and some thousand seeded ones."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzzer
from tests.fuzz.targets import Target, named, shares, targets

SEED = 20_241
INPUTS = 20_000
TARGETS = targets(SEED)
COUNTS = shares(TARGETS, INPUTS)
NAMES = [target.name for target in TARGETS]


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    """Return each decoder in turn."""
    return named(TARGETS, request.param)


def test_the_corpus_breaks_no_decoder(target: Target) -> None:
    inputs = fuzzer.corpus(target.name)
    assert inputs, f"no corpus: ./run fuzz --keep --target {target.name}"
    for data in inputs:
        fuzzer.feed(target, data)


def test_what_is_almost_right_breaks_no_decoder(target: Target) -> None:
    found = fuzzer.run(target, SEED, COUNTS[target.name])
    assert len(found.outcomes) > 1, "an input that is refused, and one that is not"


def test_a_valid_sample_is_decoded_by_its_decoder(target: Target) -> None:
    outcomes = {fuzzer.feed(target, data)[0] for data in target.samples}
    assert not any("Error" in outcome or "refused" in outcome for outcome in outcomes), outcomes
