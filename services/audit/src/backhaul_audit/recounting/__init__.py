"""Whether a communication counts what its events are, and whether these lie in files."""
