"""Turns callbacks into events, and events into message states and counts."""
