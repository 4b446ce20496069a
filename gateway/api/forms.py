"""Bodies of what is declared over HTTP, checked as strictly as what is read from log records.

Law: a body that passes is one that `otlp.events` reads back whole; any other says what to write.
"""

from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from gateway.otlp import events, record
from gateway.otlp.declared import Scalar
from gateway.otlp.events import RolloutKind, RolloutOutcome

LABELS_MAX: Final = 10_000
OUTCOMES_MAX: Final = 10_000
DISMISSED_MAX: Final = 1_000


def _is_id(text: str) -> str:
    if record.ID_ALLOWED.fullmatch(text) is None:
        raise ValueError("write 1 to 128 letters, digits or ._:/+- and begin with no sign")
    return text


def _is_version(text: str) -> str:
    if record.VERSION_ALLOWED.fullmatch(text) is None:
        raise ValueError("write 1 to 64 letters, digits or ._+- and begin with no sign")
    return text


def _is_plain(text: str) -> str:
    if not record.is_plain(text):
        raise ValueError(f"write 1 to {record.TEXT_BYTES_MAX} bytes of printable characters")
    return text


def _is_scalar(value: Scalar) -> Scalar:
    if isinstance(value, str):
        return _is_plain(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("write a number of at most 64 bits")
    return value


def _is_trace(text: str) -> str:
    if record.TRACE_ID_ALLOWED.fullmatch(text) is None or not text.strip("0"):
        raise ValueError("write a trace id of 32 hexadecimal digits that are not all 0")
    return text.lower()


_Id = Annotated[str, AfterValidator(_is_id)]
_Version = Annotated[str, AfterValidator(_is_version)]
_Plain = Annotated[str, AfterValidator(_is_plain)]
_Trace = Annotated[str, AfterValidator(_is_trace)]
_Value = Annotated[StrictStr | StrictBool | StrictInt | StrictFloat, AfterValidator(_is_scalar)]


class Strict(BaseModel):
    """A body that has exactly its keys, each of its own type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RolloutBody(Strict):
    """A version begins to replace another, now."""

    id: _Id | None = Field(default=None, description="a new one is made when there is none")
    model: _Plain
    version: _Version = Field(description="the new one")
    previous: _Version | None = Field(
        default=None, description="the version that is replaced, the control; else any other one"
    )
    allocation: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="the part of the error budget that it may spend, as 0.25"
    )
    deadline_s: Annotated[int, Field(ge=1, le=events.DEADLINE_S_MAX)] | None = Field(
        default=None, description="devices that have not reported by then have failed"
    )
    devices: Annotated[int, Field(ge=1, le=events.DEVICES_MAX)] | None = Field(
        default=None, description="how many are planned"
    )
    kind: RolloutKind = RolloutKind.DEPLOY


class RolloutEndBody(Strict):
    """A rollout is over, now."""

    outcome: RolloutOutcome = RolloutOutcome.COMPLETED


class OutcomeBody(Strict):
    """What became of one device."""

    device: _Plain
    succeeded: StrictBool


class OutcomesBody(Strict):
    """What became of devices of a rollout."""

    devices: Annotated[list[OutcomeBody], Field(min_length=1, max_length=OUTCOMES_MAX)]


class LabelBody(Strict):
    """The truth about one trace."""

    trace_id: _Trace
    value: _Value = Field(description="text, number or boolean, as the model predicts it")
    model: _Plain | None = None


class LabelsBody(RootModel[list[LabelBody] | LabelBody]):
    """One label, or a list of them."""


class LabelList(RootModel[Annotated[list[LabelBody], Field(min_length=1, max_length=LABELS_MAX)]]):
    """One label or more, as the body is when it begins with a bracket."""


class DismissalBody(Strict):
    """Devices that were taken out of service."""

    devices: Annotated[list[_Plain], Field(min_length=1, max_length=DISMISSED_MAX)] = Field(
        description="names as the devices tell them, not the tokens that are shown"
    )
