"""Accuracy without labels: what confidence says of it, and whether confidence is to be believed."""
