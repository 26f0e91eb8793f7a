"""What all services share: replication, sessions, snapshots and the run loop."""
