"""Baseline files: what was written is read again, and nothing else is."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.schema import DriftRule, Role, Season, SignalType
from gateway.contract.schema import Signal as ContractSignal
from gateway.errors import InvalidConfigError
from gateway.measure.drift.baseline import block_noise, freeze
from gateway.measure.drift.files import Calibration, Reference, References, misfits, read, write
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.hours import empty_table, freeze_hours
from tests.unit.measure.build import VALUES, contract, signals

SCORE = Grid(kind=GridKind.LOGIT)
KINDS = {
    SignalType.DOUBLE: Grid(kind=GridKind.LOGIT, low=-1.5, high=3.25),
    SignalType.INT: Grid(kind=GridKind.LOG),
    SignalType.BOOL: Grid(kind=GridKind.CLASSES, values=("false", "true")),
    SignalType.ENUM: Grid(kind=GridKind.CLASSES, values=("größe", "a|b", 'quote"', "\u2028")),
}


def reference(
    type_: SignalType, grid: Grid, blocks: Any, version: str = "1.0", signal: str = "confidence"
) -> Reference:
    counts = np.sum(blocks, axis=0)
    return Reference(
        version=version,
        signal=signal,
        type=type_,
        window_ns=(1_000, 2_000),
        blocks=np.array(blocks),
        baseline=freeze(grid, counts, list(blocks)),
    )


def healthy(model: str = "damage-net") -> References:
    rng = np.random.default_rng(3)
    none = np.zeros(500, dtype=np.bool_)
    blocks = [
        np.bincount(bins_of_numbers(SCORE, rng.beta(8, 2, 500), none), minlength=SCORE.width)
        for _ in range(8)
    ]
    items = (reference(SignalType.DOUBLE, SCORE, blocks),)
    return References(model=model, creator="weir 0.1.0", items=items)


@given(
    st.data(),
    st.sampled_from(list(KINDS)),
    st.text(min_size=1, max_size=8),
    st.one_of(st.none(), st.tuples(st.integers(0, 1 << 62), st.integers(0, 1 << 62))),
)
def test_what_is_written_is_read(
    data: st.DataObject, type_: SignalType, model: str, window: tuple[int, int] | None
) -> None:
    grid = KINDS[type_]
    seed = data.draw(st.integers(0, 1 << 32))
    blocks = np.random.default_rng(seed).poisson(3, (data.draw(st.integers(4, 20)), grid.width))
    blocks[:, 0] += 1
    signal = data.draw(st.sampled_from(["size", "size|a|b", "size|größe zwei", "size|日本"]))
    made = reference(type_, grid, blocks, signal=signal)
    made = Reference(
        **{name: getattr(made, name) for name in made.__slots__} | {"window_ns": window}
    )
    text = write(References(model=model, creator="test", items=(made,)))
    found = read(text.encode(), "b.json")
    (item,) = found.items
    assert (found.model, item.version, item.signal, item.type) == (model, "1.0", made.signal, type_)
    assert item.window_ns == window
    assert np.array_equal(item.blocks, made.blocks)
    assert item.baseline.digest == made.baseline.digest
    assert item.baseline.phi == made.baseline.phi
    assert np.array_equal(item.baseline.shares, made.baseline.shares)
    assert write(found) == text


def hourly(seed: int = 3, events: int = 8_000) -> Reference:
    """A confidence with hours, of which some are empty, and with a calibration."""
    rng = np.random.default_rng(seed)
    table = empty_table(SCORE)
    bins = bins_of_numbers(SCORE, rng.beta(8, 2, events), np.zeros(events, dtype=np.bool_))
    np.add.at(table, (rng.integers(0, 100, events), rng.integers(0, 2, events), bins), 1)
    blocks = [np.bincount(each, minlength=SCORE.width) for each in np.split(bins, 8)]
    counts = np.sum(blocks, axis=0)
    labelled = rng.binomial(counts, 0.3)
    return Reference(
        version="1.0",
        signal="confidence",
        type=SignalType.DOUBLE,
        window_ns=(1_000, 2_000),
        blocks=np.array(blocks),
        baseline=freeze_hours(SCORE, table),
        calibration=Calibration(labelled=labelled, correct=rng.binomial(labelled, 0.8)),
    )


@given(st.integers(0, 1 << 32))
def test_hours_noise_and_calibration_are_read_as_they_were_written(seed: int) -> None:
    made = hourly(seed, 800)
    text = write(References(model="damage-net", creator="test", items=(made,)))
    (found,) = read(text.encode(), "b.json").items
    assert found.calibration is not None
    assert made.calibration is not None
    assert np.array_equal(found.calibration.labelled, made.calibration.labelled)
    assert np.array_equal(found.calibration.correct, made.calibration.correct)
    assert found.baseline.hours is not None
    assert made.baseline.hours is not None
    assert found.baseline.hours.dtype == np.uint32
    assert np.array_equal(found.baseline.hours, made.baseline.hours)
    assert found.baseline.noise == made.baseline.noise
    assert found.baseline.digest == made.baseline.digest
    assert write(References(model="damage-net", creator="test", items=(found,))) == text


# What the first format wrote; only ever added to.
FORMAT_1 = (
    '{"baseline": 1, "creator": "weir 0.1.0", "model": "damage-net", "sha256": '
    '"bda042a869960d254c25b8894a2fc7e090f409b0c42a569862bd54d22e44172f",\n "references": [\n  '
    '{"blocks":[[30,20,1,0],[28,22,0,0],[33,17,0,1],[29,21,0,0]],"counts":[120,80,1,1],"digest":'
    '"31037777c821ce947700984da730b9a89a09171d4b3adc461b43362799f05ebd","events":202,"grid":'
    '{"high":1.0,"kind":"classes","low":0.0,"values":["false","true"],"version":1},"phi":1.0,'
    '"signal":"flash","type":"bool","version":"1.0","window_ns":[1000,2000]}\n]}\n'
)


def test_a_file_of_the_first_format_is_read() -> None:
    (found,) = read(FORMAT_1.encode(), "b.json").items
    assert found.baseline.counts.tolist() == [120, 80, 1, 1]
    assert found.window_ns == (1_000, 2_000)
    assert (found.calibration, found.baseline.hours) == (None, None)
    assert found.baseline.noise == block_noise(found.baseline, list(found.blocks))
    with pytest.raises(InvalidConfigError, match="changed after it was built"):
        read(FORMAT_1.replace("[120,", "[121,").encode(), "b.json")


def sealed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file that was changed by somebody who knows how to seal it."""
    return resealed(healthy(), change)


