"""Baselines from files of predictions, for `weir baseline build`.

Law: what is written has passed its own check, and nothing is written otherwise. Rows are the order
of time; where a column of times is named, rows that go back in time are refused.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import typer

from gateway import __version__
from gateway.batch import Json
from gateway.contract.load import BASELINE_BYTES_MAX, load_contracts
from gateway.contract.schema import Contract, Role, Season, Signal
from gateway.errors import WeirError
from gateway.measure.drift.baseline import BLOCKS_MIN, baseline_id, freeze
from gateway.measure.drift.collect import alarms_by_itself
from gateway.measure.drift.conditional import Conditional, conditionals
from gateway.measure.drift.files import (
    Calibration,
    Reference,
    References,
    misfits,
    read,
    write,
)
from gateway.measure.drift.gather import BLOCK_EVENTS_FIRST, Gathering, HourGathering
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.hours import WEEK_NS, alarms_by_hour, freeze_hours
from gateway.measure.drift.lanes import measured
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.series import VERSION_ALLOWED
from gateway.measure.settings import MeasureSettings
from gateway.terminal import ask, predictions
from gateway.terminal.client import printable

# With fewer, neither overdispersion nor steadiness can be said.
EVENTS_MIN: Final = BLOCKS_MIN * BLOCK_EVENTS_FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was made of one signal.

    `needed` is from how many events on the ignorance of the baseline is at most half the tolerance.
    """

    reference: Reference
    needed: int
    calibrated: bool
    unsteady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Columns beside the signals: of times, of whether a prediction was right, or of the truth."""

    time: str | None = None
    correct: str | None = None
    label: str | None = None


def build(
    files: Sequence[Path],
    contract_file: Path,
    version: str,
    output: Path,
    *,
    asked: Asked,
    is_replaced: bool,
) -> Json:
    """Build, check and write the baselines of a model version, and tell what they are.

    Raises: WeirError, InvalidConfigError.
    """
    if VERSION_ALLOWED.fullmatch(version.encode()) is None:
        raise typer.BadParameter(
            "write 1 to 64 letters, digits or ._+- and begin with no sign",
            param_hint="--model-version",
        )
    (model, *others) = load_contracts([contract_file]) or (None,)
    if model is None or others:
        raise typer.BadParameter("name the contract of one model", param_hint="--contract")
    path = output if output.suffix == ".json" else output / f"{model.model}.json"
    kept = _kept(path, model, version, is_replaced=is_replaced)
    if model.drift.season is Season.HOUR_OF_WEEK and asked.time is None:
        raise typer.BadParameter(
            f"{printable(model.model)} has drift.season {model.drift.season.value}: name the "
            "column of times",
            param_hint="--time",
        )
    found = _gathered(files, model, asked.time, _maybe_truth(model, asked))
    built = _judged(model, version, found)
    unsteady = [each.reference.signal for each in built if each.unsteady]
    if unsteady:
        raise WeirError(
            f"nothing is written: the second half of the rows would alarm against the first, for "
            f"{', '.join(unsteady)}; build from a time in which nothing changed, and put the rows "
            "in the order of time"
        )
    items = (*kept, *(each.reference for each in built))
    references = References(model=model.model, creator=f"weir {__version__}", items=items)
    _write(path, write(references))
    return _told(path, model, version, found, built)


def _maybe_truth(contract: Contract, asked: Asked) -> predictions.Truth | None:
    """Return the column that tells what was right, None when none is asked for."""
    if asked.correct is not None and asked.label is not None:
        raise typer.BadParameter("name --correct or --label", param_hint="--label")
    if asked.correct is None and asked.label is None:
        return None
    signals = contract.signals.values()
    hint = "--correct" if asked.label is None else "--label"
    if not any(each.role is Role.CONFIDENCE for each in signals):
        raise typer.BadParameter(
            f"{contract.source} has no confidence, by which it would be counted", param_hint=hint
        )
    if asked.label is None:
        assert asked.correct is not None
        return predictions.Truth(column=asked.correct)
    wanted = None if contract.labels is None else contract.labels.signal
    predicted = [
        signal
        for signal, grid in measured(contract)
        if grid.kind is GridKind.CLASSES
        and (signal.name == wanted if wanted else signal.role is Role.PREDICTION)
    ]
    if len(predicted) != 1:
        raise typer.BadParameter(
            f"{contract.source} has {len(predicted)} predictions of classes that a label could be "
            "of; name one under labels, or use --correct",
            param_hint=hint,
        )
    return predictions.Truth(column=asked.label, predicted=predicted[0])


def _kept(
    path: Path, contract: Contract, version: str, *, is_replaced: bool
) -> tuple[Reference, ...]:
    """Read what a file has of other versions. Raises: WeirError, InvalidConfigError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise WeirError(f"{path} cannot be read: {error.strerror}") from error
    held = read(content, str(path))
    if held.model != contract.model:
        raise WeirError(f"{path} holds baselines of {printable(held.model)}; write another file")
    if not is_replaced and any(each.version == version for each in held.items):
        raise WeirError(f"{path} has a baseline of version {version}; --replace replaces it")
    others = tuple(each for each in held.items if each.version != version)
    if misfits(replace(held, items=others), contract, str(path)):
        raise WeirError(
            f"{path} has other versions that no longer fit the contract; write another file"
        )
    return others


