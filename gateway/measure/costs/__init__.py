"""Costs of inferences and batch jobs, and bytes that leave, by calendar month and period."""
