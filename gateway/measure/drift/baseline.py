"""Learn what a signal looks like when it is well, and freeze it.

Law: a frozen baseline never changes; its digest is over the counts it was made from. It is never
updated by live data, which would absorb slow drift. Everything else here is computed from those
counts and the overdispersion, so a restore needs nothing more.

Where a contract has a season, a baseline also has its counts by hour of the week, which are part of
what is frozen; see `hours`.

Coarse bins are cut at reference quantiles, dense in the tails, and pooled to at least 10 events.
What the reference has hardly shown (below or above its range, missing, odd, rare classes) is one
bin, `unusual`, whose share is at least that of the rule of three. Source: drift.md section 3.3.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import special

from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.indices import jeffreys, psi, psi_null
from gateway.measure.state import Array, Int64
from gateway.tables import Float64, Int16, UInt32

# Unusual, 20 cells or classes, missing and odd; the last bin always stays empty.
COARSE_BINS_MAX: Final = 24
PLACES: Final = COARSE_BINS_MAX
MISSING_PLACE: Final = 21
ODD_PLACE: Final = 22
SPARE: Final = 23
EVENTS_PER_BIN_MIN: Final = 10
# Probability that the reference is farther from the truth than delta allows for.
ETA: Final = 0.01
RULE_OF_THREE: Final = 4.605170185988091  # -ln(ETA)
CUTS: Final = (
    *(0.001, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(0.95, 0.975, 0.99, 0.995, 0.999),
)
CELLS: Final = len(CUTS) + 1
CLASSES_MAX: Final = 20
UNUSUAL: Final = 0
BLOCKS_MIN: Final = 4
# What share of the reference's own blocks shows a smaller index than its noise.
NOISE_QUANTILE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A frozen reference of one signal.

    Shape: counts and group (grid width,); shares and ranks (coarse bins,). `group` maps fine bins
    to coarse ones, bin 0 is `unusual`. `places` says which of the bets' places each coarse bin has:
    the cell of its rank, or its order by frequency where bins have none. `assumed` is the share of
    the unusual bin where the rule of three gave it, else 0. `noise` is the debiased PSI below which
    95 % of the reference's own blocks stay. `hours` are the counts by hour of the week, (168,
    coarse bins), which add up to those of the week; None where they were not counted.
    """

    grid: Grid
    counts: Int64
    phi: float
    digest: str
    group: Int16
    shares: Float64
    places: Int64
    assumed: float
    unsteady: bool
    noise: float
    hours: UInt32 | None

    @property
    def events(self) -> int:
        """Count of observations behind it."""
        return int(self.counts.sum())

    @property
    def hours_seen(self) -> int:
        """Count of the hours of the week in which it has events, 0 without a season."""
        return 0 if self.hours is None else int(self.hours.any(axis=1).sum())

    @property
    def bins(self) -> int:
        """Count of coarse bins."""
        return len(self.shares)

    @property
    def is_ordered(self) -> bool:
        """Whether its bins have an order."""
        return self.grid.kind is not GridKind.CLASSES

    def events_needed(self, tolerance: float) -> float:
        """Return from how many events on its own ignorance is at most half the tolerance.

        With fewer the alarm keeps its budget, because delta grows, but it finds less.
        """
        freedom = max(self.bins - 1, 1)
        return float(self.phi * special.chdtri(freedom, ETA) / (tolerance / 2) ** 2)

    def delta(self, tolerance: float) -> float:
        """Return the radius in which change is benign: tolerance and ignorance of the truth."""
        # An assumed share may be wholly wrong, which adds that share to chi-squared.
        freedom = max(self.bins - (2 if self.assumed else 1), 1)
        ignorance = special.chdtri(freedom, ETA) * self.phi / self.events + self.assumed
        return tolerance + float(np.sqrt(ignorance))

    def coarse(self, counts: Array) -> Int64:
        """Sum fine counts to coarse ones. Shape: (…, width) to (…, COARSE_BINS_MAX)."""
        return coarsened(self.group, counts)

    def describe_place(self, place: int) -> str:
        """Say for a person what a place holds, nothing when it is empty."""
        found = np.flatnonzero(self.places == place).tolist()
        return self.describe(found[0]) if found else ""

    def describe(self, coarse_bin: int) -> str:
        """Say for a person what a coarse bin holds."""
        if coarse_bin == UNUSUAL:
            return "unusual for the baseline"
        fine = np.flatnonzero(self.group == coarse_bin).tolist()
        return self._describe(fine, self.grid.edges)

    def words(self) -> tuple[str, ...]:
        """Say for a person what each coarse bin holds, which takes one pass over the bins."""
        fine: list[list[int]] = [[] for _ in range(self.bins)]
        for each, coarse_bin in enumerate(self.group.tolist()):
            fine[coarse_bin].append(each)
        is_classes = self.grid.kind is GridKind.CLASSES
        edges = np.zeros(0) if is_classes else self.grid.edges()
        held = (self._describe(each, lambda: edges) for each in fine[1:])
        return (self.describe(UNUSUAL), *held)

    def _describe(self, fine: list[int], edges_of: Callable[[], Float64]) -> str:
        if self.grid.kind is GridKind.CLASSES or fine[-1] >= self.grid.bins:
            return ", ".join(self.grid.describe(each) for each in fine[:4])
        edges = edges_of()
        return f"{edges[fine[0]]:.4g} to {edges[fine[-1] + 1]:.4g}"


