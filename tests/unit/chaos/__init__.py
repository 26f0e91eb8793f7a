"""The pure parts of chaos: schedules and verdicts."""
