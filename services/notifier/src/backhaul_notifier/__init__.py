"""Calls the tenants' own applications back."""
