"""totemd: the process that owns the ring of one node."""
