"""What tenants want to be told: how it is checked, stored, changed, and held in memory."""
