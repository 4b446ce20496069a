"""The order in which a batch goes through the core: measure, decide, anonymize, encode.

Law: statistics are computed from every span before anything is sampled or removed. The same
function serves live batches and replay, so that replaying the journal gives the same result.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.anonymize import Anonymizer
from gateway.batch import (
    Anomaly,
    Batch,
    Clean,
    Findings,
    Parcel,
    Signal,
    Transport,
    Verdict,
)
from gateway.decide import Decide
from gateway.measure import Measure
from gateway.otlp.encode import Chunk, encode, encode_parts

log = logging.getLogger(__name__)

Int64 = NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class Stages:
    """The three rooms with state, in their order; all of one plan at any time.

    `lock` is held while the state of the measurements changes; a reader of snapshots takes it, and
    so does who needs two of the rooms to belong together.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    measure: Measure
    decide: Decide
    anonymize: Anonymizer

    def state(self) -> dict[str, NDArray[Any]]:
        """Copy everything that a restart needs, each name under that of its room.

        Under the lock: to copy, measure moves what is staged to where it is summed, and so does a
        snapshot; two at once would count events twice.
        """
        with self.lock:
            return {
                **{f"measure/{name}": array for name, array in self.measure.state().items()},
                **{f"decide/{name}": array for name, array in self.decide.state().items()},
            }

    def exchange(self, new: "Stages") -> None:
        """Go on with fresh stages of another plan; they take the counts over as in a restart."""
        with self.lock:
            new.measure.restore(self.measure.state())
            new.decide.restore(self.decide.state())
            self.measure, self.decide, self.anonymize = new.measure, new.decide, new.anonymize


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the spans of a batch. Units: counts of spans."""

    findings: Findings
    verdict: Verdict
    site: Clean
    chunks: list[Chunk]
    sampled_out: Mapping[str, int]
    kept: int


def note_shadows(stages: Stages) -> None:
    """Log the superseded baselines that alarm for the first time; they page nobody."""
    for model, signal, baseline in stages.measure.take_shadow_alarms():
        log.warning(
            "superseded baseline alarms in the shadow model=%s signal=%s baseline=%s",
            *(model, signal, baseline),
        )


def run(batch: Batch, stages: Stages) -> Outcome:
    """Take one batch through the core."""
    with stages.lock:
        findings = stages.measure.observe(batch)
    note_shadows(stages)
    verdict = stages.decide.judge(batch, findings)
    site = stages.anonymize.site(batch, findings.contract)
    export = stages.anonymize.export(batch, findings.contract, verdict)
    chunks = encode(export)
    leaving = _by_contract(findings, verdict, chunks, stages)
    stages.decide.spent(leaving, batch.arrival_ns)
    with stages.lock:
        stages.measure.spent(leaving, batch.arrival_ns)
    lost = verdict.reason[~verdict.keep]
    counts = np.bincount(lost, minlength=len(verdict.reasons))
    return Outcome(
        findings=findings,
        verdict=verdict,
        site=site,
        chunks=chunks,
        sampled_out={
            reason: int(count)
            for reason, count in zip(verdict.reasons, counts, strict=True)
            if count
        },
        kept=len(export.spans),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParcelOutcome:
    """What became of a parcel. Units: counts of items; `withheld` by rule."""

    anomalies: tuple[Anomaly, ...]
    signal: Signal
    chunks: list[Chunk]
    withheld: Mapping[str, int]
    kept: int


def run_parcel(parcel: Parcel, stages: Stages) -> ParcelOutcome:
    """Take metrics or logs through the core: what may leave is built anew, none of it is stored."""
    with stages.lock:
        anomalies = stages.measure.hear(parcel)
    found = stages.anonymize.parcel(parcel)
    chunks = encode_parts(found.parts)
    return ParcelOutcome(
        anomalies=anomalies,
        signal=parcel.signal,
        chunks=chunks,
        withheld=found.withheld,
        kept=sum(chunk.items for chunk in chunks),
    )


def _by_contract(
    findings: Findings, verdict: Verdict, chunks: list[Chunk], stages: Stages
) -> Int64:
    """Share the encoded bytes out by kept rows. Shape: (contracts + 1,), the default last."""
    places = stages.decide.contracts + 1
    kept = np.bincount(findings.contract[verdict.keep] % places, minlength=places)
    size = sum(len(chunk.body) for chunk in chunks)
    return (kept * size // max(1, int(kept.sum()))).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The steps of the core; each gives None when it set its input aside."""

    spans: Callable[[Batch], Outcome | None]
    parcel: Callable[[Parcel, int], ParcelOutcome | None]  # with the sequence of its batch


def span_items(batch: Batch) -> dict[tuple[Signal, str], int]:
    """Count the spans of a batch by the transport they came in on."""
    requests = batch.requests
    return {
        (Signal.TRACES, transport.name.lower()): int(
            requests["spans"][requests["transport"] == transport].sum()
        )
        for transport in Transport
    }


def parcel_items(parcel: Parcel) -> dict[tuple[Signal, str], int]:
    """Count the items of a parcel by its transport."""
    return {(parcel.signal, parcel.transport.name.lower()): parcel.items}


def batch_items(batch: Batch) -> Counter[tuple[Signal, str]]:
    """Count all items of a batch by the transport they came in on."""
    items = Counter(span_items(batch))
    for parcel in batch.parcels:
        items.update(parcel_items(parcel))
    return items
