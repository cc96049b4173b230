"""The pages: one module a subject, each with its ROUTES."""

from __future__ import annotations

from backhaul_console.pages import (
    changes,
    channels,
    communications,
    deliveries,
    errors,
    keys,
    overview,
    statistics,
    subscriptions,
)
from backhaul_console.visits import Page

ROUTES: tuple[Page, ...] = (
    *overview.ROUTES,
    *communications.ROUTES,
    *statistics.ROUTES,
    *errors.ROUTES,
    *subscriptions.ROUTES,
    *deliveries.ROUTES,
    *channels.ROUTES,
    *keys.ROUTES,
    *changes.ROUTES,
)
"""Every page for those who are signed in."""
