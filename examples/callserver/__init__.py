"""A call server that does not drop calls: an active and a standby component on two nodes."""
