"""The pages: one module a subject, each with its ROUTES."""

from __future__ import annotations

from backhaul_console.pages import (
    allchanges,
    audits,
    changes,
    channels,
    communications,
    configuration,
    deliveries,
    errors,
    keys,
    overview,
    reconciliation,
    services,
    statistics,
    subscriptions,
    tenantkeys,
    tenants,
    verifying,
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
    *audits.ROUTES,
    *verifying.ROUTES,
    *reconciliation.ROUTES,
    *tenants.ROUTES,
    *tenantkeys.ROUTES,
    *services.ROUTES,
    *configuration.ROUTES,
    *allchanges.ROUTES,
)
"""Every page for those who are signed in."""
