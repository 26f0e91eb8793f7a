"""The services' floor of the simulator: whole service processes and SDK sessions above the ring."""
