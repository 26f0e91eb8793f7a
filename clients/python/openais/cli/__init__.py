"""The command ``openais``: clusters on one machine, status, checkpoints."""
