"""One call of one delivery, or of several that go together: what it says, how it shows who calls, and what became of
it. It knows neither MongoDB nor NATS."""
