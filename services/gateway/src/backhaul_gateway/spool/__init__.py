"""What JetStream does not take: kept on this gateway's disk, answered as stored, and published as soon as it does."""
