"""The JSON of services' answers, which both tenants and the platform team are given."""
