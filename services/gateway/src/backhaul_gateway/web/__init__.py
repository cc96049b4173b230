"""HTTP itself: connections, the edge, errors, and what every door shares."""
