"""Say what the devices that carry a change have in common, where that is no accident.

Law: pure. A cohort is told when every device that carries the change, and of which the attribute is
known, has the same value, and so many of them would have it by chance in at most COHORT_P of cases:
by Fisher's exact test over all devices seen, with as many tries as there are values among them.
Only kinds of things are told (which accelerator), never names of devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from gateway.measure.state import Int64
from gateway.tables import Bool

COHORT_P: Final = 0.01
UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What is known of some devices. Shape: value (devices,) are indices into names, or UNKNOWN.

    `what` is what the attribute is called for a person, `may_leave` whether the contract lets its
    values leave the site.
    """

    what: str
    names: Sequence[str]
    value: Int64
    may_leave: bool


def maybe_cohort(carries: Bool, value: Int64) -> int | None:
    """Return the value that the carrying devices share, None when they share none for sure.

    Shape: both (devices,).
    """
    known = value != UNKNOWN
    carrying = np.unique(value[known & carries])
    if len(carrying) != 1:
        return None
    chosen = int(carrying[0])
    devices, alike = int(known.sum()), int((value == chosen).sum())
    count = int((known & carries).sum())
    tries = len(np.unique(value[known]))
    # No carrying device lies outside, so the hypergeometric tail is one term.
    p_value = np.exp(_log_binomial(alike, count) - _log_binomial(devices, count))
    return chosen if tries * p_value <= COHORT_P else None


def _log_binomial(n: int, k: int) -> float:
    return float(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))