@dataclass(slots=True, kw_only=True)
class _Gathered:
    """Blocks by signal, and of the confidence of each class; the window from which they are."""

    blocks: dict[str, Gathering]
    by_class: dict[str, Gathering]
    hours: dict[str, HourGathering]
    calibrations: dict[str, Calibration]
    window_ns: tuple[int, int] | None


def _gathered(
    files: Sequence[Path],
    contract: Contract,
    time: str | None,
    truth: predictions.Truth | None,
) -> _Gathered:
    """Count all files. Raises: WeirError."""
    wanted = measured(contract)
    if not wanted:
        raise WeirError(f"{contract.source} has no signal whose drift is measured")
    found = _Gathered(blocks={}, by_class={}, hours={}, calibrations={}, window_ns=None)
    is_seasonal = contract.drift.season is Season.HOUR_OF_WEEK
    with _bar(files) as follow:
        for number, path in enumerate(files):
            before = {name: each.events for name, each in found.blocks.items()}
            for chunk in predictions.read(path, wanted, time, follow(path), truth):
                _add(found, path, wanted, chunk, is_first=not number)
                _divide(found, conditionals(contract), chunk, is_seasonal=is_seasonal)
                _add_beside(found, wanted, chunk, is_seasonal=is_seasonal)
            unheard = [name for name in before if found.blocks[name].events == before[name]]
            if unheard:
                raise WeirError(
                    f"{path} has no rows with {', '.join(unheard)}, which the files before have"
                )
    if not found.blocks:
        names = ", ".join(f"{each.attribute} or {each.name}" for each, _ in wanted)
        raise WeirError(f"no file has rows with a column that is named as a signal: {names}")
    return found


def _add(
    found: _Gathered,
    path: Path,
    wanted: Sequence[tuple[Signal, Grid]],
    chunk: predictions.Chunk,
    *,
    is_first: bool,
) -> None:
    grids = {signal.name: grid for signal, grid in wanted}
    for name, bins in chunk.bins.items():
        if name not in found.blocks:
            if not is_first:
                raise WeirError(f"{path} has a column of {name}, which the files before lack")
            found.blocks[name] = Gathering(grids[name])
        found.blocks[name].add(bins)
    if chunk.times_ns is not None and chunk.rows:
        first, last = int(chunk.times_ns[0]), int(chunk.times_ns[-1])
        goes_back = bool((np.diff(chunk.times_ns) < 0).any())
        if goes_back or (found.window_ns is not None and first < found.window_ns[1]):
            raise WeirError(f"{path} goes back in time; sort the rows, and name files in order")
        found.window_ns = (first if found.window_ns is None else found.window_ns[0], last)


def _divide(
    found: _Gathered, wanted: Sequence[Conditional], chunk: predictions.Chunk, *, is_seasonal: bool
) -> None:
    """Count the confidence of each class, where a chunk has both columns."""
    for each in wanted:
        if each.score.name in chunk.bins and each.prediction.name in chunk.bins:
            of_class = chunk.bins[each.prediction.name] == each.code
            bins = chunk.bins[each.score.name][of_class]
            found.by_class.setdefault(each.name, Gathering(each.grid)).add(bins)
            if is_seasonal and chunk.times_ns is not None:
                hours = found.hours.setdefault(each.name, HourGathering(each.grid))
                hours.add(bins, chunk.times_ns[of_class])


def _add_beside(
    found: _Gathered,
    wanted: Sequence[tuple[Signal, Grid]],
    chunk: predictions.Chunk,
    *,
    is_seasonal: bool,
) -> None:
    """Count rows by the hour, and what was right by confidence."""
    for signal, grid in wanted:
        bins = chunk.bins.get(signal.name)
        if bins is None:
            continue
        if is_seasonal and chunk.times_ns is not None:
            hours = found.hours.setdefault(signal.name, HourGathering(grid))
            hours.add(bins, chunk.times_ns)
        if chunk.outcomes is not None and signal.role is Role.CONFIDENCE:
            before = found.calibrations.get(signal.name)
            labelled, correct = (
                np.bincount(bins[which], minlength=grid.width)
                for which in (
                    chunk.outcomes != predictions.UNLABELLED,
                    chunk.outcomes == predictions.RIGHT,
                )
            )
            found.calibrations[signal.name] = Calibration(
                labelled=labelled if before is None else before.labelled + labelled,
                correct=correct if before is None else before.correct + correct,
            )


