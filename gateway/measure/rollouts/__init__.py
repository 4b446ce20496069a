"""Rollouts: each spends its own part of the error budget, against a concurrent control."""
