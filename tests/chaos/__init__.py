"""Chaos: real clusters under load and random faults, judged by what their clients saw."""
