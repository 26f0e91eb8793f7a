"""CLM, the cluster membership service: which nodes are members, and who is told when it changes."""
