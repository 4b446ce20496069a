"""Who can mend a failed inference, by the class of its error.

Law: the team is a function of the text of `error.type` alone: the first pattern of a closed list
that occurs in its words decides, and what nobody knows is for ml-engineering, who own the model.
A burn is labelled by the majority of the failures of the last hour.
Complexity: failed rows only; a text that was seen lately costs one look-up for each batch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, Batch, Team
from gateway.contract.plan import Plan
from gateway.measure.devices.minutes import Minutes
from gateway.measure.devices.minutes import merge as merge_minutes
from gateway.measure.state import Array, Int64, State
from gateway.otlp.columns import texts_at
from gateway.otlp.kernel import factorize
from gateway.tables import Bool

ERROR_KEY: Final = "error.type"
TEAMS: Final = tuple(Team)
HOUR_MINUTES: Final = 60
# Classes of errors are short; a longer text is read by its beginning.
TEXT_BYTES_MAX: Final = 256
# Texts whose team is remembered. Devices choose these texts: when it is full it starts anew.
KNOWN_MAX: Final = 4_096

# A text as words: "CUDA_ERROR_OUT_OF_MEMORY" and "OutOfMemoryError" have the same ones.
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# In this order: an allocation that fails within a model is a matter of memory all the same, while
# a wrong shape is the model's on whatever accelerator it is found.
PATTERNS: Final[tuple[tuple[Team, tuple[str, ...]], ...]] = (
    (
        Team.DEVICE_OPS,
        (
            # memory
            *("oom", "out of memory", "outofmemory", "memory error", "memory limit", "enomem"),
            *("bad alloc", "allocation failed", "cannot allocate"),
            # heat and power
            *("thermal", "overheat", "overheated", "temperature", "throttle", "throttled"),
            *("throttling", "power", "brownout", "undervoltage", "voltage", "battery"),
            # disks and files
            *("disk", "enospc", "no space", "io error", "eio", "erofs", "read only file"),
            *("file not found", "enoent", "file system", "filesystem", "storage"),
        ),
    ),
    (
        Team.ML_ENGINEERING,
        (
            # numbers and shapes
            *("nan", "na n", "inf", "infinite", "not finite", "shape", "dimension", "dtype"),
            # answers
            *("invalid output", "bad output", "label", "confidence", "calibration", "drift"),
            *("out of distribution", "prediction"),
            # what goes with a model
            *("preprocess", "postprocess", "tokenizer", "vocabulary", "weights", "checkpoint"),
            *("unsupported operator", "unsupported op", "schema"),
        ),
    ),
    (
        Team.DEVICE_OPS,
        (
            # accelerators and their drivers
            *("cuda", "cudnn", "cublas", "nvml", "tensor rt", "tensorrt", "trt", "rocm", "opencl"),
            *("hip error", "vulkan", "xid", "ecc", "gpu", "npu", "tpu", "dsp", "accelerator"),
            *("driver", "firmware", "delegate", "bus error", "no device", "device not found"),
            *("device lost", "device error", "device unavailable", "device timeout", "io timeout"),
            # sensors and other inputs of the device
            *("camera", "sensor", "usb", "frame grabber"),
            # networks
            *("network", "connection", "econnrefused", "econnreset", "etimedout", "dns", "socket"),
            *("unreachable", "tls", "certificate"),
            # processes
            *("sigkill", "sigsegv", "sigbus", "segfault", "segmentation fault", "evicted"),
        ),
    ),
)
_COMPILED: Final = tuple(
    (team, re.compile(r"\b(?:" + "|".join(map(re.escape, patterns)) + r")\b"))
    for team, patterns in PATTERNS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CausesView:
    """Failed inferences of one model since the beginning, by who can mend them."""

    model: str
    failed: Mapping[Team, int]


def team_for(error: str) -> Team:
    """Say who can mend an error of this class."""
    words = " ".join(_WORD.findall(error)).lower()
    for team, pattern in _COMPILED:
        if pattern.search(words):
            return team
    return Team.ML_ENGINEERING


class Causes:
    """Failed inferences by contract and team; those without a contract in the last row."""

    def __init__(self, plan: Plan) -> None:
        self._slot = plan.slot_of[ERROR_KEY]
        self._models = [contract.model for contract in plan.contracts]
        self._known: dict[bytes, int] = {}
        self._counts = Minutes([*self._models, ""], HOUR_MINUTES, len(TEAMS))

    def turn(self, judged_ns: int) -> None:
        """Move the hour to a judged time, before it is asked for a team."""
        self._counts.turn(judged_ns)

    def add(self, batch: Batch, contract: Array, failed: Bool, event_ns: Int64) -> None:
        """Count the failed inferences of a batch.

        Shape: all (spans,), contract NO_CONTRACT for spans that are no inference.
        """
        rows = (failed & (contract != NO_CONTRACT)).nonzero()[0]
        if len(rows):
            team = self._teams(batch, rows)
            self._counts.add(contract[rows].astype(np.int64), team, event_ns[rows])

    def _teams(self, batch: Batch, rows: Int64) -> Int64:
        """Find the team of each failed row, an index into TEAMS."""
        offset, length, _ = texts_at(batch.span_attributes, batch.slots[self._slot][rows])
        codes, first = factorize(batch.arena, offset, np.minimum(length, TEXT_BYTES_MAX))
        teams = [
            self._team(batch.text(begin, min(size, TEXT_BYTES_MAX)))
            for begin, size in zip(offset[first].tolist(), length[first].tolist(), strict=True)
        ]
        return np.array(teams, dtype=np.int64)[codes]

    def _team(self, text: bytes) -> int:
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = TEAMS.index(team_for(text.decode(errors="replace")))
            self._known[text] = known
        return known

    def team_of(self, contract: int) -> Team:
        """Say who can mend most of what failed in the last hour."""
        counts = dict(zip(TEAMS, self._counts.recent()[contract].tolist(), strict=True))
        is_device = counts[Team.DEVICE_OPS] > counts[Team.ML_ENGINEERING]
        return Team.DEVICE_OPS if is_device else Team.ML_ENGINEERING

    def views(self) -> tuple[CausesView, ...]:
        """Copy the counts of all models."""
        return tuple(
            CausesView(model=model, failed=dict(zip(TEAMS, row, strict=True)))
            for model, row in zip(self._models, self._counts.ever.tolist(), strict=False)
        )

    def state(self) -> State:
        """Copy all counts."""
        return self._counts.state()

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put the counts of models that still have a contract back."""
        self._counts.restore(state)


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by model."""
    return merge_minutes(first, second)
