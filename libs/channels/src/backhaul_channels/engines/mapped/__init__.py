"""Webhooks without an adapter of their own: JSON or forms, read by paths, words and times that a tenant sets."""
