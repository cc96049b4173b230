"""What can be told: types of events and notices, what a subscription chooses of them, schemas and examples."""
