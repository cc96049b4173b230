"""What is not sent while its communication is disabled."""
