"""Fixtures for every test of the repository."""

from __future__ import annotations

pytest_plugins = ["backhaul_local.pytest_plugin"]
