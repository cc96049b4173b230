"""Audit files: what channels reported, and proof that nobody has rewritten it."""
