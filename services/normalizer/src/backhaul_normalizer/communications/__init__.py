"""Communications that a sender registers: their batches and members, and what became of each."""
