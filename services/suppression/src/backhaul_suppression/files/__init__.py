"""Lists of suppressions as files: read line by line from pieces that are cut anywhere, and written as they are read."""
