"""What at least two services need. Each module stands for itself; nothing is re-exported here."""
