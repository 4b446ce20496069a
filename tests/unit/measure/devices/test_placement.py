"""Where models run: versions and accelerators by device."""

import numpy as np
import pytest

from gateway.batch import NO_CONTRACT, Batch
from gateway.measure.devices import runs as runs_of_batches
from gateway.measure.devices.devices import Devices, merge
from gateway.measure.devices.placement import CPU
from gateway.measure.devices.runs import last_inferences
from gateway.measure.match import Matcher
from gateway.measure.settings import MeasureSettings
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
)

PLAN = plan(contract("a"), contract("b"))
MATCHER = Matcher(PLAN)


def some() -> Devices:
    return Devices(PLAN, MeasureSettings())


def observe(devices: Devices, one: Batch, version: str = "1") -> None:
    matched = MATCHER.contracts(one)
    runs = devices.find(one)
    series = np.where(matched == NO_CONTRACT, -1, int(version) - 1)
    devices.infer(one, runs, matched, series, (("", "1"), ("", "2"), ("", "3")))


def inference(
    device: str,
    model: str = "a",
    accelerator: str = "",
    *,
    at_s: int = 0,
    version: str = "1",
    far: bool = False,
    devices: Devices,
) -> None:
    own = {"edgeai.model.name": model}
    about = {"device.id": device}
    if accelerator:
        (about if far else own)["edgeai.accelerator.type"] = accelerator
    body = request([span(1, attributes=own)], about)
    observe(devices, batch(PLAN, payload(body, arrival_ns=START_NS + at_s * SECOND_NS)), version)


def placed(devices: Devices) -> dict[str, tuple[str, str, str]]:
    newest = devices.models.newest(len(devices))
    return {name: newest.of(at) for at, name in enumerate(devices.names) if newest.of(at)[0]}


def moves(devices: Devices) -> dict[tuple[str, str], int]:
    models = devices.models
    return {
        (devices.names[models.device[row]], PLAN.contracts[models.contract[row]].model): int(
            models.moved_ns[row] - START_NS
        )
        // SECOND_NS
        for row in np.flatnonzero(models.moved()).tolist()
    }


def test_the_newest_inference_says_what_a_device_runs() -> None:
    devices = some()
    inference("x", "a", "gpu", devices=devices)
    inference("y", "b", "npu", far=True, devices=devices)
    inference("x", "b", at_s=1, devices=devices)
    assert placed(devices) == {"x": ("b", "1", ""), "y": ("b", "1", "npu")}
    assert devices.last_inference_ns[devices.names.index("x")] == START_NS + SECOND_NS


@pytest.mark.parametrize("far", [False, True])
def test_a_move_is_noted_until_the_model_is_back(far: bool) -> None:
    devices = some()
    for at_s, accelerator in ((0, "gpu"), (5, "gpu"), (9, "cpu"), (12, "cpu"), (13, "")):
        inference("x", "a", accelerator, at_s=at_s, far=far, devices=devices)
    assert moves(devices) == {("x", "a"): 9}
    assert devices.models.accelerator.tolist() == [CPU]
    inference("x", "a", "npu", at_s=14, far=far, devices=devices)
    assert moves(devices) == {("x", "a"): 14}
    inference("x", "a", "gpu", at_s=15, far=far, devices=devices)
    assert moves(devices) == {}


def test_a_model_that_was_never_elsewhere_has_not_moved() -> None:
    devices = some()
    inference("x", "a", devices=devices)
    inference("x", "a", "cpu", at_s=1, devices=devices)
    inference("x", "b", "gpu", at_s=2, devices=devices)
    inference("y", "a", "gpu", at_s=3, devices=devices)
    assert moves(devices) == {}


def test_what_is_no_kind_of_accelerator_is_one_that_is_not_known() -> None:
    devices = some()
    inference("x", "a", "gpu of anna@example.com", devices=devices)
    assert placed(devices)["x"] == ("a", "1", "~other")


def test_devices_that_did_not_fit_have_no_rows() -> None:
    devices = Devices(PLAN, MeasureSettings(devices_max=1))
    for name in ("x", "y"):
        inference(name, "a", "gpu", devices=devices)
    assert placed(devices) == {"x": ("a", "1", "gpu")}


@pytest.mark.parametrize("places_max", [0, 1 << 20])
def test_the_last_inference_of_each_model_in_each_run_is_found(
    places_max: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_of_batches, "PLACES_MAX", places_max)
    rng = np.random.default_rng(seed)
    for case in range(30):
        bodies = [
            request([span(1 + each) for each in range(rng.integers(1, 6))], {"device.id": f"{at}"})
            for at in range(rng.integers(1, 6))
        ]
        one = batch(PLAN, *(payload(body) for body in bodies))
        runs = some().find(one)
        models = 1 if case % 3 == 0 else 5
        found = rng.integers(NO_CONTRACT if case % 2 else 0, models, len(one.spans))
        last: dict[tuple[int, int], int] = {}
        for row, (resource, model) in enumerate(
            zip(one.spans["resource"].tolist(), found.tolist(), strict=True)
        ):
            if model != NO_CONTRACT:
                last[(resource, model)] = row
        run, model_of, row_of = last_inferences(runs, found.astype(np.int16))
        keys = zip(runs.resource[run].tolist(), model_of.tolist(), strict=True)
        assert dict(zip(keys, row_of.tolist(), strict=True)) == last


def test_a_batch_that_speaks_twice_of_a_device_is_read_to_its_end() -> None:
    bodies = [
        request(
            [span(1, attributes={"edgeai.model.name": "a", "edgeai.accelerator.type": kind})],
            {"device.id": "x", "n": at},
        )
        for at, kind in enumerate(("gpu", "npu", "cpu"))
    ]
    devices = some()
    observe(devices, batch(PLAN, *(payload(body) for body in bodies)))
    assert placed(devices)["x"] == ("a", "1", "cpu")


def test_a_restart_changes_nothing() -> None:
    devices, other = some(), some()
    for at_s, (name, kind) in enumerate([("x", "gpu"), ("y", "npu"), ("x", "cpu")]):
        inference(name, "ab"[at_s % 2], kind, at_s=at_s, devices=devices)
    other.restore(devices.state())
    for each in (devices, other):
        inference("x", "a", "cpu", at_s=9, version="2", devices=each)
        inference("z", "b", "tpu", at_s=10, version="3", devices=each)
    one, two = devices.state(), other.state()
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_of_two_sites_the_newer_row_stays_in_any_order() -> None:
    one, two = some(), some()
    inference("x", "a", "gpu", at_s=1, devices=one)
    inference("x", "a", "cpu", at_s=5, devices=one)
    inference("y", "b", "npu", at_s=5, devices=one)
    inference("y", "b", "cpu", at_s=7, version="2", devices=two)
    inference("z", "a", "tpu", at_s=7, devices=two)
    for first, second in ((one, two), (two, one)):
        joined = some()
        joined.restore(merge(first.state(), second.state()))
        assert placed(joined) == {
            "x": ("a", "1", "cpu"),
            "y": ("b", "2", "cpu"),
            "z": ("a", "1", "tpu"),
        }
        assert moves(joined) == {("x", "a"): 5}


def test_rows_of_a_model_without_a_contract_are_left_out() -> None:
    devices = some()
    inference("x", "a", "gpu", devices=devices)
    inference("x", "b", "npu", at_s=1, devices=devices)
    other = Devices(plan(contract("b")), MeasureSettings())
    other.restore(devices.state())
    assert len(other.models) == 1
    assert placed(other) == {"x": ("b", "1", "npu")}
