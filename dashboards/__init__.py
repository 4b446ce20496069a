"""Grafana dashboards as code: `panels` knows Grafana's JSON, `boards` what a person needs to see.

The JSON in `json/` is made by `python -m dashboards` and is never edited by hand.
"""
