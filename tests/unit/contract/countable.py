"""What it means that a pair of windows can be counted, written down a second time."""

from gateway.contract.schema import BurnWindow
from gateway.contract.slo import SHORT_SLOTS_MIN, slot_s_of


def uncountable(pairs: tuple[BurnWindow, ...], period_s: float) -> BurnWindow | None:
    """Find the pair of an objective's own whose windows cannot be counted, if there is one.

    Windows are whole seconds, the short one shorter than the long one and no fewer than
    SHORT_SLOTS_MIN slots, the long one no longer than the period.
    """
    for window in pairs:
        is_whole = window.long_s % 1 == 0 and window.short_s % 1 == 0
        if not is_whole or not 0 < window.short_s < window.long_s <= period_s:
            return window
        if window.short_s < SHORT_SLOTS_MIN * slot_s_of(window.short_s):
            return window
    return None
