"""The door through which every request to an address of a tenant's choice leaves: deliveries, test calls and token
requests alike. It knows neither MongoDB nor NATS."""
