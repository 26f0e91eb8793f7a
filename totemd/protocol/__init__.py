"""The Totem ring, pure: no socket, clock, file, log or random number enters here."""
