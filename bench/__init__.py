"""Measurements: one script per question, each prints a table."""
