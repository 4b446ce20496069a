"""The forms of baseline files, and what does not fit within one reference.

Law: strict: an unknown key, a number of another kind, a list that is too long are each an error. A
form is never changed; a new format is a form beside the ones before it. Format 2 adds the noise of
the reference, its hours of the week and its calibration.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from gateway.measure.drift.baseline import BLOCKS_MIN, COARSE_BINS_MAX, groups
from gateway.measure.drift.gather import BLOCKS_MAX
from gateway.measure.drift.grid import GRIDS_VERSION, Grid, GridKind
from gateway.measure.drift.seasonal import HOURS
from gateway.measure.series import VERSION_ALLOWED

FORMAT: Final = 2
REFERENCES_MAX: Final = 4096  # versions times signals
CLASSES_MAX: Final = 100_000
EVENTS_MAX: Final = 1 << 53
HOUR_EVENTS_MAX: Final = 1 << 32

Count = Annotated[int, Field(ge=0, lt=EVENTS_MAX)]
HourCount = Annotated[int, Field(ge=0, lt=HOUR_EVENTS_MAX)]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class GridForm(_Form):
    """The grid on which a reference was counted."""

    version: int
    kind: Literal["logit", "linear", "log", "classes"]
    low: float
    high: float
    values: list[str] = Field(max_length=CLASSES_MAX)


class ReferenceForm(_Form):
    """The baseline of one signal of one version, format 1."""

    # As spans may have them; an error shows both as they are.
    version: str = Field(pattern=f"^{VERSION_ALLOWED.pattern.decode()}$")
    # Behind a bar is a class, in the letters of its contract.
    signal: str = Field(max_length=1024, pattern=r"^[!-~]{1,256}(\|[^\pC\p{Zl}\p{Zp}]+)?$")
    type: Literal["double", "int", "bool", "enum"]
    grid: GridForm
    window_ns: list[int] | None = Field(min_length=2, max_length=2)
    events: Count
    phi: float = Field(ge=1)
    counts: list[Count]
    blocks: list[list[Count]] = Field(min_length=BLOCKS_MIN, max_length=BLOCKS_MAX)
    digest: str


class CalibrationForm(_Form):
    """Labelled and correct predictions by bin of the confidence's grid."""

    labelled: list[Count]
    correct: list[Count]


class LaterReferenceForm(ReferenceForm):
    """The baseline of one signal of one version, format 2.

    An hour holds the counts of all coarse bins, or nothing where it has no events.
    """

    noise: float = Field(ge=0)
    hours: list[Annotated[list[HourCount], Field(max_length=COARSE_BINS_MAX)]] | None = Field(
        min_length=HOURS, max_length=HOURS
    )
    calibration: CalibrationForm | None


class _FileForm(_Form):
    baseline: int
    model: str = Field(min_length=1)
    creator: str
    sha256: str


class FileForm(_FileForm):
    """A file of format 1."""

    references: list[ReferenceForm] = Field(min_length=1, max_length=REFERENCES_MAX)


class LaterFileForm(_FileForm):
    """A file of format 2."""

    references: list[LaterReferenceForm] = Field(min_length=1, max_length=REFERENCES_MAX)


FORMS: Final[Mapping[int, type[FileForm | LaterFileForm]]] = {1: FileForm, FORMAT: LaterFileForm}


def name_of(form: ReferenceForm) -> str:
    """Return how a reference is named in an error."""
    return f"{form.signal} of {form.version}"


def grid_of(form: GridForm) -> Grid:
    """Return the grid that a form describes."""
    kind = GridKind(form.kind)
    return Grid(kind=kind, low=form.low, high=form.high, values=tuple(form.values))


def faults_of(form: ReferenceForm) -> Iterable[str]:
    """List what does not fit within one reference."""
    name = name_of(form)
    if form.grid.version != GRIDS_VERSION:
        yield f"{name} was counted on grids of version {form.grid.version}, not {GRIDS_VERSION}"
        return
    if form.grid.kind != GridKind.CLASSES.value and not form.grid.low < form.grid.high:
        yield f"{name}: the grid's low is not below its high"
    width = grid_of(form.grid).width
    if any(len(each) != width for each in (form.counts, *form.blocks)):
        yield f"{name}: a list of counts is not as long as the grid, which has {width} bins"
        return
    if [sum(column) for column in zip(*form.blocks, strict=True)] != form.counts:
        yield f"{name}: blocks do not add up to counts"
    if form.events != sum(form.counts) or not form.events:
        yield f"{name}: events is not the sum of counts, or nothing was counted"
    if not all(sum(block) for block in form.blocks):
        yield f"{name}: a block has no events"
    if isinstance(form, LaterReferenceForm):
        yield from _later_faults(form, name)


def _later_faults(form: LaterReferenceForm, name: str) -> Iterable[str]:
    """List what does not fit of that which format 2 adds."""
    if form.hours is not None:
        bins = int(groups(grid_of(form.grid), np.array(form.counts, dtype=np.int64)).max()) + 1
        if any(each and len(each) != bins for each in form.hours) or not any(form.hours):
            yield f"{name}: an hour is not as long as its {bins} coarse bins, or all are empty"
        if any(each and not any(each) for each in form.hours):
            yield f"{name}: an hour without events is not written as an empty list"
    found = form.calibration
    if found is None:
        return
    if form.grid.kind != GridKind.LOGIT.value:
        yield f"{name}: only a confidence has a calibration"
    elif not len(found.labelled) == len(found.correct) == len(form.counts):
        yield f"{name}: its calibration is not as long as the grid, which has {len(form.counts)}"
    elif any(right > known for right, known in zip(found.correct, found.labelled, strict=True)):
        yield f"{name}: its calibration has more correct than labelled predictions"
    elif any(known > all_ for known, all_ in zip(found.labelled, form.counts, strict=True)):
        yield f"{name}: its calibration has more labelled predictions than there are"
