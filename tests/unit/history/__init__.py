"""The checkers of histories."""
