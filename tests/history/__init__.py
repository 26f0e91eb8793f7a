"""Histories of what clients asked and were answered, and what is right about them. Pure."""
