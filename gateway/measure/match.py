"""Which contract each span falls under, and which version of its model it ran.

Law: the first contract of the plan whose `match` holds counts the span as an inference; a match
attribute may stand on the span or on its resource. Other spans of a trace in which one matched
inherit its contract, not its series. Contracts with one match key cost one look-up together.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, Batch
from gateway.contract.plan import Plan
from gateway.measure.texts import ABSENT, Interner
from gateway.otlp.columns import resource_texts, scope_texts, span_texts
from gateway.otlp.kernel import Literals, factorize_ids
from gateway.tables import Int16, Int32

VERSION_KEY: Final = "edgeai.model.version"
SERVICE_VERSION_KEY: Final = "service.version"


@dataclass(frozen=True, slots=True)
class _Key:
    """One attribute key that contracts match on, and the values they want."""

    slot: int
    literals: Literals
    # Contract of each value for contracts that match on this key alone, one place for no value.
    single: Int16


class Matcher:
    """The `match` clauses of a plan."""

    def __init__(self, plan: Plan) -> None:
        wanted: dict[str, list[str]] = {}
        for contract in plan.contracts:
            for key, value in contract.match.items():
                values = wanted.setdefault(key, [])
                if value not in values:
                    values.append(value)
        self._keys = {
            key: _Key(
                slot=plan.slot_of[key],
                literals=Literals([value.encode() for value in values]),
                single=np.full(len(values) + 1, NO_CONTRACT, dtype=np.int16),
            )
            for key, values in wanted.items()
        }
        self._several: list[tuple[int, list[tuple[str, int]]]] = []
        for index, contract in enumerate(plan.contracts):
            terms = [(key, wanted[key].index(value)) for key, value in contract.match.items()]
            if len(terms) == 1:
                key, code = terms[0]
                self._keys[key].single[code] = index
            else:
                self._several.append((index, terms))

    def contracts(self, batch: Batch) -> Int16:
        """Find the contract that each span itself matches. Shape: (spans,); NO_CONTRACT if none."""
        found = np.full(len(batch.spans), NO_CONTRACT, dtype=np.int16)
        codes = {key: _codes(batch, each) for key, each in self._keys.items()}
        for index, terms in self._several:
            held = found == NO_CONTRACT
            for key, code in terms:
                held &= codes[key] == code
            found[held] = index
        for key, each in self._keys.items():
            # Code -1 reads the last place, which is NO_CONTRACT.
            alone = each.single[codes[key]]
            if not self._several and len(self._keys) == 1:
                return alone
            better = (alone != NO_CONTRACT) & ((found == NO_CONTRACT) | (alone < found))
            found = np.where(better, alone, found)
        return found


def _codes(batch: Batch, key: _Key) -> Int32:
    offset, length, present = resource_texts(batch, key.slot)
    far = key.literals.codes(batch.arena, offset, length)
    far[~present] = -1
    codes: Int32 = far[batch.spans["resource"]]
    if np.count_nonzero(batch.scope_slots[key.slot] >= 0):
        offset, length, present = scope_texts(batch, key.slot)
        middle = key.literals.codes(batch.arena, offset, length)
        middle[~present] = -1
        of_span = middle[batch.spans["scope"]]
        codes = np.where(of_span >= 0, of_span, codes)
    if np.count_nonzero(batch.slots[key.slot] >= 0):
        offset, length, present = span_texts(batch, key.slot)
        near = key.literals.codes(batch.arena, offset, length)
        codes = np.where(present & (near >= 0), near, codes)
    return codes


def inherit(batch: Batch, matched: Int16) -> Int16:
    """Give spans without a contract that of the first matching span of their trace."""
    rows = (matched != NO_CONTRACT).nonzero()[0]
    if len(rows) in (0, len(matched)):
        return matched
    codes, first = factorize_ids(batch.spans["trace_hi"], batch.spans["trace_lo"])
    of_trace = np.full(len(first), NO_CONTRACT, dtype=np.int16)
    # Assigned backwards, so that the first one of a trace stays.
    of_trace[codes[rows[::-1]]] = matched[rows[::-1]]
    return np.where(matched == NO_CONTRACT, of_trace[codes], matched)


def versions(batch: Batch, plan: Plan, known: Interner) -> Int32:
    """Find the version index of each span: the model's, else the service's, else ABSENT."""
    slot = plan.slot_of[VERSION_KEY]
    offset, length, present = resource_texts(batch, slot)
    far = known.indices(batch.arena, offset, length, present)
    if np.count_nonzero(far == ABSENT):
        service = plan.slot_of[SERVICE_VERSION_KEY]
        offset, length, present = resource_texts(batch, service)
        present &= far == ABSENT
        if np.count_nonzero(present):
            far = np.where(present, known.indices(batch.arena, offset, length, present), far)
    found: Int32 = far[batch.spans["resource"]]
    if np.count_nonzero(batch.slots[slot] >= 0):
        offset, length, near_present = span_texts(batch, slot)
        near = known.indices(batch.arena, offset, length, near_present)
        found = np.where(near == ABSENT, found, near)
    return found
