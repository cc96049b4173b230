"""Whether digests and files are what was signed: the same checks over a bucket and over copies of it."""