def baseline_id(model: str, version: str, signal: str, digest: str) -> str:
    """Return the name of a baseline: of whose it is and what was counted, hex of a sha256.

    The digest alone may be that of several signals, as of two flags that are never set.
    """
    text = json.dumps([model, version, signal, digest])
    return hashlib.sha256(text.encode()).hexdigest()


def coarsened(group: Int16, counts: Array) -> Int64:
    """Sum fine counts to coarse ones. Shape: (…, width) to (…, COARSE_BINS_MAX)."""
    rows = counts.reshape(-1, counts.shape[-1])
    total = np.zeros((COARSE_BINS_MAX, len(rows)), dtype=np.int64)
    np.add.at(total, group.astype(np.intp), rows.T)
    return total.T.reshape(*counts.shape[:-1], COARSE_BINS_MAX)


def freeze(
    grid: Grid, counts: Int64, blocks: Sequence[Int64], *, unsteady: bool = False
) -> Baseline:
    """Make a baseline from all counts and from those of consecutive blocks of time."""
    phi = overdispersion(groups(grid, counts), counts, blocks)
    made = thawed(grid, counts, phi, unsteady=unsteady)
    return replace(made, noise=block_noise(made, blocks))


def block_noise(baseline: Baseline, blocks: Sequence[Int64]) -> float:
    """Return the debiased PSI against the whole that 95 % of a baseline's blocks stay below.

    A block is part of the whole, which takes 1 / events from the variance of their difference.
    """
    seen = baseline.coarse(np.array(blocks))[:, : baseline.bins]
    k = baseline.phi * (1 / np.maximum(seen.sum(axis=1), 1) - 1 / baseline.events)
    debiased = psi(jeffreys(seen), baseline.shares) - psi_null(baseline.bins, k)
    return max(0.0, float(np.quantile(debiased, NOISE_QUANTILE)))


def thawed(
    grid: Grid,
    counts: Int64,
    phi: float,
    *,
    unsteady: bool = False,
    noise: float = 0.0,
    hours: UInt32 | None = None,
) -> Baseline:
    """Make a baseline from what a state or a file holds of it."""
    group = groups(grid, counts)
    bins = int(group.max()) + 1
    weight = np.bincount(group, weights=counts, minlength=bins).astype(np.float64)
    floor = RULE_OF_THREE * phi
    is_assumed = weight[UNUSUAL] < floor
    weight[UNUSUAL] = max(weight[UNUSUAL], floor)
    shares = weight / weight.sum()
    text = f"{grid.name}\n{phi.hex()}\n".encode() + counts.astype("<i8").tobytes()
    if hours is not None:
        text += b"\nhours\n" + hours.astype("<u4").tobytes()
    return Baseline(
        grid=grid,
        counts=counts.astype(np.int64).copy(),
        phi=phi,
        digest=hashlib.sha256(text).hexdigest(),
        group=group,
        shares=shares,
        places=_places(grid, group, counts),
        assumed=float(shares[UNUSUAL]) if is_assumed else 0.0,
        unsteady=unsteady,
        noise=noise,
        hours=hours,
    )


