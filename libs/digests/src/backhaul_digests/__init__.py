"""Digests of audit files: what one is as text, how it is signed, and whether files and digests are what was signed.

The same checks run over buckets, as the audit service makes them, and over copies, by anybody and without Backhaul.
"""
