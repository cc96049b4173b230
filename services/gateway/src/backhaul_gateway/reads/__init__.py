"""What tenants ask: the services' answers as JSON."""
