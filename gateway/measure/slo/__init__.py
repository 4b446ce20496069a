"""Objectives: windows of counts, burn rates, and what burns."""
