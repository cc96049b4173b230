"""The pages: one module a subject, each with its ROUTES."""

from __future__ import annotations

from backhaul_console.pages import communications, errors, overview, statistics
from backhaul_console.visits import Page

ROUTES: tuple[Page, ...] = (
    *overview.ROUTES,
    *communications.ROUTES,
    *statistics.ROUTES,
    *errors.ROUTES,
)
"""Every page for those who are signed in."""
