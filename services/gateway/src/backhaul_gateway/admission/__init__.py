"""Who is asking, and whether they may: credentials, rates, and shares of what all tenants share."""
