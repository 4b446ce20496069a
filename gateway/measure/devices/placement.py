"""Which model ran on which device last, in which version and on which accelerator.

Law: one row per (device, contract), looked at once per run of a batch: the run's last inference
speaks for it, and the newest arrival for the row. Rows are bounded by devices x contracts, both of
which have limits; a device that did not fit has no rows. When a model moves to another accelerator
the row keeps where it was before, until it is back there.

Complexity: a span costs at most one scattered write; all else is per run and model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.plan import CONTRACTS_MAX, Plan
from gateway.measure.devices.runs import Runs, last_inferences
from gateway.measure.state import Array, Int64, State, pack_json, union, unpack_json
from gateway.measure.texts import Interner
from gateway.otlp.columns import resource_texts, texts_at
from gateway.tables import Bool, Int32

ACCELERATOR_KEY: Final = "edgeai.accelerator.type"
# Kinds of accelerators, not names of products; more count as one that is not known.
ACCELERATORS_MAX: Final = 64
ACCELERATOR_ALLOWED: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
CPU: Final = 0  # index among the accelerators
NONE: Final = -1
OTHER_DEVICE: Final = 0
_COLUMNS: Final = ("last_ns", "version", "accelerator", "before", "moved_ns")
_FILL: Final[Mapping[str, int]] = {"accelerator": NONE, "before": NONE, "version": NONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """What the newest inference of each device ran.

    Shape: model, version and accelerator (devices,) are indices into the tuples, NONE without.
    """

    models: tuple[str, ...]
    versions: tuple[str, ...]
    accelerators: tuple[str, ...]
    model: Int64
    version: Int64
    accelerator: Int64

    def of(self, device: int) -> tuple[str, str, str]:
        """Name model, version and accelerator of a device, by empty texts where there is none."""
        model, version = int(self.model[device]), int(self.version[device])
        accelerator = int(self.accelerator[device])
        return (
            self.models[model] if model != NONE else "",
            self.versions[version] if version != NONE else "",
            self.accelerators[accelerator] if accelerator != NONE else "",
        )


class Placement:
    """Rows in order of `key`, device * CONTRACTS_MAX + contract. Shape: all (rows,).

    Units: last_ns is the arrival of the newest inference, moved_ns that of the first one on this
    accelerator, 0 where it was never on another; version, accelerator and before are indices.
    """

    def __init__(self, plan: Plan) -> None:
        self._slot = plan.slot_of[ACCELERATOR_KEY]
        self._models = tuple(contract.model for contract in plan.contracts)
        self._versions: dict[str, int] = {}
        # Version of each series; what is restored may number series in another way.
        self._of_series = np.zeros(0, dtype=np.int64)
        self._accelerators = Interner(ACCELERATORS_MAX, ACCELERATOR_ALLOWED)
        self._accelerators.index(b"cpu")
        self.key = np.zeros(0, dtype=np.int64)
        self.last_ns = np.zeros(0, dtype=np.int64)
        self.version = np.zeros(0, dtype=np.int64)
        self.accelerator = np.zeros(0, dtype=np.int64)
        self.before = np.zeros(0, dtype=np.int64)
        self.moved_ns = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.key)

    @property
    def device(self) -> Int64:
        """Device of each row."""
        return self.key // CONTRACTS_MAX

    @property
    def contract(self) -> Int64:
        """Contract of each row."""
        return self.key % CONTRACTS_MAX

    def add(
        self,
        batch: Batch,
        runs: Runs,
        contract: Array,
        series: Array,
        names: Sequence[tuple[str, str]],
    ) -> Int64:
        """Note the inferences of a batch; returns the runs that have any.

        Shape: contract and series (spans,), NO_CONTRACT for what is no inference.
        """
        run, of_contract, row = last_inferences(runs, contract)
        kept = runs.device[run] != OTHER_DEVICE
        if np.count_nonzero(kept):
            key = runs.device[run] * CONTRACTS_MAX + of_contract
            # Of the inferences of a key the last one of the batch counts, as requests stand in it
            # in the order in which they came.
            order = np.argsort(key, kind="stable")
            is_last = np.ones(len(order), dtype=np.bool_)
            is_last[:-1] = key[order[1:]] != key[order[:-1]]
            is_last &= kept[order]
            newest = order[is_last]
            run_of, row_of = run[newest], row[newest]
            self._note(
                key[newest],
                runs.arrival_ns[run_of],
                self._version_of(series[row_of], names),
                self._accelerator_of(batch, row_of, runs.resource[run_of]),
            )
        return run

    def _version_of(self, series: Array, names: Sequence[tuple[str, str]]) -> Int64:
        for _, version in names[len(self._of_series) :]:
            known = self._versions.setdefault(version, len(self._versions))
            self._of_series = np.append(self._of_series, known)
        return self._of_series[series]

    def _accelerator_of(self, batch: Batch, row: Int64, resource: Int32) -> Int64:
        """Find the accelerators of some spans, NONE where it is not told or not known."""
        found = np.full(len(row), NONE, dtype=np.int32)
        near = batch.slots[self._slot][row]
        if np.count_nonzero(near >= 0):
            texts = texts_at(batch.span_attributes, near)
            found = self._accelerators.indices(batch.arena, *texts)
        some = np.count_nonzero(batch.resource_slots[self._slot] >= 0)
        if some and np.count_nonzero(found < 0):
            texts = resource_texts(batch, self._slot)
            of_resource = self._accelerators.indices(batch.arena, *texts)[resource]
            found = np.where(found < 0, of_resource, found)
        return np.maximum(found, NONE).astype(np.int64)

    def _note(self, key: Int64, arrival_ns: Int64, version: Int64, accelerator: Int64) -> None:
        """Update rows. Shape: all (found,), key in order and each once."""
        row = self._rows(key)
        newer = arrival_ns >= self.last_ns[row]
        if np.count_nonzero(newer) < len(newer):
            row, arrival_ns = row[newer], arrival_ns[newer]
            version, accelerator = version[newer], accelerator[newer]
        self.last_ns[row] = arrival_ns
        self.version[row] = version
        now, before = self.accelerator[row], self.before[row]
        moves = (accelerator != NONE) & (accelerator != now)
        if not np.count_nonzero(moves):
            return
        is_back = moves & (accelerator == before)
        leaves = moves & ~is_back & (now != NONE)
        self.before[row] = np.where(is_back, NONE, np.where(leaves & (before == NONE), now, before))
        self.moved_ns[row] = np.where(is_back, 0, np.where(leaves, arrival_ns, self.moved_ns[row]))
        self.accelerator[row] = np.where(moves, accelerator, now)

    def _rows(self, key: Int64) -> Int64:
        """Find the rows of keys, new ones where there are none."""
        at = np.searchsorted(self.key, key)
        inside = np.minimum(at, max(len(self.key) - 1, 0))
        lost = np.ones(len(key), dtype=np.bool_)
        if len(self.key):
            lost = self.key[inside] != key
        if not np.count_nonzero(lost):
            return at
        for name in _COLUMNS:
            column = getattr(self, name)
            setattr(self, name, np.insert(column, at[lost], _FILL.get(name, 0)))
        self.key = np.insert(self.key, at[lost], key[lost])
        return np.searchsorted(self.key, key)

    @property
    def accelerators(self) -> tuple[str, ...]:
        """Names of the accelerators that are known."""
        return self._accelerators.names

    def accelerator_of(self, devices: Int64, contract: int) -> Int64:
        """Return where devices ran a contract's model last, NONE where that is not known."""
        key = devices * CONTRACTS_MAX + contract
        at = np.minimum(np.searchsorted(self.key, key), max(len(self.key) - 1, 0))
        if not len(self.key):
            return np.full(len(key), NONE, dtype=np.int64)
        found: Int64 = np.where(self.key[at] == key, self.accelerator[at], NONE)
        return found

    def moved(self) -> Bool:
        """Say which rows are not on the accelerator on which they were before."""
        found: Bool = self.before != NONE
        return found

    def newest(self, devices: int) -> Newest:
        """Return what the newest inference of each device ran. Shape: (devices,)."""
        order = np.argsort(self.last_ns, kind="stable")
        row = np.full(devices, NONE, dtype=np.int64)
        row[self.device[order]] = order  # of equal places the last one stays
        return Newest(
            models=self._models,
            versions=tuple(self._versions),
            accelerators=self._accelerators.names,
            model=np.append(self.contract, NONE)[row],
            version=np.append(self.version, NONE)[row],
            accelerator=np.append(self.accelerator, NONE)[row],
        )

    def state(self) -> State:
        """Copy all rows."""
        return {
            "models": pack_json(list(self._models)),
            "versions": pack_json(list(self._versions)),
            "accelerators": pack_json(list(self._accelerators.names)),
            "device": self.device,
            "contract": self.contract,
            **{name: getattr(self, name).copy() for name in _COLUMNS},
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put rows back; those of a model without a contract are left out."""
        models = unpack_json(state["models"])
        ours = [self._models.index(name) if name in self._models else NONE for name in models]
        contract = np.array([*ours, NONE], dtype=np.int64)[state["contract"]]
        held = (contract != NONE).nonzero()[0]
        key = state["device"][held] * CONTRACTS_MAX + contract[held]
        order = np.argsort(key)
        self.key = key[order]
        self._versions = {name: at for at, name in enumerate(unpack_json(state["versions"]))}
        self._of_series = np.zeros(0, dtype=np.int64)
        names = unpack_json(state["accelerators"])
        self._accelerators.load([name.encode() for name in names])
        for name in _COLUMNS:
            setattr(self, name, state[name][held[order]].copy())


def _renumbered(state: Mapping[str, Array], name: str, names: Iterable[int]) -> Int64:
    """Renumber a column; NONE stays NONE, as the last place."""
    return np.array([*names, NONE], dtype=np.int64)[state[name]]


def merge(first: Mapping[str, Array], second: Mapping[str, Array], where: Sequence[int]) -> State:
    """Join two states, `where` the devices of the second stand; of two rows the newer stays."""
    lists = {
        name: union(unpack_json(first[name]), unpack_json(second[name]))
        for name in ("models", "versions", "accelerators")
    }
    columns: dict[str, Int64] = {
        "device": np.append(first["device"], _renumbered(second, "device", where)),
        "last_ns": np.append(first["last_ns"], second["last_ns"]),
        "moved_ns": np.append(first["moved_ns"], second["moved_ns"]),
    }
    for name, source in (
        ("contract", "models"),
        ("version", "versions"),
        ("accelerator", "accelerators"),
        ("before", "accelerators"),
    ):
        columns[name] = np.append(first[name], _renumbered(second, name, lists[source][1]))
    # A row that is newer in one state than in the other; the rest only makes ties definite.
    rank = np.argsort(np.argsort(np.array([*lists["versions"][0], ""], dtype=np.str_)))
    order = np.lexsort(
        (
            columns["moved_ns"],
            rank[columns["version"]],
            columns["last_ns"],
            columns["contract"],
            columns["device"],
        )
    )
    pair = columns["device"][order] * CONTRACTS_MAX + columns["contract"][order]
    last = order[np.append(np.diff(pair) != 0, np.ones(min(1, len(pair)), dtype=np.bool_))]
    return {
        **{name: pack_json(names) for name, (names, _) in lists.items()},
        **{name: column[last] for name, column in columns.items()},
    }
