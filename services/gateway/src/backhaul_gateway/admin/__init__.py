"""The platform team's API: tenants, their credentials and channels."""
