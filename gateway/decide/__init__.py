"""Decide: keep rules, consistent probability sampling, byte budgets."""

from gateway.decide.decide import Decide

__all__ = ["Decide"]