def overdispersion(group: Int16, counts: Int64, blocks: Sequence[Int64]) -> float:
    """Estimate how much more blocks differ than independent events would make them.

    Returns 1 or more. Where the estimate is within three standard errors of independence it is
    used as it is, else doubled: the rule of drift.md section 3.5 for scenes and bursts.
    """
    bins = int(group.max()) + 1
    used = np.bincount(group, weights=counts, minlength=bins)[1:]
    freedom = (len(blocks) - 1) * (bins - 2)
    if freedom <= 0:
        return 1.0
    shares = used / used.sum()
    distance = 0.0
    for block in blocks:
        seen = np.bincount(group, weights=block, minlength=bins)[1:]
        expected = seen.sum() * shares
        distance += float(((seen - expected) ** 2 / np.maximum(expected, 1e-9)).sum())
    return allowed_phi(distance / freedom, freedom)


def allowed_phi(estimate: float, freedom: float) -> float:
    """Return the overdispersion to divide by, from its estimate with so many degrees of freedom."""
    if estimate <= 1 + 3 * np.sqrt(2 / freedom):
        return max(1.0, estimate)
    return 2 * estimate


def groups(grid: Grid, counts: Int64) -> Int16:
    """Map fine bins to coarse ones; 0 is `unusual`."""
    group = np.zeros(grid.width, dtype=np.int16)
    if grid.kind is GridKind.CLASSES:
        often = np.argsort(-counts, kind="stable")[:CLASSES_MAX]
        often = np.sort(often[counts[often] >= EVENTS_PER_BIN_MIN])
        group[often] = 1 + np.arange(len(often))
        return group
    values = counts[: grid.bins]
    total = int(values.sum())
    coarse = 0
    if total:
        seen = np.flatnonzero(values)
        inside = slice(int(seen[0]), int(seen[-1]) + 1)
        group[inside] = 1 + _quantile_groups(values[inside], total)
        coarse = int(group.max())
    for special_bin in (grid.missing, grid.odd):
        if counts[special_bin] >= EVENTS_PER_BIN_MIN:
            coarse += 1
            group[special_bin] = coarse
    return group


def _quantile_groups(values: Int64, total: int) -> Int64:
    """Cut bins at the quantiles CUTS by mid-rank and pool neighbours that are too thin."""
    wanted = _cells(values, total)
    sizes = np.bincount(wanted, weights=values, minlength=len(CUTS) + 1)
    pooled = np.zeros(len(sizes), dtype=np.int64)
    at = 0
    held = 0.0
    for index, size in enumerate(sizes):
        pooled[index] = at
        held += size
        if held >= EVENTS_PER_BIN_MIN:
            at += 1
            held = 0.0
    last = at - 1 if held < EVENTS_PER_BIN_MIN and at else at
    return np.minimum(pooled, last)[wanted]


def _places(grid: Grid, group: Int16, counts: Int64) -> Int64:
    """Give each coarse bin a place of its own."""
    bins = int(group.max()) + 1
    places = np.full(bins, UNUSUAL, dtype=np.int64)
    weight = np.bincount(group, weights=counts, minlength=bins)
    for special_bin, place in ((grid.missing, MISSING_PLACE), (grid.odd, ODD_PLACE)):
        if group[special_bin] != UNUSUAL:
            places[group[special_bin]] = place
    if grid.kind is GridKind.CLASSES:
        classes = 1 + np.flatnonzero(places[1:] == UNUSUAL)
        often = classes[np.argsort(-weight[classes], kind="stable")]
        places[often] = 1 + np.arange(len(often))
        return places
    values = counts[: grid.bins]
    cells = np.zeros(grid.width)
    cells[: grid.bins] = _cells(values, int(values.sum()))
    # A coarse bin is made of whole cells that no other has, so their mean is a cell of its own.
    middle = np.bincount(group, weights=counts * cells, minlength=bins) / np.maximum(weight, 1)
    for coarse in range(1, bins):
        if places[coarse] == UNUSUAL:
            places[coarse] = 1 + int(middle[coarse])
    return places


def _cells(values: Int64, total: int) -> Int64:
    """Return between which of the CUTS the mid-rank of each value lies."""
    middle = (np.cumsum(values) - values / 2) / max(total, 1)
    return np.searchsorted(np.asarray(CUTS), middle, side="right")
