"""The hot path: a provider's POST, until JetStream has it."""
