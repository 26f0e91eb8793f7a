"""Deployment: supervisord, the program that starts a node, clusters on one machine."""
