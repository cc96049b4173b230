"""Digests: what was sealed in an hour, signed, and chained to the one before it."""
