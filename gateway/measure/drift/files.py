"""Baselines as a file: what was counted, for which model and versions, sealed by its sha256.

Law: reading what was written gives the same baselines, and no other text is read: one byte that
differs in a value, a grid of another version, counts that do not add up, each is refused by name.
The seal is over the canonical JSON of everything else in the file, and is the file's id. Files of
every format so far are read, the newest is written. Pure.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import numpy as np
from pydantic import ValidationError

from gateway.config.marks import Place, finding_at
from gateway.config.rules import FindingRule
from gateway.contract.plan import Plan
from gateway.contract.schema import BaselineFile, Contract, Season, SignalType
from gateway.errors import Finding, InvalidConfigError
from gateway.measure.drift.baseline import Baseline, block_noise, thawed
from gateway.measure.drift.conditional import conditionals
from gateway.measure.drift.forms import (
    FORMAT,
    FORMS,
    LaterReferenceForm,
    ReferenceForm,
    faults_of,
    grid_of,
    name_of,
)
from gateway.measure.drift.grid import GRIDS_VERSION, Grid, GridKind
from gateway.measure.drift.lanes import measured
from gateway.measure.state import Int64
from gateway.tables import UInt32

FAULTS_SHOWN_MAX: Final = 8
SEAL: Final = "sha256"
AGAIN: Final = "build it again with `weir baseline build`"

# By model, version and signal.
Given = Mapping[tuple[str, str, str], Baseline]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How many predictions of each confidence were labelled, and right. Shape: (grid width,)."""

    labelled: Int64
    correct: Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The baseline of one signal of one version, and where it comes from.

    Shape: blocks (blocks, grid width), in the order of time. Units: window_ns Unix nanoseconds of
    the first and the last event, None where the source had no times. `calibration` is there for a
    confidence whose source told what was right.
    """

    version: str
    signal: str
    type: SignalType
    window_ns: tuple[int, int] | None
    blocks: Int64
    baseline: Baseline
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What a file holds. `creator` is the tool that wrote it, with its version."""

    model: str
    creator: str
    items: tuple[Reference, ...]


def write(references: References) -> str:
    """Write a file: a line for each reference."""
    items = [_written(each) for each in references.items]
    content = {
        "baseline": FORMAT,
        "creator": references.creator,
        "model": references.model,
        "references": items,
    }
    lines = ",\n  ".join(_canonical(each) for each in items)
    head = ", ".join(f'"{key}": {_canonical(content[key])}' for key in ("baseline", "creator"))
    return (
        f'{{{head}, "model": {_canonical(references.model)}, "{SEAL}": "{_seal(content)}",\n'
        f' "references": [\n  {lines}\n]}}\n'
    )


def _written(reference: Reference) -> dict[str, Any]:
    baseline = reference.baseline
    grid = baseline.grid
    hours, calibration = baseline.hours, reference.calibration
    return {
        "version": reference.version,
        "signal": reference.signal,
        "type": reference.type.value,
        "grid": {
            "version": GRIDS_VERSION,
            "kind": grid.kind.value,
            "low": float(grid.low),
            "high": float(grid.high),
            "values": list(grid.values),
        },
        "window_ns": None if reference.window_ns is None else list(reference.window_ns),
        "events": baseline.events,
        "phi": float(baseline.phi),
        "counts": baseline.counts.tolist(),
        "blocks": reference.blocks.tolist(),
        "digest": baseline.digest,
        "noise": float(baseline.noise),
        "hours": None if hours is None else [hour.tolist() if hour.any() else [] for hour in hours],
        "calibration": None
        if calibration is None
        else {
            "labelled": calibration.labelled.tolist(),
            "correct": calibration.correct.tolist(),
        },
    }


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _seal(content: Mapping[str, Any]) -> str:
    sealed = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(_canonical(sealed).encode()).hexdigest()


def read(content: bytes, file: str) -> References:
    """Read a file. Raises: InvalidConfigError with what to write instead."""
    data = _parsed(content, file)
    form_of = FORMS.get(number) if type(number := data.get("baseline")) is int else None
    if form_of is None:
        message = f"this is no baseline of format {FORMAT} or before: baseline is {number!r}"
        _refuse(file, [message], AGAIN)
    try:
        form = form_of.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        at = [".".join(ascii(step).strip("'") for step in each["loc"]) for each in faults]
        told = [f"{name}: {each['msg']}" for name, each in zip(at, faults, strict=True)]
        _refuse(file, told, AGAIN)
    if form.sha256 != _seal(data):
        message = f"{SEAL} is not that of the content: the file was changed after it was built"
        _refuse(file, [message], AGAIN)
    faults_found = [fault for each in form.references for fault in faults_of(each)]
    names = Counter(name_of(each) for each in form.references)
    faults_found += [f"{name} stands there more than once" for name in names if names[name] > 1]
    if faults_found:
        _refuse(file, faults_found, AGAIN)
    items = tuple(_reference(each) for each in form.references)
    for given, made in zip(form.references, items, strict=True):
        hours, counts = made.baseline.hours, made.baseline.counts
        if hours is not None and not np.array_equal(
            hours.sum(axis=0, dtype=np.int64),
            made.baseline.coarse(counts)[: made.baseline.bins],
        ):
            _refuse(file, [f"{name_of(given)}: hours do not add up to counts"], AGAIN)
        if given.digest != made.baseline.digest:
            _refuse(file, [f"{name_of(given)}: digest is not that of its counts"], AGAIN)
    return References(model=form.model, creator=form.creator, items=items)


