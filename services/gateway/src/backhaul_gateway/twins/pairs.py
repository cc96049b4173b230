"""Pairs of texts, as several answers have them."""

from __future__ import annotations

from pydantic import BaseModel


class NameValue(BaseModel):
    """One custom parameter, attribute or header; names may repeat."""

    name: str
    value: str
