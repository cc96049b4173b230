"""What became of tellings: read, and sent again."""
