"""Drift: grids of counts, frozen baselines, indices, the alarm with a budget of false alarms."""
