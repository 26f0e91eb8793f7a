"""A whole cluster of real cores on a virtual clock and a seeded network."""