def _judged(contract: Contract, version: str, found: _Gathered) -> list[Built]:
    """Freeze and judge what was counted. Raises: WeirError where there is too little."""
    built: list[Built] = []
    for name, gathering in found.blocks.items():
        grid, blocks = gathering.grid, gathering.blocks()
        counts = np.sum(np.array(blocks), axis=0) if blocks else np.zeros(grid.width, np.int64)
        if int(counts.sum()) < EVENTS_MIN:
            raise WeirError(
                f"{name} has {int(counts.sum())} rows; a baseline needs {EVENTS_MIN} at least"
            )
        if not counts[: grid.bins].any():
            raise WeirError(
                f"{name} has no value that the contract allows: {counts[grid.missing]} rows have "
                f"none, {counts[grid.odd]} one of another kind or range"
            )
        built.append(_built(contract, version, contract.signals[name], name, found, gathering))
    for each in conditionals(contract):
        part = found.by_class.get(each.name)
        if part is not None and part.events >= EVENTS_MIN:
            made = _built(contract, version, each.score, each.name, found, part)
            # One that is too small would never alarm, and what is learned on site does.
            built += [made] if made.calibrated else []
    return built


def _built(
    contract: Contract,
    version: str,
    signal: Signal,
    name: str,
    found: _Gathered,
    gathering: Gathering,
) -> Built:
    """Freeze and judge one stream; `signal` is what its events are values of."""
    rule = contract.drift
    log_bound = float(-np.log(rule.false_alarms_per_s * MeasureSettings().drift_tick_s))
    grid, blocks = gathering.grid, gathering.blocks()
    if name in found.hours:
        _refuse_less_than_a_week(name, found)
        table = found.hours[name].table
        made = freeze_hours(grid, table)
        unsteady = alarms_by_hour(grid, table, rule.tolerance, log_bound)
    else:
        made = freeze(grid, np.sum(np.array(blocks), axis=0), blocks)
        unsteady = alarms_by_itself(grid, blocks, rule.tolerance, log_bound)
    needed = int(np.ceil(made.events_needed(rule.tolerance)))
    reference = Reference(
        version=version,
        signal=name,
        type=signal.type,
        window_ns=found.window_ns,
        blocks=np.array(blocks),
        baseline=made,
        calibration=found.calibrations.get(name),
    )
    return Built(
        reference=reference, needed=needed, calibrated=made.events >= needed, unsteady=unsteady
    )


def _refuse_less_than_a_week(name: str, found: _Gathered) -> None:
    """Refuse rows that do not cover a week. Raises: WeirError."""
    assert found.window_ns is not None
    first, last = found.window_ns
    if last - first < WEEK_NS - HOUR_NS:
        raise WeirError(
            f"the rows of {name} cover {(last - first) / HOUR_NS:.1f} hours; drift.season "
            f"{Season.HOUR_OF_WEEK.value} needs a week, which has {HOURS}"
        )


def _told(
    path: Path, contract: Contract, version: str, found: _Gathered, built: Sequence[Built]
) -> Json:
    measured_names = [signal.name for signal, _ in measured(contract)]
    made = {each.reference.signal for each in built}
    signals = []
    for each in built:
        held = each.reference.baseline
        signals.append(
            {
                "signal": each.reference.signal,
                "id": baseline_id(contract.model, version, each.reference.signal, held.digest),
                "events": held.events,
                "events_needed": each.needed,
                "calibrated": each.calibrated,
                "bins": held.bins,
                "phi": held.phi,
                "missing": int(held.counts[held.grid.missing]),
                "odd": int(held.counts[held.grid.odd]),
                "hours": held.hours_seen,
                "labelled": 0
                if each.reference.calibration is None
                else int(each.reference.calibration.labelled.sum()),
            }
        )
    return {
        "file": str(path),
        "model": contract.model,
        "version": version,
        "tolerance": contract.drift.tolerance,
        "signals": signals,
        "learned_on_site": [name for name in measured_names if name not in made],
        "classes_learned_on_site": [name for name in found.by_class if name not in made],
    }


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises: WeirError."""
    body = text.encode()
    if len(body) > BASELINE_BYTES_MAX:
        raise WeirError(f"{path} would be larger than {BASELINE_BYTES_MAX >> 20} MiB")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(body)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise WeirError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def _bar(files: Sequence[Path]) -> Iterator["_Follows"]:
    """Draw how much of all files has been read."""
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in files}
    with ask.bar("bytes") as follow:
        yield _Follows(sizes, follow)


class _Follows:
    """Adds up what was read of several files."""

    def __init__(self, sizes: Mapping[Path, int], follow: ask.Follow) -> None:
        self._sizes = sizes
        self._follow = follow
        self._done = 0

    def __call__(self, path: Path) -> predictions.Follow:
        """Begin a file; the one before is done."""
        start, total = self._done, sum(self._sizes.values())
        self._done += self._sizes[path]
        return lambda done: self._follow(path.name, start + done, total)
