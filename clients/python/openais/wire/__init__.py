"""The spine: message types, codec, identifiers and status numbers that processes share.

Imports nothing of ours and no socket library. Everything that travels over a local socket or is
ordered by a service group is defined here, once.
"""
