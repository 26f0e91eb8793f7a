"""The AIS services; each is a process of its own, built on `services.kit`."""
