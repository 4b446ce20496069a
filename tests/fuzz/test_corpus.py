"""Every seed of the guided runs, and mutations of it, keep the invariants in the ordinary build.

What libFuzzer does for hours with instrumented extensions, this does for seconds without clang:
it is deterministic for a seed, and compares every input with the slow oracles.
"""

import random
from typing import Any

import pytest

from gateway.errors import MalformedPayloadError
from gateway.otlp import wire
from tests.fuzz import targets
from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.test_kernel_bytes import edit
from tests.fuzz.test_wire_bytes import edit_text

CORPUS_BYTES_MAX = 200 * 1024
INPUT_BYTES_MAX = 4 * 1024  # what tools/fuzz.sh lets libFuzzer make
RUNS = {"scan": 2_000, "screen": 4_000, "transcode": 4_000, "inflate": 8_000}


def corpus(target: str) -> dict[str, bytes]:
    """Read the seeds of a target by name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}


def run(target: targets.Target, content: bytes) -> None:
    """Give a target one input, as the driver does; an input of no byte has no options."""
    if content:
        target.run(content[0], content[1:])


def cross(rng: random.Random, one: bytes, other: bytes) -> bytes:
    """Put the start of one input before the end of another."""
    cut = rng.randrange(len(one) + 1)
    return (one[:cut] + other[rng.randrange(len(other) + 1) :])[:INPUT_BYTES_MAX]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_mutations_keep_the_invariants(name: str, seed: int) -> None:
    rng = random.Random(seed)
    target = TARGETS[name](1)
    found = corpus(name)
    contents = list(found.values())
    for content in contents:
        run(target, content)
    mutate = edit_text if name == "transcode" else edit
    for _ in range(RUNS[name]):
        content = rng.choice(contents)
        if rng.random() < 0.2:
            content = cross(rng, content, rng.choice(contents))
        options = rng.randrange(256) if rng.random() < 0.2 else content[0] if content else 0
        content = bytes((options,)) + mutate(rng, content[1:])
        try:
            run(target, content)
        except AssertionError as error:
            raise AssertionError(f"{name} {content.hex()}: {error}") from error


def test_the_corpus_is_small_and_holds_every_seed() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    found = {name: corpus(name) for name in TARGETS}
    assert sum(len(content) for each in found.values() for content in each.values()) < (
        CORPUS_BYTES_MAX
    )
    for target, each in found.items():
        assert 10 < len(each) < 100, target
        assert all(0 < len(content) <= INPUT_BYTES_MAX for content in each.values()), target
    for target, name, content in seeds():
        assert found[target].get(name) == content, (
            f"{target}/{name} differs; run: .venv/bin/python -m tests.fuzz.seeds"
        )


# --- a target that can be wrong finds what is wrong -----------------------------------------


class LeakyScanner:
    """A scanner that keeps the bytes of what it refuses."""

    def __init__(self, limits: Any) -> None:
        self.spans = 0
        self.bytes = 0
        self.rows = 0

    def scan(self, body: bytes, *_: Any) -> tuple[int, int, int, int]:
        """Refuse a body too late."""
        self.bytes += len(body)
        raise MalformedPayloadError("damaged", 0)


def test_bytes_of_a_refused_body_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_scanner", LeakyScanner)
    with pytest.raises(AssertionError, match="a refused body left bytes"):
        targets.Scan().run(0, b"\x0b")


def test_offset_outside_the_body_is_noticed() -> None:
    with pytest.raises(AssertionError):
        targets.check_refusal(MalformedPayloadError("damaged", 4), b"abc")


def test_screening_that_leaves_something_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def screen(_: Any, body: bytes, **__: Any) -> wire.Screened:
        return wire.Screened(body[:-1], 0, 1, "damaged")

    monkeypatch.setattr(wire, "screen", screen)
    with pytest.raises(AssertionError, match="a screened body is not clean"):
        targets.Screen().run(0, b"abc")


def test_transcoding_that_makes_no_protobuf_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "transcode", lambda *_, **__: (b"\x0b", 0))
    with pytest.raises(MalformedPayloadError):
        targets.Transcode().run(0, b"{}")


def test_inflating_that_depends_on_steps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = corpus("inflate")["gzip-plain"]
    monkeypatch.setattr(targets, "inflate", lambda *_: b"other")
    with pytest.raises(AssertionError, match="steps change what is found"):
        targets.Inflate(1).run(content[0] | 6, content[1:])
