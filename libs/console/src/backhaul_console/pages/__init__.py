"""The pages: one module a subject, each with its ROUTES."""

from __future__ import annotations

from backhaul_console.pages import overview
from backhaul_console.visits import Page

ROUTES: tuple[Page, ...] = (*overview.ROUTES,)
"""Every page for those who are signed in."""
