"""The pages: one module a subject, each with its ROUTES."""

from __future__ import annotations

from backhaul_console.pages import (
    allchanges,
    audits,
    changes,
    channels,
    communications,
    configuration,
    deadletters,
    deliveries,
    errors,
    keys,
    overview,
    reconciliation,
    replays,
    replies,
    services,
    statistics,
    subscriptions,
    suppressing,
    suppressions,
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
    *deadletters.ROUTES,
    *replays.ROUTES,
    *replies.ROUTES,
    *suppressing.ROUTES,
    *suppressions.ROUTES,
)
"""Every page for those who are signed in."""