def resealed(references: References, change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(write(references))
    change(data)
    data.pop("sha256", None)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    data["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(data).encode()


def in_item(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["references"][0].update({key: value})


def in_grid(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["references"][0]["grid"].update({key: value})


def twice(data: dict[str, Any]) -> None:
    data["references"] *= 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(baseline=3), "no baseline of format 2 or before"),
        (lambda data: data.update(baseline=True), "no baseline of format 2 or before"),
        (lambda data: data.update(baseline=1), "noise: Extra inputs"),
        (lambda data: data.pop("model"), "model: Field required"),
        (lambda data: data.update(extra=1), "extra: Extra inputs"),
        (lambda data: data.update(references=[]), "references: List should have at least 1"),
        (in_grid("version", 2), "grids of version 2, not 1"),
        (in_grid("kind", "sketch"), "grid.kind: Input should be 'logit'"),
        (in_grid("low", 1.0), "low is not below its high"),
        (in_item("type", "text"), "type: Input should be 'double'"),
        (lambda data: data["references"][0]["counts"].__setitem__(0, -1), "counts.0: Input"),
        (lambda data: data["references"][0]["counts"].__setitem__(0, 0.5), "counts.0: Input"),
        (lambda data: data["references"][0]["counts"].__setitem__(0, True), "counts.0: Input"),
        (lambda data: data["references"][0]["counts"].__setitem__(0, 1 << 53), "counts.0: Input"),
        (lambda data: data["references"][0]["counts"].__setitem__(3, 77), "do not add up"),
        (lambda data: data["references"][0]["counts"].append(0), "which has 130 bins"),
        (lambda data: data["references"][0]["blocks"].append([0] * 130), "a block has no events"),
        (in_item("blocks", []), "blocks: List should have at least 4"),
        (in_item("events", 5), "events is not the sum"),
        (in_item("phi", 0.5), "phi: Input should be greater than or equal to 1"),
        (in_item("phi", 1.5), "digest is not that of its counts"),
        (in_item("window_ns", [1]), "window_ns: List should have at least 2"),
        (in_item("version", "a\x1b[31m"), "version: String should match"),
        (in_item("signal", "\n"), "signal: String should match"),
        (in_item("signal", "confidence|a\u202eb"), "signal: String should match"),
        (in_item("signal", "größe"), "signal: String should match"),
        (lambda data: data.update({"\x1b[31m": 1}), "\\x1b[31m: Extra inputs"),
        (twice, "confidence of 1.0 stands there more than once"),
    ],
)
def test_what_does_not_fit_together_is_refused_even_when_sealed(change: Any, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        read(sealed(change), "b.json")
    assert said in str(caught.value)
    assert "weir baseline build" in str(caught.value)
    assert caught.value.findings[0].file == "b.json"


def in_hour(hour: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["references"][0]["hours"].__setitem__(hour, value)


def in_calibration(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["references"][0]["calibration"].update({key: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_item("noise", -0.1), "noise: Input should be greater"),
        (in_item("noise", "0"), "noise: Input should be a valid number"),
        (lambda data: data["references"][0].pop("noise"), "noise: Field required"),
        (lambda data: data["references"][0]["hours"].pop(), "hours: List should have at least"),
        (in_item("hours", [[]] * 168), "or all are empty"),
        (in_item("hours", None), "digest is not that of its counts"),
        (in_hour(0, [1, 2]), "an hour is not as long as its"),
        (in_hour(0, [0] * 25), "hours.0: List should have at most 24"),
        (in_hour(0, [1 << 32]), "hours.0.0: Input should be less"),
        (in_hour(0, []), "hours do not add up to counts"),
        (in_hour(167, [0] * 21), "is not written as an empty list"),
        (in_item("calibration", {}), "calibration.labelled: Field required"),
        (in_calibration("more", 1), "calibration.more: Extra inputs"),
        (in_calibration("correct", [0]), "calibration is not as long as the grid, which has 130"),
        (in_calibration("labelled", [0] * 130), "more correct than labelled"),
        (in_calibration("labelled", [8_001] * 130), "more labelled predictions than there are"),
    ],
)
def test_hours_and_calibrations_that_do_not_fit_are_refused(change: Any, said: str) -> None:
    references = References(model="damage-net", creator="t", items=(hourly(),))
    assert read(resealed(references, lambda _: None), "b.json").items
    with pytest.raises(InvalidConfigError) as caught:
        read(resealed(references, change), "b.json")
    assert said in str(caught.value)


def test_only_a_confidence_has_a_calibration() -> None:
    blocks = np.full((4, 4), 30)
    item = reference(SignalType.BOOL, KINDS[SignalType.BOOL], blocks, signal="flash")
    zeros = np.zeros(4, dtype=np.int64)
    item = replace(item, calibration=Calibration(labelled=zeros, correct=zeros))
    text = write(References(model="damage-net", creator="t", items=(item,)))
    with pytest.raises(InvalidConfigError, match="only a confidence has a calibration"):
        read(text.encode(), "b.json")


def test_a_season_asks_for_hours() -> None:
    wanted = contract(drift=DriftRule(season=Season.HOUR_OF_WEEK))
    (finding,) = misfits(healthy(), wanted, "b.json")
    assert finding.message == (
        "confidence of 1.0 has no hours of the week, which drift.season asks for"
    )
    assert "--time" in finding.instead
    seen = References(model="damage-net", creator="t", items=(hourly(),))
    assert misfits(seen, wanted, "b.json") == []
    # Hours do no harm where no season is asked for.
    assert misfits(seen, contract(), "b.json") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe{", "cannot be read as JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"baseline": NaN}', "NaN is no count"),
        (b'{"baseline": 1, "baseline": 1}', "a key stands twice"),
        (b'{"baseline": ' + b"9" * 5_000 + b"}", "cannot be read as JSON"),
    ],
)
def test_what_is_no_baseline_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        read(content, "b.json")
    assert said in str(caught.value)


def test_a_change_after_the_sealing_is_found() -> None:
    text = write(healthy())
    read(text.encode(), "b.json")
    with pytest.raises(InvalidConfigError, match="changed after it was built"):
        read(text.replace('"version":"1.0"', '"version":"1.1"').encode(), "b.json")


@given(st.data(), st.integers(0, 255))
def test_no_byte_can_be_changed_without_being_found(data: st.DataObject, byte: int) -> None:
    text = write(healthy()).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    changed_text = text[:at] + bytes([byte]) + text[at + 1 :]
    try:
        found = read(changed_text, "b.json")
    except InvalidConfigError:
        return
    # Only layout may differ.
    assert write(found).encode() == text


def test_a_file_of_many_faults_names_the_first_and_counts_the_others() -> None:
    content = sealed(in_item("counts", [-1] * 130))
    with pytest.raises(InvalidConfigError, match="and 122 more") as caught:
        read(content, "b.json")
    assert len(caught.value.findings) == 8


def changed(**fields: Any) -> Any:
    found = signals()
    old = found["confidence"]
    names = ("name", "attribute", "type", "role", "range", "values")
    kept = {name: getattr(old, name) for name in names}
    found["confidence"] = ContractSignal(**{**kept, **fields})
    return contract(signals=found)


def test_a_baseline_of_the_contract_fits() -> None:
    assert misfits(healthy(), contract(), "b.json") == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": SignalType.INT}, "was double and is int in the contract"),
        ({"range": (0.0, 100.0)}, "its range was 0 to 1, the contract's is 0 to 100"),
        ({"role": Role.FEATURE}, "counted on a logit grid, the contract's is linear"),
        ({"role": Role.IDENTIFIER}, "has no such signal that is measured"),
    ],
)
def test_a_signal_of_another_kind_is_refused(fields: dict[str, Any], said: str) -> None:
    (finding,) = misfits(healthy(), changed(**fields), "b.json")
    assert said in finding.message
    assert "weir baseline build" in finding.instead


def test_a_baseline_of_another_model_is_refused() -> None:
    (finding,) = misfits(healthy("triage-net"), contract(), "b.json")
    assert finding.message == "it is a baseline of 'triage-net', not of 'damage-net'"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("ok", "cracked", "wet"), "the baseline lacks 'torn'"),
        ((*VALUES, "burnt"), "the contract lacks 'burnt'"),
        (tuple(reversed(VALUES)), "they stand in another order"),
    ],
)
def test_values_that_differ_are_named(values: tuple[str, ...], said: str) -> None:
    grid = Grid(kind=GridKind.CLASSES, values=values)
    blocks = np.full((4, grid.width), 30)
    item = reference(SignalType.ENUM, grid, blocks, signal="class")
    found = misfits(
        References(model="damage-net", creator="t", items=(item,)), contract(), "b.json"
    )
    assert [said in each.message for each in found] == [True]
