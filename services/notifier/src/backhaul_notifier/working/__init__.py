"""Working endpoints: what waits is read, called, and written down, by whichever copy holds the endpoint's lease."""