def _parsed(content: bytes, file: str) -> dict[str, Any]:
    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is no count and no number of a baseline")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in found}) < len(found):
            raise ValueError("a key stands twice in one object")
        return dict(found)

    try:
        data = json.loads(content, parse_constant=constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        _refuse(file, [f"it cannot be read as JSON: {error}"], AGAIN)
    if not isinstance(data, dict):
        _refuse(file, ["it holds no JSON object"], AGAIN)
    return data


def _reference(form: ReferenceForm) -> Reference:
    counts, window = np.array(form.counts, dtype=np.int64), form.window_ns
    blocks = np.array(form.blocks, dtype=np.int64)
    hours: UInt32 | None = None
    noise, calibration = None, None
    if isinstance(form, LaterReferenceForm):
        noise = form.noise
        if form.hours is not None:
            bins = max(map(len, form.hours))
            hours = np.array([each or [0] * bins for each in form.hours], dtype=np.uint32)
        if form.calibration is not None:
            calibration = Calibration(
                labelled=np.array(form.calibration.labelled, dtype=np.int64),
                correct=np.array(form.calibration.correct, dtype=np.int64),
            )
    baseline = thawed(grid_of(form.grid), counts, form.phi, hours=hours)
    return Reference(
        version=form.version,
        signal=form.signal,
        type=SignalType(form.type),
        window_ns=None if window is None else (window[0], window[1]),
        blocks=blocks,
        # A file of the first format does not tell its noise, but its blocks do.
        baseline=replace(
            baseline, noise=block_noise(baseline, list(blocks)) if noise is None else noise
        ),
        calibration=calibration,
    )


def _refuse(file: str, messages: Sequence[str], advice: str) -> NoReturn:
    shown = list(messages[:FAULTS_SHOWN_MAX])
    if len(messages) > len(shown):
        shown[-1] += f"; and {len(messages) - len(shown)} more"
    place = Place(file=file)
    raise InvalidConfigError(
        [finding_at(place, FindingRule.BASELINE, each, advice) for each in shown]
    )


def misfits(references: References, contract: Contract, file: str) -> list[Finding]:
    """List what of a file does not fit its contract: model, signals, types, grids."""

    def refused(message: str, advice: str) -> Finding:
        return finding_at(Place(file=file), FindingRule.BASELINE, message, advice)

    if references.model != contract.model:
        message = f"it is a baseline of {references.model!r}, not of {contract.model!r}"
        return [refused(message, f"name a baseline that was built for {contract.model}")]
    known = {signal.name: (signal, grid) for signal, grid in measured(contract)}
    known |= {each.name: (each.score, each.grid) for each in conditionals(contract)}
    found: list[Finding] = []
    for each in references.items:
        what = f"{each.signal} of {each.version}"
        if each.signal not in known:
            message = f"{what}: {contract.source} has no such signal that is measured"
            has = ", ".join(known) or "none"
            found.append(refused(message, f"it has {has}; {AGAIN}"))
            continue
        signal, grid = known[each.signal]
        if each.type is not signal.type:
            message = f"{what} was {each.type.value} and is {signal.type.value} in the contract"
            found.append(refused(message, AGAIN))
        elif each.baseline.grid != grid:
            found.append(refused(f"{what}: {_difference(each.baseline.grid, grid)}", AGAIN))
        elif contract.drift.season is Season.HOUR_OF_WEEK and each.baseline.hours is None:
            message = f"{what} has no hours of the week, which drift.season asks for"
            found.append(refused(message, f"{AGAIN} and --time, from a whole week or more"))
    return found


def _difference(was: Grid, wanted: Grid) -> str:
    """Say for a person how two grids differ."""
    if was.kind is not wanted.kind:
        return f"it was counted on a {was.kind.value} grid, the contract's is {wanted.kind.value}"
    if wanted.kind is not GridKind.CLASSES:
        return (
            f"its range was {was.low:g} to {was.high:g}, "
            f"the contract's is {wanted.low:g} to {wanted.high:g}"
        )
    gone = sorted({*was.values} - {*wanted.values})
    new = sorted({*wanted.values} - {*was.values})
    parts = [
        f"{what} {', '.join(map(repr, names[:4]))}{' and more' if len(names) > 4 else ''}"
        for what, names in (("the contract lacks", gone), ("the baseline lacks", new))
        if names
    ]
    return "its values differ: " + ("; ".join(parts) or "they stand in another order")


def faults(contracts: Iterable[Contract]) -> list[Finding]:
    """List everything for which the baseline files of contracts are refused."""
    found: list[Finding] = []
    for contract in contracts:
        file = contract.drift.baseline
        if isinstance(file, BaselineFile):
            try:
                found += misfits(read(file.content, str(file.path)), contract, str(file.path))
            except InvalidConfigError as error:
                found += error.findings
    return found


def given(plan: Plan) -> Given:
    """Read the baselines that the contracts of a plan name. Raises: InvalidConfigError."""
    refused = faults(plan.contracts)
    if refused:
        raise InvalidConfigError(refused)
    return {key: each.baseline for key, each in _references(plan)}


def calibrations(plan: Plan) -> Mapping[tuple[str, str, str], Calibration]:
    """Read which confidence was right by the baseline files of a plan that passed `given`."""
    found = ((key, each.calibration) for key, each in _references(plan))
    return {key: each for key, each in found if each is not None}


def _references(plan: Plan) -> Iterator[tuple[tuple[str, str, str], Reference]]:
    for contract in plan.contracts:
        file = contract.drift.baseline
        if isinstance(file, BaselineFile):
            for each in read(file.content, str(file.path)).items:
                yield (contract.model, each.version, each.signal), each
