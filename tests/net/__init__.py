"""Networks and nodes of this machine for tests and benchmarks: namespaces, bridges, faults."""
