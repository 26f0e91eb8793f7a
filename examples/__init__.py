"""Programs that show how to use openais; each is run by a test."""
