"""Messages of a stream for one consumer, fairly."""
