"""Replays: what is stored already goes through the pipeline again, as tasks that survive whoever works them."""
